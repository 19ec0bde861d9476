//! Learning-rate schedules, exactly those of transformers 5.23 (`optimization.py`): one file per family.
//!
//! The learning rate of a step is `learning_rate · factor(s)`, where `s` counts the steps already taken: the first
//! step of a run uses `s = 0`, which is 0 under a warm-up. `W` are the warm-up steps, `T` all steps.

mod constant;
mod constant_with_warmup;
mod cosine;
mod cosine_warmup_with_min_lr;
mod cosine_with_min_lr;
mod cosine_with_restarts;
mod inverse_sqrt;
mod kwargs;
mod linear;
mod polynomial;
mod warmup_stable_decay;

use kwargs::Kwargs;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::fmt;

/// The families, under their names in transformers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SchedulerType {
    /// Warm-up, then down to 0 in a line.
    #[default]
    Linear,
    /// Warm-up, then down to 0 along half a cosine.
    Cosine,
    /// Warm-up, then several cosines with hard restarts.
    CosineWithRestarts,
    /// Warm-up, then down to `lr_end` along a power.
    Polynomial,
    /// The same rate at every step, without warm-up.
    Constant,
    /// Warm-up, then the same rate.
    ConstantWithWarmup,
    /// Warm-up, then `1/√s`.
    InverseSqrt,
    /// Warm-up, then a cosine down to a least rate.
    CosineWithMinLr,
    /// The same, with a warm-up that does not begin at 0.
    CosineWarmupWithMinLr,
    /// Warm-up, constant, decay (WSD).
    WarmupStableDecay,
}

impl SchedulerType {
    /// Every family.
    pub const ALL: [SchedulerType; 10] = [
        SchedulerType::Linear,
        SchedulerType::Cosine,
        SchedulerType::CosineWithRestarts,
        SchedulerType::Polynomial,
        SchedulerType::Constant,
        SchedulerType::ConstantWithWarmup,
        SchedulerType::InverseSqrt,
        SchedulerType::CosineWithMinLr,
        SchedulerType::CosineWarmupWithMinLr,
        SchedulerType::WarmupStableDecay,
    ];

    /// The name in a configuration.
    pub fn name(self) -> &'static str {
        match self {
            SchedulerType::Linear => "linear",
            SchedulerType::Cosine => "cosine",
            SchedulerType::CosineWithRestarts => "cosine_with_restarts",
            SchedulerType::Polynomial => "polynomial",
            SchedulerType::Constant => "constant",
            SchedulerType::ConstantWithWarmup => "constant_with_warmup",
            SchedulerType::InverseSqrt => "inverse_sqrt",
            SchedulerType::CosineWithMinLr => "cosine_with_min_lr",
            SchedulerType::CosineWarmupWithMinLr => "cosine_warmup_with_min_lr",
            SchedulerType::WarmupStableDecay => "warmup_stable_decay",
        }
    }
}

impl fmt::Display for SchedulerType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A schedule that cannot be made.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ScheduleError {
    /// A key that the family does not have.
    #[error(
        "lr_scheduler_kwargs: '{key}' is not an option of the schedule '{family}'; it has {}",
        options(known)
    )]
    UnknownKey {
        /// The family.
        family: SchedulerType,
        /// The key.
        key: String,
        /// The family's own keys.
        known: Vec<&'static str>,
    },
    /// A value of the wrong type or out of range.
    #[error("lr_scheduler_kwargs.{key} of the schedule '{family}' is {value}, expected {expected}")]
    Value {
        /// The family.
        family: SchedulerType,
        /// The key.
        key: &'static str,
        /// What was given.
        value: Value,
        /// What would do.
        expected: &'static str,
    },
    /// A required option is missing, or two exclude each other.
    #[error("lr_scheduler_kwargs of the schedule '{family}': {requirement}")]
    Requirement {
        /// The family.
        family: SchedulerType,
        /// What must be so.
        requirement: String,
    },
}

fn options(known: &[&'static str]) -> String {
    if known.is_empty() { "no options".into() } else { known.join(", ") }
}

/// What every family is told about the run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Horizon {
    /// `learning_rate`.
    learning_rate: f64,
    /// `W`.
    warmup: u64,
    /// `T`.
    total: u64,
}

impl Horizon {
    /// `s / max(1, W)` during the warm-up.
    fn warmup_factor(&self, step: u64) -> Option<f64> {
        (step < self.warmup).then(|| step as f64 / self.warmup.max(1) as f64)
    }

    /// `(s - W) / max(1, T - W)`.
    fn progress(&self, step: u64) -> f64 {
        (step as f64 - self.warmup as f64) / (self.total as f64 - self.warmup as f64).max(1.0)
    }
}

/// A family with its options read: the factor of each step.
pub(crate) trait Shape: fmt::Debug + Send + Sync {
    /// Factor on `learning_rate` after `step` steps have been taken.
    fn factor(&self, step: u64) -> f64;
}

