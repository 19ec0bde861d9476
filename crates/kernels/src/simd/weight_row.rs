//! AVX-512: a row of weights as bf16 numbers in registers, 32 at a time, whatever form it is stored in. The numbers
//! are those that [`run`](crate::quantized::View::run) writes to memory, bit for bit, up to denormal ones, which
//! products of bf16 take for zero.

use super::arch::*;
use crate::quantized::{NF4_BLOCK, NF4_LEVELS};
use half::bf16;

/// How many bytes ahead weights are asked for: the time of a memory access. Rows of weights follow each other, so that
/// the next row arrives while this one is multiplied.
const AHEAD: usize = 8192;

/// Each of sixteen bytes as two words, four bytes to a lane of 128 bits that holds all sixteen.
const SPREAD: [u8; 64] = {
    // A set highest bit makes zero.
    let mut places = [0x80; 64];
    let mut i = 0;
    while i < 32 {
        places[2 * i] = (i / 2) as u8;
        i += 1;
    }
    places
};

/// The first number of a byte is its high half.
const SHIFTS: [u16; 32] = {
    let mut shifts = [0; 32];
    let mut i = 0;
    while i < 32 {
        shifts[i] = 4;
        i += 2;
    }
    shifts
};

/// A row that [`super::dot_bf16`] can multiply.
pub(super) trait WeightRow: Copy {
    /// Numbers of the row.
    fn len(self) -> usize;

    /// Numbers `p..p + 64`; `p` is a multiple of 64.
    ///
    /// # Safety
    /// AVX-512 with BF16; the row has as many numbers.
    unsafe fn pair(self, p: usize) -> [__m512i; 2];

    /// Numbers `p..p + 32` as far as there are any, then zeros; `p` is a multiple of 32.
    ///
    /// # Safety
    /// AVX-512 with BF16; `p` is inside the row.
    unsafe fn rest(self, p: usize) -> __m512i;
}

/// Numbers as they are.
#[derive(Clone, Copy)]
pub(super) struct Dense<'a>(pub(super) &'a [bf16]);

/// Codes of four bits in whole blocks, each with a scale.
#[derive(Clone, Copy)]
pub(super) struct Nf4<'a> {
    codes: &'a [u8],
    scales: &'a [f32],
}

/// Codes of eight bits with one scale.
#[derive(Clone, Copy)]
pub(super) struct Int8<'a> {
    pub(super) codes: &'a [i8],
    pub(super) absmax: f32,
}

impl<'a> Nf4<'a> {
    /// Panics unless there is half a byte for every number of `scales.len()` blocks.
    pub(super) fn new(codes: &'a [u8], scales: &'a [f32]) -> Self {
        assert_eq!(codes.len() * 2, scales.len() * NF4_BLOCK, "codes and scales of one row");
        Self { codes, scales }
    }
}

/// Asks for what will be read soon.
#[inline(always)]
fn ahead(at: *const u8) {
    // SAFETY: a prefetch may point anywhere.
    unsafe { _mm_prefetch::<_MM_HINT_T1>(at.wrapping_add(AHEAD).cast()) }
}

impl WeightRow for Dense<'_> {
    #[inline(always)]
    fn len(self) -> usize {
        self.0.len()
    }

    // SAFETY: as the trait asks for.
    #[inline(always)]
    unsafe fn pair(self, p: usize) -> [__m512i; 2] {
        // SAFETY: the caller's promise.
        unsafe {
            let at = self.0.as_ptr().add(p);
            ahead(at.cast());
            ahead(at.add(32).cast());
            [_mm512_loadu_si512(at.cast()), _mm512_loadu_si512(at.add(32).cast())]
        }
    }

    // SAFETY: as the trait asks for.
    #[inline(always)]
    unsafe fn rest(self, p: usize) -> __m512i {
        let mask = u32::MAX >> 32usize.saturating_sub(self.0.len() - p);
        // SAFETY: the mask covers the elements before the end.
        unsafe { _mm512_maskz_loadu_epi16(mask, self.0.as_ptr().add(p).cast()) }
    }
}

