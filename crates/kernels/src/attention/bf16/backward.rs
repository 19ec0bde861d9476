//! One task of the backward: a run of key tiles and a key/value head, as in `cpu_backward.rs`, on tiles of bf16 pairs.

use super::super::cpu::{Inputs, Saved};
use super::super::cpu_backward::{KeyTask, score_row, store};
use super::super::cpu_cut::{KEYS, KeyTile, SPARE_ROWS, seen, tile_queries, visible};
use super::{columns, columns_len, pairs, row_pairs, row_pairs_len, rows_of};
use crate::lanes::{Fused, LANES, dot};
use crate::matmul::scratch;
use crate::operand::Operand;
use crate::simd::Avx512;
use crate::simd::matrix::Matrix;
use crate::simd::tile_bf16::{Left, Panels, ROWS, pairs_of_columns, pairs_of_row, product};
use half::bf16;
use std::ops::Range;

/// A key tile, and the sums of its gradients.
struct Keys<'s> {
    /// Panels of pairs of keys.
    k: &'s mut [u32],
    /// Panels of the keys as columns.
    k_columns: &'s mut [u32],
    /// Panels of the values as columns.
    v_columns: &'s mut [u32],
    /// `[KEYS, stride]`
    dk: &'s mut [f32],
    /// `[KEYS, stride]`
    dv: &'s mut [f32],
}

/// A query tile. Row `r` is query `r / group` and head `r % group`.
struct Queries<'s> {
    /// Queries, `[rows, ceil(H/2)]` pairs.
    q: &'s mut [u32],
    /// `[rows, ceil(H/2)]` pairs.
    dout: &'s mut [u32],
    /// Panels of pairs of rows of the queries.
    q_rows: &'s mut [u32],
    /// Panels of pairs of rows of `dout`.
    dout_rows: &'s mut [u32],
    lse: &'s mut [f32],
    delta: &'s mut [f32],
    /// Probabilities of a block of rows, `[ROWS, KEYS]`.
    p: &'s mut [f32],
    /// Gradients of the scores of a block of rows, `[ROWS, KEYS]`.
    ds: &'s mut [f32],
    /// The latter, `[ROWS, KEYS / 2]` pairs of keys.
    ds_keys: &'s mut [u32],
    /// Probabilities of all rows, `[rows / 2, KEYS]` pairs of rows.
    p_rows: &'s mut [u32],
    /// Gradients of all scores, `[rows / 2, KEYS]` pairs of rows.
    ds_rows: &'s mut [u32],
    /// A row of `dout` in f32.
    line: &'s mut [f32],
}

/// Rows of a query tile, with those that fill up the last block.
#[inline(always)]
fn most_rows<T>(inputs: &Inputs<'_, T>) -> usize {
    (tile_queries(&inputs.op) * inputs.group() + SPARE_ROWS).next_multiple_of(2)
}

/// Sizes of the parts of a task's scratch memory: those of f32, then those of pairs.
#[inline(always)]
fn sizes<T>(inputs: &Inputs<'_, T>) -> ([usize; 7], [usize; 10]) {
    let width = inputs.op.head_dim;
    let (stride, rows) = (width.next_multiple_of(LANES), most_rows(inputs));
    let (lines, panels) = (rows * width.div_ceil(2), row_pairs_len(rows, width));
    (
        [KEYS * stride, KEYS * stride, rows, rows, ROWS * KEYS, ROWS * KEYS, stride],
        [
            row_pairs_len(KEYS, width),
            columns_len(width),
            columns_len(width),
            lines,
            lines,
            panels,
            panels,
            ROWS * KEYS / 2,
            rows / 2 * KEYS,
            rows / 2 * KEYS,
        ],
    )
}

/// Numbers of scratch memory that a task needs.
pub(crate) fn scratch_len<T>(inputs: &Inputs<'_, T>) -> usize {
    let (numbers, pairs) = sizes(inputs);
    numbers.iter().chain(&pairs).sum()
}

