//! AVX-512 micro-kernel for bf16: a tile of up to 14 × 32 sums in 28 registers, `VDPBF16PS` on pairs of `k`.
//!
//! Each step reads one pair of every row of `A` (broadcast, straight from row-major memory) and 32 pairs of a packed
//! panel of `B`. 28 accumulators cover the instruction's latency, and 14 broadcasts + 2 loads for 28 multiply-adds
//! keep the load ports below the multiply-add ports.

use super::arch::*;
use super::matrix::{Epilogue, Matrix, Out};
use super::{Avx512, store};
use half::bf16;

/// Most rows of a tile.
pub(crate) const ROWS: usize = 14;
/// Columns of a tile and of a packed panel.
pub(crate) const COLS: usize = 32;

/// `out = alpha · A · panel` (or `+=`): `A` has `out.rows()` rows of `2·pairs` numbers, `panel` is
/// `[pairs][COLS]` with the numbers of `k = 2p` (low half) and `2p+1` (high half) of one column in an element.
pub(crate) fn tile(
    _: Avx512,
    a: Matrix<'_, bf16>,
    pairs: usize,
    panel: &[u32],
    mut out: Out<'_>,
    epilogue: Epilogue,
) {
    let (rows, cols) = (out.rows(), out.cols());
    assert!((1..=ROWS).contains(&rows) && (1..=COLS).contains(&cols), "a tile of {rows}×{cols}");
    a.expect("A", rows, 2 * pairs);
    assert!(panel.len() >= pairs * COLS, "a panel of {pairs} pairs has {} elements", panel.len());
    // SAFETY: the witness proves the instructions; `a` holds `rows` rows of `2·pairs` numbers and `panel` `pairs` rows
    // of COLS elements (asserted above), which is all that the kernel reads.
    unsafe {
        if cols > 16 {
            by_rows::<2>(a, pairs, panel.as_ptr(), &mut out, epilogue);
        } else {
            by_rows::<1>(a, pairs, panel.as_ptr(), &mut out, epilogue);
        }
    }
}

/// Picks the kernel for the number of rows.
///
/// # Safety
/// AVX-512 with BF16; `a` holds `out.rows()` rows (at most ROWS) of `2·pairs` numbers, `panel` `pairs × COLS` elements.
#[cfg_attr(not(feature = "emulate-avx512"), target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16"))]
unsafe fn by_rows<const V: usize>(
    a: Matrix<'_, bf16>,
    pairs: usize,
    panel: *const u32,
    out: &mut Out<'_>,
    epilogue: Epilogue,
) {
    macro_rules! pick { ($($rows:literal)*) => {
        match out.rows() {
            // SAFETY: the caller's promise, handed on.
            $($rows => unsafe { sums::<$rows, V>(a, pairs, panel, out, epilogue) },)*
            rows => unreachable!("a tile of {rows} rows"),
        }
    } }
    pick!(1 2 3 4 5 6 7 8 9 10 11 12 13 14)
}

/// The kernel for `R` rows and `V` vectors of 16 columns.
///
/// # Safety
/// As [`by_rows`], with `R` rows.
#[cfg_attr(not(feature = "emulate-avx512"), target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16"))]
unsafe fn sums<const R: usize, const V: usize>(
    a: Matrix<'_, bf16>,
    pairs: usize,
    panel: *const u32,
    out: &mut Out<'_>,
    epilogue: Epilogue,
) {
    let (first, stride) = (a.data.as_ptr(), a.stride);
    let mut acc = [[_mm512_setzero_ps(); V]; R];
    for p in 0..pairs {
        // SAFETY: `p < pairs`, `i < R`, `V ≤ 2`: inside the panel and inside row `i` of A by the caller's promise.
        unsafe {
            let b: [__m512i; V] =
                std::array::from_fn(|v| _mm512_loadu_si512(panel.add(p * COLS + 16 * v).cast()));
            for (i, row) in acc.iter_mut().enumerate() {
                let pair = first.add(i * stride + 2 * p).cast::<i32>().read_unaligned();
                let pair = bh(_mm512_set1_epi32(pair));
                for (sum, &b) in row.iter_mut().zip(&b) {
                    *sum = _mm512_dpbf16_ps(*sum, pair, bh(b));
                }
            }
        }
    }
    // A copy: a reference to the accumulators themselves would keep them in memory during the loop.
    let sums = acc;
    store::rows(out, &sums, epilogue);
}

/// The same bits, seen as 32 bf16 numbers.
#[inline(always)]
fn bh(x: __m512i) -> __m512bh {
    // SAFETY: both are 64 bytes in which every bit pattern is valid.
    unsafe { std::mem::transmute(x) }
}

/// `steps` rounds of 28 dot products in registers, for benchmarks: floating-point operations done, and a number that
/// depends on all of them.
pub(super) fn register_only(_: Avx512, steps: usize) -> (f64, f32) {
    // SAFETY: the witness proves the instructions.
    let sum = unsafe { rounds(steps) };
    ((28 * 64 * steps) as f64, sum)
}

/// # Safety
/// AVX-512 with BF16.
#[cfg_attr(not(feature = "emulate-avx512"), target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16"))]
unsafe fn rounds(steps: usize) -> f32 {
    let pair = bh(_mm512_set1_epi32(std::hint::black_box(0x3f80_3f80)));
    let mut acc = [_mm512_setzero_ps(); 28];
    for _ in 0..steps {
        for sum in &mut acc {
            *sum = _mm512_dpbf16_ps(*sum, pair, pair);
        }
    }
    _mm512_reduce_add_ps(acc.into_iter().fold(_mm512_setzero_ps(), |total, sum| _mm512_add_ps(total, sum)))
}
