//! One pass over memory.

use crate::Isa;
use crate::lanes::{PIECE, vectorize};
use crate::operand::Operand;
use crate::pool::Pool;

pub(super) fn add<X: Operand, Y: Operand>(pool: &Pool, isa: Isa, x: &[X], y: &mut [Y]) {
    pool.pieces(y, PIECE, |i, y| {
        let x = &x[i * PIECE..][..y.len()];
        vectorize!(isa, F => y.iter_mut().zip(x).for_each(|(y, x)| *y = Y::narrow(y.widen() + x.widen())));
    });
}
