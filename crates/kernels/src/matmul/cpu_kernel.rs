//! What differs between instruction sets: the shape of a tile, how operands are laid out for it, and the inner loop.

use crate::Dtype;
use crate::operand::Operand;
use crate::simd::matrix::{Epilogue, Matrix, Out};
use bytemuck::Pod;
use std::marker::PhantomData;

/// A register tile and the layouts it reads.
///
/// `A` is read row by row, as it is stored ("direct") or from a copy ("staged"): transposed, widened, padded. `B` is
/// always packed into panels of [`COLS`](Self::COLS) columns, `[k][COLS]`, zero where the matrix has ended.
pub(super) trait MicroKernel: Copy + Send + Sync {
    /// Format of `A` and `B` in memory.
    type Operand: Operand;
    /// Format of the rows of `A` that the kernel reads.
    type Staged: Pod + Send + Sync;
    /// Element of a packed panel.
    type Packed: Pod;
    /// Most rows of a tile.
    const ROWS: usize;
    /// Columns of a tile and of a panel.
    const COLS: usize;
    /// Numbers of neighbouring `k` in one packed element.
    const GROUP: usize;
    /// What `k` is rounded up to, a multiple of [`GROUP`](Self::GROUP): rows of `A` and panels end with zeros.
    const DEPTH: usize = Self::GROUP;
    /// Longest run of `k`, in bytes of a row of `A`. It decides the order of the sums, so it is the same on every
    /// machine: a panel of 32 columns then fills half of a second-level cache of 1 MiB.
    const K_BYTES: usize = 16 << 10;

    /// `A` as it is stored, if the kernel can read it so.
    fn direct<'a>(self, a: Matrix<'a, Self::Operand>) -> Option<Matrix<'a, Self::Staged>>;

    /// Writes `rows × k` numbers of op(A), whose storage starts at `a`, to rows of `dst`, `stride` apart (a multiple of
    /// 64 bytes, at least `k`), and zeros up to a multiple of [`DEPTH`](Self::DEPTH).
    fn stage(
        self,
        a: Matrix<'_, Self::Operand>,
        trans: bool,
        rows: usize,
        k: usize,
        dst: &mut [Self::Staged],
        stride: usize,
    );

    /// Packs `cols ≤ COLS` columns of op(B), `k` numbers each, whose storage starts at `b`, and zeros up to a multiple
    /// of [`GROUP`](Self::GROUP).
    fn pack(self, b: Matrix<'_, Self::Operand>, trans: bool, cols: usize, k: usize, dst: &mut [Self::Packed]);

    /// `out = alpha · A · panel` or `+=`; `k` counts numbers, rounded up to a multiple of [`DEPTH`](Self::DEPTH).
    fn tile(
        self,
        a: Matrix<'_, Self::Staged>,
        k: usize,
        panel: &[Self::Packed],
        out: Out<'_>,
        epilogue: Epilogue,
    );

    /// [`tile`](Self::tile) for each panel in turn, all under the rows of `a`: `out` is as wide as the panels together.
    fn tiles(
        self,
        a: Matrix<'_, Self::Staged>,
        k: usize,
        panels: &[Self::Packed],
        mut out: Out<'_>,
        epilogue: Epilogue,
    ) {
        let (rows, cols, len) = (out.rows(), out.cols(), Self::panel_len(k));
        for (j, first) in (0..cols).step_by(Self::COLS).enumerate() {
            let out = out.part(0, rows, first, Self::COLS.min(cols - first));
            self.tile(a, k, &panels[j * len..][..len], out, epilogue);
        }
    }

    /// Elements of a panel of `k` numbers a column.
    fn panel_len(k: usize) -> usize {
        k.next_multiple_of(Self::DEPTH) / Self::GROUP * Self::COLS
    }
}

