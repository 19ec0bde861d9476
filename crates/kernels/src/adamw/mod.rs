//! AdamW (Loshchilov & Hutter 2019) in the order of operations of torch 2.15's fused CPU kernel, the default of
//! transformers' Trainer (`adamw_torch_fused`); with fused multiplications the bits are the same:
//!
//! `p *= 1-lr·wd`; `m += (1-β₁)·(g-m)`; `v = β₂·v + (1-β₂)·g²`; `p += (-(lr/(1-β₁ᵗ)) · m) / (√v/√(1-β₂ᵗ) + ε)`.
//!
//! `p` parameter, `g` gradient (times the clipping factor), `m`, `v` moments, `t` step from 1. Factors are computed in
//! f64 and rounded to f32 once, as torch does; the arithmetic on elements is f32.

mod cpu;
pub(crate) use cpu::Factors;
pub(crate) mod reference;
#[cfg(test)]
mod tests;

use crate::operand::with_operand;
use crate::pool::Pool;
use crate::{AdamW, Buffer, Isa};

/// Updates `param[0..n]`, `m[0..n]`, `v[0..n]`.
pub(crate) fn step(
    pool: &Pool,
    isa: Isa,
    n: usize,
    op: &AdamW,
    grad: &Buffer,
    param: &mut Buffer,
    m: &mut Buffer,
    v: &mut Buffer,
) {
    assert!(op.step > 0, "AdamW steps are counted from 1");
    let (m, v) = (&mut m.f32_mut()[..n], &mut v.f32_mut()[..n]);
    with_operand!(param.dtype(), P => {
        cpu::step::<P>(pool, isa, op, &grad.f32()[..n], &mut param.typed_mut()[..n], m, v);
    });
}
