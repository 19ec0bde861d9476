//! AMX: products of bf16 tiles that lie in a cache as pairs, for attention, as [`tile_bf16`](super::tile_bf16) has
//! them: 32 rows by 32 columns of sums in four tile registers, `TDPBF16PS` on [`STEP`] pairs at a time.
//!
//! Configuring tiles takes as long as a small product: a [`Session`] does it once for many. Between the pieces of
//! assembly lies no code that could touch them, as the compiler does not use tiles by itself.

#[cfg(not(feature = "emulate-avx512"))]
use super::amx::{Shapes, TILE_ROWS};
use super::arch::*;
use super::matrix::Matrix;
use super::pack::transpose_16x16;
use super::tile_bf16::{COLS, Panels};
use super::{Amx, Avx512};
use std::marker::PhantomData;

/// Rows of a block of sums.
pub(crate) const ROWS: usize = 32;
/// Pairs of a step.
pub(crate) const STEP: usize = 16;

/// Tiles of this thread that are configured as whole ones, until it is dropped. The thread must not use tiles in
/// another way meanwhile: that would release these, and the next product would be an illegal instruction.
pub(crate) struct Session {
    isa: Amx,
    /// Configured for this thread alone.
    thread: PhantomData<*const ()>,
}

impl Session {
    pub(crate) fn new(isa: Amx) -> Self {
        #[cfg(not(feature = "emulate-avx512"))]
        {
            static WHOLE: Shapes = Shapes::of([TILE_ROWS; 8]);
            // SAFETY: the witness proves the instruction; the tile registers are not the compiler's.
            unsafe {
                std::arch::asm!("ldtilecfg [{}]", in(reg) &raw const WHOLE, options(nostack, preserves_flags));
            }
        }
        Self { isa, thread: PhantomData }
    }

    /// What the machine has besides.
    pub(crate) fn avx512(&self) -> Avx512 {
        self.isa.avx512()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        #[cfg(not(feature = "emulate-avx512"))]
        // SAFETY: the witness proves the instruction; nobody needs what is in the tiles.
        unsafe {
            std::arch::asm!("tilerelease", options(nostack, preserves_flags));
        }
    }
}

/// `C[rows, n] = A[rows, 2·pairs] · B[2·pairs, n]`, or `+=` if `ADD`. `rows` is a multiple of [`ROWS`], `pairs` of
/// [`STEP`], `n` of 16.
#[inline]
pub(crate) fn product<const ADD: bool>(
    _: &Session,
    a: Matrix<'_, u32>,
    rows: usize,
    pairs: usize,
    b: Panels<'_>,
    n: usize,
    c: &mut [f32],
    c_stride: usize,
) {
    a.expect("left tile", rows, pairs);
    Matrix::new(&*c, c_stride).expect("result", rows, n);
    b.expect(pairs, n);
    assert!(rows.is_multiple_of(ROWS) && pairs.is_multiple_of(STEP), "{rows} rows of {pairs} pairs");
    let shape = Shape { a: a.stride, b: b.depth * COLS, steps: pairs / STEP, n, c: c_stride };
    // SAFETY: the session proves that tiles are configured; the extents of all three tiles were just checked.
    unsafe { blocks::<ADD>(a.data.as_ptr(), rows, b.data.as_ptr(), c.as_mut_ptr(), shape) }
}

/// Strides of the factors and of the result, and what is multiplied.
#[derive(Clone, Copy)]
struct Shape {
    /// Elements from row to row.
    a: usize,
    /// Elements from panel to panel.
    b: usize,
    steps: usize,
    n: usize,
    /// Numbers from row to row.
    c: usize,
}

/// # Safety
/// Tiles are configured as whole ones; `a` points to `rows` rows of `16·steps` elements, `b` to
/// `ceil(n/32)` panels of at least `16·steps` rows of 32 elements, `c` to `rows` rows of `n` numbers; `rows`
/// is a multiple of 32, `n` of 16.
#[cfg(not(feature = "emulate-avx512"))]
unsafe fn blocks<const ADD: bool>(a: *const u32, rows: usize, b: *const u32, c: *mut f32, shape: Shape) {
    // SAFETY: each block lies within what the caller promises: a panel of more than 16 remaining columns writes 32,
    // any other 16.
    unsafe {
        for row in (0..rows).step_by(ROWS) {
            for (panel, col) in (0..shape.n).step_by(COLS).enumerate() {
                let (a, b) = (a.add(row * shape.a), b.add(panel * shape.b));
                let c = c.add(row * shape.c + col);
                if shape.n - col > 16 {
                    block::<2, ADD>(a, b, c, shape);
                } else {
                    block::<1, ADD>(a, b, c, shape);
                }
            }
        }
    }
}

