//! The product as blocks: cut `k`, lay `A` out if need be, share tasks out, pack `B` per task, run the tiles.
//!
//! The order of summation of an element is fixed by `k` alone: blocks of `k` in ascending order, ascending `k` inside a
//! block. Neither the partition into tasks nor the position inside a tile changes it.

use super::cpu_factor::Factor;
use super::cpu_kernel::MicroKernel;
use super::cpu_partition::{Cut, Grid};
use super::scratch;
use crate::Matmul;
use crate::pool::Pool;
use crate::simd::cache::second_level_bytes;
use crate::simd::matrix::{BlockMut, Epilogue, Matrix, Out};

/// Most bytes of `A` laid out anew at a time, and of f32 sums that wait for their rounding.
const STAGED_BYTES: usize = 8 << 20;
/// Longest run of `k`, in bytes of a row of `A`, of sums too long for one run, such as those over a vocabulary: a task
/// then has room for many panels, so that few tasks lay `A` out anew.
const LONG_K_BYTES: usize = 4 << 10;
/// Rows this many bytes apart (or a multiple) fall into the same few sets of a first-level cache.
const CONFLICT_BYTES: usize = 4096;
/// From this many panels on, a row of `A` is read often enough that avoiding those conflicts pays for a copy.
const CONFLICT_PANELS: usize = 4;
/// Up to this many columns, rows of `A` are laid out tile by tile in each task: few tasks repeat the work, and the copy
/// never leaves the cache of the core that made it.
const TILEWISE_COLS: usize = 1024;

/// Rows of op(A), as tasks receive them.
#[derive(Clone, Copy)]
enum Rows<'a, K: MicroKernel> {
    /// Laid out for the kernel.
    Ready(Matrix<'a, K::Staged>),
    /// As stored: each task lays them out tile by tile.
    Stored(Matrix<'a, K::Operand>),
}

impl<K: MicroKernel> Rows<'_, K> {
    fn at(&self, row: usize) -> Self {
        match self {
            Rows::Ready(a) => Rows::Ready(a.at(row, 0)),
            Rows::Stored(a) => Rows::Stored(a.at(row, 0)),
        }
    }
}

/// The operands of one call; `c` is passed on its own because it is cut.
pub(super) struct Driver<'a, K: MicroKernel> {
    pub(super) kernel: K,
    /// `None`: everything on the calling thread.
    pub(super) pool: Option<&'a Pool>,
    pub(super) op: Matmul,
    pub(super) a: Matrix<'a, K::Operand>,
    pub(super) b: Factor<'a, K::Operand>,
}

