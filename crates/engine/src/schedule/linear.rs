//! `linear`: `s/W`, then `max(0, (T-s)/(T-W))`.

use super::{Horizon, Shape};

#[derive(Debug)]
pub(crate) struct Linear {
    pub(crate) horizon: Horizon,
}

impl Shape for Linear {
    fn factor(&self, step: u64) -> f64 {
        let Horizon { warmup, total, .. } = self.horizon;
        let left = total as f64 - step as f64;
        let decay = || (left / (total as f64 - warmup as f64).max(1.0)).max(0.0);
        self.horizon.warmup_factor(step).unwrap_or_else(decay)
    }
}
