//! AVX-512: rows of attention's scores become probabilities, and their gradients, as bf16 pairs. Exponentials are
//! powers of two: what was to be multiplied by log₂ e is so in the factor of the scores.

use super::Avx512;
use super::arch::*;
use std::ops::Range;

/// Numbers of a register.
const LANES: usize = 16;

/// A row of a running softmax.
pub(crate) struct Row<'a> {
    /// About the greatest score so far, times log₂ e.
    pub(crate) max: &'a mut f32,
    /// Sum of exponentials relative to it.
    pub(crate) sum: &'a mut f32,
    /// Weighted sum of values relative to it: whole registers.
    pub(crate) out: &'a mut [f32],
}

/// A greater score becomes the row's maximum when it is more than `2^SLACK` times the old one: weights up to that are
/// as exact, the sums are scaled down seldom, and most rows need not wait for their greatest score (after Zadouri et
/// al. 2026, "FlashAttention-4").
const SLACK: f32 = 8.0;

/// Weights `2^(factor · score - max)` of the columns `seen`, as pairs, zero elsewhere; what was summed under a much
/// smaller maximum is scaled down. `scores` are whole registers.
#[inline]
pub(crate) fn softmax_row(
    _: Avx512,
    factor: f32,
    seen: Range<usize>,
    scores: &[f32],
    row: Row<'_>,
    weights: &mut [u32],
) {
    check(&seen, scores.len(), weights.len());
    assert!(row.out.len().is_multiple_of(LANES), "a row of {} sums", row.out.len());
    // SAFETY: the witness proves the instructions, the assertions the sizes.
    unsafe {
        let weights = weights.as_mut_ptr();
        // Most rows see all columns.
        if seen == (0..scores.len()) {
            softmax::<false>(factor, seen, scores.as_ptr(), scores.len(), row, weights);
        } else {
            softmax::<true>(factor, seen, scores.as_ptr(), scores.len(), row, weights);
        }
    }
}

/// Panics unless rows of `n` numbers and `pairs` pairs are whole registers and hold the columns `seen`.
#[inline(always)]
fn check(seen: &Range<usize>, n: usize, pairs: usize) {
    assert!(n.is_multiple_of(LANES) && pairs >= n / 2, "{n} columns, {pairs} pairs");
    assert!(seen.end <= n, "columns {seen:?} of {n}");
}

/// Which of the registers hold any of the columns `seen`.
#[inline(always)]
fn registers(seen: &Range<usize>) -> Range<usize> {
    if seen.is_empty() { 0..0 } else { seen.start / LANES..seen.end.div_ceil(LANES) }
}

/// The lanes of register `j` that hold columns `seen`.
#[inline(always)]
fn lanes(seen: &Range<usize>, j: usize) -> __mmask16 {
    let below = |end: usize| (1u32 << end.saturating_sub(LANES * j).min(LANES)) - 1;
    (below(seen.end) & !below(seen.start)) as __mmask16
}

/// # Safety
/// AVX-512 with BF16; `scores` points to `n` numbers and `weights` to `n / 2` elements, whole registers, of which
/// `seen` is a part; `row.out` is whole registers. Without `MASK`, all are seen.
#[inline]
#[cfg_attr(not(feature = "emulate-avx512"), target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16"))]
unsafe fn softmax<const MASK: bool>(
    factor: f32,
    seen: Range<usize>,
    scores: *const f32,
    n: usize,
    row: Row<'_>,
    weights: *mut u32,
) {
    let factor = _mm512_set1_ps(factor);
    let registers = registers(&seen);
    let mask = |j| if MASK { lanes(&seen, j) } else { u16::MAX };
    let old = _mm512_set1_ps(*row.max);
    let mut greatest = old;
    for j in registers.clone() {
        // SAFETY: register `j` of the row.
        let score = _mm512_mul_ps(unsafe { _mm512_loadu_ps(scores.add(LANES * j)) }, factor);
        greatest = match MASK {
            true => _mm512_mask_max_ps(greatest, mask(j), greatest, score),
            false => _mm512_max_ps(greatest, score),
        };
    }
    let max = _mm512_reduce_max_ps(greatest);
    if max > *row.max + SLACK {
        let shrink = power(_mm512_sub_ps(old, _mm512_set1_ps(max)));
        for out in row.out.as_chunks_mut::<LANES>().0 {
            // SAFETY: sixteen numbers.
            unsafe {
                let sums = _mm512_mul_ps(_mm512_loadu_ps(out.as_ptr()), shrink);
                _mm512_mask_storeu_ps(out.as_mut_ptr(), u16::MAX, sums);
            }
        }
        *row.max = max;
        *row.sum *= _mm512_cvtss_f32(shrink);
    }
    let base = _mm512_set1_ps(*row.max);
    let mut sums = _mm512_setzero_ps();
    for j in 0..n / LANES {
        // SAFETY: register `j` of the row, and eight elements.
        unsafe {
            let mut weight = _mm512_setzero_ps();
            if !MASK || registers.contains(&j) {
                weight = power(_mm512_fmsub_ps(_mm512_loadu_ps(scores.add(LANES * j)), factor, base));
                if MASK {
                    weight = _mm512_maskz_mov_ps(mask(j), weight);
                }
                sums = _mm512_add_ps(sums, weight);
            }
            store_pairs(weights.add(LANES / 2 * j), weight);
        }
    }
    *row.sum += _mm512_reduce_add_ps(sums);
}

