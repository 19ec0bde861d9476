//! AVX2: codes of four bits to numbers, eight at a time.

use super::Avx2;
use super::store_avx2::to_bf16;
use crate::operand::Operand;
use crate::quantized::{NF4_BLOCK, NF4_LEVELS};
use std::arch::x86_64::*;

/// `out[i] = level(code i) · scale` for runs of [`NF4_BLOCK`], one scale each; `out` has whole groups of eight, and
/// only the last run may be shorter.
#[inline]
pub(crate) fn expand<T: Operand>(_: Avx2, codes: &[u8], scales: &[f32], out: &mut [T]) {
    assert!(out.len().is_multiple_of(8) && out.len() <= scales.len() * NF4_BLOCK, "{} numbers", out.len());
    assert!(codes.len() >= out.len() / 2, "{} bytes of codes for {} numbers", codes.len(), out.len());
    // SAFETY: the witness proves the instructions; half a byte a number can be read, and T is f32 or bf16, which their
    // sizes tell apart.
    unsafe { blocks(codes.as_ptr(), scales, out) }
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

/// # Safety
/// AVX2; half a byte at `codes` for each of `out`, which has whole groups of eight, can be read; T is f32 or bf16.
#[target_feature(enable = "avx2,fma")]
unsafe fn blocks<T: Operand>(codes: *const u8, scales: &[f32], out: &mut [T]) {
    // SAFETY: sixteen f32 numbers.
    let (low, high) =
        unsafe { (_mm256_loadu_ps(NF4_LEVELS.as_ptr()), _mm256_loadu_ps(NF4_LEVELS.as_ptr().add(8))) };
    for (b, (out, &scale)) in out.chunks_mut(NF4_BLOCK).zip(scales).enumerate() {
        let scale = _mm256_set1_ps(scale);
        for (i, out) in out.chunks_exact_mut(8).enumerate() {
            // SAFETY: four bytes of codes belong to these eight numbers; a chunk has room for eight elements of T.
            unsafe {
                let bytes = codes.add(b * NF4_BLOCK / 2 + 4 * i).cast::<i32>().read_unaligned();
                let value = eight(bytes, low, high, scale);
                match size_of::<T>() {
                    4 => _mm256_storeu_ps(out.as_mut_ptr().cast(), value),
                    _ => _mm_storeu_si128(out.as_mut_ptr().cast(), to_bf16(value)),
                }
            }
        }
    }
}
