//! `cosine`: `s/W`, then `max(0, ½(1 + cos(2π·c·p)))` with `p = (s-W)/(T-W)`; `c` is `num_cycles`, 0.5 by default:
//! half a wave, from 1 to 0 (Loshchilov & Hutter 2017).

use super::{Horizon, Kwargs, ScheduleError, Shape};
use std::f64::consts::PI;

#[derive(Debug)]
pub(crate) struct Cosine {
    horizon: Horizon,
    num_cycles: f64,
}

impl Cosine {
    pub(crate) fn new(horizon: Horizon, kwargs: &mut Kwargs<'_>) -> Result<Self, ScheduleError> {
        Ok(Self { horizon, num_cycles: kwargs.number("num_cycles")?.unwrap_or(0.5) })
    }
}

impl Shape for Cosine {
    fn factor(&self, step: u64) -> f64 {
        let wave =
            || (0.5 * (1.0 + (PI * self.num_cycles * 2.0 * self.horizon.progress(step)).cos())).max(0.0);
        self.horizon.warmup_factor(step).unwrap_or_else(wave)
    }
}
