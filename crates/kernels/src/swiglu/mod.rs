//! SwiGLU, elementwise: `out = silu(gate) · up` with `silu(x) = x · σ(x)`, `σ(x) = 1/(1+e⁻ˣ)` (Shazeer 2020).
//!
//! Backward: `dup = dout · silu(gate)`, `dgate = dout · up · σ(gate) · (1 + gate · (1 - σ(gate)))`.

mod cpu;
pub(crate) mod reference;
#[cfg(test)]
mod tests;

use crate::operand::with_operand;
use crate::pool::Pool;
use crate::{Buffer, Isa};

/// `out[0..n]` from `gate` and `up`, one dtype.
pub(crate) fn forward(pool: &Pool, isa: Isa, n: usize, gate: &Buffer, up: &Buffer, out: &mut Buffer) {
    with_operand!(out.dtype(), T => {
        cpu::forward::<T>(pool, isa, &gate.typed()[..n], &up.typed()[..n], &mut out.typed_mut()[..n]);
    });
}

/// Overwrites `dgate[0..n]` and `dup[0..n]`, one dtype.
pub(crate) fn backward(
    pool: &Pool,
    isa: Isa,
    n: usize,
    gate: &Buffer,
    up: &Buffer,
    dout: &Buffer,
    dgate: &mut Buffer,
    dup: &mut Buffer,
) {
    with_operand!(dout.dtype(), T => {
        let inputs = [&gate.typed()[..n], &up.typed()[..n], &dout.typed()[..n]];
        cpu::backward::<T>(pool, isa, inputs, &mut dgate.typed_mut()[..n], &mut dup.typed_mut()[..n]);
    });
}
