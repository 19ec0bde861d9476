//! Magnitudes of a linear layer's outputs (DoRA, Liu et al. 2024): `y_to[t,o] (+)= (m_o·r_o + c)·x_to[t,o]`, where `m`
//! is trained, `r` (one over a norm) and `c` are constants. Backward of `m`: `dm_o += r_o·Σ_t dy_to[t,o]·x_to[t,o]`.

mod cpu;
pub(crate) mod reference;
#[cfg(test)]
mod tests;

use crate::operand::with_operand;
use crate::pool::Pool;
use crate::{Buffer, Isa, Rescale};

/// Scales every column.
pub(crate) fn forward(pool: &Pool, isa: Isa, op: &Rescale<'_>, x: &Buffer, y: &mut Buffer) {
    let n = op.rows * op.width;
    with_operand!(x.dtype(), X => with_operand!(y.dtype(), Y => {
        cpu::forward::<X, Y>(pool, isa, op, &x.typed()[..n], &mut y.typed_mut()[..n]);
    }));
}

/// Adds the columns' products.
pub(crate) fn backward(pool: &Pool, isa: Isa, op: &Rescale<'_>, dy: &Buffer, x: &Buffer, dm: &mut Buffer) {
    let n = op.rows * op.width;
    let inverse = &op.inverse_norm.f32()[..op.width];
    with_operand!(dy.dtype(), Y => with_operand!(x.dtype(), X => {
        let (dy, x) = (&dy.typed::<Y>()[..n], &x.typed::<X>()[..n]);
        cpu::backward(pool, isa, inverse, dy, x, &mut dm.f32_mut()[..op.width]);
    }));
}
