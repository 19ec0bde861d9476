//! `polynomial`: `s/W`, then `((lr - lr_end)·(1 - (s-W)/(T-W))^power + lr_end) / lr`, `lr_end/lr` after the end;
//! `lr_end` is 1e-7 and `power` 1 by default.

use super::{Horizon, Kwargs, ScheduleError, Shape};

#[derive(Debug)]
pub(crate) struct Polynomial {
    horizon: Horizon,
    lr_end: f64,
    power: f64,
}

impl Polynomial {
    pub(crate) fn new(horizon: Horizon, kwargs: &mut Kwargs<'_>) -> Result<Self, ScheduleError> {
        let lr_end = kwargs.number("lr_end")?.unwrap_or(1e-7);
        let power = kwargs.number("power")?.unwrap_or(1.0);
        let learning_rate = horizon.learning_rate;
        if learning_rate <= lr_end {
            let requirement =
                format!("lr_end ({lr_end}) must be smaller than learning_rate ({learning_rate})");
            return Err(kwargs.requirement(requirement));
        }
        Ok(Self { horizon, lr_end, power })
    }
}

impl Shape for Polynomial {
    fn factor(&self, step: u64) -> f64 {
        let Horizon { learning_rate, warmup, total } = self.horizon;
        if let Some(factor) = self.horizon.warmup_factor(step) {
            return factor;
        }
        if step > total || total <= warmup {
            return self.lr_end / learning_rate;
        }
        let remaining = 1.0 - (step - warmup) as f64 / (total - warmup) as f64;
        ((learning_rate - self.lr_end) * remaining.powf(self.power) + self.lr_end) / learning_rate
    }
}
