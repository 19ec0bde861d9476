//! Rows in parallel; the weight gradient in column strips, each of which runs over all rows in order.

use crate::Isa;
use crate::lanes::{self, MulAdd, vectorize};
use crate::operand::Operand;
use crate::pool::Pool;

/// Rows of one task.
const ROWS: usize = 16;

/// Columns of one task of the weight gradient.
const STRIP: usize = 64;

pub(super) fn forward<X: Operand, Y: Operand>(
    pool: &Pool,
    isa: Isa,
    eps: f32,
    x: &[X],
    weight: &[f32],
    y: &mut [Y],
    rstd: &mut [f32],
) {
    let width = weight.len();
    pool.pieces2(y, ROWS * width, rstd, ROWS, |i, y, rstd| {
        let x = &x[i * ROWS * width..][..y.len()];
        vectorize!(isa, F => forward_rows::<F, X, Y>(eps, x, weight, y, rstd));
    });
}

#[inline(always)]
fn forward_rows<F: MulAdd, X: Operand, Y: Operand>(
    eps: f32,
    x: &[X],
    weight: &[f32],
    y: &mut [Y],
    rstd: &mut [f32],
) {
    let width = weight.len();
    for ((x, y), rstd) in x.chunks_exact(width).zip(y.chunks_exact_mut(width)).zip(rstd) {
        let r = 1.0 / (lanes::sum_of_squares::<F, X>(x) / width as f32 + eps).sqrt();
        *rstd = r;
        for ((y, x), w) in y.iter_mut().zip(x).zip(weight) {
            *y = Y::narrow(x.widen() * r * w);
        }
    }
}

pub(super) fn backward_x<X: Operand, Y: Operand, G: Operand>(
    pool: &Pool,
    isa: Isa,
    dy: &[Y],
    x: &[X],
    weight: &[f32],
    rstd: &[f32],
    dx: &mut [G],
) {
    let width = weight.len();
    pool.pieces(dx, ROWS * width, |i, dx| {
        let part = i * ROWS * width..i * ROWS * width + dx.len();
        let (dy, x, rstd) = (&dy[part.clone()], &x[part], &rstd[i * ROWS..]);
        vectorize!(isa, F => backward_rows::<F, X, Y, G>(dy, x, weight, rstd, dx));
    });
}

#[inline(always)]
fn backward_rows<F: MulAdd, X: Operand, Y: Operand, G: Operand>(
    dy: &[Y],
    x: &[X],
    weight: &[f32],
    rstd: &[f32],
    dx: &mut [G],
) {
    let width = weight.len();
    let rows = dx.chunks_exact_mut(width).zip(dy.chunks_exact(width)).zip(x.chunks_exact(width)).zip(rstd);
    for (((dx, dy), x), &r) in rows {
        let slope = lanes::sum_of_products::<F, Y, X>(dy, x, weight) / width as f32 * r * r;
        for (((dx, dy), x), w) in dx.iter_mut().zip(dy).zip(x).zip(weight) {
            let step = r * F::mul_add(-slope, x.widen(), w * dy.widen());
            *dx = G::narrow(dx.widen() + step);
        }
    }
}

pub(super) fn backward_weight<X: Operand, Y: Operand>(
    pool: &Pool,
    isa: Isa,
    dy: &[Y],
    x: &[X],
    rstd: &[f32],
    dweight: &mut [f32],
) {
    let width = dweight.len();
    pool.pieces(dweight, STRIP, |i, dweight| {
        vectorize!(isa, F => weight_strip::<F, X, Y>(i * STRIP, width, dy, x, rstd, dweight));
    });
}

#[inline(always)]
fn weight_strip<F: MulAdd, X: Operand, Y: Operand>(
    first: usize,
    width: usize,
    dy: &[Y],
    x: &[X],
    rstd: &[f32],
    dweight: &mut [f32],
) {
    let mut sums = [0.0; STRIP];
    let sums = &mut sums[..dweight.len()];
    for (t, r) in rstd.iter().enumerate() {
        let at = t * width + first;
        let (dy, x) = (&dy[at..at + sums.len()], &x[at..at + sums.len()]);
        for ((sum, dy), x) in sums.iter_mut().zip(dy).zip(x) {
            *sum = F::mul_add(dy.widen() * x.widen(), *r, *sum);
        }
    }
    dweight.iter_mut().zip(sums).for_each(|(dw, sum)| *dw += *sum);
}
