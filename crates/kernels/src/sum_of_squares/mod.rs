//! `Σ x[i]²` in f64, for the global gradient norm. Blocks of one length are summed in lanes, then the blocks in order.

mod cpu;
#[cfg(test)]
mod tests;

use crate::operand::with_operand;
use crate::pool::Pool;
use crate::{Buffer, Isa};

/// The sum over `x[0..n]`.
pub(crate) fn sum_of_squares(pool: &Pool, isa: Isa, n: usize, x: &Buffer) -> f64 {
    with_operand!(x.dtype(), T => cpu::sum_of_squares::<T>(pool, isa, &x.typed()[..n]))
}