/// Sums `dq` of the task's queries, and writes `dk` and `dv` of its keys.
#[inline(always)]
pub(crate) fn run<T: Operand>(
    isa: Avx512,
    inputs: &Inputs<'_, T>,
    saved: &Saved<'_, T>,
    task: &mut KeyTask<'_, T>,
    mut memory: &mut [f32],
) {
    let (width, group) = (inputs.op.head_dim, inputs.group());
    let (stride, most_queries) = (width.next_multiple_of(LANES), tile_queries(&inputs.op));
    task.dq.fill(0.0);
    let (numbers, words) = sizes(inputs);
    let [dk, dv, lse, delta, p, ds, line] = scratch::split(&mut memory, numbers);
    let mut memory: &mut [u32] = bytemuck::cast_slice_mut(memory);
    let [k, k_columns, v_columns, q, dout, q_rows, dout_rows, ds_keys, p_rows, ds_rows] =
        scratch::split(&mut memory, words);
    let mut keys = Keys { k, k_columns, v_columns, dk, dv };
    let mut rows = Queries { q, dout, q_rows, dout_rows, lse, delta, p, ds, ds_keys, p_rows, ds_rows, line };
    for (tile, (dk, dv)) in task.tiles.iter().zip(&mut task.outputs) {
        load_keys(isa, inputs, tile, task.kv_head, &mut keys);
        let seeing = tile.queries(&inputs.op);
        for first in seeing.clone().step_by(most_queries) {
            let queries = first..seeing.end.min(first + most_queries);
            load_queries(isa, inputs, saved, tile, task.kv_head, queries.clone(), &mut rows);
            let at = (tile.span.q_start + first - task.first) * group * stride;
            query_tile(isa, inputs, tile, queries, &mut keys, &mut rows, &mut task.dq[at..]);
        }
        store(keys.dk, width, dk);
        store(keys.dv, width, dv);
    }
}

#[inline(always)]
fn load_keys<T: Operand>(
    isa: Avx512,
    inputs: &Inputs<'_, T>,
    tile: &KeyTile,
    kv_head: usize,
    keys: &mut Keys<'_>,
) {
    let width = inputs.op.head_dim;
    let starts = inputs.key_starts(kv_head, tile.rows());
    let starts = &starts[..tile.len];
    let (k, v) = (rows_of(inputs, starts, inputs.k, &mut []), rows_of(inputs, starts, inputs.v, &mut []));
    row_pairs(isa, k, tile.len, width, KEYS, keys.k);
    columns(isa, k, tile.len, width, keys.k_columns);
    columns(isa, v, tile.len, width, keys.v_columns);
    keys.dk.fill(0.0);
    keys.dv.fill(0.0);
}

#[inline(always)]
fn load_queries<T: Operand>(
    isa: Avx512,
    inputs: &Inputs<'_, T>,
    saved: &Saved<'_, T>,
    tile: &KeyTile,
    kv_head: usize,
    queries: Range<usize>,
    to: &mut Queries<'_>,
) {
    let (heads, width, group) = (inputs.op.heads, inputs.op.head_dim, inputs.group());
    let (depth, count) = (width.div_ceil(2), queries.len() * group);
    let [q, dout, out]: [&[bf16]; 3] = [inputs.q, saved.dout, saved.out].map(bytemuck::cast_slice);
    for (i, query) in queries.enumerate() {
        let t = tile.span.q_start + query;
        for head in 0..group {
            let at = (t * heads + kv_head * group + head) * width;
            let r = i * group + head;
            pairs(&q[at..][..width], &mut to.q[r * depth..][..depth]);
            pairs(&dout[at..][..width], &mut to.dout[r * depth..][..depth]);
            for h in 0..width {
                to.line[h] = dout[at + h].widen();
            }
            to.delta[r] = dot::<Fused, bf16>(&out[at..][..width], &to.line[..width]);
            to.lse[r] = saved.lse[(kv_head * group + head) * inputs.rows + t];
        }
    }
    // Rows that fill up the last block: their probabilities are exp(-∞) = 0.
    let filled = count.next_multiple_of(ROWS);
    to.q[count * depth..filled * depth].fill(0);
    to.dout[count * depth..filled * depth].fill(0);
    to.delta[count..filled].fill(0.0);
    to.lse[count..filled].fill(f32::INFINITY);
    let room = most_rows(inputs);
    for (from, panels) in [(&*to.q, &mut *to.q_rows), (&*to.dout, &mut *to.dout_rows)] {
        let rows = Matrix::new(bytemuck::cast_slice::<u32, bf16>(from), 2 * depth);
        row_pairs(isa, rows, filled, width, room, panels);
    }
}

