//! AdamW with moments of eight bits, block by block (Dettmers et al. 2022, "8-bit Optimizers via Block-wise
//! Quantization"; bitsandbytes 0.50 `AdamW8bit` on a CPU).
//!
//! Blocks of 256 elements share a scale. A step widens both moments (`value = code[q]·absmax`), updates as
//! [`AdamW`] does (`p *= 1-lr·wd` first, as bitsandbytes on a CPU; its CUDA kernel decays last), and quantises
//! again with the new greatest magnitudes, each element to the nearest code. (bitsandbytes' CPU library finds it by
//! a table that errs below 2⁻¹⁶ of the block's maximum; here it is exact, as in bitsandbytes' torch fallback.)

mod cpu;
pub(crate) mod reference;
#[cfg(test)]
mod tests;

use crate::backend::BlockwiseState;
use crate::operand::with_operand;
use crate::pool::Pool;
use crate::{AdamW, Buffer, Isa};

/// Elements that share a scale.
pub(crate) const BLOCK: usize = 256;

/// Updates `param[0..n]` and both moments.
pub(crate) fn step(
    pool: &Pool,
    isa: Isa,
    n: usize,
    op: &AdamW,
    grad: &Buffer,
    param: &mut Buffer,
    m: BlockwiseState<'_>,
    v: BlockwiseState<'_>,
) {
    assert!(op.step > 0, "AdamW steps are counted from 1");
    let blocks = n.div_ceil(BLOCK);
    let [m, v] = [m, v].map(|state| (&mut state.codes.u8_mut()[..n], &mut state.absmax.f32_mut()[..blocks]));
    with_operand!(param.dtype(), P => {
        cpu::step::<P>(pool, isa, op, &grad.f32()[..n], &mut param.typed_mut()[..n], m, v);
    });
}
