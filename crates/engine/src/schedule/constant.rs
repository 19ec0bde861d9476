//! `constant`: 1 at every step; `warmup_steps` has no effect, as in transformers.

use super::Shape;

#[derive(Debug)]
pub(crate) struct Constant;

impl Shape for Constant {
    fn factor(&self, _step: u64) -> f64 {
        1.0
    }
}
