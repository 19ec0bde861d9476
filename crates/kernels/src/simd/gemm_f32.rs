//! AVX-512 micro-kernel for f32: 14 × 32 sums, one fused multiply-add per sum and step.

use super::arch::*;
use super::matrix::{Epilogue, Matrix, Out};
use super::{Avx512, store};

/// Most rows of an AVX-512 tile.
pub(crate) const ROWS_512: usize = 14;
/// Columns of an AVX-512 tile and panel.
pub(crate) const COLS_512: usize = 32;

/// Panics unless the operands of a tile are as large as the kernel reads.
#[inline]
pub(super) fn check(
    a: Matrix<'_, f32>,
    k: usize,
    panel: &[f32],
    out: &Out<'_>,
    most_rows: usize,
    width: usize,
) {
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
#[cfg_attr(not(feature = "emulate-avx512"), target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16"))]
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
#[cfg_attr(not(feature = "emulate-avx512"), target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16"))]
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

/// `steps` rounds of 24 multiply-adds in registers, for benchmarks: floating-point operations done, and a number that
/// depends on all of them.
pub(super) fn register_only(_: Avx512, steps: usize) -> (f64, f32) {
    // SAFETY: the witness proves the instructions.
    let sum = unsafe { rounds(steps) };
    ((24 * 32 * steps) as f64, sum)
}

/// # Safety
/// AVX-512.
#[cfg_attr(not(feature = "emulate-avx512"), target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16"))]
unsafe fn rounds(steps: usize) -> f32 {
    let (a, b) = (_mm512_set1_ps(std::hint::black_box(1.0)), _mm512_set1_ps(std::hint::black_box(1e-9)));
    let mut acc = [_mm512_setzero_ps(); 24];
    for _ in 0..steps {
        for sum in &mut acc {
            *sum = _mm512_fmadd_ps(a, b, *sum);
        }
    }
    // A copy: a reference to the accumulators themselves would keep them in memory during the loop.
    let done = acc;
    _mm512_reduce_add_ps(done.into_iter().fold(_mm512_setzero_ps(), |total, sum| _mm512_add_ps(total, sum)))
}