/// One block of 32 rows and `16·V` columns.
///
/// # Safety
/// Tiles are configured as whole ones; the pointers are those of a block within what [`blocks`] is promised.
#[cfg(not(feature = "emulate-avx512"))]
#[inline(always)]
unsafe fn block<const V: usize, const ADD: bool>(a: *const u32, b: *const u32, c: *mut f32, shape: Shape) {
    let (a_row, c_row) = (4 * shape.a, 4 * shape.c);
    let below = c.wrapping_add(TILE_ROWS * shape.c);
    // SAFETY: whole tiles of 16 rows of 64 bytes inside the block, by the caller's promise; the registers stay what the
    // piece before left in them.
    unsafe {
        if ADD {
            std::arch::asm!(
                "tileloadd tmm0, [{c} + {row}]",
                "tileloadd tmm2, [{below} + {row}]",
                c = in(reg) c, below = in(reg) below, row = in(reg) c_row,
                out("tmm0") _, out("tmm2") _, options(nostack, preserves_flags),
            );
        } else {
            std::arch::asm!("tilezero tmm0", "tilezero tmm2",
                out("tmm0") _, out("tmm2") _, options(nomem, nostack, preserves_flags));
        }
        if ADD && V == 2 {
            std::arch::asm!(
                "tileloadd tmm1, [{c} + {row} + 64]",
                "tileloadd tmm3, [{below} + {row} + 64]",
                c = in(reg) c, below = in(reg) below, row = in(reg) c_row,
                out("tmm1") _, out("tmm3") _, options(nostack, preserves_flags),
            );
        } else if V == 2 {
            std::arch::asm!("tilezero tmm1", "tilezero tmm3",
                out("tmm1") _, out("tmm3") _, options(nomem, nostack, preserves_flags));
        }
        let (mut above_at, mut below_at, mut b) = (a, a.wrapping_add(TILE_ROWS * shape.a), b);
        for _ in 0..shape.steps {
            std::arch::asm!(
                "tileloadd tmm6, [{b} + {b_row}]",
                "tileloadd tmm4, [{above} + {row}]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tileloadd tmm5, [{below} + {row}]",
                "tdpbf16ps tmm2, tmm5, tmm6",
                b = in(reg) b, b_row = in(reg) 4 * COLS,
                above = in(reg) above_at, below = in(reg) below_at, row = in(reg) a_row,
                out("tmm0") _, out("tmm2") _, out("tmm4") _, out("tmm5") _, out("tmm6") _,
                options(nostack, preserves_flags),
            );
            if V == 2 {
                std::arch::asm!(
                    "tileloadd tmm7, [{b} + {b_row} + 64]",
                    "tdpbf16ps tmm1, tmm4, tmm7",
                    "tdpbf16ps tmm3, tmm5, tmm7",
                    b = in(reg) b, b_row = in(reg) 4 * COLS,
                    out("tmm1") _, out("tmm3") _, out("tmm7") _,
                    options(nostack, preserves_flags),
                );
            }
            (above_at, below_at) = (above_at.wrapping_add(STEP), below_at.wrapping_add(STEP));
            b = b.wrapping_add(STEP * COLS);
        }
        std::arch::asm!(
            "tilestored [{c} + {row}], tmm0",
            "tilestored [{below} + {row}], tmm2",
            c = in(reg) c, below = in(reg) below, row = in(reg) c_row, options(nostack, preserves_flags),
        );
        if V == 2 {
            std::arch::asm!(
                "tilestored [{c} + {row} + 64], tmm1",
                "tilestored [{below} + {row} + 64], tmm3",
                c = in(reg) c, below = in(reg) below, row = in(reg) c_row, options(nostack, preserves_flags),
            );
        }
    }
}

/// The same in plain loops, for machines without AMX; see [`gemm_amx`](super::gemm_amx) for the order of the sums.
///
/// # Safety
/// As the other.
#[cfg(feature = "emulate-avx512")]
unsafe fn blocks<const ADD: bool>(a: *const u32, rows: usize, b: *const u32, c: *mut f32, shape: Shape) {
    let [low, high] =
        [|pair: u32| f32::from_bits(pair << 16), |pair: u32| f32::from_bits(pair & 0xffff_0000)];
    for i in 0..rows {
        for j in 0..shape.n {
            // SAFETY: row `i` and column `j` of the tiles that the caller promises.
            unsafe {
                let to = c.add(i * shape.c + j);
                let mut sum = if ADD { *to } else { 0.0 };
                for step in 0..shape.steps {
                    let (mut even, mut odd) = (0.0f32, 0.0f32);
                    for p in step * STEP..(step + 1) * STEP {
                        let (a, b) =
                            (*a.add(i * shape.a + p), *b.add(j / COLS * shape.b + p * COLS + j % COLS));
                        even = low(a).mul_add(low(b), even);
                        odd = high(a).mul_add(high(b), odd);
                    }
                    sum += even + odd;
                }
                *to = sum;
            }
        }
    }
}

/// Lays [`ROWS`] rows of `n` numbers out transposed, in pairs of rows, each number rounded to nearest even:
/// `to[j][p]` = the pair (`from[2p][j]`, `from[2p+1][j]`). `n` is a multiple of 16.
#[inline]
pub(crate) fn turn_pairs(_: Avx512, from: Matrix<'_, f32>, n: usize, to: &mut [u32], to_stride: usize) {
    from.expect("rows", ROWS, n);
    Matrix::new(&*to, to_stride).expect("pairs of rows", n, STEP);
    assert!(n.is_multiple_of(16), "{n} columns");
    // SAFETY: the witness proves the instructions; the extents were just checked.
    unsafe { turn(from.data.as_ptr(), from.stride, n, to.as_mut_ptr(), to_stride) }
}