/// The learning rate of every step of a run.
#[derive(Debug)]
pub struct Schedule {
    learning_rate: f64,
    shape: Box<dyn Shape>,
}

impl Schedule {
    /// A schedule with a peak of `learning_rate` over `total` steps, of which `warmup` warm up. `kwargs` are
    /// transformers' `lr_scheduler_kwargs`; a key that the family does not have is an error.
    pub fn new(
        family: SchedulerType,
        learning_rate: f64,
        warmup: u64,
        total: u64,
        kwargs: &Map<String, Value>,
    ) -> Result<Self, ScheduleError> {
        let horizon = Horizon { learning_rate, warmup, total };
        let mut options = Kwargs::new(family, kwargs);
        let shape: Box<dyn Shape> = match family {
            SchedulerType::Linear => Box::new(linear::Linear { horizon }),
            SchedulerType::Cosine => Box::new(cosine::Cosine::new(horizon, &mut options)?),
            SchedulerType::CosineWithRestarts => {
                Box::new(cosine_with_restarts::CosineWithRestarts::new(horizon, &mut options)?)
            }
            SchedulerType::Polynomial => Box::new(polynomial::Polynomial::new(horizon, &mut options)?),
            SchedulerType::Constant => Box::new(constant::Constant),
            SchedulerType::ConstantWithWarmup => {
                Box::new(constant_with_warmup::ConstantWithWarmup { horizon })
            }
            SchedulerType::InverseSqrt => Box::new(inverse_sqrt::InverseSqrt::new(horizon, &mut options)?),
            SchedulerType::CosineWithMinLr => {
                Box::new(cosine_with_min_lr::CosineWithMinLr::new(horizon, &mut options)?)
            }
            SchedulerType::CosineWarmupWithMinLr => {
                Box::new(cosine_warmup_with_min_lr::CosineWarmupWithMinLr::new(horizon, &mut options)?)
            }
            SchedulerType::WarmupStableDecay => {
                Box::new(warmup_stable_decay::WarmupStableDecay::new(horizon, &mut options)?)
            }
        };
        options.finish()?;
        Ok(Self { learning_rate, shape })
    }

    /// The learning rate of the step that follows `step` finished steps.
    pub fn learning_rate(&self, step: u64) -> f64 {
        self.learning_rate * self.shape.factor(step)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn schedule(family: SchedulerType, kwargs: Value) -> Result<Schedule, ScheduleError> {
        Schedule::new(family, 1e-3, 2, 10, kwargs.as_object().expect("an object"))
    }

    #[test]
    fn names_are_those_of_the_configuration() {
        for family in SchedulerType::ALL {
            assert_eq!(serde_json::to_value(family).unwrap(), json!(family.name()));
        }
    }

    #[test]
    fn unknown_options_are_errors_for_every_family() {
        for family in SchedulerType::ALL {
            let needed = match family {
                SchedulerType::CosineWithMinLr | SchedulerType::CosineWarmupWithMinLr => "min_lr_rate",
                SchedulerType::WarmupStableDecay => "num_decay_steps",
                _ => "num_cycle",
            };
            let error = schedule(family, json!({needed: 0, "num_cycle": 2})).unwrap_err();
            let ScheduleError::UnknownKey { key, .. } = &error else { panic!("{family}: {error}") };
            assert_eq!(key, "num_cycle");
        }
        let error = schedule(SchedulerType::Cosine, json!({"cycles": 1})).unwrap_err().to_string();
        assert!(error.contains("'cycles'") && error.contains("it has num_cycles"), "{error}");
    }

    #[test]
    fn values_of_the_wrong_type_are_errors() {
        let error = schedule(SchedulerType::Cosine, json!({"num_cycles": "two"})).unwrap_err();
        assert!(matches!(error, ScheduleError::Value { key: "num_cycles", .. }), "{error}");
        let error =
            schedule(SchedulerType::WarmupStableDecay, json!({"num_decay_steps": 2, "decay_type": "log"}));
        assert!(matches!(error, Err(ScheduleError::Value { key: "decay_type", .. })));
        let error = schedule(SchedulerType::InverseSqrt, json!({"timescale": 0}));
        assert!(matches!(error, Err(ScheduleError::Value { key: "timescale", .. })));
    }

    #[test]
    fn requirements_of_the_families() {
        for (family, kwargs) in [
            (SchedulerType::WarmupStableDecay, json!({})),
            (SchedulerType::CosineWithMinLr, json!({})),
            (SchedulerType::CosineWithMinLr, json!({"min_lr": 1e-4, "min_lr_rate": 0.1})),
            (SchedulerType::CosineWarmupWithMinLr, json!({})),
            (SchedulerType::Polynomial, json!({"lr_end": 1e-3})),
        ] {
            let error = schedule(family, kwargs).unwrap_err();
            assert!(matches!(error, ScheduleError::Requirement { .. }), "{family}: {error}");
        }
    }
}
