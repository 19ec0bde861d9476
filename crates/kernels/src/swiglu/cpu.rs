//! One pass over memory.

use crate::Isa;
use crate::lanes::{MulAdd, PIECE, vectorize};
use crate::math::sigmoid;
use crate::operand::Operand;
use crate::pool::Pool;

pub(super) fn forward<T: Operand>(pool: &Pool, isa: Isa, gate: &[T], up: &[T], out: &mut [T]) {
    pool.pieces(out, PIECE, |i, out| {
        let part = i * PIECE..i * PIECE + out.len();
        let (gate, up) = (&gate[part.clone()], &up[part]);
        vectorize!(isa, F => forward_piece::<F, T>(gate, up, out));
    });
}

#[inline(always)]
fn forward_piece<F: MulAdd, T: Operand>(gate: &[T], up: &[T], out: &mut [T]) {
    for ((out, gate), up) in out.iter_mut().zip(gate).zip(up) {
        let gate = gate.widen();
        *out = T::narrow(gate * sigmoid::<F>(gate) * up.widen());
    }
}

pub(super) fn backward<T: Operand>(
    pool: &Pool,
    isa: Isa,
    [gate, up, dout]: [&[T]; 3],
    dgate: &mut [T],
    dup: &mut [T],
) {
    pool.pieces2(dgate, PIECE, dup, PIECE, |i, dgate, dup| {
        let part = i * PIECE..i * PIECE + dgate.len();
        let inputs = [&gate[part.clone()], &up[part.clone()], &dout[part]];
        vectorize!(isa, F => backward_piece::<F, T>(inputs, dgate, dup));
    });
}

#[inline(always)]
fn backward_piece<F: MulAdd, T: Operand>([gate, up, dout]: [&[T]; 3], dgate: &mut [T], dup: &mut [T]) {
    for ((((dgate, dup), gate), up), dout) in dgate.iter_mut().zip(dup).zip(gate).zip(up).zip(dout) {
        let (gate, dout) = (gate.widen(), dout.widen());
        let s = sigmoid::<F>(gate);
        *dup = T::narrow(dout * (gate * s));
        *dgate = T::narrow(dout * up.widen() * s * F::mul_add(gate, 1.0 - s, 1.0));
    }
}
