//! AVX2 micro-kernel for f32: 6 × 16 sums, one fused multiply-add per sum and step.

use super::gemm_f32::check;
use super::matrix::{Epilogue, Matrix, Out};
use super::{Avx2, store_avx2};
use std::arch::x86_64::*;

/// Most rows of a tile.
pub(crate) const ROWS_256: usize = 6;
/// Columns of a tile and panel.
pub(crate) const COLS_256: usize = 16;

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
    let stride = a.stride;
    let mut acc = [[_mm256_setzero_ps(); 2]; R];
    let (mut at, mut from) = (a.data.as_ptr(), panel);
    macro_rules! step {
        ($p:expr) => {
            let b = [_mm256_loadu_ps(from.add($p * COLS_256)), _mm256_loadu_ps(from.add($p * COLS_256 + 8))];
            for (i, row) in acc.iter_mut().enumerate() {
                let a = _mm256_broadcast_ss(&*at.add(i * stride + $p));
                row[0] = _mm256_fmadd_ps(a, b[0], row[0]);
                row[1] = _mm256_fmadd_ps(a, b[1], row[1]);
            }
        };
    }
    for _ in 0..k / 4 {
        // SAFETY: four steps of `k`, `i < R`: inside the panel and inside row `i` of A by the caller's promise; the
        // pointers may come to rest behind the last element.
        unsafe {
            step!(0);
            step!(1);
            step!(2);
            step!(3);
        }
        (at, from) = (at.wrapping_add(4), from.wrapping_add(4 * COLS_256));
    }
    for _ in 0..k % 4 {
        // SAFETY: as above, for one step.
        unsafe {
            step!(0);
        }
        (at, from) = (at.wrapping_add(1), from.wrapping_add(COLS_256));
    }
    // A copy: a reference to the accumulators themselves would keep them in memory during the loop.
    let done = acc;
    store_avx2::rows(out, &done, epilogue);
}

/// `steps` rounds of 12 multiply-adds in registers, for benchmarks: floating-point operations done, and a number that
/// depends on all of them.
pub(super) fn register_only(_: Avx2, steps: usize) -> (f64, f32) {
    // SAFETY: the witness proves the instructions.
    let sum = unsafe { rounds(steps) };
    ((12 * 16 * steps) as f64, sum)
}

/// # Safety
/// AVX2 and FMA.
#[target_feature(enable = "avx2,fma")]
unsafe fn rounds(steps: usize) -> f32 {
    let (a, b) = (_mm256_set1_ps(std::hint::black_box(1.0)), _mm256_set1_ps(std::hint::black_box(1e-9)));
    let mut acc = [_mm256_setzero_ps(); 12];
    for _ in 0..steps {
        for sum in &mut acc {
            *sum = _mm256_fmadd_ps(a, b, *sum);
        }
    }
    // A copy: a reference to the accumulators themselves would keep them in memory during the loop.
    let done = acc;
    let mut lanes = [0.0f32; 8];
    for sum in done {
        let mut part = [0.0f32; 8];
        // SAFETY: room for eight numbers.
        unsafe { _mm256_storeu_ps(part.as_mut_ptr(), sum) };
        lanes.iter_mut().zip(part).for_each(|(lane, x)| *lane += x);
    }
    lanes.iter().sum()
}