/// What a row of scores is compared with in the backward pass.
#[derive(Clone, Copy)]
pub(crate) struct Saved {
    /// Logarithm of the sum of exponentials, times log₂ e.
    pub(crate) lse: f32,
    /// `δ`: what is subtracted from the gradients of the probabilities.
    pub(crate) delta: f32,
}

/// `p`: scores become probabilities `2^(factor · score - lse)`; `ds`: their gradients become those of the scores, also
/// as `pairs`. Zero outside of the columns `seen`. Rows are whole registers.
#[inline]
pub(crate) fn score_row(
    _: Avx512,
    factor: f32,
    seen: Range<usize>,
    saved: Saved,
    p: &mut [f32],
    ds: &mut [f32],
    pairs: &mut [u32],
) {
    check(&seen, p.len(), pairs.len());
    assert!(ds.len() == p.len(), "{} and {} columns", p.len(), ds.len());
    // SAFETY: the witness proves the instructions, the assertions the sizes.
    unsafe {
        let (n, pairs) = (p.len(), pairs.as_mut_ptr());
        if seen == (0..n) {
            gradients::<false>(factor, seen, saved, p.as_mut_ptr(), ds.as_mut_ptr(), n, pairs);
        } else {
            gradients::<true>(factor, seen, saved, p.as_mut_ptr(), ds.as_mut_ptr(), n, pairs);
        }
    }
}

/// # Safety
/// AVX-512 with BF16; `p` and `ds` point to `n` numbers each and `pairs` to `n / 2` elements, whole registers, of which
/// `seen` is a part. Without `MASK`, all are seen.
#[inline]
#[cfg_attr(not(feature = "emulate-avx512"), target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16"))]
unsafe fn gradients<const MASK: bool>(
    factor: f32,
    seen: Range<usize>,
    saved: Saved,
    p: *mut f32,
    ds: *mut f32,
    n: usize,
    pairs: *mut u32,
) {
    let registers = registers(&seen);
    let [factor, lse, delta] = [factor, saved.lse, saved.delta].map(|x| _mm512_set1_ps(x));
    for j in 0..n / LANES {
        // SAFETY: register `j` of both rows, and eight elements.
        unsafe {
            let (p, ds) = (p.add(LANES * j), ds.add(LANES * j));
            let (mut probability, mut gradient) = (_mm512_setzero_ps(), _mm512_setzero_ps());
            if !MASK || registers.contains(&j) {
                probability = power(_mm512_fmsub_ps(_mm512_loadu_ps(p), factor, lse));
                gradient = _mm512_mul_ps(probability, _mm512_sub_ps(_mm512_loadu_ps(ds), delta));
                if MASK {
                    let mask = lanes(&seen, j);
                    probability = _mm512_maskz_mov_ps(mask, probability);
                    gradient = _mm512_maskz_mov_ps(mask, gradient);
                }
            }
            _mm512_mask_storeu_ps(p, u16::MAX, probability);
            _mm512_mask_storeu_ps(ds, u16::MAX, gradient);
            store_pairs(pairs.add(LANES / 2 * j), gradient);
        }
    }
}

/// # Safety
/// AVX-512 with BF16; `to` points to eight elements.
#[inline]
#[cfg_attr(not(feature = "emulate-avx512"), target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16"))]
unsafe fn store_pairs(to: *mut u32, x: __m512) {
    // SAFETY: `__m256bh` and `__m256i` are 32 plain bytes, and there is room for them.
    unsafe {
        let rounded: __m256i = std::mem::transmute(_mm512_cvtneps_pbh(x));
        _mm256_mask_storeu_epi16(to.cast(), u16::MAX, rounded);
    }
}

