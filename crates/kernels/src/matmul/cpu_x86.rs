//! The kernels of x86-64: AMX for bf16, AVX-512 for bf16 and f32, AVX2 for both (bf16 is widened while it is laid out).

use super::cpu_kernel::{MicroKernel, plain, same_as_f32};
use crate::operand::Operand;
use crate::simd::matrix::{Epilogue, Matrix, Out};
use crate::simd::{Amx, Avx2, Avx512, Isa, gemm_amx, gemm_bf16, gemm_f32, gemm_f32_avx2, pack, pack_avx2};
use half::bf16;
use std::marker::PhantomData;

/// bf16, 32 × 32 in tile registers.
#[derive(Clone, Copy)]
pub(super) struct Bf16Amx(pub(super) Amx);

impl MicroKernel for Bf16Amx {
    type Operand = bf16;
    type Staged = bf16;
    type Packed = u32;
    const ROWS: usize = gemm_amx::ROWS;
    const COLS: usize = gemm_amx::COLS;
    const GROUP: usize = 2;
    const DEPTH: usize = gemm_amx::DEPTH;

    fn direct<'a>(self, a: Matrix<'a, bf16>) -> Option<Matrix<'a, bf16>> {
        Some(a)
    }

    fn stage(self, a: Matrix<'_, bf16>, trans: bool, rows: usize, k: usize, dst: &mut [bf16], stride: usize) {
        Bf16Avx512(self.0.avx512()).stage(a, trans, rows, k, dst, stride);
        for row in dst.chunks_mut(stride).take(rows) {
            row[k..k.next_multiple_of(Self::DEPTH)].fill(bf16::ZERO);
        }
    }

    fn pack(self, b: Matrix<'_, bf16>, trans: bool, cols: usize, k: usize, dst: &mut [u32]) {
        Bf16Avx512(self.0.avx512()).pack(b, trans, cols, k, dst);
    }

    fn tile(self, a: Matrix<'_, bf16>, k: usize, panel: &[u32], out: Out<'_>, epilogue: Epilogue) {
        self.tiles(a, k, panel, out, epilogue);
    }

    fn tiles(self, a: Matrix<'_, bf16>, k: usize, panels: &[u32], out: Out<'_>, epilogue: Epilogue) {
        gemm_amx::tiles(self.0, a, k / gemm_amx::DEPTH, panels, out, epilogue);
    }
}

/// bf16 pairs, 14 × 32.
#[derive(Clone, Copy)]
pub(super) struct Bf16Avx512(pub(super) Avx512);

impl MicroKernel for Bf16Avx512 {
    type Operand = bf16;
    type Staged = bf16;
    type Packed = u32;
    const ROWS: usize = gemm_bf16::ROWS;
    const COLS: usize = gemm_bf16::COLS;
    const GROUP: usize = 2;

    fn direct<'a>(self, a: Matrix<'a, bf16>) -> Option<Matrix<'a, bf16>> {
        Some(a)
    }

    fn stage(self, a: Matrix<'_, bf16>, trans: bool, rows: usize, k: usize, dst: &mut [bf16], stride: usize) {
        if trans {
            let pairs: &mut [u32] = bytemuck::cast_slice_mut(dst);
            for i in (0..rows).step_by(16) {
                let cols = (rows - i).min(16);
                pack::transpose_pairs(self.0, a.at(0, i), k, cols, &mut pairs[i * stride / 2..], stride / 2);
            }
        } else {
            for i in 0..rows {
                let (row, rest) = dst[i * stride..].split_at_mut(k);
                row.copy_from_slice(a.row(i, 0, k));
                if k % 2 == 1 {
                    rest[0] = bf16::ZERO;
                }
            }
        }
    }

    fn pack(self, b: Matrix<'_, bf16>, trans: bool, cols: usize, k: usize, dst: &mut [u32]) {
        if trans {
            pack_rows(self.0, b, cols, k, dst);
        } else {
            pack::pair_rows(self.0, b, k, cols, dst);
        }
    }

    fn tile(self, a: Matrix<'_, bf16>, k: usize, panel: &[u32], out: Out<'_>, epilogue: Epilogue) {
        gemm_bf16::tile(self.0, a, k / 2, panel, out, epilogue);
    }
}

