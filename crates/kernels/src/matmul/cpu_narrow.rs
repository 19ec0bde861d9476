//! `C = Aᵀ·B` with few columns (the gradient of a LoRA `B`): computed as its own transpose `Bᵀ·A`, because there the
//! long operand is packed row by row, as it is stored, instead of being transposed first.

use super::{dispatch, scratch};
use crate::operand::Operand;
use crate::pool::Pool;
use crate::simd::matrix::{BlockMut, Epilogue, Matrix, Out};
use crate::{Isa, Matmul};

/// Most columns of `C` for this path.
const MOST_COLS: usize = 64;

/// Is this a product for [`run`]?
pub(super) fn fits(op: &Matmul) -> bool {
    op.trans_a && !op.trans_b && op.n <= MOST_COLS && op.n < op.m
}

/// `c = alpha · Aᵀ · B` or `+=`.
pub(super) fn run<T: Operand>(
    pool: Option<&Pool>,
    isa: Isa,
    op: &Matmul,
    a: Matrix<'_, T>,
    b: Matrix<'_, T>,
    mut c: Out<'_>,
) {
    let Matmul { m, n, k, .. } = *op;
    if n == 0 {
        return; // no column, and no sums to take a row of
    }
    scratch::with(n * m, |sums: &mut [f32]| {
        let transposed = Out::F32(BlockMut::new(sums, n, m, m));
        dispatch(pool, isa, &Matmul::tn(n, m, k), b, a, transposed);
        let mut row = [0.0; MOST_COLS];
        for i in 0..m {
            row.iter_mut().zip(sums[i..].iter().step_by(m)).take(n).for_each(|(to, sum)| *to = *sum);
            c.put(i, &row, Epilogue { alpha: op.alpha, accumulate: op.accumulate });
        }
    });
}
