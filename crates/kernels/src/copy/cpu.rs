//! One pass over memory. Converting f32 to f32 or bf16 to bf16 changes no bit of a number (a NaN stays a NaN).

use crate::Isa;
use crate::lanes::{PIECE, vectorize};
use crate::operand::Operand;
use crate::pool::Pool;

pub(super) fn convert<S: Operand, D: Operand>(pool: &Pool, isa: Isa, src: &[S], dst: &mut [D]) {
    pool.pieces(dst, PIECE, |i, dst| {
        let src = &src[i * PIECE..][..dst.len()];
        vectorize!(isa, F => dst.iter_mut().zip(src).for_each(|(dst, src)| *dst = D::narrow(src.widen())));
    });
}

pub(super) fn fill<T: Operand>(pool: &Pool, value: f32, x: &mut [T]) {
    pool.pieces(x, PIECE, |_, x| x.fill(T::narrow(value)));
}
