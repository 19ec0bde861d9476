//! Micro-kernels for f32: 14 × 32 sums with AVX-512, 6 × 16 with AVX2, one fused multiply-add per sum and step.

use super::matrix::{Epilogue, Matrix, Out};
use super::{Avx2, Avx512, store};
use std::arch::x86_64::*;

/// Most rows of an AVX-512 tile.
pub(crate) const ROWS_512: usize = 14;
/// Columns of an AVX-512 tile and panel.
pub(crate) const COLS_512: usize = 32;
/// Most rows of an AVX2 tile.
pub(crate) const ROWS_256: usize = 6;
/// Columns of an AVX2 tile and panel.
pub(crate) const COLS_256: usize = 16;

/// Panics unless the operands of a tile are as large as the kernel reads.
#[inline]
fn check(a: Matrix<'_, f32>, k: usize, panel: &[f32], out: &Out<'_>, most_rows: usize, width: usize) {
    let (rows, cols) = (out.rows(), out.cols());
    assert!((1..=most_rows).contains(&rows) && (1..=width).contains(&cols), "a tile of {rows}×{cols}");
    a.expect("A", rows, k);
    assert!(panel.len() >= k * width, "a panel of {k} rows has {} elements", panel.len());
}

/// `out = alpha · A · panel` (or `+=`): `A` has `out.rows()` rows of `k` numbers, `panel` is `[k][COLS_512]`.
pub(crate) fn tile_512(
    _: Avx512,
    a: Matrix<'_, f32>,
    k: usize,
    panel: &[f32],
    mut out: Out<'_>,
    epilogue: Epilogue,
) {
    check(a, k, panel, &out, ROWS_512, COLS_512);
    // SAFETY: the witness proves the instructions; `check` proves the sizes that the kernel reads.
    unsafe {
        if out.cols() > 16 {
            by_rows_512::<2>(a, k, panel.as_ptr(), &mut out, epilogue);
        } else {
            by_rows_512::<1>(a, k, panel.as_ptr(), &mut out, epilogue);
        }
    }
}

/// Picks the kernel for the number of rows.
///
/// # Safety
/// AVX-512; `a` holds `out.rows()` rows (at most ROWS_512) of `k` numbers, `panel` `k × COLS_512`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
unsafe fn by_rows_512<const V: usize>(
    a: Matrix<'_, f32>,
    k: usize,
    panel: *const f32,
    out: &mut Out<'_>,
    epilogue: Epilogue,
) {
    macro_rules! pick { ($($rows:literal)*) => {
        match out.rows() {
            // SAFETY: the caller's promise, handed on.
            $($rows => unsafe { sums_512::<$rows, V>(a, k, panel, out, epilogue) },)*
            rows => unreachable!("a tile of {rows} rows"),
        }
    } }
    pick!(1 2 3 4 5 6 7 8 9 10 11 12 13 14)
}

/// The kernel for `R` rows and `V` vectors of 16 columns.
///
/// # Safety
/// As [`by_rows_512`], with `R` rows.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
unsafe fn sums_512<const R: usize, const V: usize>(
    a: Matrix<'_, f32>,
    k: usize,
    panel: *const f32,
    out: &mut Out<'_>,
    epilogue: Epilogue,
) {
    let (first, stride) = (a.data.as_ptr(), a.stride);
    let mut acc = [[_mm512_setzero_ps(); V]; R];
    for p in 0..k {
        // SAFETY: `p < k`, `i < R`, `V ≤ 2`: inside the panel and inside row `i` of A by the caller's promise.
        unsafe {
            let b: [__m512; V] = std::array::from_fn(|v| _mm512_loadu_ps(panel.add(p * COLS_512 + 16 * v)));
            for (i, row) in acc.iter_mut().enumerate() {
                let a = _mm512_set1_ps(*first.add(i * stride + p));
                for (sum, &b) in row.iter_mut().zip(&b) {
                    *sum = _mm512_fmadd_ps(a, b, *sum);
                }
            }
        }
    }
    // A copy: a reference to the accumulators themselves would keep them in memory during the loop.
    let sums = acc;
    store::rows(out, &sums, epilogue);
}

/// `out = alpha · A · panel` (or `+=`): `A` has `out.rows()` rows of `k` numbers, `panel` is `[k][COLS_256]`.
pub(crate) fn tile_256(
    _: Avx2,
    a: Matrix<'_, f32>,
    k: usize,
    panel: &[f32],
    mut out: Out<'_>,
    epilogue: Epilogue,
) {
    check(a, k, panel, &out, ROWS_256, COLS_256);
    macro_rules! pick { ($($rows:literal)*) => {
        match out.rows() {
            // SAFETY: the witness proves the instructions; `check` proves the sizes that the kernel reads.
            $($rows => unsafe { sums_256::<$rows>(a, k, panel.as_ptr(), &mut out, epilogue) },)*
            rows => unreachable!("a tile of {rows} rows"),
        }
    } }
    pick!(1 2 3 4 5 6)
}

/// The kernel for `R` rows and two vectors of 8 columns.
///
/// # Safety
/// AVX2 and FMA; `a` holds `R` rows of `k` numbers, `panel` `k × COLS_256`.
#[target_feature(enable = "avx2,fma")]
unsafe fn sums_256<const R: usize>(
    a: Matrix<'_, f32>,
    k: usize,
    panel: *const f32,
    out: &mut Out<'_>,
    epilogue: Epilogue,
) {
    let (first, stride) = (a.data.as_ptr(), a.stride);
    let mut acc = [[_mm256_setzero_ps(); 2]; R];
    for p in 0..k {
        // SAFETY: `p < k`, `i < R`: inside the panel and inside row `i` of A by the caller's promise.
        unsafe {
            let b: [__m256; 2] = std::array::from_fn(|v| _mm256_loadu_ps(panel.add(p * COLS_256 + 8 * v)));
            for (i, row) in acc.iter_mut().enumerate() {
                let a = _mm256_set1_ps(*first.add(i * stride + p));
                for (sum, &b) in row.iter_mut().zip(&b) {
                    *sum = _mm256_fmadd_ps(a, b, *sum);
                }
            }
        }
    }
    for (i, row) in acc.iter().enumerate() {
        let mut sums = [0.0f32; COLS_256];
        // SAFETY: `sums` has room for two vectors of 8.
        unsafe {
            _mm256_storeu_ps(sums.as_mut_ptr(), row[0]);
            _mm256_storeu_ps(sums.as_mut_ptr().add(8), row[1]);
        }
        out.put(i, &sums, epilogue);
    }
}
