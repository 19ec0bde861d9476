//! AVX2: products of f32 tiles that lie in a cache as rows or as columns, for attention. Six rows by sixteen columns of
//! sums stay in registers.

use super::Avx2;
use super::matrix::Matrix;
use std::arch::x86_64::*;

/// Rows of a product.
pub(crate) const ROWS: usize = 6;
/// Columns of a block.
const COLS: usize = 16;

/// `C[6, n] = A · B[k, n]`, or `+=` if `ADD`. `n` is a multiple of 16. `A` is `[6, k]`, or stored `[k, 6]` if `trans`.
#[inline]
pub(crate) fn product<const ADD: bool>(
    _: Avx2,
    (a, trans): (Matrix<'_, f32>, bool),
    k: usize,
    b: Matrix<'_, f32>,
    n: usize,
    c: &mut [f32],
    c_stride: usize,
) {
    let (rows, cols) = if trans { (k, ROWS) } else { (ROWS, k) };
    a.expect("left tile", rows, cols);
    b.expect("right tile", k, n);
    Matrix::new(&*c, c_stride).expect("result", ROWS, n);
    assert!(n.is_multiple_of(COLS), "{n} columns are no whole blocks of {COLS}");
    let (row, step) = if trans { (1, a.stride) } else { (a.stride, 1) };
    for j in (0..n).step_by(COLS) {
        // SAFETY: the witness proves the instructions; the extents of all three tiles were just checked.
        unsafe {
            let (from, to) = (b.data.as_ptr().wrapping_add(j), c.as_mut_ptr().add(j));
            block::<ADD>(a.data.as_ptr(), [row, step], k, from, b.stride, to, c_stride);
        }
    }
}

/// # Safety
/// AVX2 and FMA; element `(i, p)` of A is at `i·row + p·step` for `i < 6`, `p < k`; `b` points to `k` rows of 16
/// numbers and `c` to 6.
#[target_feature(enable = "avx2,fma")]
unsafe fn block<const ADD: bool>(
    a: *const f32,
    [row, step]: [usize; 2],
    k: usize,
    b: *const f32,
    b_stride: usize,
    c: *mut f32,
    c_stride: usize,
) {
    let mut acc = [[_mm256_setzero_ps(); 2]; ROWS];
    let (mut at, mut from) = (a, b);
    macro_rules! step {
        ($p:expr) => {
            let b = from.add($p * b_stride);
            let b = [_mm256_loadu_ps(b), _mm256_loadu_ps(b.add(8))];
            for (i, sums) in acc.iter_mut().enumerate() {
                let a = _mm256_broadcast_ss(&*at.add(i * row + $p * step));
                sums[0] = _mm256_fmadd_ps(a, b[0], sums[0]);
                sums[1] = _mm256_fmadd_ps(a, b[1], sums[1]);
            }
        };
    }
    for _ in 0..k / 2 {
        // SAFETY: two steps of `k`, inside both tiles by the caller's promise; pointers may come to rest behind them.
        unsafe {
            step!(0);
            step!(1);
        }
        (at, from) = (at.wrapping_add(2 * step), from.wrapping_add(2 * b_stride));
    }
    if k % 2 == 1 {
        // SAFETY: the last step.
        unsafe {
            step!(0);
        }
    }
    // A copy: a reference to the accumulators themselves would keep them in memory during the loop.
    let done = acc;
    for (i, sums) in done.into_iter().enumerate() {
        // SAFETY: 16 numbers of row `i < 6` of the result.
        unsafe {
            let to = c.add(i * c_stride);
            for (v, mut sum) in sums.into_iter().enumerate() {
                if ADD {
                    sum = _mm256_add_ps(_mm256_loadu_ps(to.add(8 * v)), sum);
                }
                _mm256_storeu_ps(to.add(8 * v), sum);
            }
        }
    }
}
