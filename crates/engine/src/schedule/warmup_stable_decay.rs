//! `warmup_stable_decay` (WSD, Hu et al. 2024): `W` steps up, then 1, then `num_decay_steps` down, then `min_lr_ratio`.
//!
//! Up: `linear` p, `cosine` `½(1 - cos πp)`, `1-sqrt` `1 - √(1-p)`; down: `linear` `1-p`, `cosine`
//! `½(1 + cos(2π·c·p))`, `1-sqrt` `1 - √p`; both times `(1-r)` plus `r = min_lr_ratio`. Without `num_stable_steps` the
//! stable part is what is left of the run.

use super::{Horizon, Kwargs, ScheduleError, Shape};
use std::f64::consts::PI;

#[derive(Debug, Clone, Copy)]
enum Curve {
    Linear,
    Cosine,
    OneMinusSqrt,
}

impl Curve {
    const EXPECTED: &'static str = "'linear', 'cosine' or '1-sqrt'";

    fn named(name: &str) -> Option<Self> {
        match name {
            "linear" => Some(Curve::Linear),
            "cosine" => Some(Curve::Cosine),
            "1-sqrt" => Some(Curve::OneMinusSqrt),
            _ => None,
        }
    }
}

#[derive(Debug)]
pub(crate) struct WarmupStableDecay {
    warmup: u64,
    /// Negative when warm-up and decay together are longer than the run: the decay then begins part-way.
    stable: i64,
    decay: u64,
    up: Curve,
    down: Curve,
    min_lr_ratio: f64,
    num_cycles: f64,
}

impl WarmupStableDecay {
    pub(crate) fn new(horizon: Horizon, kwargs: &mut Kwargs<'_>) -> Result<Self, ScheduleError> {
        let stable = kwargs.steps("num_stable_steps", 0)?;
        let up = kwargs.choice("warmup_type", Curve::EXPECTED, Curve::named)?.unwrap_or(Curve::Linear);
        let down = kwargs.choice("decay_type", Curve::EXPECTED, Curve::named)?.unwrap_or(Curve::Cosine);
        let min_lr_ratio = kwargs.number("min_lr_ratio")?.unwrap_or(0.0);
        let num_cycles = kwargs.number("num_cycles")?.unwrap_or(0.5);
        let decay = kwargs.steps("num_decay_steps", 0)?.ok_or_else(|| {
            kwargs.requirement("num_decay_steps is required: how many steps the decay takes")
        })?;
        let left = horizon.total as i64 - horizon.warmup as i64 - decay as i64;
        let stable = stable.map_or(left, |steps| steps as i64);
        Ok(Self { warmup: horizon.warmup, stable, decay, up, down, min_lr_ratio, num_cycles })
    }

    fn lifted(&self, factor: f64) -> f64 {
        (factor * (1.0 - self.min_lr_ratio) + self.min_lr_ratio).max(0.0)
    }
}

impl Shape for WarmupStableDecay {
    fn factor(&self, step: u64) -> f64 {
        if step < self.warmup {
            let progress = step as f64 / self.warmup.max(1) as f64;
            return self.lifted(match self.up {
                Curve::Linear => progress,
                Curve::Cosine => 0.5 * (1.0 - (PI * progress).cos()),
                Curve::OneMinusSqrt => 1.0 - (1.0 - progress).sqrt(),
            });
        }
        let decayed = step as i64 - self.warmup as i64 - self.stable;
        if decayed < 0 {
            return 1.0;
        }
        if decayed >= self.decay as i64 {
            return self.min_lr_ratio;
        }
        let progress = decayed as f64 / self.decay.max(1) as f64;
        self.lifted(match self.down {
            Curve::Linear => 1.0 - progress,
            Curve::Cosine => 0.5 * (1.0 + (PI * self.num_cycles * 2.0 * progress).cos()),
            Curve::OneMinusSqrt => 1.0 - progress.sqrt(),
        })
    }
}
