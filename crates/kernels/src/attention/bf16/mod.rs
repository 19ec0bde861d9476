//! The two passes for bf16 with the machine's products of bf16 pairs (AMX or AVX-512): tiles stay bf16, sums are f32.
//! Probabilities and gradients of scores are rounded to bf16 before they meet values, keys and queries, as PyTorch's
//! flash attention for CPUs does (ATen, `FlashAttentionKernel.cpp`, 2.15).

pub(super) mod backward;
pub(super) mod forward;
mod tiles;

pub(super) use tiles::Tiles;

use super::cpu::Inputs;
use super::cpu_cut::KEYS;
use crate::operand::Operand;
use crate::simd::matrix::Matrix;
use crate::simd::pack;
use crate::simd::tile_bf16::COLS;
use half::bf16;

/// Elements of [`rows_of`]'s copies, for a key tile.
fn staging_len<T>(inputs: &Inputs<'_, T>) -> usize {
    if inputs.pages.is_some() { (KEYS * inputs.op.head_dim).div_ceil(2) } else { 0 }
}

/// The rows of one head that begin at `starts`, evenly spaced: those of `x` itself, or copies where pages scatter them.
#[inline(always)]
fn rows_of<'a, T: Operand>(
    inputs: &Inputs<'_, T>,
    starts: &[usize],
    x: &'a [T],
    staging: &'a mut [u32],
) -> Matrix<'a, bf16> {
    let (x, width) = (bytemuck::cast_slice::<T, bf16>(x), inputs.op.head_dim);
    if inputs.pages.is_none() {
        return Matrix::new(&x[starts[0]..], inputs.op.kv_heads * width);
    }
    let copies: &mut [bf16] = bytemuck::cast_slice_mut(staging);
    for (start, to) in starts.iter().zip(copies.chunks_exact_mut(width)) {
        to.copy_from_slice(&x[*start..][..width]);
    }
    Matrix::new(copies, width)
}

/// Pairs that a row of `width` numbers has where products go over it.
fn depth_of<I: Tiles>(width: usize) -> usize {
    width.div_ceil(2).next_multiple_of(I::STEP)
}

/// Copies a row as pairs; the missing half of an odd last pair, and missing pairs, become zero.
#[inline(always)]
fn pairs(from: &[bf16], to: &mut [u32]) {
    // The first of a pair is the low one, as the machine has them in memory.
    let to: &mut [bf16] = bytemuck::cast_slice_mut(to);
    to[..from.len()].copy_from_slice(from);
    to[from.len()..].fill(bf16::ZERO);
}

/// Elements of [`columns`]: a key tile of rows of `width` numbers.
fn columns_len<I: Tiles>(width: usize) -> usize {
    KEYS * depth_of::<I>(width)
}

/// Lays `count` rows of `width` numbers out as panels of the columns of `Xᵀ`: pairs along a row become pairs of `k`.
/// What a last step has beyond the rows' pairs is left alone.
#[inline(always)]
fn columns<I: Tiles>(isa: I, rows: Matrix<'_, bf16>, count: usize, width: usize, to: &mut [u32]) {
    let depth = depth_of::<I>(width);
    for first in (0..count.next_multiple_of(16)).step_by(16) {
        let at = first / COLS * depth * COLS + first % COLS;
        let present = (count - first).min(16);
        pack::transpose_rows(isa.avx512(), rows.at(first, 0), present, width, &mut to[at..], COLS);
    }
}

/// Elements of [`row_pairs`], for up to `count` rows of `width` numbers.
fn row_pairs_len(count: usize, width: usize) -> usize {
    count.div_ceil(2) * width.next_multiple_of(COLS)
}

/// Lays `count` rows of `width` numbers out as panels whose pairs are neighbouring rows, with zeros up to whole steps;
/// a panel has room for `room` rows.
#[inline(always)]
fn row_pairs<I: Tiles>(
    isa: I,
    rows: Matrix<'_, bf16>,
    count: usize,
    width: usize,
    room: usize,
    to: &mut [u32],
) {
    let (depth, present) = (room.div_ceil(2), count.div_ceil(2));
    for first in (0..width).step_by(COLS) {
        let panel = &mut to[first * depth..];
        pack::pair_rows(isa.avx512(), rows.at(0, first), count, (width - first).min(COLS), panel);
        panel[present * COLS..present.next_multiple_of(I::STEP) * COLS].fill(0);
    }
}
