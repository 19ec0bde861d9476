//! `C = A·Bᵀ` with few rows of bf16 on AMX (decoding several texts, scoring short ones): computed as `Cᵀ = B·Aᵀ`,
//! because then the long factor `B` goes into the tiles as it is stored, row by row, and only the few rows of `A` are
//! packed. The sums are those of the other path on AMX, bit for bit, as long as one run of `k` holds them
//! (a result in bf16 may keep a denormal number here that is zero there).

use super::cpu_factor::Factor;
use super::cpu_kernel::MicroKernel;
use super::cpu_partition::Cut;
use super::cpu_x86::Bf16Amx;
use super::scratch;
use crate::Matmul;
use crate::pool::Pool;
use crate::simd::matrix::{BlockMut, Epilogue, Matrix, Out};
use crate::simd::{Amx, gemm_amx, pack};
use half::bf16;

/// Least and most rows of `A` for this path: one alone is served by dot products, which make codes into numbers in
/// registers, and with very many packing `B` pays.
const LEAST_ROWS: usize = 2;
const MOST_ROWS: usize = 64;
/// Rows of `B` at a time.
const ROWS: usize = gemm_amx::ROWS;
/// Bytes of `B` that make a task worth handing out.
const TASK_BYTES: usize = 64 << 10;

/// Is this a product for [`run`]?
pub(super) fn fits(op: &Matmul) -> bool {
    !op.trans_a && op.trans_b && (LEAST_ROWS..=MOST_ROWS).contains(&op.m) && op.k > 0
}

/// `c = alpha · A · Bᵀ` or `+=`.
pub(super) fn run(
    isa: Amx,
    pool: Option<&Pool>,
    op: &Matmul,
    a: Matrix<'_, bf16>,
    b: Factor<'_, bf16>,
    c: Out<'_>,
) {
    let (kernel, panel_len) = (Bf16Amx(isa), Bf16Amx::panel_len(op.k));
    scratch::shared(op.m.div_ceil(Bf16Amx::COLS) * panel_len, |panels: &mut [u32]| {
        let rows = Factor::Dense(a);
        rows.pack(kernel, true, [0, op.k], [0, op.m], panels);
        let panels = &*panels;
        let threads = pool.map_or(1, Pool::threads);
        let blocks = op.n.div_ceil(ROWS);
        let parts = (op.n * op.k * size_of::<bf16>() / TASK_BYTES).clamp(1, threads);
        let mut tasks = Vec::with_capacity(parts);
        let mut rest = c;
        for (block, count) in Cut::new(blocks, parts).runs() {
            let first = block * ROWS;
            let (part, right) = rest.split_columns((count * ROWS).min(op.n - first));
            rest = right;
            tasks.push((first, part));
        }
        let work = |(first, part): (usize, Out<'_>)| columns(isa, op, b, panels, first, part);
        match pool {
            Some(pool) => pool.each(tasks, work),
            None => tasks.into_iter().for_each(work),
        }
    });
}

/// The columns of one task: row `first` of `b` belongs to the first column of `c`.
fn columns(isa: Amx, op: &Matmul, b: Factor<'_, bf16>, panels: &[u32], first: usize, mut c: Out<'_>) {
    let epilogue = Epilogue { alpha: op.alpha, accumulate: op.accumulate };
    let (m, cols) = (c.rows(), c.cols());
    let depth = op.k.next_multiple_of(gemm_amx::DEPTH);
    let (whole, width) = (op.k == depth, m.next_multiple_of(16));
    scratch::with(ROWS * depth, |copies: &mut [bf16]| {
        scratch::with(2 * ROWS * width, |sums: &mut [f32]| {
            let (sums, turned) = sums.split_at_mut(ROWS * width);
            for at in (0..cols).step_by(ROWS) {
                let rows = ROWS.min(cols - at);
                let numbers = match b {
                    Factor::Dense(b) if whole => b.at(first + at, 0),
                    _ => {
                        for (i, copy) in copies.chunks_exact_mut(depth).enumerate().take(rows) {
                            let (row, padding) = copy.split_at_mut(op.k);
                            b.copy_row(first + at + i, row);
                            padding.fill(bf16::ZERO);
                        }
                        Matrix::new(&*copies, depth)
                    }
                };
                let out = Out::F32(BlockMut::new(sums, rows, m, width));
                let plain = Epilogue { alpha: 1.0, accumulate: false };
                gemm_amx::tiles(isa, numbers, depth / gemm_amx::DEPTH, panels, out, plain);
                for half in (0..rows).step_by(16) {
                    let from = Matrix::new(&sums[half * width..], width);
                    let to = &mut bytemuck::cast_slice_mut::<f32, u32>(turned)[half..];
                    pack::transpose_rows(isa.avx512(), from, (rows - half).min(16), m, to, ROWS);
                }
                let mut block = c.part(0, m, at, rows);
                for (i, row) in turned.chunks_exact(ROWS).enumerate().take(m) {
                    block.put(i, row, epilogue);
                }
            }
        });
    });
}
