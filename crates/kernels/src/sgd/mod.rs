//! Stochastic gradient descent with momentum in torch 2.15's order of operations (`optim/sgd.py`; Sutskever et al.
//! 2013):
//!
//! `g += wd·p`; `b = μ·b + (1-τ)·g` (the first step: `b = g`); `p -= lr·(g + μ·b)` with Nesterov's correction,
//! `p -= lr·b` without, `p -= lr·g` without momentum.
//!
//! `p` parameter, `g` gradient (times the clipping factor), `b` momentum buffer, `μ` momentum, `τ` dampening.

mod cpu;
pub(crate) mod reference;
#[cfg(test)]
mod tests;

use crate::operand::with_operand;
use crate::pool::Pool;
use crate::{Buffer, Isa, Sgd};

/// Updates `param[0..n]` and, if there is one, `momentum[0..n]`.
pub(crate) fn step(
    pool: &Pool,
    isa: Isa,
    n: usize,
    op: &Sgd,
    grad: &Buffer,
    param: &mut Buffer,
    momentum: Option<&mut Buffer>,
) {
    let grad = &grad.f32()[..n];
    assert_eq!(momentum.is_some(), op.momentum != 0.0, "a momentum needs a buffer, and a buffer a momentum");
    let momentum = momentum.map(|buffer| &mut buffer.f32_mut()[..n]);
    with_operand!(param.dtype(), P => {
        cpu::step::<P>(pool, isa, op, grad, &mut param.typed_mut()[..n], momentum);
    });
}
