//! `C = A·Bᵀ` with few rows of `A` (decoding): every row of `B` is read once, as it is stored, and nothing is
//! packed, so that the speed is that of reading the weights. With AVX-512 those of few bits become numbers in
//! registers.

use super::cpu_factor::Factor;
use super::cpu_partition::Cut;
use super::scratch;
use crate::lanes::{LANES, MulAdd, sum_lanes, vectorize};
use crate::operand::Operand;
use crate::pool::Pool;
use crate::simd::ahead;
use crate::simd::matrix::{Epilogue, Matrix, Out};
use crate::{Dtype, Isa, Matmul};

/// Most rows of `A` for this path.
const MOST_ROWS: usize = 16;
/// Rows of `A` that one pass over a row of `B` serves.
const ROWS: usize = 8;
/// Lane arrays of one dot product.
const UNROLL: usize = 4;
/// Bytes of `B` that make a task worth handing out.
const TASK_BYTES: usize = 64 << 10;

/// Is this a product for [`run`]?
pub(super) fn fits(op: &Matmul) -> bool {
    !op.trans_a && op.trans_b && op.m <= MOST_ROWS
}

/// `c = alpha · A · Bᵀ` or `+=`.
pub(super) fn run<T: Operand>(
    pool: Option<&Pool>,
    isa: Isa,
    op: &Matmul,
    a: Matrix<'_, T>,
    b: Factor<'_, T>,
    c: Out<'_>,
) {
    let threads = pool.map_or(1, Pool::threads);
    let parts = (op.n * op.k * size_of::<T>() / TASK_BYTES).clamp(1, threads);
    let mut tasks = Vec::with_capacity(parts);
    let mut rest = c;
    for (row, rows) in Cut::new(op.n, parts).runs() {
        let (block, right) = rest.split_columns(rows);
        rest = right;
        tasks.push((row, block));
    }
    let work = |(row, block): (usize, Out<'_>)| columns(isa, op, a, b, row, block);
    match pool {
        Some(pool) => pool.each(tasks, work),
        None => tasks.into_iter().for_each(work),
    }
}

/// The columns of one task: row `first` of `b` belongs to the first column of `c`.
fn columns<T: Operand>(
    isa: Isa,
    op: &Matmul,
    a: Matrix<'_, T>,
    b: Factor<'_, T>,
    first: usize,
    mut c: Out<'_>,
) {
    let epilogue = Epilogue { alpha: op.alpha, accumulate: op.accumulate };
    let (rows, cols) = (c.rows(), c.cols());
    scratch::with(b.dots_scratch(), |scales: &mut [f32]| {
        for j in 0..cols {
            let mut sums = [0.0; MOST_ROWS];
            let sums = &mut sums[..rows];
            if !from_codes(isa, a, b, first + j, scales, sums) {
                b.with_row(first + j, op.k, |b| {
                    for (i, sums) in sums.chunks_mut(ROWS).enumerate() {
                        let a = a.at(i * ROWS, 0);
                        sums.copy_from_slice(&dots(isa, a, sums.len(), b)[..sums.len()]);
                    }
                });
            }
            let mut column = c.part(0, rows, j, 1);
            for (i, sum) in sums.iter().enumerate() {
                column.put(i, std::slice::from_ref(sum), epilogue);
            }
        }
    });
}

/// `sums[i] = Σ_p a[i][p] · b[row][p]` without writing the row's numbers to memory; `false`: that cannot be done here.
#[inline]
fn from_codes<T: Operand>(
    isa: Isa,
    a: Matrix<'_, T>,
    b: Factor<'_, T>,
    row: usize,
    scales: &mut [f32],
    sums: &mut [f32],
) -> bool {
    match (isa.avx512(), b) {
        #[cfg(target_arch = "x86_64")]
        (Some(witness), Factor::Quantized(_, w)) if T::DTYPE == Dtype::Bf16 => {
            let a: Matrix<'_, half::bf16> = super::same(a);
            sums.chunks_mut(ROWS).enumerate().all(|(i, sums)| {
                let found = w.dots(witness, a.at(i * ROWS, 0), sums.len(), row, scales);
                found.inspect(|found| sums.copy_from_slice(&found[..sums.len()])).is_some()
            })
        }
        _ => {
            let _ = (a, row, scales, sums);
            false
        }
    }
}

/// `sums[i] = Σ_p a[i][p] · b[p]` for the first rows of `a`.
#[inline]
fn dots<T: Operand>(isa: Isa, a: Matrix<'_, T>, rows: usize, b: &[T]) -> [f32; ROWS] {
    match isa.avx512() {
        #[cfg(target_arch = "x86_64")]
        Some(witness) if T::DTYPE == Dtype::Bf16 => {
            crate::simd::dot_bf16::dots(witness, super::same(a), rows, bytemuck::cast_slice(b))
        }
        _ => vectorize!(isa, F => plain::<F, T>(a, rows, b)),
    }
}

/// As [`dots`], in loops that the compiler vectorises.
#[inline(always)]
fn plain<F: MulAdd, T: Operand>(a: Matrix<'_, T>, rows: usize, b: &[T]) -> [f32; ROWS] {
    let mut sums = [0.0; ROWS];
    for (i, sum) in sums[..rows].iter_mut().enumerate() {
        *sum = dot::<F, T>(a.row(i, 0, b.len()), b);
    }
    sums
}

/// `Σ x·y` in [`UNROLL`] × [`LANES`] partial sums: several, so that none waits for its own addition.
#[inline(always)]
fn dot<F: MulAdd, T: Operand>(x: &[T], y: &[T]) -> f32 {
    let mut lanes = [[0.0f32; LANES]; UNROLL];
    let (x_whole, x_tail) = x.as_chunks::<{ UNROLL * LANES }>();
    let (y_whole, y_tail) = y.as_chunks::<{ UNROLL * LANES }>();
    for (x, y) in x_whole.iter().zip(y_whole) {
        ahead(y);
        let (x, y) = (x.as_chunks::<LANES>().0, y.as_chunks::<LANES>().0);
        for u in 0..UNROLL {
            // Widened before they are multiplied: in one loop the AVX2 code was half as fast.
            let (x, y) = (x[u].map(T::widen), y[u].map(T::widen));
            for i in 0..LANES {
                lanes[u][i] = F::mul_add(x[i], y[i], lanes[u][i]);
            }
        }
    }
    for (sum, (x, y)) in lanes.as_flattened_mut().iter_mut().zip(x_tail.iter().zip(y_tail)) {
        *sum = F::mul_add(x.widen(), y.widen(), *sum);
    }
    let [a, b, c, d] = lanes;
    sum_lanes(std::array::from_fn(|i| (a[i] + b[i]) + (c[i] + d[i])))
}
