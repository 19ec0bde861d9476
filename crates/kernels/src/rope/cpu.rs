//! Tokens in parallel.

use super::Direction;
use crate::Isa;
use crate::lanes::{MulAdd, vectorize};
use crate::operand::Operand;
use crate::pool::Pool;

/// Tokens of one task.
const TOKENS: usize = 16;

pub(super) fn rotate<T: Operand>(
    pool: &Pool,
    isa: Isa,
    direction: Direction,
    [heads, head_dim]: [usize; 2],
    positions: &[u32],
    table: &[f32],
    x: &mut [T],
) {
    let turn = if direction == Direction::Forward { 1.0 } else { -1.0 };
    pool.pieces(x, TOKENS * heads * head_dim, |i, x| {
        for (x, &position) in x.chunks_exact_mut(heads * head_dim).zip(&positions[i * TOKENS..]) {
            let angles = &table[position as usize * head_dim..][..head_dim];
            vectorize!(isa, F => rotate_token::<F, T>(turn, angles, x));
        }
    });
}

#[inline(always)]
fn rotate_token<F: MulAdd, T: Operand>(turn: f32, angles: &[f32], x: &mut [T]) {
    let (cos, sin) = angles.split_at(angles.len() / 2);
    for head in x.chunks_exact_mut(angles.len()) {
        let (low, high) = head.split_at_mut(cos.len());
        for (((low, high), cos), sin) in low.iter_mut().zip(high).zip(cos).zip(sin) {
            let (a, b, sin) = (low.widen(), high.widen(), sin * turn);
            *low = T::narrow(F::mul_add(a, *cos, -(b * sin)));
            *high = T::narrow(F::mul_add(b, *cos, a * sin));
        }
    }
}
