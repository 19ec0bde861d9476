//! `inverse_sqrt`: `s/W`, then `1/√((s + timescale - W)/timescale)`; `timescale` is `W` by default, 10 000 without a
//! warm-up.

use super::{Horizon, Kwargs, ScheduleError, Shape};

#[derive(Debug)]
pub(crate) struct InverseSqrt {
    horizon: Horizon,
    timescale: u64,
}

impl InverseSqrt {
    pub(crate) fn new(horizon: Horizon, kwargs: &mut Kwargs<'_>) -> Result<Self, ScheduleError> {
        let default = if horizon.warmup > 0 { horizon.warmup } else { 10_000 };
        Ok(Self { horizon, timescale: kwargs.steps("timescale", 1)?.unwrap_or(default) })
    }
}

impl Shape for InverseSqrt {
    fn factor(&self, step: u64) -> f64 {
        let timescale = self.timescale as f64;
        let shift = timescale - self.horizon.warmup as f64;
        let decay = || 1.0 / ((step as f64 + shift) / timescale).sqrt();
        self.horizon.warmup_factor(step).unwrap_or_else(decay)
    }
}
