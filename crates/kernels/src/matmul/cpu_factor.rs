//! The second factor of a product: a dense matrix, or a quantised one, of which a strip at a time becomes numbers, just
//! before it is packed.

use super::cpu_kernel::MicroKernel;
use super::scratch;
use crate::Isa;
use crate::operand::Operand;
use crate::quantized::View;
use crate::simd::matrix::Matrix;
use bytemuck::Zeroable;

/// Numbers of a row expanded at a time when columns of op(B) are rows of storage: a strip of 16 rows is 8 KiB in f32.
const STRIP: usize = 128;
/// Rows expanded at a time when rows of op(B) are rows of storage.
const STRIP_ROWS: usize = 16;

/// op(B) as it is stored.
#[derive(Clone, Copy)]
pub(super) enum Factor<'a, T> {
    Dense(Matrix<'a, T>),
    Quantized(Isa, View<'a>),
}

impl<'a, T: Operand> Factor<'a, T> {
    /// Panics unless `rows × cols` numbers are stored.
    pub(super) fn expect(&self, rows: usize, cols: usize) {
        match self {
            Factor::Dense(b) => b.expect("matmul: B", rows, cols),
            Factor::Quantized(_, w) => assert!(
                (w.rows(), w.cols()) == (rows, cols),
                "matmul: B is a quantised {}×{}, not {rows}×{cols}",
                w.rows(),
                w.cols()
            ),
        }
    }

    /// The same factor under the name of its element type.
    #[cfg(target_arch = "x86_64")]
    pub(super) fn same<U: Operand>(self) -> Factor<'a, U> {
        match self {
            Factor::Dense(b) => Factor::Dense(super::same(b)),
            Factor::Quantized(isa, w) => Factor::Quantized(isa, w),
        }
    }

    /// Writes row `row` to `to`, as products need it.
    #[cfg(target_arch = "x86_64")]
    pub(super) fn copy_row(&self, row: usize, to: &mut [T]) {
        match self {
            Factor::Dense(b) => to.copy_from_slice(b.row(row, 0, to.len())),
            Factor::Quantized(isa, w) => w.factors(*isa, row * w.cols(), to),
        }
    }

    /// Runs `f` on row `row`, `k` numbers long.
    pub(super) fn with_row<R>(&self, row: usize, k: usize, f: impl FnOnce(&[T]) -> R) -> R {
        match self {
            Factor::Dense(b) => f(b.row(row, 0, k)),
            Factor::Quantized(isa, w) => scratch::with(k, |numbers: &mut [T]| {
                w.run(*isa, row * w.cols(), numbers);
                f(numbers)
            }),
        }
    }

    /// Numbers of scratch memory that products straight from codes need.
    pub(super) fn dots_scratch(&self) -> usize {
        match self {
            #[cfg(target_arch = "x86_64")]
            Factor::Quantized(_, w) => w.dots_scratch(),
            _ => 0,
        }
    }

    /// Packs columns `col..col + cols` of op(B), `k` numbers each from number `start` on, into panels.
    pub(super) fn pack<K: MicroKernel<Operand = T>>(
        &self,
        kernel: K,
        trans: bool,
        [start, k]: [usize; 2],
        [col, cols]: [usize; 2],
        packed: &mut [K::Packed],
    ) {
        let panel_len = K::panel_len(k);
        // Packing pads to whole groups.
        let padding = k.div_ceil(K::GROUP) * K::COLS..panel_len;
        if !padding.is_empty() {
            packed
                .chunks_exact_mut(panel_len)
                .for_each(|panel| panel[padding.clone()].fill(K::Packed::zeroed()));
        }
        let panels = packed.chunks_exact_mut(panel_len.max(1)).enumerate();
        let place = |j: usize| (col + j * K::COLS, K::COLS.min(cols - j * K::COLS));
        match self {
            Factor::Dense(b) if trans => panels.for_each(|(j, panel)| {
                let (at, width) = place(j);
                kernel.pack(b.at(at, start), true, width, k, panel);
            }),
            // Some rows for all panels, then the next: far-off rows would be as many pages for every panel.
            Factor::Dense(b) => {
                for p in (0..k).step_by(STRIP_ROWS) {
                    let len = STRIP_ROWS.min(k - p);
                    for (j, panel) in packed.chunks_exact_mut(panel_len).enumerate() {
                        let (at, width) = place(j);
                        let panel = &mut panel[p / K::GROUP * K::COLS..];
                        kernel.pack(b.at(start + p, at), false, width, len, panel);
                    }
                }
            }
            Factor::Quantized(isa, w) if trans => scratch::with(K::COLS * STRIP, |strip: &mut [T]| {
                for (j, panel) in panels {
                    let (at, width) = place(j);
                    for p in (0..k).step_by(STRIP) {
                        let len = STRIP.min(k - p);
                        for (row, numbers) in strip.chunks_exact_mut(STRIP).take(width).enumerate() {
                            w.factors(*isa, (at + row) * w.cols() + start + p, &mut numbers[..len]);
                        }
                        let panel = &mut panel[p / K::GROUP * K::COLS..];
                        kernel.pack(Matrix::new(&*strip, STRIP), true, width, len, panel);
                    }
                }
            }),
            Factor::Quantized(isa, w) => scratch::with(cols * STRIP_ROWS, |strip: &mut [T]| {
                for p in (0..k).step_by(STRIP_ROWS) {
                    let len = STRIP_ROWS.min(k - p);
                    for (row, numbers) in strip.chunks_exact_mut(cols).take(len).enumerate() {
                        w.factors(*isa, (start + p + row) * w.cols() + col, numbers);
                    }
                    for (j, panel) in packed.chunks_exact_mut(panel_len).enumerate() {
                        let from = Matrix::new(&strip[j * K::COLS..], cols);
                        let panel = &mut panel[p / K::GROUP * K::COLS..];
                        kernel.pack(from, false, place(j).1, len, panel);
                    }
                }
            }),
        }
    }
}
