//! The AVX-512 instructions that this folder uses, in plain Rust under the same names (feature `emulate-avx512`).
//!
//! With the feature the very same kernels, packings and masks compile to calls of these functions, so that machines
//! without AVX-512 hold them against the reference, in `cargo xtask test`. That proves the logic: which elements are
//! read, where they go, what masks and tails cut off, the order of the sums. It proves nothing about speed or
//! registers, nor that `std::arch` maps a name to the instruction of Intel's manual; that needs the hardware.
//! `VDPBF16PS` is as the manual has it: the pair's second product is added first, each addition is rounded to nearest
//! even, and denormal numbers count as zero on both sides.
//!
//! Pointers are read and written byte by byte under the mask, as the instructions do: a masked element is not touched.

#![allow(non_camel_case_types, clippy::missing_safety_doc)]

use crate::operand::Operand;
use half::bf16;
pub(super) use std::arch::x86_64::{__m128i, __m256bh, __m256i, _CMP_NLT_UQ, _mm_loadu_si128};

pub(super) type __mmask16 = u16;
pub(super) type __mmask32 = u32;
type __mmask64 = u64;

/// 512 bits, seen as sixteen f32.
#[derive(Clone, Copy)]
pub(super) struct __m512([f32; 16]);
/// 512 bits, seen as integers.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct __m512i([u32; 16]);
/// 512 bits, seen as 32 bf16.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct __m512bh([u32; 16]);

fn lanes<T>(f: impl FnMut(usize) -> T) -> [T; 16] {
    std::array::from_fn(f)
}

fn words(x: __m512i) -> [u16; 32] {
    bytemuck::cast(x.0)
}

fn quads(x: __m512i) -> [u64; 8] {
    bytemuck::cast(x.0)
}

/// Elements that the mask selects; zero elsewhere.
///
/// # Safety
/// Selected elements can be read.
unsafe fn masked<T: bytemuck::Zeroable, const N: usize>(mask: u64, at: *const T) -> [T; N] {
    // SAFETY: the caller's promise for each selected element.
    std::array::from_fn(
        |i| if mask >> i & 1 == 1 { unsafe { at.add(i).read_unaligned() } } else { T::zeroed() },
    )
}

