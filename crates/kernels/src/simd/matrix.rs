//! Rectangles of row-major matrices: shared ones to read, disjoint ones that several threads may write at once.

use crate::operand::Operand;
use half::bf16;
use std::marker::PhantomData;

/// Rows of numbers, `stride` elements apart; the last row need not be padded to the stride.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Matrix<'a, T> {
    /// The numbers, from the first element of the first row.
    pub(crate) data: &'a [T],
    /// Elements from the start of a row to the start of the next.
    pub(crate) stride: usize,
}

impl<'a, T> Matrix<'a, T> {
    /// A view of `data` whose rows start `stride` elements apart.
    pub(crate) fn new(data: &'a [T], stride: usize) -> Self {
        Self { data, stride }
    }

    /// Panics unless `rows × cols` numbers are there.
    #[inline]
    pub(crate) fn expect(&self, what: &str, rows: usize, cols: usize) {
        assert!(
            cols <= self.stride || rows <= 1,
            "{what}: rows of {cols} overlap at a stride of {}",
            self.stride
        );
        let needed = extent(rows, cols, self.stride);
        assert!(
            needed <= self.data.len(),
            "{what}: {rows}×{cols} needs {needed} elements, got {}",
            self.data.len()
        );
    }

    /// `cols` elements of row `row`, from column `col`.
    #[inline(always)]
    pub(crate) fn row(&self, row: usize, col: usize, cols: usize) -> &'a [T] {
        &self.data[row * self.stride + col..][..cols]
    }

    /// The part that starts at (`row`, `col`).
    #[inline]
    pub(crate) fn at(&self, row: usize, col: usize) -> Matrix<'a, T> {
        Matrix { data: &self.data[(row * self.stride + col).min(self.data.len())..], stride: self.stride }
    }
}

/// Elements from the first to the last of `rows × cols`, `stride` apart; `usize::MAX`, which no slice has, where that
/// number does not fit: every bound of this folder rests on this one.
fn extent(rows: usize, cols: usize, stride: usize) -> usize {
    if rows == 0 || cols == 0 {
        return 0;
    }
    (rows - 1).checked_mul(stride).and_then(|last| last.checked_add(cols)).unwrap_or(usize::MAX)
}

/// A rectangle of a row-major matrix that its holder alone may read and write. Splitting gives disjoint rectangles,
/// which may go to different threads.
#[derive(Debug)]
pub(crate) struct BlockMut<'a, T> {
    data: *mut T,
    rows: usize,
    cols: usize,
    stride: usize,
    owner: PhantomData<&'a mut [T]>,
}

// SAFETY: a block is a `&mut` to the elements of its rectangle, and no two blocks share an element.
unsafe impl<T: Send> Send for BlockMut<'_, T> {}

impl<'a, T> BlockMut<'a, T> {
    /// The rectangle of `rows × cols` at the start of `data`, its rows `stride` elements apart.
    pub(crate) fn new(data: &'a mut [T], rows: usize, cols: usize, stride: usize) -> Self {
        Matrix::new(data, stride).expect("result", rows, cols);
        Self { data: data.as_mut_ptr(), rows, cols, stride, owner: PhantomData }
    }

    /// Rows of the rectangle.
    #[inline(always)]
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// Columns of the rectangle.
    #[inline(always)]
    pub(crate) fn cols(&self) -> usize {
        self.cols
    }

    /// Row `row`, as long as the rectangle is wide.
    #[inline(always)]
    pub(crate) fn row(&mut self, row: usize) -> &mut [T] {
        assert!(row < self.rows);
        // SAFETY: `new` checked that the rectangle lies inside a slice borrowed for 'a, and splitting and `part` only
        // make it smaller; the elements belong to this block alone.
        unsafe { std::slice::from_raw_parts_mut(self.data.add(row * self.stride), self.cols) }
    }

