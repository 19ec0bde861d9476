//! `constant_with_warmup`: `s/W`, then 1.

use super::{Horizon, Shape};

#[derive(Debug)]
pub(crate) struct ConstantWithWarmup {
    pub(crate) horizon: Horizon,
}

impl Shape for ConstantWithWarmup {
    fn factor(&self, step: u64) -> f64 {
        self.horizon.warmup_factor(step).unwrap_or(1.0)
    }
}
