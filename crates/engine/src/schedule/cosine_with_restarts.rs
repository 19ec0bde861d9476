//! `cosine_with_restarts`: `s/W`, then `max(0, ½(1 + cos(π·((c·p) mod 1))))`, 0 from `p ≥ 1` on; `c` is `num_cycles`,
//! 1 by default.

use super::{Horizon, Kwargs, ScheduleError, Shape};
use std::f64::consts::PI;

#[derive(Debug)]
pub(crate) struct CosineWithRestarts {
    horizon: Horizon,
    num_cycles: f64,
}

impl CosineWithRestarts {
    pub(crate) fn new(horizon: Horizon, kwargs: &mut Kwargs<'_>) -> Result<Self, ScheduleError> {
        Ok(Self { horizon, num_cycles: kwargs.number("num_cycles")?.unwrap_or(1.0) })
    }
}

impl Shape for CosineWithRestarts {
    fn factor(&self, step: u64) -> f64 {
        if let Some(factor) = self.horizon.warmup_factor(step) {
            return factor;
        }
        let progress = self.horizon.progress(step);
        if progress >= 1.0 {
            return 0.0;
        }
        (0.5 * (1.0 + (PI * (self.num_cycles * progress).rem_euclid(1.0)).cos())).max(0.0)
    }
}
