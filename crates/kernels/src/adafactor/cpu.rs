//! Means over rows and columns, the size of the update, the update: three passes over the gradient.

use crate::lanes::{self, MulAdd, PIECE, vectorize};
use crate::operand::Operand;
use crate::pool::Pool;
use crate::{Adafactor, Isa, rounding};

/// Columns of one task of the means over columns.
const STRIP: usize = 64;

pub(super) enum Means<'a> {
    Matrix { row: &'a mut [f32], column: &'a mut [f32] },
    Vector(&'a mut [f32]),
}

/// `1/√(r_i / mean(r))` for each row and `1/√c_j` for each column; or `1/√v` element by element.
enum Factors<'a> {
    Matrix { row: Vec<f32>, column: Vec<f32> },
    Vector(&'a [f32]),
}

pub(super) fn step<P: Operand>(
    pool: &Pool,
    isa: Isa,
    [rows, columns]: [usize; 2],
    op: &Adafactor,
    grad: &[f32],
    param: &mut [P],
    means: Means<'_>,
) {
    let kept = 1.0 - (op.step as f64).powf(op.decay_rate);
    let blend =
        Blend { grad: op.grad_scale, eps: op.eps as f32, kept: kept as f32, new: (1.0 - kept) as f32 };
    let factors = match means {
        Means::Vector(v) => {
            pool.pieces(v, PIECE, |i, v| {
                let grad = &grad[i * PIECE..][..v.len()];
                vectorize!(isa, F => squares(blend, grad, v));
            });
            Factors::Vector(v)
        }
        Means::Matrix { row, column } => {
            pool.pieces(row, 16, |i, row| {
                let grad = &grad[i * 16 * columns..][..row.len() * columns];
                vectorize!(isa, F => row_means::<F>(blend, columns, grad, row));
            });
            pool.pieces(column, STRIP, |i, column| {
                vectorize!(isa, F => column_means::<F>(blend, i * STRIP, [rows, columns], grad, column));
            });
            // The mean over rows is a sum of some thousands of numbers of one sign: in f64 its order does not matter.
            let mean = row.iter().map(|r| f64::from(*r)).sum::<f64>() / rows as f64;
            Factors::Matrix {
                row: row.iter().map(|r| 1.0 / (*r / mean as f32).sqrt()).collect(),
                column: column.iter().map(|c| 1.0 / c.sqrt()).collect(),
            }
        }
    };
    let update = Update { grad, scale: op.grad_scale, columns, factors };
    let n = grad.len();
    let sums = pool.map(n.div_ceil(PIECE), |i| {
        let (at, mut sum) = (i * PIECE, 0.0);
        update.visit(at, PIECE.min(n - at), |_, u| sum += f64::from(u) * f64::from(u));
        sum
    });
    let rms = (sums.iter().sum::<f64>() / n as f64).sqrt();
    let scale = (op.lr / (rms / op.clip_threshold).max(1.0)) as f32;
    let decay = (1.0 - op.lr * op.weight_decay) as f32;
    pool.pieces(param, PIECE, |i, param| {
        rounding::in_f32(isa, op.rounding, i * PIECE, param, |param| {
            update.visit(i * PIECE, param.len(), |i, u| param[i] = param[i] * decay - scale * u);
        });
    });
}

/// The direction of the update before clipping.
struct Update<'a> {
    grad: &'a [f32],
    /// Factor on the gradient.
    scale: f32,
    columns: usize,
    factors: Factors<'a>,
}

impl Update<'_> {
    /// `f(i, u[at + i])` for `i` from 0 to `len`.
    #[inline(always)]
    fn visit(&self, at: usize, len: usize, mut f: impl FnMut(usize, f32)) {
        let grad = &self.grad[at..at + len];
        match &self.factors {
            Factors::Vector(v) => {
                for (i, (g, v)) in grad.iter().zip(&v[at..]).enumerate() {
                    f(i, g * self.scale / v.sqrt());
                }
            }
            Factors::Matrix { row, column } => {
                let mut done = 0;
                while done < len {
                    let (i, j) = ((at + done) / self.columns, (at + done) % self.columns);
                    let run = (self.columns - j).min(len - done);
                    for (k, (g, c)) in grad[done..done + run].iter().zip(&column[j..]).enumerate() {
                        f(done + k, g * self.scale * (row[i] * c));
                    }
                    done += run;
                }
            }
        }
    }
}

/// What becomes of a mean of squared gradients.
#[derive(Clone, Copy)]
struct Blend {
    grad: f32,
    eps: f32,
    kept: f32,
    new: f32,
}

#[inline(always)]
fn squares(f: Blend, grad: &[f32], v: &mut [f32]) {
    for (v, g) in v.iter_mut().zip(grad) {
        let g = g * f.grad;
        *v = *v * f.kept + f.new * (g * g + f.eps);
    }
}

#[inline(always)]
fn row_means<F: MulAdd>(f: Blend, columns: usize, grad: &[f32], row: &mut [f32]) {
    for (row, grad) in row.iter_mut().zip(grad.chunks_exact(columns)) {
        let mean = lanes::sum_of_squares::<F, f32>(grad) * (f.grad * f.grad) / columns as f32 + f.eps;
        *row = *row * f.kept + f.new * mean;
    }
}

#[inline(always)]
fn column_means<F: MulAdd>(
    f: Blend,
    first: usize,
    [rows, columns]: [usize; 2],
    grad: &[f32],
    column: &mut [f32],
) {
    let mut sums = [0.0; STRIP];
    let sums = &mut sums[..column.len()];
    for t in 0..rows {
        let grad = &grad[t * columns + first..][..sums.len()];
        for (sum, g) in sums.iter_mut().zip(grad) {
            *sum = F::mul_add(*g, *g, *sum);
        }
    }
    for (column, sum) in column.iter_mut().zip(sums) {
        *column = *column * f.kept + f.new * (*sum * (f.grad * f.grad) / rows as f32 + f.eps);
    }
}
