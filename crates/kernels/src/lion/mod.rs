//! Lion (Chen et al. 2023, "Symbolic Discovery of Optimization Algorithms"; bitsandbytes 0.50 `Lion32bit`):
//!
//! `p *= 1-lr·wd`; `p -= lr · sign(β₁·m + (1-β₁)·g)`; `m = β₂·m + (1-β₂)·g`, with `sign(0) = 0`.
//!
//! `p` parameter, `g` gradient (times the clipping factor), `m` momentum. Factors are computed in f64 and rounded
//! to f32 once; the arithmetic on elements is f32.

mod cpu;
pub(crate) mod reference;
#[cfg(test)]
mod tests;

use crate::operand::with_operand;
use crate::pool::Pool;
use crate::{Buffer, Isa, Lion};

/// Updates `param[0..n]` and `m[0..n]`.
pub(crate) fn step(
    pool: &Pool,
    isa: Isa,
    n: usize,
    op: &Lion,
    grad: &Buffer,
    param: &mut Buffer,
    m: &mut Buffer,
) {
    let (grad, m) = (&grad.f32()[..n], &mut m.f32_mut()[..n]);
    with_operand!(param.dtype(), P => cpu::step::<P>(pool, isa, op, grad, &mut param.typed_mut()[..n], m));
}
