//! AVX2: panels of 16 columns whose numbers lie in rows of storage, by transposing 8 × 8 blocks in registers.

use super::Avx2;
use super::matrix::Matrix;
use crate::operand::Operand;
use std::arch::x86_64::*;

/// Columns of a panel.
const COLS: usize = super::gemm_f32_avx2::COLS_256;

/// `dst[p][j] = b[j][p]` in f32 for `cols ≤ 16` rows of `k` numbers: `dst` is `[k][16]`; missing columns become zero.
pub(crate) fn pack_rows<T: Operand>(_: Avx2, b: Matrix<'_, T>, cols: usize, k: usize, dst: &mut [f32]) {
    assert!((1..=COLS).contains(&cols), "{cols} columns in a panel of {COLS}");
    b.expect("B", cols, k);
    assert!(dst.len() >= k * COLS, "a panel of {k} rows has {} elements", dst.len());
    let whole = k / 8 * 8;
    for first in [0, 8] {
        let present = cols.saturating_sub(first).min(8);
        // SAFETY: the witness proves the instructions; rows `first..first + present` of `b` hold `whole` numbers, and
        // `dst` has `whole` rows of COLS.
        unsafe { transpose(b, first, present, whole, dst.as_mut_ptr().wrapping_add(first)) };
    }
    let (_, rest) = dst[..k * COLS].split_at_mut(whole * COLS);
    for (p, to) in rest.chunks_exact_mut(COLS).enumerate() {
        for (j, to) in to.iter_mut().enumerate() {
            *to = if j < cols { b.data[j * b.stride + whole + p].widen() } else { 0.0 };
        }
    }
}

/// # Safety
/// AVX2; rows `first..first + present` of `b` hold `k` numbers, a multiple of 8; `dst` points to `k` rows of 8 elements,
/// COLS apart.
#[target_feature(enable = "avx2,fma")]
unsafe fn transpose<T: Operand>(b: Matrix<'_, T>, first: usize, present: usize, k: usize, dst: *mut f32) {
    for p in (0..k).step_by(8) {
        let mut r = [_mm256_setzero_ps(); 8];
        for (i, row) in r.iter_mut().enumerate().take(present) {
            // SAFETY: eight numbers from `p` on are inside the row.
            *row = unsafe { eight(b.data.as_ptr().add((first + i) * b.stride + p)) };
        }
        let mut t = [_mm256_setzero_ps(); 8];
        for i in 0..4 {
            t[2 * i] = _mm256_unpacklo_ps(r[2 * i], r[2 * i + 1]);
            t[2 * i + 1] = _mm256_unpackhi_ps(r[2 * i], r[2 * i + 1]);
        }
        for i in 0..2 {
            let [a, b, c, d] = [t[4 * i], t[4 * i + 1], t[4 * i + 2], t[4 * i + 3]];
            r[4 * i] = _mm256_shuffle_ps::<0x44>(a, c);
            r[4 * i + 1] = _mm256_shuffle_ps::<0xee>(a, c);
            r[4 * i + 2] = _mm256_shuffle_ps::<0x44>(b, d);
            r[4 * i + 3] = _mm256_shuffle_ps::<0xee>(b, d);
        }
        for i in 0..4 {
            let low = _mm256_permute2f128_ps::<0x20>(r[i], r[4 + i]);
            let high = _mm256_permute2f128_ps::<0x31>(r[i], r[4 + i]);
            // SAFETY: rows `p + i` and `p + 4 + i` of the panel.
            unsafe {
                _mm256_storeu_ps(dst.add((p + i) * COLS), low);
                _mm256_storeu_ps(dst.add((p + 4 + i) * COLS), high);
            }
        }
    }
}

/// Eight numbers in f32.
///
/// # Safety
/// AVX2; eight elements at `from` can be read; T is f32 or bf16, which their sizes tell apart.
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn eight<T: Operand>(from: *const T) -> __m256 {
    // SAFETY: the caller's promise.
    unsafe {
        match size_of::<T>() {
            4 => _mm256_loadu_ps(from.cast()),
            2 => {
                let halves = _mm256_cvtepu16_epi32(_mm_loadu_si128(from.cast()));
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(halves))
            }
            bytes => unreachable!("an operand of {bytes} bytes"),
        }
    }
}
