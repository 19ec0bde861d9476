//! AVX2: codes of four bits to numbers, eight at a time.

use super::Avx2;
use crate::operand::Operand;
use crate::quantized::NF4_LEVELS;
use half::bf16;
use std::arch::x86_64::*;

/// `out[i] = level(code i) · scale` for whole groups of eight; the number of elements written is returned.
#[inline]
pub(crate) fn expand<T: Operand>(_: Avx2, codes: &[u8], scale: f32, out: &mut [T]) -> usize {
    let groups = out.len() / 8;
    assert!(codes.len() >= 4 * groups, "{} bytes of codes for {groups} groups of eight", codes.len());
    // SAFETY: the witness proves the instructions; four bytes a group can be read and eight elements written, and T is
    // f32 or bf16 by the size that `Operand` types have.
    unsafe {
        match size_of::<T>() {
            4 => expand_f32(codes.as_ptr(), groups, scale, out.as_mut_ptr().cast()),
            2 => expand_bf16(codes.as_ptr(), groups, scale, out.as_mut_ptr().cast()),
            bytes => unreachable!("an operand of {bytes} bytes"),
        }
    }
    8 * groups
}

/// The numbers of eight codes, the first in the high half of the first byte.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn eight(codes: i32, low: __m256, high: __m256, scale: __m256) -> __m256 {
    let places = _mm256_setr_epi32(4, 0, 12, 8, 20, 16, 28, 24);
    let codes = _mm256_srlv_epi32(_mm256_set1_epi32(codes), places);
    // A permutation reads the lowest three bits, a blend the highest one.
    let (below, above) = (_mm256_permutevar8x32_ps(low, codes), _mm256_permutevar8x32_ps(high, codes));
    let choice = _mm256_castsi256_ps(_mm256_slli_epi32::<28>(codes));
    _mm256_mul_ps(_mm256_blendv_ps(below, above, choice), scale)
}

/// The two halves of the table.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn levels() -> (__m256, __m256) {
    // SAFETY: sixteen f32 numbers.
    unsafe { (_mm256_loadu_ps(NF4_LEVELS.as_ptr()), _mm256_loadu_ps(NF4_LEVELS.as_ptr().add(8))) }
}

/// # Safety
/// AVX2; `4·groups` bytes at `codes` can be read, `8·groups` elements at `out` written.
#[target_feature(enable = "avx2,fma")]
unsafe fn expand_f32(codes: *const u8, groups: usize, scale: f32, out: *mut f32) {
    let ((low, high), scale) = (levels(), _mm256_set1_ps(scale));
    for i in 0..groups {
        // SAFETY: group `i < groups`.
        unsafe {
            let bytes = codes.add(4 * i).cast::<i32>().read_unaligned();
            _mm256_storeu_ps(out.add(8 * i), eight(bytes, low, high, scale));
        }
    }
}

/// Rounds to nearest, ties to even. Codes have no NaN, scales may.
///
/// # Safety
/// AVX2; `4·groups` bytes at `codes` can be read, `8·groups` elements at `out` written.
#[target_feature(enable = "avx2,fma")]
unsafe fn expand_bf16(codes: *const u8, groups: usize, scale: f32, out: *mut bf16) {
    let ((low, high), scale) = (levels(), _mm256_set1_ps(scale));
    let (half, one) = (_mm256_set1_epi32(0x7fff), _mm256_set1_epi32(1));
    for i in 0..groups {
        // SAFETY: group `i < groups`.
        unsafe {
            let bytes = codes.add(4 * i).cast::<i32>().read_unaligned();
            let value = eight(bytes, low, high, scale);
            let bits = _mm256_castps_si256(value);
            let upper = _mm256_srli_epi32::<16>(bits);
            let odd = _mm256_and_si256(upper, one);
            let rounded = _mm256_srli_epi32::<16>(_mm256_add_epi32(bits, _mm256_add_epi32(half, odd)));
            let quiet = _mm256_or_si256(upper, _mm256_set1_epi32(0x40));
            let nan = _mm256_castps_si256(_mm256_cmp_ps::<_CMP_UNORD_Q>(value, value));
            let result = _mm256_blendv_epi8(rounded, quiet, nan);
            let packed =
                _mm_packus_epi32(_mm256_castsi256_si128(result), _mm256_extracti128_si256::<1>(result));
            _mm_storeu_si128(out.add(8 * i).cast(), packed);
        }
    }
}
