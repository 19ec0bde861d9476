//! Re-ordering operands with AVX-512: transposing 16 × 16 blocks of 32-bit elements, pairing rows of bf16.
//!
//! A 32-bit element is an f32 or a pair of bf16 numbers with neighbouring `k`.

use super::Avx512;
use super::arch::*;
use super::matrix::Matrix;
use half::bf16;

/// `dst[p][r] = src[r][p]` for `rows ≤ 16` rows of `bytes` bytes: `dst` has `ceil(bytes/4)` rows of 16 elements,
/// `dst_stride` apart. Missing rows, and the missing half of an odd last pair, become zero.
pub(crate) fn transpose_rows<T: bytemuck::Pod>(
    _: Avx512,
    src: Matrix<'_, T>,
    rows: usize,
    cols: usize,
    dst: &mut [u32],
    dst_stride: usize,
) {
    let bytes = cols * size_of::<T>();
    let elements = bytes.div_ceil(4);
    assert!(rows <= 16, "{rows} rows in a block of 16");
    src.expect("source", rows, cols);
    assert!(elements == 0 || dst.len() >= (elements - 1) * dst_stride + 16, "{} elements of room", dst.len());
    // SAFETY: the witness proves the instructions; `rows` rows of `bytes` bytes can be read and `elements` rows of 16
    // elements written, as asserted.
    unsafe {
        transpose(
            src.data.as_ptr().cast(),
            src.stride * size_of::<T>(),
            rows,
            bytes,
            dst.as_mut_ptr(),
            dst_stride,
        );
    }
}

/// # Safety
/// AVX-512; `rows ≤ 16` rows of `bytes` bytes, `stride` bytes apart, can be read, and `ceil(bytes/4)` rows of 16
/// elements, `dst_stride` elements apart, written.
#[cfg_attr(not(feature = "emulate-avx512"), target_feature(enable = "avx512f,avx512bw,avx512vl"))]
unsafe fn transpose(
    src: *const u8,
    stride: usize,
    rows: usize,
    bytes: usize,
    dst: *mut u32,
    dst_stride: usize,
) {
    for at in (0..bytes).step_by(64) {
        let width = (bytes - at).min(64);
        let mask = u64::MAX >> (64 - width);
        let mut block = [_mm512_setzero_si512(); 16];
        for (i, row) in block.iter_mut().enumerate().take(rows) {
            // SAFETY: row `i < rows`, bytes `at..at+width` of it.
            *row = unsafe { _mm512_maskz_loadu_epi8(mask, src.add(i * stride + at).cast()) };
        }
        transpose_16x16(&mut block);
        for (i, row) in block.iter().enumerate().take(width.div_ceil(4)) {
            // SAFETY: element row `at/4 + i < ceil(bytes/4)`.
            unsafe { _mm512_storeu_si512(dst.add((at / 4 + i) * dst_stride).cast(), *row) };
        }
    }
}

/// `dst[i][p] = (src[2p][i], src[2p+1][i])` for `cols ≤ 16` columns and `k` rows of `src`: `dst` has `cols` rows,
/// `dst_stride` apart, of `ceil(k/2)` elements, each rounded up to whole blocks of 16 (the rest becomes zero).
pub(crate) fn transpose_pairs(
    _: Avx512,
    src: Matrix<'_, bf16>,
    k: usize,
    cols: usize,
    dst: &mut [u32],
    dst_stride: usize,
) {
    let blocks = k.div_ceil(32);
    assert!((1..=16).contains(&cols), "{cols} columns in a block of 16");
    src.expect("source", k, cols);
    assert!(
        blocks * 16 <= dst_stride && dst.len() >= (cols - 1) * dst_stride + blocks * 16,
        "no room for the pairs"
    );
    let mask = (u32::MAX >> (32 - cols as u32)) as __mmask16;
    // SAFETY: the witness proves the instructions, the assertions the sizes.
    unsafe { pairs(src, k, cols, mask, dst.as_mut_ptr(), dst_stride) }
}

/// # Safety
/// AVX-512; `k` rows of `src` have the columns of `mask`, `dst` has `cols` rows of `16·ceil(k/32)` elements.
#[cfg_attr(not(feature = "emulate-avx512"), target_feature(enable = "avx512f,avx512bw,avx512vl"))]
unsafe fn pairs(
    src: Matrix<'_, bf16>,
    k: usize,
    cols: usize,
    mask: __mmask16,
    dst: *mut u32,
    dst_stride: usize,
) {
    let (first, stride) = (src.data.as_ptr().cast::<i16>(), src.stride);
    for k0 in (0..k).step_by(32) {
        let mut block = [_mm512_setzero_si512(); 16];
        for (i, row) in block.iter_mut().enumerate() {
            let at = k0 + 2 * i;
            // SAFETY: rows `at` and `at + 1` are only read where they are smaller than `k`.
            unsafe {
                if at < k {
                    *row = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, first.add(at * stride)));
                }
                if at + 1 < k {
                    let odd =
                        _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, first.add((at + 1) * stride)));
                    *row = _mm512_or_si512(*row, _mm512_slli_epi32::<16>(odd));
                }
            }
        }
        transpose_16x16(&mut block);
        for (i, row) in block.iter().enumerate().take(cols) {
            // SAFETY: row `i < cols`, whole blocks of 16 as promised.
            unsafe { _mm512_storeu_si512(dst.add(i * dst_stride + k0 / 2).cast(), *row) };
        }
    }
}

