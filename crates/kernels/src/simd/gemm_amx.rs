//! AMX micro-kernel for bf16: up to 32 × 32 sums in four tile registers, `TDPBF16PS` on 32 numbers of `k` at a time.
//!
//! Each step loads two tiles of `A` (16 rows of 32 numbers, straight from row-major memory) and two of a packed panel
//! of `B` (16 rows of pairs of 16 columns), and multiplies each with each. The layouts are those of
//! [`gemm_bf16`](super::gemm_bf16); `k` is a whole number of steps.

#[cfg(not(feature = "emulate-avx512"))]
use super::amx::Shapes;
use super::amx::{ROW_BYTES, TILE_ROWS};
use super::arch::__m512;
use super::matrix::{Epilogue, Matrix, Out};
use super::{Amx, store};
use half::bf16;
use std::mem::MaybeUninit;

/// Most rows of a tile of sums.
pub(crate) const ROWS: usize = 2 * TILE_ROWS;
/// Columns of a tile of sums and of a packed panel.
pub(crate) const COLS: usize = 32;
/// Numbers of `k` in a step.
pub(crate) const DEPTH: usize = 32;

/// `out = alpha · A · B` (or `+=`): `A` has `out.rows()` rows of `32·steps` numbers, `B` is in panels of [`COLS`]
/// columns, each `[16·steps][COLS]` with the numbers of `k = 2p` (low half) and `2p+1` (high half) of one column in an
/// element.
pub(crate) fn tiles(
    _: Amx,
    a: Matrix<'_, bf16>,
    steps: usize,
    panels: &[u32],
    mut out: Out<'_>,
    epilogue: Epilogue,
) {
    let (rows, count) = (out.rows(), out.cols().div_ceil(COLS));
    assert!((1..=ROWS).contains(&rows), "tiles of {rows} rows");
    a.expect("A", rows, steps.saturating_mul(DEPTH));
    let needed = steps.checked_mul(DEPTH / 2 * COLS).and_then(|panel| panel.checked_mul(count));
    assert!(needed.is_some_and(|n| n <= panels.len()), "{count} panels in {} elements", panels.len());
    // SAFETY: the witness proves the instructions; `a` holds `rows` rows of `32·steps` numbers and each panel
    // `16·steps` rows of COLS elements (asserted above), which is all that the kernel reads.
    unsafe { row_of_tiles(a, steps, panels.as_ptr(), &mut out, epilogue) }
}

/// # Safety
/// AMX and AVX-512 with BF16; `a` holds `out.rows()` rows (1 to ROWS) of `32·steps` numbers, `panels` for each COLS
/// columns of `out` `16·steps` rows of COLS elements.
#[cfg_attr(not(feature = "emulate-avx512"), target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16"))]
unsafe fn row_of_tiles(
    a: Matrix<'_, bf16>,
    steps: usize,
    panels: *const u32,
    out: &mut Out<'_>,
    epilogue: Epilogue,
) {
    let (rows, cols) = (out.rows(), out.cols());
    // What the products do not write stays zero, or a number of the panel before: nobody reads it.
    let mut sums = MaybeUninit::<[[__m512; 2]; ROWS]>::zeroed();
    // SAFETY: `rows` is 1 to ROWS, by the caller's promise.
    unsafe { configure(rows) };
    for (panel, first) in (0..cols).step_by(COLS).enumerate() {
        let width = COLS.min(cols - first);
        // SAFETY: the caller's promise; the tiles are configured for `rows` rows, and `products` writes so many rows.
        let sums = unsafe {
            let panel = panels.add(panel * steps * (DEPTH / 2) * COLS);
            if width > 16 {
                products(a, rows, steps, panel, sums.as_mut_ptr());
            } else {
                narrow_products(a, rows, steps, panel, sums.as_mut_ptr());
            }
            sums.assume_init_ref()
        };
        let mut part = out.part(0, rows, first, width);
        if width > 16 {
            store::rows(&mut part, &sums[..rows], epilogue);
        } else {
            store::rows(&mut part, &sums.map(|[left, _]| [left])[..rows], epilogue);
        }
    }
    // SAFETY: AMX.
    unsafe { release() };
}

/// Shapes for 1 to [`ROWS`] rows: sums in tiles 0 to 3, `A` in 4 and 5, the panel in 6 and 7. Where there are no rows
/// below the upper tiles, the lower ones have one all the same: a repetition of the first, whose sums nobody reads.
#[cfg(not(feature = "emulate-avx512"))]
static SHAPES: [Shapes; ROWS] = {
    let mut shapes = [const { Shapes::of([1; 8]) }; ROWS];
    let mut rows = 1;
    while rows <= ROWS {
        let above = if rows < TILE_ROWS { rows } else { TILE_ROWS };
        let below = if rows > TILE_ROWS { rows - TILE_ROWS } else { 1 };
        shapes[rows - 1] = Shapes::of([above, above, below, below, above, below, DEPTH / 2, DEPTH / 2]);
        rows += 1;
    }
    shapes
};