/// `2ˣ` within 2 ulp for `-120 ≤ x ≤ 127`, zero below: what nobody sees beside a 1 must not make denormal numbers,
/// which are slow. NaN stays NaN. `x = n + r` with `|r| ≤ 1/2`, `2ʳ = 1 + r·p(r)`; the coefficients are fitted as those
/// of [`math`](crate::math).
#[inline]
#[cfg_attr(not(feature = "emulate-avx512"), target_feature(enable = "avx512f"))]
fn power(x: __m512) -> __m512 {
    const COEFFICIENTS: [f32; 5] = [0.009_671_513, 0.055_507_336, 0.240_222_42, 0.693_147_004, 1.0];
    let is_seen = _mm512_cmp_ps_mask::<_CMP_NLT_UQ>(x, _mm512_set1_ps(-120.0));
    let n = _mm512_roundscale_ps::<0>(x);
    let r = _mm512_sub_ps(x, n);
    let mut p = _mm512_set1_ps(0.001_326_472_7);
    for c in COEFFICIENTS {
        p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(c));
    }
    _mm512_maskz_scalef_ps(is_seen, p, n)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Isa;

    fn witness() -> Option<Avx512> {
        Isa::available().into_iter().find_map(Isa::avx512)
    }

    const BORDERS: [(usize, usize); 7] = [(0, 48), (0, 1), (5, 5), (15, 17), (16, 32), (47, 48), (3, 40)];

    fn scores() -> Vec<f32> {
        (0..48).map(|i| ((i * 37 % 48) as f32 - 24.0) / 3.0).collect()
    }

    /// Exact powers of half of the scores that a row sees.
    fn powers(scores: &[f32], seen: Range<usize>) -> Vec<f64> {
        let power = |j| if seen.contains(&j) { f64::from(scores[j] * 0.5).exp2() } else { 0.0 };
        (0..48).map(power).collect()
    }

    /// Rows with every border against exact ones, where the maximum stays and where it grows; bf16 has eight digits,
    /// f32 twenty-four.
    #[test]
    fn weights_see_what_they_shall() {
        let Some(isa) = witness() else { return };
        let scores = scores();
        for ((start, end), old) in BORDERS.into_iter().flat_map(|border| [(border, -1.0), (border, -30.0)]) {
            let exact = powers(&scores, start..end);
            let (mut max, mut sum, mut out) = (old, 3.0, [2.0; 16]);
            let mut pairs = [u32::MAX; 24];
            let row = Row { max: &mut max, sum: &mut sum, out: &mut out };
            softmax_row(isa, 0.5, start..end, &scores, row, &mut pairs);
            let greatest = (start..end).map(|j| scores[j] * 0.5).fold(old, f32::max);
            assert_eq!(max, if greatest > old + SLACK { greatest } else { old });
            let (shrink, base) = (f64::from(old - max).exp2(), f64::from(-max).exp2());
            let expected = 3.0 * shrink + exact.iter().sum::<f64>() * base;
            assert!((f64::from(sum) - expected).abs() <= 1e-6 * expected, "{sum}, not {expected}");
            assert!((f64::from(out[7]) - 2.0 * shrink).abs() <= 1e-6, "{}", out[7]);
            expect(&pairs, exact.iter().map(|x| x * base));
        }
    }

    #[test]
    fn gradients_see_what_they_shall() {
        let Some(isa) = witness() else { return };
        for (start, end) in BORDERS {
            let (mut p, mut ds, mut pairs) = (scores(), vec![3.0; 48], [u32::MAX; 24]);
            let exact = powers(&p, start..end);
            let saved = Saved { lse: 2.5, delta: 1.0 };
            score_row(isa, 0.5, start..end, saved, &mut p, &mut ds, &mut pairs);
            for (j, (p, exact)) in p.iter().zip(&exact).enumerate() {
                let exact = exact * (-2.5f64).exp2();
                assert!((f64::from(*p) - exact).abs() <= 2e-6 * exact, "column {j}: {p}, not {exact}");
                assert_eq!(ds[j], 2.0 * p);
            }
            expect(&pairs, ds.iter().map(|x| f64::from(*x)));
        }
    }

    fn expect(pairs: &[u32], exact: impl Iterator<Item = f64>) {
        let halves = pairs.iter().flat_map(|pair| [pair << 16, pair & 0xffff_0000]);
        for (j, (got, exact)) in halves.map(f32::from_bits).zip(exact).enumerate() {
            assert!((f64::from(got) - exact).abs() <= exact / 256.0, "column {j}: {got}, not {exact}");
        }
    }

    /// Rounding of the polynomial, and of the last product: 2 units of 2⁻²⁴ each way.
    #[test]
    fn powers_of_two_are_within_two_ulp() {
        let Some(isa) = witness() else { return };
        for first in (-120..8).map(|i| i as f32) {
            let scores: Vec<f32> = (0..4096).map(|i| first + i as f32 / 4096.0).collect();
            let (mut p, mut ds, mut pairs) = (scores.clone(), vec![0.0; 4096], vec![0; 2048]);
            score_row(isa, 1.0, 0..4096, Saved { lse: 0.0, delta: 0.0 }, &mut p, &mut ds, &mut pairs);
            for (x, p) in scores.iter().zip(&p) {
                let exact = f64::from(*x).exp2();
                let unit = exact.max(f64::from(f32::MIN_POSITIVE)) / f64::from(1 << 23);
                assert!((f64::from(*p) - exact).abs() <= 2.0 * unit, "2^{x}: {p}, not {exact}");
            }
        }
    }

    #[test]
    fn powers_at_the_ends() {
        let Some(isa) = witness() else { return };
        let mut p = [0.0; 16];
        p[..5].copy_from_slice(&[f32::NEG_INFINITY, -1e30, f32::NAN, 0.0, 127.0]);
        let (mut ds, mut pairs) = ([0.0; 16], [0; 8]);
        score_row(isa, 1.0, 0..16, Saved { lse: 0.0, delta: 0.0 }, &mut p, &mut ds, &mut pairs);
        let p = &p[..5];
        assert!(p[..2] == [0.0, 0.0] && p[2].is_nan() && p[3..] == [1.0, 2f32.powi(127)], "{p:?}");
    }
}