impl<K: MicroKernel> Driver<'_, K> {
    /// `c = alpha · op(A) · op(B)` or `+=`.
    pub(super) fn run(&self, c: Out<'_>) {
        let Matmul { m, n, k, .. } = self.op;
        let operand = size_of::<K::Staged>();
        let longest = if k * operand > K::K_BYTES { LONG_K_BYTES } else { K::K_BYTES };
        let k_parts = Cut::new(k, (k * operand).div_ceil(longest));
        // bf16 results of several blocks of `k` are summed in f32 elsewhere and rounded once.
        let sums_aside = k_parts.parts() > 1 && matches!(c, Out::Bf16(_));
        let staged = if self.as_stored().is_none() { k.div_ceil(k_parts.parts()) * operand } else { 0 };
        let waiting = if sums_aside { n * size_of::<f32>() } else { 0 };
        let at_a_time = (STAGED_BYTES / staged.max(waiting).max(1) / K::ROWS).max(4) * K::ROWS;
        let mut rest = c;
        for row in (0..m).step_by(at_a_time) {
            let rows = at_a_time.min(m - row);
            let (part, below) = rest.split_rows(rows);
            rest = below;
            if sums_aside {
                self.rounded_once(row, k_parts, part);
            } else {
                self.blocks_of_k(row, k_parts, part, self.epilogue());
            }
        }
    }

    fn epilogue(&self) -> Epilogue {
        Epilogue { alpha: self.op.alpha, accumulate: self.op.accumulate }
    }

    /// `A` as it is stored, unless all of it has to be laid out anew before the tasks start.
    fn as_stored(&self) -> Option<Rows<'_, K>> {
        let Matmul { m, n, k, trans_a, .. } = self.op;
        let conflicts = (self.a.stride * size_of::<K::Staged>()).is_multiple_of(CONFLICT_BYTES)
            && m >= K::ROWS
            && n >= CONFLICT_PANELS * K::COLS;
        if trans_a {
            return None;
        }
        match self.kernel.direct(self.a) {
            Some(a) if k.is_multiple_of(K::DEPTH) && !conflicts => Some(Rows::Ready(a)),
            _ => (n <= TILEWISE_COLS).then_some(Rows::Stored(self.a)),
        }
    }

    /// Blocks of `k` start at whole cache lines of a row that does.
    fn k_start(&self, k_parts: Cut, i: usize) -> usize {
        if i == k_parts.parts() { self.op.k } else { k_parts.start(i) / 64 * 64 }
    }

    /// Sums in f32, then one rounding to the bf16 result.
    fn rounded_once(&self, row: usize, k_parts: Cut, mut c: Out<'_>) {
        let (rows, cols) = (c.rows(), c.cols());
        scratch::shared(rows * cols, |sums: &mut [f32]| {
            let block = Out::F32(BlockMut::new(sums, rows, cols, cols));
            self.blocks_of_k(row, k_parts, block, Epilogue { alpha: 1.0, accumulate: false });
            for (i, sums) in sums.chunks_exact(cols).enumerate() {
                c.put(i, sums, self.epilogue());
            }
        });
    }

    /// All blocks of `k` for the rows of `c`, which start at row `row` of op(A).
    fn blocks_of_k(&self, row: usize, k_parts: Cut, mut c: Out<'_>, epilogue: Epilogue) {
        let (rows, cols) = (c.rows(), c.cols());
        for i in 0..k_parts.parts() {
            let start = self.k_start(k_parts, i);
            let k = self.k_start(k_parts, i + 1) - start;
            let epilogue = Epilogue { accumulate: epilogue.accumulate || i > 0, ..epilogue };
            let c = c.part(0, rows, 0, cols);
            match self.as_stored() {
                Some(Rows::Ready(a)) => self.share_out(Rows::Ready(a.at(row, start)), start, k, c, epilogue),
                Some(Rows::Stored(a)) => {
                    self.share_out(Rows::Stored(a.at(row, start)), start, k, c, epilogue)
                }
                None => self.with_staged(row, start, k, c, epilogue),
            }
        }
    }

    /// Lays the rows of `A` out anew, then multiplies.
    fn with_staged(&self, row: usize, start: usize, k: usize, c: Out<'_>, epilogue: Epilogue) {
        let rows = c.rows();
        let stride = staged_stride(k, size_of::<K::Staged>());
        scratch::shared(rows * stride, |staged: &mut [K::Staged]| {
            let piece_rows = rows.div_ceil(4 * self.threads()).next_multiple_of(16);
            let stage = |i: usize, to: &mut [K::Staged]| {
                let first = row + i * piece_rows;
                let rows = to.len() / stride;
                let from = if self.op.trans_a { self.a.at(start, first) } else { self.a.at(first, start) };
                self.kernel.stage(from, self.op.trans_a, rows, k, to, stride);
            };
            match self.pool {
                Some(pool) => pool.pieces(staged, piece_rows * stride, stage),
                None => staged.chunks_mut(piece_rows * stride).enumerate().for_each(|(i, to)| stage(i, to)),
            }
            self.share_out(Rows::Ready(Matrix::new(staged, stride)), start, k, c, epilogue);
        });
    }

    fn threads(&self) -> usize {
        self.pool.map_or(1, Pool::threads)
    }

    /// Cuts `c` into tasks and runs them. `a` holds the rows of `c`, `k` numbers each from `start` on.
    fn share_out(&self, a: Rows<'_, K>, start: usize, k: usize, c: Out<'_>, epilogue: Epilogue) {
        let (m, n) = (c.rows(), c.cols());
        let row_tiles = Cut::new(m, m.div_ceil(K::ROWS));
        // Packed panels of a task take half of the second-level cache.
        let most_panels = second_level_bytes() / 2 / (K::panel_len(k) * size_of::<K::Packed>()).max(1);
        let tiles = (row_tiles.parts(), K::ROWS);
        let grid = Grid::new(tiles, (n.div_ceil(K::COLS), most_panels), k, self.threads());
        let mut tasks = Vec::with_capacity(grid.rows.parts() * grid.cols.parts());
        let mut below = c;
        for (tile, tiles) in grid.rows.runs() {
            let rows = row_tiles.start(tile)..row_tiles.start(tile + tiles);
            let (mut right, rest) = below.split_rows(rows.len());
            below = rest;
            for (panel, panels) in grid.cols.runs() {
                let col = panel * K::COLS;
                let (block, rest) = right.split_columns((panels * K::COLS).min(n - col));
                right = rest;
                tasks.push((rows.start, col, block));
            }
        }
        let work = |(row, col, block): (usize, usize, Out<'_>)| {
            self.block(a.at(row), start, k, col, block, epilogue);
        };
        match self.pool {
            Some(pool) => pool.each(tasks, work),
            None => tasks.into_iter().for_each(work),
        }
    }

    /// One task: packs the columns of `c`, which start at column `col` of op(B), and runs its tiles.
    fn block(&self, a: Rows<'_, K>, start: usize, k: usize, col: usize, mut c: Out<'_>, epilogue: Epilogue) {
        let (rows, cols) = (c.rows(), c.cols());
        let panel_len = K::panel_len(k);
        let stride = staged_stride(k, size_of::<K::Staged>());
        let panels = cols.div_ceil(K::COLS);
        let tile_len = if matches!(a, Rows::Stored(_)) { K::ROWS * stride } else { 0 };
        scratch::with(panels * panel_len, |packed: &mut [K::Packed]| {
            self.b.pack(self.kernel, self.op.trans_b, [start, k], [col, cols], packed);
            scratch::with(tile_len, |tile: &mut [K::Staged]| {
                for (row, tile_rows) in Cut::new(rows, rows.div_ceil(K::ROWS)).runs() {
                    let a = match a.at(row) {
                        Rows::Ready(a) => a,
                        Rows::Stored(a) => {
                            self.kernel.stage(a, false, tile_rows, k, tile, stride);
                            Matrix::new(&*tile, stride)
                        }
                    };
                    let out = c.part(row, tile_rows, 0, cols);
                    self.kernel.tiles(a, k.next_multiple_of(K::DEPTH), packed, out, epilogue);
                }
            });
        });
    }
}

/// Elements from one laid-out row to the next: whole cache lines, and never a multiple of [`CONFLICT_BYTES`].
fn staged_stride(k: usize, element: usize) -> usize {
    let line = 64 / element;
    let stride = k.next_multiple_of(line);
    if (stride * element).is_multiple_of(CONFLICT_BYTES) { stride + line } else { stride }
}
