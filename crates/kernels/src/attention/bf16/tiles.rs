//! What the two passes ask of a machine: products of tiles of pairs, and a left factor that is used transposed.

use crate::simd::Avx512;
use crate::simd::matrix::Matrix;
use crate::simd::tile_amx::{self, Session};
use crate::simd::tile_bf16::{self, Left, Panels};
use std::ops::Range;

/// Products of tiles of bf16 pairs, and how a left factor lies whose rows are summed over.
pub(in super::super) trait Tiles: Copy {
    /// Rows of a block: left factors and results have whole blocks, and [`KEYS`](super::super::cpu_cut::KEYS) is a
    /// multiple of it.
    const ROWS: usize;
    /// Pairs of a step: sums go over whole steps.
    const STEP: usize;

    /// The instructions for everything else.
    fn avx512(self) -> Avx512;

    /// `C[rows, n] = A[rows, 2·pairs] · B[2·pairs, n]`, or `+=` if `ADD`; whole blocks and steps, `n` a multiple of 16.
    fn product<const ADD: bool>(
        self,
        a: Matrix<'_, u32>,
        rows: usize,
        pairs: usize,
        b: Panels<'_>,
        n: usize,
        c: &mut [f32],
        c_stride: usize,
    );

    /// Lays a block of rows of `n` numbers out as part of a left factor of [`turned_product`](Self::turned_product),
    /// from row `row` on, and zeros in place of columns `n` to `columns`.
    fn turn(self, block: Matrix<'_, f32>, n: usize, row: usize, to: &mut Turned<'_>);

    /// `C[columns, n] += Aᵀ[columns, 2·pairs] · B[2·pairs, n]` over these pairs of rows of `A`; whole blocks of columns
    /// and steps.
    fn turned_product(
        self,
        a: &Turned<'_>,
        pairs: Range<usize>,
        columns: usize,
        b: Panels<'_>,
        n: usize,
        c: &mut [f32],
        c_stride: usize,
    );
}

/// A left factor whose rows are summed over, in pairs of rows rounded to bf16; how they lie is the machine's affair.
pub(in super::super) struct Turned<'s> {
    pub(in super::super) data: &'s mut [u32],
    /// Pairs of rows that there is room for.
    pub(super) pairs: usize,
    pub(super) columns: usize,
}

impl Tiles for Avx512 {
    const ROWS: usize = tile_bf16::ROWS;
    const STEP: usize = 1;

    #[inline(always)]
    fn avx512(self) -> Avx512 {
        self
    }

    #[inline(always)]
    fn product<const ADD: bool>(
        self,
        a: Matrix<'_, u32>,
        rows: usize,
        pairs: usize,
        b: Panels<'_>,
        n: usize,
        c: &mut [f32],
        c_stride: usize,
    ) {
        for row in (0..rows).step_by(Self::ROWS) {
            let (a, c) = (Left::Rows(a.at(row, 0)), &mut c[row * c_stride..]);
            tile_bf16::product::<ADD>(self, a, pairs, b, n, c, c_stride);
        }
    }

    /// `[pairs][columns]`: the machine broadcasts a pair from anywhere.
    #[inline(always)]
    fn turn(self, block: Matrix<'_, f32>, n: usize, row: usize, to: &mut Turned<'_>) {
        for pair in 0..Self::ROWS / 2 {
            let to = &mut to.data[(row / 2 + pair) * to.columns..][..to.columns];
            let (even, odd) = (block.row(2 * pair, 0, n), block.row(2 * pair + 1, 0, n));
            tile_bf16::pairs_of_columns(self, even, odd, to);
            to[n..].fill(0);
        }
    }

    #[inline(always)]
    fn turned_product(
        self,
        a: &Turned<'_>,
        pairs: Range<usize>,
        columns: usize,
        b: Panels<'_>,
        n: usize,
        c: &mut [f32],
        c_stride: usize,
    ) {
        for column in (0..columns).step_by(Self::ROWS) {
            let left = Left::Columns(Matrix::new(&a.data[pairs.start * a.columns + column..], a.columns));
            tile_bf16::product::<true>(self, left, pairs.len(), b, n, &mut c[column * c_stride..], c_stride);
        }
    }
}

impl Tiles for &Session {
    const ROWS: usize = tile_amx::ROWS;
    const STEP: usize = tile_amx::STEP;

    #[inline(always)]
    fn avx512(self) -> Avx512 {
        Session::avx512(self)
    }

    #[inline(always)]
    fn product<const ADD: bool>(
        self,
        a: Matrix<'_, u32>,
        rows: usize,
        pairs: usize,
        b: Panels<'_>,
        n: usize,
        c: &mut [f32],
        c_stride: usize,
    ) {
        tile_amx::product::<ADD>(self, a, rows, pairs, b, n, c, c_stride);
    }

    /// `[columns][pairs]`: rows of a left factor.
    #[inline(always)]
    fn turn(self, block: Matrix<'_, f32>, n: usize, row: usize, to: &mut Turned<'_>) {
        tile_amx::turn_pairs(self.avx512(), block, n, &mut to.data[row / 2..], to.pairs);
        for column in n..to.columns {
            to.data[column * to.pairs + row / 2..][..Self::ROWS / 2].fill(0);
        }
    }

    #[inline(always)]
    fn turned_product(
        self,
        a: &Turned<'_>,
        pairs: Range<usize>,
        columns: usize,
        b: Panels<'_>,
        n: usize,
        c: &mut [f32],
        c_stride: usize,
    ) {
        let left = Matrix::new(&a.data[pairs.start..], a.pairs);
        tile_amx::product::<true>(self, left, columns, pairs.len(), b, n, c, c_stride);
    }
}
