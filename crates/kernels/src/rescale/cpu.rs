//! Forward: rows in parallel. Backward: column strips, each of which runs over all rows in order.

use crate::lanes::vectorize;
use crate::operand::Operand;
use crate::pool::Pool;
use crate::{Isa, Rescale};

/// Rows of one task.
const ROWS: usize = 16;

/// Columns of one task of the backward.
const STRIP: usize = 64;

pub(super) fn forward<X: Operand, Y: Operand>(pool: &Pool, isa: Isa, op: &Rescale<'_>, x: &[X], y: &mut [Y]) {
    let width = op.width;
    let (magnitude, inverse_norm) = (&op.magnitude.f32()[..width], &op.inverse_norm.f32()[..width]);
    pool.pieces(y, ROWS * width, |i, y| {
        let x = &x[i * ROWS * width..][..y.len()];
        for (y, x) in y.chunks_exact_mut(width).zip(x.chunks_exact(width)) {
            vectorize!(isa, F => row(op.accumulate, op.shift, [magnitude, inverse_norm], x, y));
        }
    });
}

#[inline(always)]
fn row<X: Operand, Y: Operand>(accumulate: bool, shift: f32, [m, r]: [&[f32]; 2], x: &[X], y: &mut [Y]) {
    let parts = y.iter_mut().zip(x).zip(m.iter().zip(r));
    if accumulate {
        parts.for_each(|((y, x), (m, r))| *y = Y::narrow(y.widen() + (m * r + shift) * x.widen()));
    } else {
        parts.for_each(|((y, x), (m, r))| *y = Y::narrow((m * r + shift) * x.widen()));
    }
}

pub(super) fn backward<Y: Operand, X: Operand>(
    pool: &Pool,
    isa: Isa,
    inverse_norm: &[f32],
    dy: &[Y],
    x: &[X],
    dm: &mut [f32],
) {
    let width = dm.len();
    pool.pieces(dm, STRIP, |i, dm| {
        let inverse_norm = &inverse_norm[i * STRIP..][..dm.len()];
        vectorize!(isa, F => strip(i * STRIP, width, inverse_norm, dy, x, dm));
    });
}

#[inline(always)]
fn strip<Y: Operand, X: Operand>(
    first: usize,
    width: usize,
    inverse_norm: &[f32],
    dy: &[Y],
    x: &[X],
    dm: &mut [f32],
) {
    let mut sums = [0.0; STRIP];
    let sums = &mut sums[..dm.len()];
    for (dy, x) in dy.chunks_exact(width).zip(x.chunks_exact(width)) {
        let (dy, x) = (&dy[first..first + sums.len()], &x[first..first + sums.len()]);
        sums.iter_mut().zip(dy).zip(x).for_each(|((sum, dy), x)| *sum += dy.widen() * x.widen());
    }
    dm.iter_mut().zip(sums).zip(inverse_norm).for_each(|((dm, sum), r)| *dm += r * *sum);
}
