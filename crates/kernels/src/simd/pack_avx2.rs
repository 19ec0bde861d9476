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
        // SAFETY: the witness proves the instructions; `present` rows from `first` on hold `whole` numbers, and
        // `dst` has `whole` rows of COLS.
        unsafe { transpose(b.at(first, 0), present, whole, dst.as_mut_ptr().wrapping_add(first), COLS) };
    }
    let (_, rest) = dst[..k * COLS].split_at_mut(whole * COLS);
    for (p, to) in rest.chunks_exact_mut(COLS).enumerate() {
        for (j, to) in to.iter_mut().enumerate() {
            *to = if j < cols { b.data[j * b.stride + whole + p].widen() } else { 0.0 };
        }
    }
}

/// `dst[i][p] = a[p][i]` in f32 for `rows` columns and `k` rows of `a`; rows of `dst` are `stride` apart, a multiple
/// of 8 and at least `k`: what lies between `k` and the next multiple of 8 becomes zero.
pub(crate) fn transpose_columns<T: Operand>(
    _: Avx2,
    a: Matrix<'_, T>,
    rows: usize,
    k: usize,
    dst: &mut [f32],
    stride: usize,
) {
    a.expect("A", k, rows);
    assert!(
        stride.is_multiple_of(8) && k <= stride && dst.len() >= rows * stride,
        "no room for {rows} rows of {k}"
    );
    // Sixteen rows of `dst` at a time: their lines stay in the first-level cache, and whole lines of `a` are read.
    for i in (0..rows).step_by(16) {
        let count = (rows - i).min(16);
        let whole = count / 8 * 8;
        for p in (0..k).step_by(8) {
            let present = (k - p).min(8);
            // SAFETY: the witness proves the instructions; `present` rows of `a` from `p` on hold `whole` numbers
            // from `i` on, and `whole` rows of `dst` have room for eight from `p` on, a multiple of 8 below `stride`.
            unsafe {
                let to = dst.as_mut_ptr().add(i * stride + p);
                transpose(a.at(p, i), present, whole, to, stride);
            }
        }
        for row in i + whole..i + count {
            for (p, to) in dst[row * stride..][..k].iter_mut().enumerate() {
                *to = a.data[p * a.stride + row].widen();
            }
        }
    }
}

/// # Safety
/// AVX2; `present ≤ 8` rows of `b` hold `k` numbers, a multiple of 8; `dst` points to `k` rows of 8 elements, `stride`
/// apart.
#[target_feature(enable = "avx2,fma")]
unsafe fn transpose<T: Operand>(b: Matrix<'_, T>, present: usize, k: usize, dst: *mut f32, stride: usize) {
    for p in (0..k).step_by(8) {
        let mut r = [_mm256_setzero_ps(); 8];
        for (i, row) in r.iter_mut().enumerate().take(present) {
            // SAFETY: eight numbers from `p` on are inside the row.
            *row = unsafe { eight(b.data.as_ptr().add(i * b.stride + p)) };
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
                _mm256_storeu_ps(dst.add((p + i) * stride), low);
                _mm256_storeu_ps(dst.add((p + 4 + i) * stride), high);
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
