//! Dropout: `y = x / (1-p)` where the element is kept, else 0 (Srivastava et al. 2014, inverted form).
//!
//! Element `i` is kept where random word `i` of the stream is at least `p · 2³²`: a function of `(seed, i)` alone,
//! so the backward is the same call on the gradient, and no mask is stored.

mod cpu;
pub(crate) mod reference;
#[cfg(test)]
mod tests;

use crate::operand::with_operand;
use crate::pool::Pool;
use crate::{Buffer, Isa};

/// Writes `y[0..n]`; `x` and `y` have one dtype.
pub(crate) fn forward(pool: &Pool, isa: Isa, n: usize, p: f32, seed: u64, x: &Buffer, y: &mut Buffer) {
    assert!((0.0..1.0).contains(&p), "the dropout probability must be in [0, 1), not {p}");
    with_operand!(y.dtype(), T => {
        cpu::forward::<T>(pool, isa, p, seed, &x.typed()[..n], &mut y.typed_mut()[..n]);
    });
}