/// Makes the tiles those of [`SHAPES`].
///
/// # Safety
/// AMX; `rows` is 1 to ROWS. The tile registers are nobody's until [`release`].
#[cfg(not(feature = "emulate-avx512"))]
#[inline]
unsafe fn configure(rows: usize) {
    // SAFETY: the caller's promise; the operand is 64 bytes that describe legal shapes.
    unsafe {
        std::arch::asm!(
            "ldtilecfg [{}]", in(reg) &raw const SHAPES[rows - 1], options(nostack, preserves_flags)
        );
    }
}

/// Frees the tiles, so that nothing of them is saved when the thread sleeps.
///
/// # Safety
/// AMX.
#[cfg(not(feature = "emulate-avx512"))]
#[inline]
unsafe fn release() {
    // SAFETY: the caller's promise.
    unsafe { std::arch::asm!("tilerelease", options(nostack, preserves_flags)) };
}

/// `c = A · panel`, the first `rows` rows of it; what the rest holds afterwards is of no use. The panel is not to stay
/// in the first-level cache (`TILELOADDT1`), which one tile of `A` fills.
///
/// # Safety
/// AMX, configured for `rows`; `a` holds `rows` rows of `32·steps` numbers, `panel` `16·steps` rows of COLS elements,
/// and `c` can be written.
#[cfg(not(feature = "emulate-avx512"))]
#[inline]
unsafe fn products(
    a: Matrix<'_, bf16>,
    rows: usize,
    steps: usize,
    panel: *const u32,
    c: *mut [[__m512; 2]; ROWS],
) {
    let above = a.data.as_ptr();
    let below = if rows > TILE_ROWS { above.wrapping_add(TILE_ROWS * a.stride) } else { above };
    // SAFETY: the shapes limit the loads to `rows` rows of A, 64 bytes a step, and to 16 rows of two times 64 bytes of
    // the panel, which are there by the caller's promise, and the stores to the 32 rows of `c`. The compiler keeps
    // nothing in tile registers.
    unsafe {
        std::arch::asm!(
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            "test {steps}, {steps}",
            "jz 3f",
            "2:",
            "tileloaddt1 tmm6, [{panel} + {row}]",
            "tileloadd tmm4, [{above} + {stride}]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloaddt1 tmm7, [{panel} + {row} + 64]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tileloadd tmm5, [{below} + {stride}]",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "add {above}, 64",
            "add {below}, 64",
            "add {panel}, 16 * 128",
            "dec {steps}",
            "jnz 2b",
            "3:",
            "tilestored [{c} + {row}], tmm0",
            "tilestored [{c} + {row} + 64], tmm1",
            "tilestored [{c} + {row} + 16 * 128], tmm2",
            "tilestored [{c} + {row} + 16 * 128 + 64], tmm3",
            above = inout(reg) above => _,
            below = inout(reg) below => _,
            stride = in(reg) size_of::<bf16>() * a.stride,
            panel = inout(reg) panel => _,
            row = in(reg) size_of::<[__m512; 2]>(),
            steps = inout(reg) steps => _,
            c = in(reg) c,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        );
    }
}

/// [`products`] for the first 16 columns of a panel; the others of `c` stay as they were.
///
/// # Safety
/// As [`products`].
#[cfg(not(feature = "emulate-avx512"))]
#[inline]
unsafe fn narrow_products(
    a: Matrix<'_, bf16>,
    rows: usize,
    steps: usize,
    panel: *const u32,
    c: *mut [[__m512; 2]; ROWS],
) {
    let above = a.data.as_ptr();
    let below = if rows > TILE_ROWS { above.wrapping_add(TILE_ROWS * a.stride) } else { above };
    // SAFETY: as in `products`, of whose loads and stores these are a part.
    unsafe {
        std::arch::asm!(
            "tilezero tmm0",
            "tilezero tmm2",
            "test {steps}, {steps}",
            "jz 3f",
            "2:",
            "tileloadd tmm6, [{panel} + {row}]",
            "tileloadd tmm4, [{above} + {stride}]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm5, [{below} + {stride}]",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "add {above}, 64",
            "add {below}, 64",
            "add {panel}, 16 * 128",
            "dec {steps}",
            "jnz 2b",
            "3:",
            "tilestored [{c} + {row}], tmm0",
            "tilestored [{c} + {row} + 16 * 128], tmm2",
            above = inout(reg) above => _,
            below = inout(reg) below => _,
            stride = in(reg) size_of::<bf16>() * a.stride,
            panel = inout(reg) panel => _,
            row = in(reg) size_of::<[__m512; 2]>(),
            steps = inout(reg) steps => _,
            c = in(reg) c,
            out("tmm0") _, out("tmm2") _, out("tmm4") _, out("tmm5") _, out("tmm6") _,
            options(nostack),
        );
    }
}

