//! `cosine_warmup_with_min_lr`: like `cosine_with_min_lr`, but one step ahead: the warm-up is `(s+1)/W`, or
//! `w + (1-w)·s/(W-1)` from `w = warmup_lr_rate`, and the progress `(s-W+1)/(T-W)`.

use super::{Horizon, Kwargs, ScheduleError, Shape};
use std::f64::consts::PI;

#[derive(Debug)]
pub(crate) struct CosineWarmupWithMinLr {
    horizon: Horizon,
    num_cycles: f64,
    min_lr_rate: f64,
    warmup_lr_rate: Option<f64>,
}

impl CosineWarmupWithMinLr {
    pub(crate) fn new(horizon: Horizon, kwargs: &mut Kwargs<'_>) -> Result<Self, ScheduleError> {
        let num_cycles = kwargs.number("num_cycles")?.unwrap_or(0.5);
        let min_lr_rate = kwargs.min_lr_rate(horizon.learning_rate)?;
        Ok(Self { horizon, num_cycles, min_lr_rate, warmup_lr_rate: kwargs.number("warmup_lr_rate")? })
    }
}

impl Shape for CosineWarmupWithMinLr {
    fn factor(&self, step: u64) -> f64 {
        let (warmup, total, step) = (self.horizon.warmup as f64, self.horizon.total as f64, step as f64);
        if step < warmup {
            return match self.warmup_lr_rate {
                None => (step + 1.0) / warmup.max(1.0),
                Some(rate) => rate + (1.0 - rate) * step / (warmup - 1.0).max(1.0),
            };
        }
        let progress = (step - warmup + 1.0) / (total - warmup).max(1.0);
        let wave = 0.5 * (1.0 + (PI * self.num_cycles * 2.0 * progress).cos());
        (wave * (1.0 - self.min_lr_rate) + self.min_lr_rate).max(0.0)
    }
}
