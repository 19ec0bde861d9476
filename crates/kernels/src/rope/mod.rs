//! Rotary position embedding, in place, in the layout of Hugging Face: element `i` of a head is paired with `i +
//! H/2` (Su et al. 2021; transformers 5.23 `apply_rotary_pos_emb`).
//!
//! With `c_i, s_i` the cosine and sine of the angle of pair `i` at the token's position:
//! `(a, b) ← (a·c - b·s, b·c + a·s)`. The rotation is orthogonal, so the backward is the rotation by `-s`.
//!
//! `table_ph[position]` holds `H/2` cosines, then `H/2` sines, in f32.

mod cpu;
pub(crate) mod reference;
#[cfg(test)]
mod tests;

use crate::operand::with_operand;
use crate::pool::Pool;
use crate::{Buffer, Isa};

/// Which way to turn.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Direction {
    /// By the angle of the position.
    Forward,
    /// Back again: on gradients.
    Backward,
}

/// Rotates `x_tnh[0..tokens]`.
pub(crate) fn rotate(
    pool: &Pool,
    isa: Isa,
    direction: Direction,
    [tokens, heads, head_dim]: [usize; 3],
    positions: &Buffer,
    table: &Buffer,
    x: &mut Buffer,
) {
    assert!(head_dim % 2 == 0, "rope pairs elements, so a head must be even, not {head_dim} wide");
    let (positions, table) = (&positions.u32()[..tokens], table.f32());
    with_operand!(x.dtype(), T => {
        let x = &mut x.typed_mut::<T>()[..tokens * heads * head_dim];
        cpu::rotate(pool, isa, direction, [heads, head_dim], positions, table, x);
    });
}
