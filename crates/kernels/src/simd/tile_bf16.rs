//! AVX-512: products of bf16 tiles that lie in a cache as pairs, for attention, and how f32 sums become pairs. Twelve
//! rows by thirty-two columns of sums stay in registers; a pair is two neighbouring numbers of `k`, the first one low.

use super::Avx512;
use super::arch::*;
use super::matrix::Matrix;

/// Rows of a product.
pub(crate) const ROWS: usize = 12;
/// Columns of a panel of the right factor.
pub(crate) const COLS: usize = 32;

/// A left factor of [`ROWS`] rows of pairs, in either order.
#[derive(Clone, Copy)]
pub(crate) enum Left<'a> {
    /// Pair `p` of row `i` is at (`i`, `p`).
    Rows(Matrix<'a, u32>),
    /// Pair `p` of row `i` is at (`p`, `i`): used transposed.
    Columns(Matrix<'a, u32>),
}

/// Right factor: panels of [`COLS`] columns one behind the other, `[panel][depth][COLS]`.
#[derive(Clone, Copy)]
pub(crate) struct Panels<'a> {
    pub(crate) data: &'a [u32],
    /// Pairs that a panel has room for.
    pub(crate) depth: usize,
}

impl Panels<'_> {
    /// The same without the first `pairs` pairs of each panel.
    #[inline]
    pub(crate) fn from(self, pairs: usize) -> Self {
        Self { data: &self.data[pairs * COLS..], ..self }
    }

    /// Panics unless `pairs` pairs of `n` columns are there; `n` is a multiple of 16.
    #[inline]
    pub(super) fn expect(&self, pairs: usize, n: usize) {
        let panels = n.div_ceil(COLS);
        assert!(n.is_multiple_of(16) && pairs <= self.depth, "{pairs} pairs of {}, {n} columns", self.depth);
        let rows = self.depth.checked_mul(panels.saturating_sub(1)).and_then(|rows| rows.checked_add(pairs));
        let needed = rows.and_then(|rows| rows.checked_mul(COLS));
        assert!(
            needed.is_some_and(|n| n <= self.data.len()),
            "{panels} panels in {} elements",
            self.data.len()
        );
    }
}

/// `C[12, n] = A[12, 2·pairs] · B[2·pairs, n]`, or `+=` if `ADD`. `n` is a multiple of 16.
#[inline]
pub(crate) fn product<const ADD: bool>(
    _: Avx512,
    a: Left<'_>,
    pairs: usize,
    b: Panels<'_>,
    n: usize,
    c: &mut [f32],
    c_stride: usize,
) {
    let (data, row, step) = match a {
        Left::Rows(a) => {
            a.expect("left tile", ROWS, pairs);
            (a.data, a.stride, 1)
        }
        Left::Columns(a) => {
            a.expect("left tile", pairs, ROWS);
            (a.data, 1, a.stride)
        }
    };
    Matrix::new(&*c, c_stride).expect("result", ROWS, n);
    b.expect(pairs, n);
    for panel in 0..n.div_ceil(COLS) {
        // SAFETY: the witness proves the instructions; the extents of all three tiles were just checked: a panel of
        // more than 16 remaining columns writes 32, any other 16.
        unsafe {
            let from = b.data.as_ptr().add(panel * b.depth * COLS);
            let to = c.as_mut_ptr().add(panel * COLS);
            if n - panel * COLS > 16 {
                block::<2, ADD>(data.as_ptr(), [row, step], pairs, from, to, c_stride);
            } else {
                block::<1, ADD>(data.as_ptr(), [row, step], pairs, from, to, c_stride);
            }
        }
    }
}