/// `dst[p][c] = (src[2p][c], src[2p+1][c])` for `cols ≤ 32` columns and `k` rows of `src`: `dst` is `[ceil(k/2)][32]`;
/// missing columns, and the missing half of an odd last pair, become zero.
pub(crate) fn pair_rows(_: Avx512, src: Matrix<'_, bf16>, k: usize, cols: usize, dst: &mut [u32]) {
    assert!((1..=32).contains(&cols), "{cols} columns in a panel of 32");
    src.expect("source", k, cols);
    assert!(dst.len() >= k.div_ceil(2) * 32, "a panel of {k} rows has {} elements", dst.len());
    // SAFETY: the witness proves the instructions, the assertions the sizes.
    unsafe { interleave(src, k, u32::MAX >> (32 - cols as u32), dst.as_mut_ptr()) }
}

/// # Safety
/// AVX-512; `k` rows of `src` have the columns of `mask`, `dst` holds `ceil(k/2) × 32` elements.
#[cfg_attr(not(feature = "emulate-avx512"), target_feature(enable = "avx512f,avx512bw,avx512vl"))]
unsafe fn interleave(src: Matrix<'_, bf16>, k: usize, mask: __mmask32, dst: *mut u32) {
    let low: [u16; 32] = std::array::from_fn(|i| (i / 2 + 32 * (i % 2)) as u16);
    let high: [u16; 32] = std::array::from_fn(|i| (16 + i / 2 + 32 * (i % 2)) as u16);
    // SAFETY: both arrays are 64 bytes.
    let (low, high) =
        unsafe { (_mm512_loadu_si512(low.as_ptr().cast()), _mm512_loadu_si512(high.as_ptr().cast())) };
    let (first, stride) = (src.data.as_ptr().cast::<i16>(), src.stride);
    for p in 0..k.div_ceil(2) {
        // SAFETY: rows `2p` and `2p + 1` are only read where they are smaller than `k`; pair `p` has 32 elements of
        // room.
        unsafe {
            let even = _mm512_maskz_loadu_epi16(mask, first.add(2 * p * stride));
            let odd = match 2 * p + 1 < k {
                true => _mm512_maskz_loadu_epi16(mask, first.add((2 * p + 1) * stride)),
                false => _mm512_setzero_si512(),
            };
            let to = dst.add(p * 32);
            _mm512_storeu_si512(to.cast(), _mm512_permutex2var_epi16(even, low, odd));
            _mm512_storeu_si512(to.add(16).cast(), _mm512_permutex2var_epi16(even, high, odd));
        }
    }
}

/// Transposes 16 × 16 elements of 32 bits in registers: pairs, quads, then 128-bit lanes.
#[inline]
#[cfg_attr(not(feature = "emulate-avx512"), target_feature(enable = "avx512f"))]
pub(super) fn transpose_16x16(r: &mut [__m512i; 16]) {
    let mut t = [_mm512_setzero_si512(); 16];
    for i in 0..8 {
        t[2 * i] = _mm512_unpacklo_epi32(r[2 * i], r[2 * i + 1]);
        t[2 * i + 1] = _mm512_unpackhi_epi32(r[2 * i], r[2 * i + 1]);
    }
    for i in 0..4 {
        r[4 * i] = _mm512_unpacklo_epi64(t[4 * i], t[4 * i + 2]);
        r[4 * i + 1] = _mm512_unpackhi_epi64(t[4 * i], t[4 * i + 2]);
        r[4 * i + 2] = _mm512_unpacklo_epi64(t[4 * i + 1], t[4 * i + 3]);
        r[4 * i + 3] = _mm512_unpackhi_epi64(t[4 * i + 1], t[4 * i + 3]);
    }
    for i in 0..2 {
        for j in 0..4 {
            t[8 * i + j] = _mm512_shuffle_i32x4::<0x88>(r[8 * i + j], r[8 * i + 4 + j]);
            t[8 * i + 4 + j] = _mm512_shuffle_i32x4::<0xdd>(r[8 * i + j], r[8 * i + 4 + j]);
        }
    }
    for j in 0..8 {
        r[j] = _mm512_shuffle_i32x4::<0x88>(t[j], t[8 + j]);
        r[8 + j] = _mm512_shuffle_i32x4::<0xdd>(t[j], t[8 + j]);
    }
}