/// A block of rows, from row `row` on.
#[inline(always)]
fn lines(x: &[u32], row: usize, depth: usize) -> Left<'_> {
    Left::Rows(Matrix::new(&x[row * depth..], depth))
}

/// A block of keys, from key `key` on, of what lies in pairs of rows.
#[inline(always)]
fn columns_from(x: &[u32], key: usize) -> Left<'_> {
    Left::Columns(Matrix::new(&x[key..], KEYS))
}

/// One query tile meets one key tile: the five products.
#[inline(always)]
fn query_tile<T: Operand>(
    isa: Avx512,
    inputs: &Inputs<'_, T>,
    tile: &KeyTile,
    queries: Range<usize>,
    keys: &mut Keys<'_>,
    rows: &mut Queries<'_>,
    dq: &mut [f32],
) {
    let (op, group) = (&inputs.op, inputs.group());
    let (depth, stride) = (op.head_dim.div_ceil(2), op.head_dim.next_multiple_of(LANES));
    let count = queries.len() * group;
    for row in (0..count).step_by(ROWS) {
        let query = |r: usize| queries.start + (r / group).min(queries.len() - 1);
        let (_, end) = visible(op, &tile.span, query(row + ROWS - 1));
        let used = tile.len.min(end - tile.first);
        let n = used.next_multiple_of(LANES);
        let (k, v) = (Panels { data: keys.k_columns, depth }, Panels { data: keys.v_columns, depth });
        product::<false>(isa, lines(rows.q, row, depth), depth, k, n, op.scale, rows.p, KEYS);
        product::<false>(isa, lines(rows.dout, row, depth), depth, v, n, 1.0, rows.ds, KEYS);
        for i in 0..ROWS {
            let seen = seen(visible(op, &tile.span, query(row + i)), tile.first, n, used);
            let (p, ds) = (&mut rows.p[i * KEYS..][..KEYS], &mut rows.ds[i * KEYS..][..KEYS]);
            score_row::<Fused>(op.softcap, seen, n, p, ds, rows.lse[row + i], rows.delta[row + i]);
            pairs_of_row(isa, &ds[..n], &mut rows.ds_keys[i * (KEYS / 2)..]);
        }
        for pair in 0..ROWS / 2 {
            let at = (row / 2 + pair) * KEYS;
            for (from, to) in [(&*rows.p, &mut *rows.p_rows), (&*rows.ds, &mut *rows.ds_rows)] {
                let (even, odd) = from[2 * pair * KEYS..][..2 * KEYS].split_at(KEYS);
                pairs_of_columns(isa, even, odd, &mut to[at..]);
            }
        }
        let ds = Left::Rows(Matrix::new(&*rows.ds_keys, KEYS / 2));
        let k = Panels { data: keys.k, depth: KEYS / 2 };
        product::<true>(isa, ds, used.div_ceil(2), k, stride, 1.0, &mut dq[row * stride..], stride);
    }
    let (k, depth) = (count.next_multiple_of(ROWS) / 2, most_rows(inputs) / 2);
    for key in (0..tile.len).step_by(ROWS) {
        let (dout, q) = (Panels { data: rows.dout_rows, depth }, Panels { data: rows.q_rows, depth });
        let (dv, dk) = (&mut keys.dv[key * stride..], &mut keys.dk[key * stride..]);
        product::<true>(isa, columns_from(rows.p_rows, key), k, dout, stride, 1.0, dv, stride);
        product::<true>(isa, columns_from(rows.ds_rows, key), k, q, stride, op.scale, dk, stride);
    }
}
