//! Forward: rows in parallel. Backward: column strips, each of which runs over all rows in order.

use crate::Isa;
use crate::lanes::vectorize;
use crate::operand::Operand;
use crate::pool::Pool;

/// Rows of one task.
const ROWS: usize = 16;

/// Columns of one task of the backward.
const STRIP: usize = 64;

pub(super) fn forward<B: Operand, Y: Operand>(pool: &Pool, isa: Isa, bias: &[B], y: &mut [Y]) {
    pool.pieces(y, ROWS * bias.len(), |_, y| {
        for row in y.chunks_exact_mut(bias.len()) {
            vectorize!(isa, F => row.iter_mut().zip(bias).for_each(|(y, b)| *y = Y::narrow(y.widen() + b.widen())));
        }
    });
}

pub(super) fn backward<Y: Operand>(pool: &Pool, isa: Isa, dy: &[Y], dbias: &mut [f32]) {
    let width = dbias.len();
    pool.pieces(dbias, STRIP, |i, dbias| vectorize!(isa, F => strip(i * STRIP, width, dy, dbias)));
}

#[inline(always)]
fn strip<Y: Operand>(first: usize, width: usize, dy: &[Y], dbias: &mut [f32]) {
    let mut sums = [0.0; STRIP];
    let sums = &mut sums[..dbias.len()];
    for row in dy.chunks_exact(width) {
        let row = &row[first..first + sums.len()];
        sums.iter_mut().zip(row).for_each(|(sum, dy)| *sum += dy.widen());
    }
    dbias.iter_mut().zip(sums).for_each(|(db, sum)| *db += *sum);
}