pub(super) fn _mm512_setzero_ps() -> __m512 {
    __m512([0.0; 16])
}
pub(super) fn _mm512_setzero_si512() -> __m512i {
    __m512i([0; 16])
}
pub(super) fn _mm512_set1_ps(x: f32) -> __m512 {
    __m512([x; 16])
}
pub(super) fn _mm512_set1_epi32(x: i32) -> __m512i {
    __m512i([x as u32; 16])
}
pub(super) fn _mm512_add_ps(a: __m512, b: __m512) -> __m512 {
    __m512(lanes(|i| a.0[i] + b.0[i]))
}
pub(super) fn _mm512_mul_ps(a: __m512, b: __m512) -> __m512 {
    __m512(lanes(|i| a.0[i] * b.0[i]))
}
pub(super) fn _mm512_sub_ps(a: __m512, b: __m512) -> __m512 {
    __m512(lanes(|i| a.0[i] - b.0[i]))
}
/// The second where one of them is no number.
pub(super) fn _mm512_max_ps(a: __m512, b: __m512) -> __m512 {
    __m512(lanes(|i| if a.0[i] > b.0[i] { a.0[i] } else { b.0[i] }))
}
pub(super) fn _mm512_mask_max_ps(src: __m512, mask: __mmask16, a: __m512, b: __m512) -> __m512 {
    let max = _mm512_max_ps(a, b);
    __m512(lanes(|i| if mask >> i & 1 == 1 { max.0[i] } else { src.0[i] }))
}
pub(super) fn _mm512_maskz_mov_ps(mask: __mmask16, a: __m512) -> __m512 {
    __m512(lanes(|i| if mask >> i & 1 == 1 { a.0[i] } else { 0.0 }))
}
pub(super) fn _mm512_reduce_max_ps(a: __m512) -> f32 {
    a.0.into_iter().fold(f32::NEG_INFINITY, f32::max)
}
pub(super) fn _mm512_cvtss_f32(a: __m512) -> f32 {
    a.0[0]
}
pub(super) fn _mm512_fmsub_ps(a: __m512, b: __m512, c: __m512) -> __m512 {
    __m512(lanes(|i| a.0[i].mul_add(b.0[i], -c.0[i])))
}
/// To the nearest whole number, ties to even; other ways of rounding are not used.
pub(super) fn _mm512_roundscale_ps<const WAY: i32>(a: __m512) -> __m512 {
    const { assert!(WAY == 0) };
    __m512(a.0.map(f32::round_ties_even))
}
/// `a · 2^b` for whole `b`, rounded once.
pub(super) fn _mm512_maskz_scalef_ps(mask: __mmask16, a: __m512, b: __m512) -> __m512 {
    let scaled = lanes(|i| (f64::from(a.0[i]) * f64::from(b.0[i]).exp2()) as f32);
    _mm512_maskz_mov_ps(mask, __m512(scaled))
}
/// Not less than, true for what is no number; other comparisons are not used.
pub(super) fn _mm512_cmp_ps_mask<const WHICH: i32>(a: __m512, b: __m512) -> __mmask16 {
    const { assert!(WHICH == _CMP_NLT_UQ) };
    (0..16).map(|i| u16::from(!(a.0[i] < b.0[i])) << i).sum()
}
pub(super) fn _mm512_fmadd_ps(a: __m512, b: __m512, c: __m512) -> __m512 {
    __m512(lanes(|i| a.0[i].mul_add(b.0[i], c.0[i])))
}
/// Halves are added to halves, as the compiler's own sequence does.
pub(super) fn _mm512_reduce_add_ps(a: __m512) -> f32 {
    let eight: [f32; 8] = std::array::from_fn(|i| a.0[i] + a.0[i + 8]);
    let four: [f32; 4] = std::array::from_fn(|i| eight[i] + eight[i + 4]);
    (four[0] + four[2]) + (four[1] + four[3])
}
pub(super) fn _mm512_castsi512_ps(a: __m512i) -> __m512 {
    __m512(a.0.map(f32::from_bits))
}
pub(super) fn _mm512_or_si512(a: __m512i, b: __m512i) -> __m512i {
    __m512i(lanes(|i| a.0[i] | b.0[i]))
}
pub(super) fn _mm512_slli_epi32<const N: u32>(a: __m512i) -> __m512i {
    __m512i(a.0.map(|x| x.checked_shl(N).unwrap_or(0)))
}
pub(super) fn _mm512_cvtepu16_epi32(a: __m256i) -> __m512i {
    // SAFETY: both are 32 bytes in which every bit pattern is valid.
    let words: [u16; 16] = unsafe { std::mem::transmute(a) };
    __m512i(words.map(u32::from))
}