/// Nothing is saved by less.
///
/// # Safety
/// As [`products`].
#[cfg(feature = "emulate-avx512")]
unsafe fn narrow_products(
    a: Matrix<'_, bf16>,
    rows: usize,
    steps: usize,
    panel: *const u32,
    c: *mut [[__m512; 2]; ROWS],
) {
    // SAFETY: the caller's promise.
    unsafe { products(a, rows, steps, panel, c) }
}

/// Nothing has to be configured.
///
/// # Safety
/// None is needed.
#[cfg(feature = "emulate-avx512")]
unsafe fn configure(_: usize) {}

/// Nothing has to be released.
///
/// # Safety
/// None is needed.
#[cfg(feature = "emulate-avx512")]
unsafe fn release() {}

/// The same in plain loops, for machines without AMX. As Intel's manual has it, the products of the even numbers of a
/// step are summed for themselves, those of the odd ones too, and both are added to the sums; denormal numbers (which
/// the tests do not have) would count as zero.
///
/// # Safety
/// As the other.
#[cfg(feature = "emulate-avx512")]
unsafe fn products(
    a: Matrix<'_, bf16>,
    rows: usize,
    steps: usize,
    panel: *const u32,
    c: *mut [[__m512; 2]; ROWS],
) {
    let widen = |bits: u32| f32::from_bits(bits << 16);
    // SAFETY: 1024 numbers without padding that can be written, and now are.
    let c: &mut [[f32; COLS]; ROWS] = unsafe {
        c.write_bytes(0, 1);
        &mut *c.cast()
    };
    for step in 0..steps {
        for (i, sums) in c.iter_mut().enumerate().take(rows) {
            let row = a.row(i, step * DEPTH, DEPTH);
            for (j, sum) in sums.iter_mut().enumerate() {
                let (mut even, mut odd) = (0.0f32, 0.0f32);
                for p in 0..DEPTH / 2 {
                    // SAFETY: an element of the panel by the caller's promise.
                    let pair = unsafe { *panel.add((step * (DEPTH / 2) + p) * COLS + j) };
                    even = f32::from(row[2 * p]).mul_add(widen(pair & 0xffff), even);
                    odd = f32::from(row[2 * p + 1]).mul_add(widen(pair >> 16), odd);
                }
                *sum += even + odd;
            }
        }
    }
}

/// `rounds` rounds of four products of tiles in registers, for benchmarks: floating-point operations done, and a number
/// that depends on all of them.
pub(super) fn register_only(_: Amx, rounds: usize) -> (f64, f32) {
    let ones = [0x3f80_3f80u32; TILE_ROWS * ROW_BYTES / 4];
    let mut sums = [[0.0f32; 16]; TILE_ROWS];
    // SAFETY: the witness proves the instructions.
    unsafe { again(&ones, rounds, &mut sums) };
    ((4 * 2 * TILE_ROWS * 16 * DEPTH * rounds) as f64, 4.0 * sums.as_flattened().iter().sum::<f32>())
}

/// Four times the same sums, of which one is stored.
///
/// # Safety
/// AMX.
#[cfg(not(feature = "emulate-avx512"))]
unsafe fn again(ones: &[u32; TILE_ROWS * ROW_BYTES / 4], rounds: usize, sums: &mut [[f32; 16]; TILE_ROWS]) {
    static WHOLE: Shapes = Shapes::of([TILE_ROWS; 8]);
    // SAFETY: the caller's promise; whole tiles are loaded from `ones` and stored to `sums`, which are as large.
    unsafe {
        std::arch::asm!(
            "ldtilecfg [{shapes}]",
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            "tileloadd tmm4, [{ones} + {row}]",
            "tileloadd tmm5, [{ones} + {row}]",
            "test {rounds}, {rounds}",
            "jz 3f",
            "2:",
            "tdpbf16ps tmm0, tmm4, tmm5",
            "tdpbf16ps tmm1, tmm4, tmm5",
            "tdpbf16ps tmm2, tmm4, tmm5",
            "tdpbf16ps tmm3, tmm4, tmm5",
            "dec {rounds}",
            "jnz 2b",
            "3:",
            "tilestored [{sums} + {row}], tmm0",
            "tilerelease",
            shapes = in(reg) &raw const WHOLE,
            ones = in(reg) ones.as_ptr(),
            row = in(reg) ROW_BYTES,
            rounds = inout(reg) rounds => _,
            sums = in(reg) sums.as_mut_ptr(),
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _, out("tmm4") _, out("tmm5") _,
            options(nostack),
        );
    }
}

/// The number that the other would leave, for tests of what is counted.
///
/// # Safety
/// None is needed.
#[cfg(feature = "emulate-avx512")]
unsafe fn again(_: &[u32; TILE_ROWS * ROW_BYTES / 4], rounds: usize, sums: &mut [[f32; 16]; TILE_ROWS]) {
    *sums = [[(DEPTH * rounds) as f32; 16]; TILE_ROWS];
}