/// # Safety
/// AVX-512 with BF16; `from` points to 32 rows of `n` numbers, `to` to `n` rows of 16 elements; `n` is a multiple of
/// 16.
#[cfg_attr(not(feature = "emulate-avx512"), target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16"))]
unsafe fn turn(from: *const f32, stride: usize, n: usize, to: *mut u32, to_stride: usize) {
    let order: [u16; 32] = std::array::from_fn(|i| (i / 2 + 16 * (i % 2)) as u16);
    // SAFETY: 64 bytes.
    let order = unsafe { _mm512_loadu_si512(order.as_ptr().cast()) };
    for first in (0..n).step_by(16) {
        let mut block = [_mm512_setzero_si512(); 16];
        for (p, pairs) in block.iter_mut().enumerate() {
            // SAFETY: sixteen numbers of rows `2p` and `2p + 1 < 32`; `__m512bh` is 64 plain bytes.
            unsafe {
                let (even, odd) = (from.add(2 * p * stride + first), from.add((2 * p + 1) * stride + first));
                let both = _mm512_cvtne2ps_pbh(_mm512_loadu_ps(odd), _mm512_loadu_ps(even));
                *pairs = _mm512_permutexvar_epi16(order, std::mem::transmute::<__m512bh, __m512i>(both));
            }
        }
        transpose_16x16(&mut block);
        for (i, row) in block.iter().enumerate() {
            // SAFETY: row `first + i < n` has sixteen elements of room.
            unsafe { _mm512_storeu_si512(to.add((first + i) * to_stride).cast(), *row) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Isa;
    use half::bf16;

    fn witness() -> Option<Amx> {
        Isa::available().into_iter().find_map(|isa| if let Isa::Amx(isa) = isa { Some(isa) } else { None })
    }

    /// Small whole numbers, whose sums are exact in any order.
    fn number(i: usize) -> f32 {
        (i * 7 % 11) as f32 - 5.0
    }

    fn pairs(count: usize) -> Vec<u32> {
        let half = |i| u32::from(bf16::from_f32(number(i)).to_bits());
        (0..count).map(|i| half(2 * i) | half(2 * i + 1) << 16).collect()
    }

    /// Both numbers of an element of [`pairs`].
    fn both(i: usize) -> [f32; 2] {
        [number(2 * i), number(2 * i + 1)]
    }

    #[test]
    fn products_are_exact_and_stay_in_their_block() {
        let Some(isa) = witness() else { return };
        let session = Session::new(isa);
        for (rows, depth, n) in [(32, 16, 16_usize), (64, 32, 48), (32, 48, 96)] {
            let (a_stride, room, c_stride) = (depth + 3, depth + 5, n + 7);
            let (a, b) = (pairs(rows * a_stride), pairs(n.next_multiple_of(COLS) * room));
            let start: Vec<f32> = (0..rows * c_stride).map(number).collect();
            for is_added in [false, true] {
                let mut c = start.clone();
                let (left, right) = (Matrix::new(&a, a_stride), Panels { data: &b, depth: room });
                match is_added {
                    true => product::<true>(&session, left, rows, depth, right, n, &mut c, c_stride),
                    false => product::<false>(&session, left, rows, depth, right, n, &mut c, c_stride),
                }
                for (at, got) in c.iter().enumerate() {
                    let (i, j) = (at / c_stride, at % c_stride);
                    let term = |p: usize| {
                        let (x, y) =
                            (both(i * a_stride + p), both(j / COLS * room * COLS + p * COLS + j % COLS));
                        x[0] * y[0] + x[1] * y[1]
                    };
                    let expected = match j < n {
                        true => (0..depth).map(term).sum::<f32>() + if is_added { start[at] } else { 0.0 },
                        false => start[at],
                    };
                    assert_eq!(*got, expected, "{rows}×{depth}×{n}, added: {is_added}, row {i}, column {j}");
                }
            }
        }
    }

    #[test]
    fn turned_rows_are_pairs_of_columns() {
        let Some(isa) = witness() else { return };
        let (n, stride, to_stride) = (48, 50, 19);
        let from: Vec<f32> = (0..ROWS * stride).map(number).collect();
        let mut to = vec![u32::MAX; n * to_stride];
        turn_pairs(isa.avx512(), Matrix::new(&from, stride), n, &mut to, to_stride);
        for (at, got) in to.iter().enumerate() {
            let (j, p) = (at / to_stride, at % to_stride);
            let half = |row: usize| u32::from(bf16::from_f32(number(row * stride + j)).to_bits());
            let expected = if p < STEP { half(2 * p) | half(2 * p + 1) << 16 } else { u32::MAX };
            assert_eq!(*got, expected, "column {j}, pair {p}");
        }
    }
}
