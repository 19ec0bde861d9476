//! `cosine_with_min_lr`: `s/W`, then `f·(1-r) + r` with `f = ½(1 + cos(2π·c·p))`; `r` is `min_lr_rate`, or
//! `min_lr / learning_rate`; `c` is `num_cycles`, 0.5 by default.

use super::{Horizon, Kwargs, ScheduleError, Shape};
use std::f64::consts::PI;

#[derive(Debug)]
pub(crate) struct CosineWithMinLr {
    horizon: Horizon,
    num_cycles: f64,
    min_lr_rate: f64,
}

impl CosineWithMinLr {
    pub(crate) fn new(horizon: Horizon, kwargs: &mut Kwargs<'_>) -> Result<Self, ScheduleError> {
        let num_cycles = kwargs.number("num_cycles")?.unwrap_or(0.5);
        Ok(Self { horizon, num_cycles, min_lr_rate: kwargs.min_lr_rate(horizon.learning_rate)? })
    }
}

impl Shape for CosineWithMinLr {
    fn factor(&self, step: u64) -> f64 {
        if let Some(factor) = self.horizon.warmup_factor(step) {
            return factor;
        }
        let wave = 0.5 * (1.0 + (PI * self.num_cycles * 2.0 * self.horizon.progress(step)).cos());
        (wave * (1.0 - self.min_lr_rate) + self.min_lr_rate).max(0.0)
    }
}
