//! Bias of a linear layer: `y_to[t,o] += bias_o[o]`. Backward: `dbias_o[o] += Σ_t dy_to[t,o]`.

mod cpu;
pub(crate) mod reference;
#[cfg(test)]
mod tests;

use crate::operand::with_operand;
use crate::pool::Pool;
use crate::{Buffer, Isa};

/// Adds the bias to every row.
pub(crate) fn forward(pool: &Pool, isa: Isa, [rows, width]: [usize; 2], bias: &Buffer, y: &mut Buffer) {
    with_operand!(bias.dtype(), B => with_operand!(y.dtype(), Y => {
        cpu::forward::<B, Y>(pool, isa, &bias.typed()[..width], &mut y.typed_mut()[..rows * width]);
    }));
}

/// Adds the column sums of `dy`.
pub(crate) fn backward(pool: &Pool, isa: Isa, [rows, width]: [usize; 2], dy: &Buffer, dbias: &mut Buffer) {
    with_operand!(dy.dtype(), Y => {
        cpu::backward::<Y>(pool, isa, &dy.typed()[..rows * width], &mut dbias.f32_mut()[..width]);
    });
}