    /// The smaller rectangle of `rows × cols` at (`row`, `col`), lent from this one.
    #[inline]
    pub(crate) fn part(&mut self, row: usize, rows: usize, col: usize, cols: usize) -> BlockMut<'_, T> {
        assert!(rows <= self.rows && row <= self.rows - rows && cols <= self.cols && col <= self.cols - cols);
        let data = self.data.wrapping_add(row * self.stride + col);
        BlockMut { data, rows, cols, stride: self.stride, owner: PhantomData }
    }

    /// The first `at` columns, and the rest.
    pub(crate) fn split_columns(self, at: usize) -> (Self, Self) {
        assert!(at <= self.cols);
        let right = Self { data: self.data.wrapping_add(at), cols: self.cols - at, ..self };
        (Self { cols: at, ..self }, right)
    }

    /// The first `at` rows, and the rest.
    pub(crate) fn split_rows(self, at: usize) -> (Self, Self) {
        assert!(at <= self.rows);
        let below = Self { data: self.data.wrapping_add(at * self.stride), rows: self.rows - at, ..self };
        (Self { rows: at, ..self }, below)
    }
}

/// Where a product goes: f32 or bf16.
#[derive(Debug)]
pub(crate) enum Out<'a> {
    /// Single precision.
    F32(BlockMut<'a, f32>),
    /// Rounded once, to nearest even.
    Bf16(BlockMut<'a, bf16>),
}

impl Out<'_> {
    /// Rows of the rectangle.
    #[inline(always)]
    pub(crate) fn rows(&self) -> usize {
        match self {
            Out::F32(block) => block.rows(),
            Out::Bf16(block) => block.rows(),
        }
    }

    /// Columns of the rectangle.
    #[inline(always)]
    pub(crate) fn cols(&self) -> usize {
        match self {
            Out::F32(block) => block.cols(),
            Out::Bf16(block) => block.cols(),
        }
    }

    /// As [`BlockMut::part`].
    #[inline]
    pub(crate) fn part(&mut self, row: usize, rows: usize, col: usize, cols: usize) -> Out<'_> {
        match self {
            Out::F32(block) => Out::F32(block.part(row, rows, col, cols)),
            Out::Bf16(block) => Out::Bf16(block.part(row, rows, col, cols)),
        }
    }

    /// As [`BlockMut::split_columns`].
    pub(crate) fn split_columns(self, at: usize) -> (Self, Self) {
        match self {
            Out::F32(block) => {
                let (left, right) = block.split_columns(at);
                (Out::F32(left), Out::F32(right))
            }
            Out::Bf16(block) => {
                let (left, right) = block.split_columns(at);
                (Out::Bf16(left), Out::Bf16(right))
            }
        }
    }

    /// As [`BlockMut::split_rows`].
    pub(crate) fn split_rows(self, at: usize) -> (Self, Self) {
        match self {
            Out::F32(block) => {
                let (above, below) = block.split_rows(at);
                (Out::F32(above), Out::F32(below))
            }
            Out::Bf16(block) => {
                let (above, below) = block.split_rows(at);
                (Out::Bf16(above), Out::Bf16(below))
            }
        }
    }

    /// Writes (or adds) `alpha · sums[j]` to the first elements of row `row`; `sums` is as long as the row or longer.
    #[inline(always)]
    pub(crate) fn put(&mut self, row: usize, sums: &[f32], epilogue: Epilogue) {
        let Epilogue { alpha, accumulate } = epilogue;
        match self {
            Out::F32(block) => {
                for (c, &sum) in block.row(row).iter_mut().zip(sums) {
                    *c = if accumulate { *c + alpha * sum } else { alpha * sum };
                }
            }
            Out::Bf16(block) => {
                for (c, &sum) in block.row(row).iter_mut().zip(sums) {
                    *c = bf16::narrow(if accumulate { c.widen() + alpha * sum } else { alpha * sum });
                }
            }
        }
    }
}

/// What happens to a finished sum.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Epilogue {
    /// Factor of the sum.
    pub(crate) alpha: f32,
    /// Add to what is there.
    pub(crate) accumulate: bool,
}