/// Each word by its own number of bits.
pub(super) fn _mm512_srlv_epi16(a: __m512i, count: __m512i) -> __m512i {
    let (a, count) = (words(a), words(count));
    let shifted: [u16; 32] = std::array::from_fn(|i| a[i].checked_shr(count[i].into()).unwrap_or(0));
    __m512i(bytemuck::cast(shifted))
}
pub(super) fn _mm512_broadcast_i32x4(a: __m128i) -> __m512i {
    // SAFETY: both are 16 bytes in which every bit pattern is valid.
    let lane: [u32; 4] = unsafe { std::mem::transmute(a) };
    __m512i(lanes(|i| lane[i % 4]))
}
/// Bytes of a lane of 128 bits by the lowest four bits of each index; a set highest bit makes zero.
pub(super) fn _mm512_shuffle_epi8(a: __m512i, index: __m512i) -> __m512i {
    let (a, index): ([u8; 64], [u8; 64]) = (bytemuck::cast(a.0), bytemuck::cast(index.0));
    let pick = |i: usize| if index[i] & 0x80 != 0 { 0 } else { a[i / 16 * 16 + usize::from(index[i] & 15)] };
    __m512i(bytemuck::cast(std::array::from_fn::<u8, 64, _>(pick)))
}
pub(super) fn _mm512_cvtepi8_epi32(a: __m128i) -> __m512i {
    // SAFETY: both are 16 bytes in which every bit pattern is valid.
    let bytes: [i8; 16] = unsafe { std::mem::transmute(a) };
    __m512i(bytes.map(|x| i32::from(x) as u32))
}
pub(super) fn _mm512_cvtepi32_ps(a: __m512i) -> __m512 {
    __m512(a.0.map(|x| x as i32 as f32))
}
pub(super) fn _mm512_broadcast_i64x4(a: __m256i) -> __m512i {
    // SAFETY: both are 32 bytes in which every bit pattern is valid.
    let half: [u32; 8] = unsafe { std::mem::transmute(a) };
    __m512i(lanes(|i| half[i % 8]))
}
/// Words of `a` by the lowest five bits of each index.
pub(super) fn _mm512_permutexvar_epi16(index: __m512i, a: __m512i) -> __m512i {
    let a = words(a);
    __m512i(bytemuck::cast(words(index).map(|i| a[usize::from(i & 31)])))
}
/// The numbers of `b`, then those of `a`, rounded as [`_mm512_cvtneps_pbh`] does.
pub(super) fn _mm512_cvtne2ps_pbh(a: __m512, b: __m512) -> __m512bh {
    let rounded = |x: f32| <bf16 as Operand>::narrow(flushed(x)).to_bits();
    let both: [u16; 32] = std::array::from_fn(|i| rounded(if i < 16 { b.0[i] } else { a.0[i - 16] }));
    __m512bh(bytemuck::cast(both))
}

/// Rounds to nearest even; denormal numbers become zero.
pub(super) fn _mm512_cvtneps_pbh(a: __m512) -> __m256bh {
    let rounded = a.0.map(|x| <bf16 as Operand>::narrow(flushed(x)).to_bits());
    // SAFETY: both are 32 bytes in which every bit pattern is valid.
    unsafe { std::mem::transmute(rounded) }
}

/// Zero in place of a denormal number.
fn flushed(x: f32) -> f32 {
    if x.is_subnormal() { 0.0f32.copysign(x) } else { x }
}

pub(super) fn _mm512_dpbf16_ps(sum: __m512, a: __m512bh, b: __m512bh) -> __m512 {
    let half = |x: u32, high: bool| flushed(f32::from_bits(if high { x & 0xffff_0000 } else { x << 16 }));
    let step =
        |sum: f32, a: u32, b: u32, high: bool| flushed(half(a, high).mul_add(half(b, high), flushed(sum)));
    __m512(lanes(|i| step(step(sum.0[i], a.0[i], b.0[i], true), a.0[i], b.0[i], false)))
}

// Lanes of 128 bits: four elements of 32, two of 64.

pub(super) fn _mm512_unpacklo_epi32(a: __m512i, b: __m512i) -> __m512i {
    __m512i(lanes(|i| if i % 2 == 0 { a.0[i / 4 * 4 + i % 4 / 2] } else { b.0[i / 4 * 4 + i % 4 / 2] }))
}
pub(super) fn _mm512_unpackhi_epi32(a: __m512i, b: __m512i) -> __m512i {
    __m512i(lanes(
        |i| if i % 2 == 0 { a.0[i / 4 * 4 + 2 + i % 4 / 2] } else { b.0[i / 4 * 4 + 2 + i % 4 / 2] },
    ))
}
pub(super) fn _mm512_unpacklo_epi64(a: __m512i, b: __m512i) -> __m512i {
    unpack_quads(a, b, 0)
}
pub(super) fn _mm512_unpackhi_epi64(a: __m512i, b: __m512i) -> __m512i {
    unpack_quads(a, b, 1)
}
fn unpack_quads(a: __m512i, b: __m512i, which: usize) -> __m512i {
    let (a, b) = (quads(a), quads(b));
    let mixed: [u64; 8] = std::array::from_fn(|i| if i % 2 == 0 { a[i + which] } else { b[i - 1 + which] });
    __m512i(bytemuck::cast(mixed))
}
/// Two lanes of `a`, then two of `b`, two bits of `MASK` for each.
pub(super) fn _mm512_shuffle_i32x4<const MASK: i32>(a: __m512i, b: __m512i) -> __m512i {
    __m512i(lanes(|i| {
        let lane = (MASK >> (2 * (i / 4)) & 3) as usize;
        (if i < 8 { a } else { b }).0[4 * lane + i % 4]
    }))
}
/// Words of `a` (indices below 32) and `b`.
pub(super) fn _mm512_permutex2var_epi16(a: __m512i, index: __m512i, b: __m512i) -> __m512i {
    let (a, index, b) = (words(a), words(index), words(b));
    let pick = |i: u16| if i & 32 == 0 { a[usize::from(i & 31)] } else { b[usize::from(i & 31)] };
    __m512i(bytemuck::cast(index.map(pick)))
}

