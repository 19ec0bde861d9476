//! Products of f32 tiles that live in a first- or second-level cache, and how tiles are laid out for them.
//!
//! `MR` rows × `NV` lane arrays of sums stay in registers while the kernel walks along `k`. Everything is inlined into
//! code compiled for one instruction set. Loops are written with indices: iterator adapters and closures of the
//! standard library are not always inlined across the border of an instruction set.

use super::cpu_cut::KEYS;
use crate::Isa;
use crate::lanes::{LANES, MulAdd};
use crate::operand::Operand;
use crate::simd::matrix::Matrix;
#[cfg(target_arch = "x86_64")]
use crate::simd::tile_avx2;

/// Where the left operand of a product lies.
#[derive(Clone, Copy)]
pub(super) enum Left<'a> {
    /// Element `(i, p)` at `data[i · stride + p]`.
    Rows(&'a [f32], usize),
    /// Element `(i, p)` at `data[p · stride + i]`: used transposed.
    Columns(&'a [f32], usize),
}

/// `C[MR, n] = A[MR, k] · B[k, n]`, or `+=` if `ADD`. `n` is a multiple of [`LANES`]. With AVX2 the work is done by a
/// kernel in intrinsics: what the compiler makes of the loops here keeps half of the sums in memory.
#[inline(always)]
pub(super) fn product<F: MulAdd, const MR: usize, const NV: usize, const ADD: bool>(
    isa: Isa,
    a: Left<'_>,
    k: usize,
    b: &[f32],
    b_stride: usize,
    n: usize,
    c: &mut [f32],
    c_stride: usize,
) {
    #[cfg(target_arch = "x86_64")]
    if let Isa::Avx2(witness) = isa
        && MR == tile_avx2::ROWS
    {
        let a = match a {
            Left::Rows(a, stride) => (Matrix::new(a, stride), false),
            Left::Columns(a, stride) => (Matrix::new(a, stride), true),
        };
        return tile_avx2::product::<ADD>(witness, a, k, Matrix::new(b, b_stride), n, c, c_stride);
    }
    let _ = isa;
    let mut j = 0;
    while j + NV * LANES <= n {
        block::<F, MR, NV, ADD>(a, k, &b[j..], b_stride, &mut c[j..], c_stride);
        j += NV * LANES;
    }
    while j < n {
        block::<F, MR, 1, ADD>(a, k, &b[j..], b_stride, &mut c[j..], c_stride);
        j += LANES;
    }
}

#[inline(always)]
fn block<F: MulAdd, const MR: usize, const NV: usize, const ADD: bool>(
    a: Left<'_>,
    k: usize,
    b: &[f32],
    b_stride: usize,
    c: &mut [f32],
    c_stride: usize,
) {
    let sums = match a {
        Left::Rows(a, stride) => sums_of_rows::<F, MR, NV>(a, stride, k, b, b_stride),
        Left::Columns(a, stride) => sums_of_columns::<F, MR, NV>(a, stride, k, b, b_stride),
    };
    for i in 0..MR {
        let row = &mut c[i * c_stride..][..NV * LANES];
        for j in 0..NV {
            for l in 0..LANES {
                let c = &mut row[j * LANES + l];
                *c = if ADD { *c + sums[i][j][l] } else { sums[i][j][l] };
            }
        }
    }
}

#[inline(always)]
fn sums_of_rows<F: MulAdd, const MR: usize, const NV: usize>(
    a: &[f32],
    a_stride: usize,
    k: usize,
    b: &[f32],
    b_stride: usize,
) -> [[[f32; LANES]; NV]; MR] {
    let mut rows: [&[f32]; MR] = [&[]; MR];
    for i in 0..MR {
        rows[i] = &a[i * a_stride..][..k];
    }
    let mut sums = [[[0.0; LANES]; NV]; MR];
    for p in 0..k {
        let b = lane_arrays::<NV>(&b[p * b_stride..]);
        for i in 0..MR {
            add_row::<F, NV>(rows[i][p], &b, &mut sums[i]);
        }
    }
    sums
}

#[inline(always)]
fn sums_of_columns<F: MulAdd, const MR: usize, const NV: usize>(
    a: &[f32],
    a_stride: usize,
    k: usize,
    b: &[f32],
    b_stride: usize,
) -> [[[f32; LANES]; NV]; MR] {
    let mut sums = [[[0.0; LANES]; NV]; MR];
    for p in 0..k {
        let b = lane_arrays::<NV>(&b[p * b_stride..]);
        let column = &a[p * a_stride..][..MR];
        for i in 0..MR {
            add_row::<F, NV>(column[i], &b, &mut sums[i]);
        }
    }
    sums
}

#[inline(always)]
fn lane_arrays<const NV: usize>(x: &[f32]) -> [[f32; LANES]; NV] {
    let x = &x[..NV * LANES];
    let mut lanes = [[0.0; LANES]; NV];
    for j in 0..NV {
        for l in 0..LANES {
            lanes[j][l] = x[j * LANES + l];
        }
    }
    lanes
}

#[inline(always)]
fn add_row<F: MulAdd, const NV: usize>(a: f32, b: &[[f32; LANES]; NV], sums: &mut [[f32; LANES]; NV]) {
    for j in 0..NV {
        for l in 0..LANES {
            sums[j][l] = F::mul_add(a, b[j][l], sums[j][l]);
        }
    }
}

/// Widens `rows` rows of `width` elements, `from_stride` apart, into rows `to_stride` apart, times `factor`; the
/// rest of each row becomes zero.
#[inline(always)]
pub(super) fn widen_rows<T: Operand>(
    rows: usize,
    width: usize,
    factor: f32,
    from: &[T],
    from_stride: usize,
    to: &mut [f32],
    to_stride: usize,
) {
    for i in 0..rows {
        let (from, to) = (&from[i * from_stride..][..width], &mut to[i * to_stride..][..to_stride]);
        for h in 0..width {
            to[h] = from[h].widen() * factor;
        }
        to[width..].fill(0.0);
    }
}

/// Widens up to [`KEYS`] rows of `width` elements, which begin at `starts`, into columns of `to[width][KEYS]`; missing
/// columns, up to the next whole lane array, become zero.
#[inline(always)]
pub(super) fn widen_columns<T: Operand>(starts: &[usize], width: usize, from: &[T], to: &mut [f32]) {
    let rows = starts.len();
    for first in (0..rows).step_by(LANES) {
        let present = LANES.min(rows - first);
        let mut lines: [&[T]; LANES] = [&[]; LANES];
        for i in 0..LANES {
            lines[i] = &from[starts[first + i.min(present - 1)]..][..width];
        }
        for h in 0..width {
            let lanes = &mut to[h * KEYS + first..][..LANES];
            for i in 0..LANES {
                lanes[i] = lines[i][h].widen();
            }
            lanes[present..].fill(0.0);
        }
    }
}
