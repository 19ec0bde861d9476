//! AVX-512 dot products of a few bf16 rows with one row of weights, straight from memory: for decoding.

use super::Avx512;
use super::arch::*;
use super::matrix::Matrix;
use super::weight_row::{Dense, Int8, Nf4, WeightRow};
use half::bf16;

/// Most rows of `x` at a time.
pub(crate) const ROWS: usize = 8;
/// `sums[i] = Σ_p x[i][p] · w[p]` for the first `rows ≤ ROWS` rows of `x`.
#[inline]
pub(crate) fn dots(_: Avx512, x: Matrix<'_, bf16>, rows: usize, w: &[bf16]) -> [f32; ROWS] {
    sums(x, rows, Dense(w))
}

/// The same with weights of four bits: `codes` of whole blocks, a scale for each.
#[inline]
pub(crate) fn dots_nf4(
    _: Avx512,
    x: Matrix<'_, bf16>,
    rows: usize,
    codes: &[u8],
    scales: &[f32],
) -> [f32; ROWS] {
    sums(x, rows, Nf4::new(codes, scales))
}

/// The same with weights of eight bits.
#[inline]
pub(crate) fn dots_int8(
    _: Avx512,
    x: Matrix<'_, bf16>,
    rows: usize,
    codes: &[i8],
    absmax: f32,
) -> [f32; ROWS] {
    sums(x, rows, Int8 { codes, absmax })
}

/// Only for whoever has a witness.
#[inline]
fn sums<W: WeightRow>(x: Matrix<'_, bf16>, rows: usize, w: W) -> [f32; ROWS] {
    x.expect("A", rows, w.len());
    let mut sums = [0.0; ROWS];
    // SAFETY: the callers' witness proves the instructions, the assertion that `x` holds the rows.
    unsafe {
        match rows {
            1 => block::<1, 4, W>(x, w, &mut sums),
            2 => block::<2, 4, W>(x, w, &mut sums),
            3 => block::<3, 2, W>(x, w, &mut sums),
            4 => block::<4, 2, W>(x, w, &mut sums),
            5 => block::<5, 2, W>(x, w, &mut sums),
            6 => block::<6, 2, W>(x, w, &mut sums),
            7 => block::<7, 2, W>(x, w, &mut sums),
            8 => block::<8, 2, W>(x, w, &mut sums),
            _ => panic!("{rows} rows of dot products"),
        }
    }
    sums
}

/// The sums of `M` rows, each in `U` registers that take turns (one alone would wait for its own addition).
///
/// # Safety
/// AVX-512 with BF16; `x` has `M ≤ ROWS` rows as long as `w`; `U` is even.
#[cfg_attr(not(feature = "emulate-avx512"), target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16"))]
unsafe fn block<const M: usize, const U: usize, W: WeightRow>(
    x: Matrix<'_, bf16>,
    w: W,
    sums: &mut [f32; ROWS],
) {
    let first = x.data.as_ptr().cast::<i16>();
    let mut acc = [[_mm512_setzero_ps(); U]; M];
    let whole = w.len() / (32 * U) * (32 * U);
    for p in (0..whole).step_by(32 * U) {
        for u in (0..U).step_by(2) {
            let p = p + 32 * u;
            // SAFETY: 64 elements from `p` on are inside `w` and inside `M` rows of `x`.
            unsafe {
                let [low, high] = w.pair(p);
                let w = [bh(low), bh(high)];
                for (i, acc) in acc.iter_mut().enumerate() {
                    let at = first.add(i * x.stride + p);
                    acc[u] = _mm512_dpbf16_ps(acc[u], bh(_mm512_loadu_si512(at.cast())), w[0]);
                    acc[u + 1] =
                        _mm512_dpbf16_ps(acc[u + 1], bh(_mm512_loadu_si512(at.add(32).cast())), w[1]);
                }
            }
        }
    }
    for p in (whole..w.len()).step_by(32) {
        let mask = u32::MAX >> 32usize.saturating_sub(w.len() - p);
        // SAFETY: the mask covers the elements before the end of `M` rows of `x`.
        unsafe {
            let w = bh(w.rest(p));
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