/// # Safety
/// AVX-512 with BF16; pair `p < pairs` of row `i < 12` of A is at `i·row + p·step`; `b` points to `pairs` rows of 32
/// elements, `c` to 12 rows of `16·V` numbers, `c_stride` apart.
#[cfg_attr(not(feature = "emulate-avx512"), target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16"))]
unsafe fn block<const V: usize, const ADD: bool>(
    a: *const u32,
    [row, step]: [usize; 2],
    pairs: usize,
    b: *const u32,
    c: *mut f32,
    c_stride: usize,
) {
    let mut acc = [[_mm512_setzero_ps(); V]; ROWS];
    let (mut at, mut from) = (a, b);
    for _ in 0..pairs {
        // SAFETY: a pair of every row of A, and 32 elements of B, by the caller's promise.
        unsafe {
            let b: [__m512i; V] = std::array::from_fn(|v| _mm512_loadu_si512(from.add(16 * v).cast()));
            for (i, sums) in acc.iter_mut().enumerate() {
                let pair = bh(_mm512_set1_epi32(*at.add(i * row) as i32));
                for (sum, &b) in sums.iter_mut().zip(&b) {
                    *sum = _mm512_dpbf16_ps(*sum, pair, bh(b));
                }
            }
        }
        // The pointers may come to rest behind the tiles.
        (at, from) = (at.wrapping_add(step), from.wrapping_add(COLS));
    }
    // A copy: a reference to the accumulators themselves would keep them in memory during the loop.
    let done = acc;
    for (i, sums) in done.into_iter().enumerate() {
        for (v, sum) in sums.into_iter().enumerate() {
            // SAFETY: 16 numbers of row `i < 12` of the result.
            unsafe {
                let to = c.add(i * c_stride + 16 * v);
                let sum = if ADD { _mm512_add_ps(sum, _mm512_loadu_ps(to)) } else { sum };
                _mm512_mask_storeu_ps(to, u16::MAX, sum);
            }
        }
    }
}

/// The same bits, seen as 32 bf16 numbers.
#[inline(always)]
fn bh(x: __m512i) -> __m512bh {
    // SAFETY: both are 64 bytes in which every bit pattern is valid.
    unsafe { std::mem::transmute(x) }
}

/// `to[p]` = the pair (`from[2p]`, `from[2p+1]`), rounded to nearest even; `from` is a whole number of 16.
#[inline]
pub(crate) fn pairs_of_row(_: Avx512, from: &[f32], to: &mut [u32]) {
    assert!(from.len().is_multiple_of(16) && to.len() >= from.len() / 2, "{} numbers", from.len());
    // SAFETY: the witness proves the instructions, the assertion the sizes.
    unsafe { narrow(from, to.as_mut_ptr()) }
}

/// # Safety
/// AVX-512 with BF16; `to` has room for `from.len() / 2` elements.
#[cfg_attr(not(feature = "emulate-avx512"), target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16"))]
unsafe fn narrow(from: &[f32], to: *mut u32) {
    for (i, from) in from.chunks_exact(16).enumerate() {
        // SAFETY: sixteen numbers, eight elements; `__m256bh` and `__m256i` are 32 plain bytes.
        unsafe {
            let rounded: __m256i = std::mem::transmute(_mm512_cvtneps_pbh(_mm512_loadu_ps(from.as_ptr())));
            _mm256_mask_storeu_epi16(to.add(8 * i).cast(), u16::MAX, rounded);
        }
    }
}

/// `to[j]` = the pair (`even[j]`, `odd[j]`), rounded to nearest even; rows are a whole number of 16.
#[inline]
pub(crate) fn pairs_of_columns(_: Avx512, even: &[f32], odd: &[f32], to: &mut [u32]) {
    assert!(even.len().is_multiple_of(16) && odd.len() == even.len() && to.len() >= even.len());
    // SAFETY: the witness proves the instructions, the assertion the sizes.
    unsafe { interleave(even, odd, to.as_mut_ptr()) }
}

/// # Safety
/// AVX-512 with BF16; `odd` is as long as `even`, and `to` has as many elements.
#[cfg_attr(not(feature = "emulate-avx512"), target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16"))]
unsafe fn interleave(even: &[f32], odd: &[f32], to: *mut u32) {
    for at in (0..even.len()).step_by(16) {
        // SAFETY: sixteen numbers of both rows, sixteen elements; `__m256bh` and `__m256i` are 32 plain bytes.
        unsafe {
            let half = |row: &[f32]| {
                let rounded = _mm512_cvtneps_pbh(_mm512_loadu_ps(row.as_ptr().add(at)));
                _mm512_cvtepu16_epi32(std::mem::transmute::<__m256bh, __m256i>(rounded))
            };
            let pairs = _mm512_or_si512(half(even), _mm512_slli_epi32::<16>(half(odd)));
            _mm512_storeu_si512(to.add(at).cast(), pairs);
        }
    }
}
