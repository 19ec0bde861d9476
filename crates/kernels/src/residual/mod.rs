//! Residual connection: `y[i] += x[i]`; its own backward.

mod cpu;
#[cfg(test)]
mod tests;

use crate::operand::with_operand;
use crate::pool::Pool;
use crate::{Buffer, Isa};

/// Adds `x[0..n]` to `y[0..n]`.
pub(crate) fn add(pool: &Pool, isa: Isa, n: usize, x: &Buffer, y: &mut Buffer) {
    with_operand!(x.dtype(), X => with_operand!(y.dtype(), Y => {
        cpu::add::<X, Y>(pool, isa, &x.typed()[..n], &mut y.typed_mut()[..n]);
    }));
}
