//! AVX-512: codes of four or eight bits to bf16 numbers in memory, 32 at a time, for products. The numbers are those of
//! [`run`](crate::quantized::View::run) but for denormal ones, which are zero here, as they are in the products.

use super::Avx512;
use super::arch::*;
use super::weight_row::{Int8, Nf4, WeightRow};
use half::bf16;

/// The numbers of `codes` in whole blocks with a scale each.
#[inline]
pub(crate) fn nf4(_: Avx512, codes: &[u8], scales: &[f32], out: &mut [bf16]) {
    // SAFETY: the witness proves the instructions.
    unsafe { write(Nf4::new(codes, scales), out) }
}

/// The numbers of `codes` with one scale.
#[inline]
pub(crate) fn int8(_: Avx512, codes: &[i8], absmax: f32, out: &mut [bf16]) {
    // SAFETY: the witness proves the instructions.
    unsafe { write(Int8 { codes, absmax }, out) }
}

/// # Safety
/// AVX-512 with BF16.
#[cfg_attr(not(feature = "emulate-avx512"), target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16"))]
unsafe fn write<W: WeightRow>(w: W, out: &mut [bf16]) {
    assert!(w.len() == out.len(), "{} weights for {} numbers", w.len(), out.len());
    let (whole, rest) = out.as_chunks_mut::<64>();
    let len = 64 * whole.len();
    for (i, out) in whole.iter_mut().enumerate() {
        // SAFETY: 64 weights from `64·i` on are there, and room for as many numbers.
        unsafe {
            let [low, high] = w.pair(64 * i);
            _mm512_storeu_si512(out.as_mut_ptr().cast(), low);
            _mm512_storeu_si512(out.as_mut_ptr().add(32).cast(), high);
        }
    }
    for (i, out) in rest.chunks_mut(32).enumerate() {
        let mut numbers = [bf16::ZERO; 32];
        // SAFETY: `len + 32·i` is inside the row; 32 numbers are 64 bytes.
        unsafe { _mm512_storeu_si512(numbers.as_mut_ptr().cast(), w.rest(len + 32 * i)) };
        out.copy_from_slice(&numbers[..out.len()]);
    }
}