impl Nf4<'_> {
    /// The numbers that codes of block `block` stand for, twice.
    ///
    /// # Safety
    /// AVX-512 with BF16; the row has the block.
    #[inline(always)]
    unsafe fn table(self, block: usize) -> __m512i {
        // SAFETY: the instructions are there; sixteen levels can be read.
        unsafe {
            let scale = _mm512_set1_ps(*self.scales.get_unchecked(block));
            let numbers = _mm512_mul_ps(_mm512_loadu_ps(NF4_LEVELS.as_ptr()), scale);
            let numbers: __m256i = std::mem::transmute(_mm512_cvtneps_pbh(numbers));
            _mm512_broadcast_i64x4(numbers)
        }
    }

    /// The numbers of 32 codes from number `p` on.
    ///
    /// # Safety
    /// AVX-512 with BF16; sixteen bytes of codes can be read.
    #[inline(always)]
    unsafe fn numbers(self, p: usize, table: __m512i) -> __m512i {
        // SAFETY: the caller's promise.
        unsafe {
            let bytes = _mm512_broadcast_i32x4(_mm_loadu_si128(self.codes.as_ptr().add(p / 2).cast()));
            let words = _mm512_shuffle_epi8(bytes, _mm512_loadu_si512(SPREAD.as_ptr().cast()));
            let indices = _mm512_srlv_epi16(words, _mm512_loadu_si512(SHIFTS.as_ptr().cast()));
            // Of an index five bits count, and the table is there twice.
            _mm512_permutexvar_epi16(indices, table)
        }
    }
}

impl WeightRow for Nf4<'_> {
    #[inline(always)]
    fn len(self) -> usize {
        self.codes.len() * 2
    }

    // SAFETY: as the trait asks for.
    #[inline(always)]
    unsafe fn pair(self, p: usize) -> [__m512i; 2] {
        // SAFETY: the caller's promise: the 64 numbers are one block.
        unsafe {
            ahead(self.codes.as_ptr().add(p / 2));
            let table = self.table(p / NF4_BLOCK);
            [self.numbers(p, table), self.numbers(p + 32, table)]
        }
    }

    // SAFETY: as the trait asks for.
    #[inline(always)]
    unsafe fn rest(self, p: usize) -> __m512i {
        // SAFETY: the caller's promise: a row of whole blocks has 32 numbers from here on.
        unsafe { self.numbers(p, self.table(p / NF4_BLOCK)) }
    }
}

impl Int8<'_> {
    /// The numbers of the codes that the mask selects.
    ///
    /// # Safety
    /// AVX-512 with BF16; the selected codes can be read.
    #[inline(always)]
    unsafe fn numbers(self, p: usize, mask: u32) -> __m512i {
        // SAFETY: the caller's promise.
        unsafe {
            let half = |shift: usize| {
                let mask = (mask >> shift) as u16;
                let codes = _mm_maskz_loadu_epi8(mask, self.codes.as_ptr().add(p + shift));
                let numbers = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(codes));
                let scaled = _mm512_mul_ps(numbers, _mm512_set1_ps(self.absmax));
                _mm512_mul_ps(scaled, _mm512_set1_ps(crate::quantized::INT8_UNIT))
            };
            std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(half(16), half(0)))
        }
    }
}

impl WeightRow for Int8<'_> {
    #[inline(always)]
    fn len(self) -> usize {
        self.codes.len()
    }

    // SAFETY: as the trait asks for.
    #[inline(always)]
    unsafe fn pair(self, p: usize) -> [__m512i; 2] {
        // SAFETY: the caller's promise.
        unsafe {
            ahead(self.codes.as_ptr().add(p).cast());
            [self.numbers(p, u32::MAX), self.numbers(p + 32, u32::MAX)]
        }
    }

    // SAFETY: as the trait asks for.
    #[inline(always)]
    unsafe fn rest(self, p: usize) -> __m512i {
        // SAFETY: the mask covers the codes before the end.
        unsafe { self.numbers(p, u32::MAX >> 32usize.saturating_sub(self.codes.len() - p)) }
    }
}
