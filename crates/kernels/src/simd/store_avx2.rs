//! AVX2: writing finished sums, scaled, added, rounded once.

use super::matrix::{Epilogue, Out};
use std::arch::x86_64::*;

/// Columns of a tile.
const COLS: usize = super::gemm_f32_avx2::COLS_256;

/// Writes (or adds) `alpha · sums` to the rows of `out`, which is at most 16 columns wide.
#[inline]
#[target_feature(enable = "avx2,fma")]
pub(super) fn rows(out: &mut Out<'_>, sums: &[[__m256; 2]], epilogue: Epilogue) {
    assert!(out.rows() == sums.len() && out.cols() <= COLS, "{}×{}", out.rows(), out.cols());
    if out.cols() < COLS {
        return narrow(out, sums, epilogue);
    }
    let alpha = _mm256_set1_ps(epilogue.alpha);
    for (i, sums) in sums.iter().enumerate() {
        for (v, &sum) in sums.iter().enumerate() {
            let mut value = _mm256_mul_ps(sum, alpha);
            match out {
                Out::F32(block) => {
                    let at = block.row(i)[8 * v..][..8].as_mut_ptr();
                    // SAFETY: eight numbers, as the slice says.
                    unsafe {
                        if epilogue.accumulate {
                            value = _mm256_add_ps(_mm256_loadu_ps(at), value);
                        }
                        _mm256_storeu_ps(at, value);
                    }
                }
                Out::Bf16(block) => {
                    let at = block.row(i)[8 * v..][..8].as_mut_ptr().cast::<__m128i>();
                    // SAFETY: eight numbers of 16 bits, as the slice says.
                    unsafe {
                        if epilogue.accumulate {
                            let old = _mm256_cvtepu16_epi32(_mm_loadu_si128(at));
                            let old = _mm256_castsi256_ps(_mm256_slli_epi32::<16>(old));
                            value = _mm256_add_ps(old, value);
                        }
                        _mm_storeu_si128(at, to_bf16(value));
                    }
                }
            }
        }
    }
}

/// The right edge of a matrix.
#[target_feature(enable = "avx2,fma")]
fn narrow(out: &mut Out<'_>, sums: &[[__m256; 2]], epilogue: Epilogue) {
    for (i, row) in sums.iter().enumerate() {
        let mut sums = [0.0f32; COLS];
        // SAFETY: `sums` has room for two vectors of 8.
        unsafe {
            _mm256_storeu_ps(sums.as_mut_ptr(), row[0]);
            _mm256_storeu_ps(sums.as_mut_ptr().add(8), row[1]);
        }
        out.put(i, &sums, epilogue);
    }
}

/// Eight numbers rounded to bf16: to nearest, ties to even; NaN stays NaN, made quiet.
#[inline]
#[target_feature(enable = "avx2,fma")]
pub(super) fn to_bf16(value: __m256) -> __m128i {
    let bits = _mm256_castps_si256(value);
    let upper = _mm256_srli_epi32::<16>(bits);
    let odd = _mm256_and_si256(upper, _mm256_set1_epi32(1));
    let half = _mm256_add_epi32(_mm256_set1_epi32(0x7fff), odd);
    let rounded = _mm256_srli_epi32::<16>(_mm256_add_epi32(bits, half));
    let quiet = _mm256_or_si256(upper, _mm256_set1_epi32(0x40));
    let nan = _mm256_castps_si256(_mm256_cmp_ps::<_CMP_UNORD_Q>(value, value));
    let result = _mm256_blendv_epi8(rounded, quiet, nan);
    _mm_packus_epi32(_mm256_castsi256_si128(result), _mm256_extracti128_si256::<1>(result))
}
