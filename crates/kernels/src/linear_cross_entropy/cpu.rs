//! Chunks of labelled rows: gather, logits, statistics and `dz` in the place of the logits, products.

use super::cpu_row::{self, Row};
use crate::lanes::vectorize;
use crate::matmul::{self, scratch};
use crate::operand::Operand;
use crate::pool::Pool;
use crate::simd::matrix::{BlockMut, Matrix, Out};
use crate::{Dtype, Isa, LinearCrossEntropy, LossSums, Matmul, RowLoss};

/// What all chunks share.
pub(super) struct Head<'a, T> {
    pub(super) pool: &'a Pool,
    pub(super) isa: Isa,
    pub(super) op: LinearCrossEntropy<'a>,
    pub(super) x: &'a [T],
    pub(super) weight: &'a [T],
}

/// `dz` of a chunk: rows `2·V` bf16 apart (the front half of the memory of each row's f32 logits) or `V` f32 apart.
fn gradient_rows<T: Operand>(logits: &[f32], vocab: usize) -> Matrix<'_, T> {
    Matrix::new(bytemuck::cast_slice(logits), vocab * size_of::<f32>() / size_of::<T>())
}

/// The matrix as a result of a product.
fn result<G: Operand>(x: &mut [G], rows: usize, cols: usize) -> Out<'_> {
    match G::DTYPE {
        Dtype::F32 => Out::F32(BlockMut::new(bytemuck::cast_slice_mut(x), rows, cols, cols)),
        _ => Out::Bf16(BlockMut::new(bytemuck::cast_slice_mut(x), rows, cols, cols)),
    }
}

impl<T: Operand> Head<'_, T> {
    pub(super) fn run<G: Operand>(
        &self,
        logits: &mut [f32],
        mut dx: Option<&mut [G]>,
        mut dweight: Option<&mut [f32]>,
        mut per_row: Option<&mut [RowLoss]>,
    ) -> LossSums {
        let (rows, vocab) = (self.op.rows, self.op.vocab);
        if let Some(dx) = dx.as_deref_mut() {
            dx.fill(G::zeroed());
        }
        let chunk = (logits.len() / vocab).min(rows.len().max(1));
        let (mut sums, mut results) = (LossSums::default(), vec![Row::default(); chunk]);
        for start in (0..rows.len()).step_by(chunk) {
            let end = rows.len().min(start + chunk);
            let results = &mut results[..end - start];
            let (logits, targets) = (&mut logits[..(end - start) * vocab], &self.op.targets[start..end]);
            self.with_rows(&rows[start..end], |x| {
                self.logits(x, logits);
                let wanted = dx.is_some() || dweight.is_some();
                self.rows(wanted, targets, logits, results);
                if let Some(dx) = dx.as_deref_mut() {
                    self.input_gradient(&rows[start..end], logits, dx);
                }
                if let Some(dweight) = dweight.as_deref_mut() {
                    self.weight_gradient(x, logits, dweight);
                }
            });
            for (i, row) in results.iter().enumerate() {
                sums += row.sums();
                if let Some(per_row) = per_row.as_deref_mut() {
                    per_row[start + i] = row.result;
                }
            }
        }
        sums
    }

    /// Calls `f` with the chunk's rows of `x`, gathered unless they are neighbours.
    fn with_rows(&self, rows: &[u32], f: impl FnOnce(&[T])) {
        let width = self.op.width;
        let first = rows[0] as usize;
        if neighbours(rows) {
            return f(&self.x[first * width..][..rows.len() * width]);
        }
        scratch::shared(rows.len() * width, |gathered: &mut [T]| {
            for (to, &t) in gathered.chunks_exact_mut(width).zip(rows) {
                to.copy_from_slice(&self.x[t as usize * width..][..width]);
            }
            f(gathered);
        });
    }

    fn logits(&self, x: &[T], logits: &mut [f32]) {
        let (width, vocab) = (self.op.width, self.op.vocab);
        let rows = x.len() / width;
        let (x, weight) = (Matrix::new(x, width), Matrix::new(self.weight, width));
        let logits = result(logits, rows, vocab);
        matmul::dispatch(Some(self.pool), self.isa, &Matmul::nt(rows, vocab, width), x, weight, logits);
    }

    fn rows(&self, gradient: bool, targets: &[u32], logits: &mut [f32], results: &mut [Row]) {
        let op = &self.op;
        self.pool.pieces2(logits, op.vocab, results, 1, |i, logits, result| {
            let target = targets[i] as usize;
            vectorize!(self.isa, F => {
                let (row, slope) = cpu_row::statistics::<F>(op.objective, target, logits);
                if gradient {
                    cpu_row::gradient::<F, T>(slope.times(op.grad_scale), target, logits);
                }
                result[0] = row;
            });
        });
    }

    fn input_gradient<G: Operand>(&self, rows: &[u32], logits: &[f32], dx: &mut [G]) {
        let (width, vocab) = (self.op.width, self.op.vocab);
        let op = Matmul::nn(rows.len(), width, vocab);
        let (dz, weight) = (gradient_rows::<T>(logits, vocab), Matrix::new(self.weight, width));
        let product = |to: &mut [G]| {
            matmul::dispatch(Some(self.pool), self.isa, &op, dz, weight, result(to, rows.len(), width));
        };
        if neighbours(rows) {
            return product(&mut dx[rows[0] as usize * width..][..rows.len() * width]);
        }
        scratch::shared(rows.len() * width, |scattered: &mut [G]| {
            product(scattered);
            for (from, &t) in scattered.chunks_exact(width).zip(rows) {
                dx[t as usize * width..][..width].copy_from_slice(from);
            }
        });
    }

    fn weight_gradient(&self, x: &[T], logits: &[f32], dweight: &mut [f32]) {
        let (width, vocab) = (self.op.width, self.op.vocab);
        let op = Matmul::tn(vocab, width, x.len() / width).accumulated();
        let (dz, x) = (gradient_rows::<T>(logits, vocab), Matrix::new(x, width));
        matmul::dispatch(Some(self.pool), self.isa, &op, dz, x, result(dweight, vocab, width));
    }
}

/// The rows follow one another without a gap.
fn neighbours(rows: &[u32]) -> bool {
    rows.windows(2).all(|pair| pair[1] == pair[0] + 1)
}
