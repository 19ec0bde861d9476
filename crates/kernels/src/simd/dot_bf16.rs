//! AVX-512 dot products of a few bf16 rows with one row of weights, straight from memory: for decoding.

use super::Avx512;
use super::arch::*;
use super::matrix::Matrix;
use half::bf16;

/// Most rows of `x` at a time.
pub(crate) const ROWS: usize = 8;
/// How many elements ahead the weights are asked for: the time of a memory access at the speed of a few elements a
/// cycle. Rows of weights follow each other, so that the next row arrives while this one is multiplied.
const AHEAD: usize = 2048;

/// `sums[i] = Σ_p x[i][p] · w[p]` for the first `rows ≤ ROWS` rows of `x`.
#[inline]
pub(crate) fn dots(_: Avx512, x: Matrix<'_, bf16>, rows: usize, w: &[bf16]) -> [f32; ROWS] {
    x.expect("A", rows, w.len());
    let mut sums = [0.0; ROWS];
    // SAFETY: the witness proves the instructions, the assertion that `x` holds the rows.
    unsafe {
        match rows {
            1 => block::<1, 4>(x, w, &mut sums),
            2 => block::<2, 4>(x, w, &mut sums),
            3 => block::<3, 2>(x, w, &mut sums),
            4 => block::<4, 2>(x, w, &mut sums),
            5 => block::<5, 2>(x, w, &mut sums),
            6 => block::<6, 2>(x, w, &mut sums),
            7 => block::<7, 2>(x, w, &mut sums),
            8 => block::<8, 2>(x, w, &mut sums),
            _ => panic!("{rows} rows of dot products"),
        }
    }
    sums
}

/// The sums of `M` rows, each in `U` registers that take turns (one alone would wait for its own addition).
///
/// # Safety
/// AVX-512 with BF16; `x` has `M ≤ ROWS` rows as long as `w`.
#[cfg_attr(not(feature = "emulate-avx512"), target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16"))]
unsafe fn block<const M: usize, const U: usize>(x: Matrix<'_, bf16>, w: &[bf16], sums: &mut [f32; ROWS]) {
    let (first, at) = (x.data.as_ptr().cast::<i16>(), w.as_ptr().cast::<i16>());
    let mut acc = [[_mm512_setzero_ps(); U]; M];
    let whole = w.len() / (32 * U) * (32 * U);
    for p in (0..whole).step_by(32 * U) {
        for u in 0..U {
            let p = p + 32 * u;
            // SAFETY: 32 elements from `p` on are inside `w` and inside `M` rows of `x`; a prefetch may point anywhere.
            unsafe {
                _mm_prefetch::<_MM_HINT_T0>(at.wrapping_add(p + AHEAD).cast());
                let w = bh(_mm512_loadu_si512(at.add(p).cast()));
                for (i, acc) in acc.iter_mut().enumerate() {
                    let x = bh(_mm512_loadu_si512(first.add(i * x.stride + p).cast()));
                    acc[u] = _mm512_dpbf16_ps(acc[u], x, w);
                }
            }
        }
    }
    for p in (whole..w.len()).step_by(32) {
        let mask = u32::MAX >> 32usize.saturating_sub(w.len() - p);
        // SAFETY: the mask covers the elements before the end of `w` and of `M` rows of `x`.
        unsafe {
            let w = bh(_mm512_maskz_loadu_epi16(mask, at.add(p)));
            for (i, acc) in acc.iter_mut().enumerate() {
                let x = bh(_mm512_maskz_loadu_epi16(mask, first.add(i * x.stride + p)));
                acc[0] = _mm512_dpbf16_ps(acc[0], x, w);
            }
        }
    }
    for (sum, acc) in sums.iter_mut().zip(acc) {
        let total = acc.into_iter().fold(_mm512_setzero_ps(), |total, acc| _mm512_add_ps(total, acc));
        *sum = _mm512_reduce_add_ps(total);
    }
}

/// The same bits, seen as 32 bf16 numbers.
#[inline(always)]
fn bh(x: __m512i) -> __m512bh {
    // SAFETY: both are 64 bytes in which every bit pattern is valid.
    unsafe { std::mem::transmute(x) }
}