/// Packs a panel of 32 columns whose numbers lie in rows of storage.
fn pack_rows<T: bytemuck::Pod>(isa: Avx512, b: Matrix<'_, T>, cols: usize, k: usize, dst: &mut [u32]) {
    pack::transpose_rows(isa, b, cols.min(16), k, dst, 32);
    if k > 0 {
        let right = cols.saturating_sub(16);
        let from = if right > 0 { b.at(16, 0) } else { b };
        pack::transpose_rows(isa, from, right, k, &mut dst[16..], 32);
    }
}

/// f32, 14 × 32.
#[derive(Clone, Copy)]
pub(super) struct F32Avx512(pub(super) Avx512);

impl MicroKernel for F32Avx512 {
    type Operand = f32;
    type Staged = f32;
    type Packed = f32;
    const ROWS: usize = gemm_f32::ROWS_512;
    const COLS: usize = gemm_f32::COLS_512;
    const GROUP: usize = 1;

    fn direct<'a>(self, a: Matrix<'a, f32>) -> Option<Matrix<'a, f32>> {
        Some(a)
    }

    fn stage(self, a: Matrix<'_, f32>, trans: bool, rows: usize, k: usize, dst: &mut [f32], stride: usize) {
        if trans {
            for p in (0..k).step_by(16) {
                let to: &mut [u32] = bytemuck::cast_slice_mut(&mut dst[p..]);
                pack::transpose_rows(self.0, a.at(p, 0), (k - p).min(16), rows, to, stride);
            }
        } else {
            plain::stage(a, false, rows, k, dst, stride);
        }
    }

    fn pack(self, b: Matrix<'_, f32>, trans: bool, cols: usize, k: usize, dst: &mut [f32]) {
        if trans {
            pack_rows(self.0, b, cols, k, bytemuck::cast_slice_mut(dst));
        } else {
            Isa::Avx512(self.0).vectorize(
                #[inline(always)]
                || plain::pack::<f32, { gemm_f32::COLS_512 }>(b, false, cols, k, dst),
            );
        }
    }

    fn tile(self, a: Matrix<'_, f32>, k: usize, panel: &[f32], out: Out<'_>, epilogue: Epilogue) {
        gemm_f32::tile_512(self.0, a, k, panel, out, epilogue);
    }
}

/// f32, 6 × 16, for operands of either format.
pub(super) struct F32Avx2<T>(Avx2, PhantomData<T>);

impl<T> F32Avx2<T> {
    pub(super) fn new(isa: Avx2) -> Self {
        Self(isa, PhantomData)
    }
}

impl<T> Clone for F32Avx2<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for F32Avx2<T> {}

impl<T: Operand> MicroKernel for F32Avx2<T> {
    type Operand = T;
    type Staged = f32;
    type Packed = f32;
    const ROWS: usize = gemm_f32_avx2::ROWS_256;
    const COLS: usize = gemm_f32_avx2::COLS_256;
    const GROUP: usize = 1;
    const K_BYTES: usize = 8 << 10;

    fn direct<'a>(self, a: Matrix<'a, T>) -> Option<Matrix<'a, f32>> {
        same_as_f32(a)
    }

    fn stage(self, a: Matrix<'_, T>, trans: bool, rows: usize, k: usize, dst: &mut [f32], stride: usize) {
        if trans {
            return pack_avx2::transpose_columns(self.0, a, rows, k, dst, stride);
        }
        Isa::Avx2(self.0).vectorize(
            #[inline(always)]
            || plain::stage(a, false, rows, k, dst, stride),
        );
    }

    fn pack(self, b: Matrix<'_, T>, trans: bool, cols: usize, k: usize, dst: &mut [f32]) {
        if trans {
            return pack_avx2::pack_rows(self.0, b, cols, k, dst);
        }
        Isa::Avx2(self.0).vectorize(
            #[inline(always)]
            || plain::pack::<T, { gemm_f32_avx2::COLS_256 }>(b, false, cols, k, dst),
        );
    }

    fn tile(self, a: Matrix<'_, f32>, k: usize, panel: &[f32], out: Out<'_>, epilogue: Epilogue) {
        gemm_f32_avx2::tile_256(self.0, a, k, panel, out, epilogue);
    }
}