/// The matrix itself, if its numbers are f32.
pub(super) fn same_as_f32<T: Operand>(a: Matrix<'_, T>) -> Option<Matrix<'_, f32>> {
    (T::DTYPE == Dtype::F32).then(|| Matrix::new(bytemuck::cast_slice(a.data), a.stride))
}

/// Plain loops, four rows by eight columns, which every compiler turns into vectors of four.
pub(super) struct Portable<T>(PhantomData<T>);

impl<T> Clone for Portable<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Portable<T> {}

impl<T> Portable<T> {
    pub(super) fn new() -> Self {
        Self(PhantomData)
    }
}

impl<T: Operand> MicroKernel for Portable<T> {
    type Operand = T;
    type Staged = f32;
    type Packed = f32;
    const ROWS: usize = 4;
    const COLS: usize = 8;
    const GROUP: usize = 1;

    fn direct<'a>(self, a: Matrix<'a, T>) -> Option<Matrix<'a, f32>> {
        same_as_f32(a)
    }

    fn stage(self, a: Matrix<'_, T>, trans: bool, rows: usize, k: usize, dst: &mut [f32], stride: usize) {
        plain::stage(a, trans, rows, k, dst, stride);
    }

    fn pack(self, b: Matrix<'_, T>, trans: bool, cols: usize, k: usize, dst: &mut [f32]) {
        plain::pack::<T, 8>(b, trans, cols, k, dst);
    }

    fn tile(self, a: Matrix<'_, f32>, k: usize, panel: &[f32], out: Out<'_>, epilogue: Epilogue) {
        match out.rows() {
            1 => portable_tile::<1>(a, k, panel, out, epilogue),
            2 => portable_tile::<2>(a, k, panel, out, epilogue),
            3 => portable_tile::<3>(a, k, panel, out, epilogue),
            _ => portable_tile::<4>(a, k, panel, out, epilogue),
        }
    }
}

fn portable_tile<const R: usize>(
    a: Matrix<'_, f32>,
    k: usize,
    panel: &[f32],
    mut out: Out<'_>,
    epilogue: Epilogue,
) {
    let rows: [&[f32]; R] = std::array::from_fn(|i| a.row(i, 0, k));
    let mut sums = [[0.0f32; 8]; R];
    for (p, b) in panel.as_chunks::<8>().0[..k].iter().enumerate() {
        for (sums, row) in sums.iter_mut().zip(&rows) {
            let x = row[p];
            for (sum, &y) in sums.iter_mut().zip(b) {
                *sum += x * y;
            }
        }
    }
    for (i, sums) in sums.iter().enumerate() {
        out.put(i, sums, epilogue);
    }
}

/// Layouts in plain loops, widening to f32.
pub(super) mod plain {
    use super::{Matrix, Operand};

    /// [`MicroKernel::stage`](super::MicroKernel::stage) for kernels that compute in f32.
    #[inline(always)]
    pub(in super::super) fn stage<T: Operand>(
        a: Matrix<'_, T>,
        trans: bool,
        rows: usize,
        k: usize,
        dst: &mut [f32],
        stride: usize,
    ) {
        if !trans {
            for i in 0..rows {
                let to = &mut dst[i * stride..][..k];
                to.iter_mut().zip(a.row(i, 0, k)).for_each(|(to, x)| *to = x.widen());
            }
            return;
        }
        // Blocks of 16 rows of `dst`, so that the lines written stay in the first-level cache.
        for i0 in (0..rows).step_by(16) {
            let count = (rows - i0).min(16);
            for p in 0..k {
                for (i, x) in a.row(p, i0, count).iter().enumerate() {
                    dst[(i0 + i) * stride + p] = x.widen();
                }
            }
        }
    }

    /// [`MicroKernel::pack`](super::MicroKernel::pack) for kernels that compute in f32.
    #[inline(always)]
    pub(in super::super) fn pack<T: Operand, const COLS: usize>(
        b: Matrix<'_, T>,
        trans: bool,
        cols: usize,
        k: usize,
        dst: &mut [f32],
    ) {
        let panel = &mut dst.as_chunks_mut::<COLS>().0[..k];
        if cols < COLS {
            panel.as_flattened_mut().fill(0.0);
        }
        if trans {
            for j in 0..cols {
                panel.iter_mut().zip(b.row(j, 0, k)).for_each(|(to, x)| to[j] = x.widen());
            }
        } else {
            for (p, to) in panel.iter_mut().enumerate() {
                to.iter_mut().zip(b.row(p, 0, cols)).for_each(|(to, x)| *to = x.widen());
            }
        }
    }
}