/// # Safety
/// As the instruction: what the mask selects (without one, all 64 bytes) can be read or written.
pub(super) unsafe fn _mm512_loadu_ps(at: *const f32) -> __m512 {
    // SAFETY: the caller's promise.
    __m512(unsafe { masked(u64::MAX, at) })
}
/// # Safety
/// As the instruction: what the mask selects (without one, all 64 bytes) can be read or written.
pub(super) unsafe fn _mm512_loadu_si512(at: *const __m512i) -> __m512i {
    // SAFETY: the caller's promise.
    __m512i(unsafe { masked(u64::MAX, at.cast()) })
}
/// # Safety
/// As the instruction: what the mask selects (without one, all 64 bytes) can be read or written.
pub(super) unsafe fn _mm512_maskz_loadu_ps(mask: __mmask16, at: *const f32) -> __m512 {
    // SAFETY: the caller's promise.
    __m512(unsafe { masked(mask.into(), at) })
}
/// # Safety
/// As the instruction: what the mask selects (without one, all 64 bytes) can be read or written.
pub(super) unsafe fn _mm512_maskz_loadu_epi8(mask: __mmask64, at: *const i8) -> __m512i {
    // SAFETY: the caller's promise.
    let bytes: [i8; 64] = unsafe { masked(mask, at) };
    __m512i(bytemuck::cast(bytes))
}
/// # Safety
/// As the instruction: what the mask selects (without one, all 64 bytes) can be read or written.
pub(super) unsafe fn _mm_maskz_loadu_epi8(mask: __mmask16, at: *const i8) -> __m128i {
    // SAFETY: the caller's promise; both are 16 bytes in which every bit pattern is valid.
    unsafe { std::mem::transmute::<[i8; 16], __m128i>(masked(mask.into(), at)) }
}
/// # Safety
/// As the instruction: what the mask selects (without one, all 64 bytes) can be read or written.
pub(super) unsafe fn _mm512_maskz_loadu_epi16(mask: __mmask32, at: *const i16) -> __m512i {
    // SAFETY: the caller's promise.
    let words: [i16; 32] = unsafe { masked(mask.into(), at) };
    __m512i(bytemuck::cast(words))
}
/// # Safety
/// As the instruction: what the mask selects (without one, all 64 bytes) can be read or written.
pub(super) unsafe fn _mm256_maskz_loadu_epi16(mask: __mmask16, at: *const i16) -> __m256i {
    // SAFETY: the caller's promise; both are 32 bytes in which every bit pattern is valid.
    unsafe { std::mem::transmute::<[i16; 16], __m256i>(masked(mask.into(), at)) }
}
/// # Safety
/// As the instruction: what the mask selects (without one, all 64 bytes) can be read or written.
pub(super) unsafe fn _mm512_storeu_si512(at: *mut __m512i, x: __m512i) {
    // SAFETY: the caller's promise.
    unsafe { at.cast::<[u32; 16]>().write_unaligned(x.0) }
}
/// # Safety
/// As the instruction: what the mask selects (without one, all 64 bytes) can be read or written.
pub(super) unsafe fn _mm512_mask_storeu_ps(at: *mut f32, mask: __mmask16, x: __m512) {
    for (i, x) in x.0.into_iter().enumerate().filter(|(i, _)| mask >> i & 1 == 1) {
        // SAFETY: the caller's promise for each selected element.
        unsafe { at.add(i).write_unaligned(x) }
    }
}
/// # Safety
/// As the instruction: what the mask selects (without one, all 64 bytes) can be read or written.
pub(super) unsafe fn _mm256_mask_storeu_epi16(at: *mut i16, mask: __mmask16, x: __m256i) {
    // SAFETY: both are 32 bytes in which every bit pattern is valid.
    let words: [i16; 16] = unsafe { std::mem::transmute(x) };
    for (i, x) in words.into_iter().enumerate().filter(|(i, _)| mask >> i & 1 == 1) {
        // SAFETY: the caller's promise for each selected element.
        unsafe { at.add(i).write_unaligned(x) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count() -> __m512i {
        __m512i(lanes(|i| i as u32))
    }

    /// Intel's examples of lanes, written out.
    #[test]
    fn shuffles_are_the_manuals() {
        let (a, b) = (count(), __m512i(lanes(|i| 100 + i as u32)));
        assert_eq!(_mm512_unpacklo_epi32(a, b).0[..8], [0, 100, 1, 101, 4, 104, 5, 105]);
        assert_eq!(_mm512_unpackhi_epi32(a, b).0[..8], [2, 102, 3, 103, 6, 106, 7, 107]);
        assert_eq!(_mm512_unpacklo_epi64(a, b).0[..8], [0, 1, 100, 101, 4, 5, 104, 105]);
        assert_eq!(_mm512_unpackhi_epi64(a, b).0[..8], [2, 3, 102, 103, 6, 7, 106, 107]);
        let picked = _mm512_shuffle_i32x4::<0x88>(a, b).0;
        assert_eq!(picked, [0, 1, 2, 3, 8, 9, 10, 11, 100, 101, 102, 103, 108, 109, 110, 111]);
        let index: [u16; 32] = std::array::from_fn(|i| if i % 2 == 0 { 2 } else { 32 + 4 });
        let mixed = _mm512_permutex2var_epi16(a, __m512i(bytemuck::cast(index)), b);
        assert_eq!(mixed.0, [1 | 102 << 16; 16]);
    }

    #[test]
    fn a_dot_product_rounds_twice_and_has_no_denormals() {
        let pair = |low: f32, high: f32| {
            let bits = |x: f32| u32::from(bf16::from_f32(x).to_bits());
            __m512bh([bits(low) | bits(high) << 16; 16])
        };
        let dot = |sum, a, b| _mm512_dpbf16_ps(__m512([sum; 16]), a, b).0[7];
        assert_eq!(dot(1.0, pair(2.0, 3.0), pair(5.0, 7.0)), 32.0);
        // 2²⁴ + 1 is a tie that goes to 2²⁴; the other half of the pair then finds an even number again.
        assert_eq!(dot(16_777_216.0, pair(1.0, 1.0), pair(1.0, 1.0)), 16_777_216.0);
        assert_eq!(dot(f32::from_bits(1), pair(0.0, 0.0), pair(1.0, 1.0)), 0.0);
        assert_eq!(dot(0.0, pair(1e-20, 0.0), pair(1e-20, 0.0)), 0.0);
    }

    #[test]
    fn masks_leave_memory_alone() {
        let from = [1.0f32; 3];
        // SAFETY: the masks cover what the arrays hold.
        unsafe {
            assert_eq!(_mm512_maskz_loadu_ps(0b101, from.as_ptr()).0[..4], [1.0, 0.0, 1.0, 0.0]);
            let mut to = [7.0f32; 3];
            _mm512_mask_storeu_ps(to.as_mut_ptr(), 0b010, _mm512_set1_ps(2.0));
            assert_eq!(to, [7.0, 2.0, 7.0]);
        }
    }
}
