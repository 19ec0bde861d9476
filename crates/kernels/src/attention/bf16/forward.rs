//! One task of the forward: a query tile and a key/value head, as in `cpu_forward.rs`, on tiles of bf16 pairs.

use super::super::cpu::Inputs;
use super::super::cpu_cut::{KEYS, QueryTile, SPARE_ROWS, seen};
use super::super::cpu_forward::{QueryTask, Rows, softmax_row, store};
use super::{columns, columns_len, pairs, row_pairs, row_pairs_len, rows_of, staging_len};
use crate::lanes::{Fused, LANES};
use crate::matmul::scratch;
use crate::operand::Operand;
use crate::simd::Avx512;
use crate::simd::matrix::Matrix;
use crate::simd::tile_bf16::{Left, Panels, ROWS, pairs_of_row, product};

/// The keys and values of one tile, and room for the scores of a block of rows.
struct Keys<'s> {
    /// Panels of the keys as columns.
    k: &'s mut [u32],
    /// Panels of pairs of values.
    v: &'s mut [u32],
    /// `[ROWS, KEYS]`
    scores: &'s mut [f32],
    /// Their exponentials, `[ROWS, KEYS / 2]` pairs.
    weights: &'s mut [u32],
}

/// Sizes of the parts of a task's scratch memory: those of f32, then those of pairs.
#[inline(always)]
fn sizes<T>(inputs: &Inputs<'_, T>, tile: &QueryTile) -> ([usize; 4], [usize; 5]) {
    let (width, stride) = (inputs.op.head_dim, inputs.op.head_dim.next_multiple_of(LANES));
    let rows = tile.len * inputs.group() + SPARE_ROWS;
    (
        [rows * stride, rows, rows, ROWS * KEYS],
        [
            rows * width.div_ceil(2),
            columns_len(width),
            row_pairs_len(KEYS, width),
            ROWS * KEYS / 2,
            staging_len(inputs),
        ],
    )
}

/// Numbers of scratch memory that a task needs.
pub(crate) fn scratch_len<T>(inputs: &Inputs<'_, T>, tile: &QueryTile) -> usize {
    let (numbers, pairs) = sizes(inputs, tile);
    numbers.iter().chain(&pairs).sum()
}

/// Writes the rows of `out` and `lse` that the task owns.
#[inline(always)]
pub(crate) fn run<T: Operand>(
    isa: Avx512,
    inputs: &Inputs<'_, T>,
    task: &mut QueryTask<'_, T>,
    mut memory: &mut [f32],
) {
    let (numbers, words) = sizes(inputs, &task.tile);
    let [out, max, sum, scores] = scratch::split(&mut memory, numbers);
    let mut memory: &mut [u32] = bytemuck::cast_slice_mut(memory);
    let [q, k, v, weights, staging] = scratch::split(&mut memory, words);
    let (mut rows, mut keys) = (Rows::new(q, [out, max, sum]), Keys { k, v, scores, weights });
    load_queries(inputs, task, rows.q);
    let (first, _) = task.tile.visible(&inputs.op, 0);
    let (_, end) = task.tile.visible(&inputs.op, task.tile.len - 1);
    let width = inputs.op.head_dim;
    for start in (first..end).step_by(KEYS) {
        let len = KEYS.min(end - start);
        let at = task.tile.span.kv_start + start;
        let starts = inputs.key_starts(task.kv_head, at..at + len);
        columns(isa, rows_of(inputs, &starts[..len], inputs.k, staging), len, width, keys.k);
        row_pairs(isa, rows_of(inputs, &starts[..len], inputs.v, staging), len, width, KEYS, keys.v);
        key_tile(isa, inputs, &task.tile, start, len, &mut rows, &mut keys);
    }
    store(inputs, task, &rows);
}

#[inline(always)]
fn load_queries<T: Operand>(inputs: &Inputs<'_, T>, task: &QueryTask<'_, T>, q: &mut [u32]) {
    let (heads, width, group) = (inputs.op.heads, inputs.op.head_dim, inputs.group());
    let from: &[half::bf16] = bytemuck::cast_slice(inputs.q);
    let (depth, mut row) = (width.div_ceil(2), 0);
    for t in task.tile.rows() {
        for head in 0..group {
            let at = (t * heads + task.kv_head * group + head) * width;
            pairs(&from[at..][..width], &mut q[row * depth..][..depth]);
            row += 1;
        }
    }
    q[row * depth..].fill(0);
}

/// All rows of the task meet one key tile.
#[inline(always)]
fn key_tile<T: Operand>(
    isa: Avx512,
    inputs: &Inputs<'_, T>,
    tile: &QueryTile,
    start: usize,
    len: usize,
    rows: &mut Rows<'_, u32>,
    keys: &mut Keys<'_>,
) {
    let (op, group) = (&inputs.op, inputs.group());
    let (depth, stride) = (op.head_dim.div_ceil(2), op.head_dim.next_multiple_of(LANES));
    let query = |r: usize| (r / group).min(tile.len - 1);
    for row in (0..tile.len * group).step_by(ROWS) {
        let (first, _) = tile.visible(op, query(row));
        let (_, end) = tile.visible(op, query(row + ROWS - 1));
        if end <= start || first >= start + len {
            continue;
        }
        let used = len.min(end - start);
        let n = used.next_multiple_of(LANES);
        let q = Left::Rows(Matrix::new(&rows.q[row * depth..], depth));
        let k = Panels { data: keys.k, depth };
        product::<false>(isa, q, depth, k, n, op.scale, keys.scores, KEYS);
        for i in 0..ROWS {
            let seen = seen(tile.visible(op, query(row + i)), start, n, used);
            let line = &mut keys.scores[i * KEYS..][..n];
            let out = &mut rows.out[(row + i) * stride..][..stride];
            softmax_row::<Fused>(op.softcap, seen, line, &mut rows.max[row + i], &mut rows.sum[row + i], out);
            pairs_of_row(isa, line, &mut keys.weights[i * (KEYS / 2)..]);
        }
        let weights = Left::Rows(Matrix::new(&*keys.weights, KEYS / 2));
        let v = Panels { data: keys.v, depth: KEYS / 2 };
        product::<true>(
            isa,
            weights,
            used.div_ceil(2),
            v,
            stride,
            1.0,
            &mut rows.out[row * stride..],
            stride,
        );
    }
}
