//! One task of the backward: a run of key tiles and a key/value head, as in `cpu_backward.rs`, on tiles of bf16 pairs.

use super::super::cpu::{Inputs, Saved};
use super::super::cpu_backward::{KeyTask, score_row, store};
use super::super::cpu_cut::{KEYS, KeyTile, SPARE_ROWS, seen, tile_queries, visible};
use super::tiles::Turned;
use super::{Tiles, columns, columns_len, depth_of, pairs, row_pairs, row_pairs_len, rows_of};
use crate::lanes::{Fused, LANES, dot};
use crate::matmul::scratch;
use crate::operand::Operand;
use crate::simd::matrix::Matrix;
use crate::simd::tile_bf16::{Panels, pairs_of_row};
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
    /// Queries, `[rows, depth]` pairs.
    q: &'s mut [u32],
    /// `[rows, depth]` pairs.
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
    /// Probabilities of all rows.
    p_rows: Turned<'s>,
    /// Gradients of all scores.
    ds_rows: Turned<'s>,
    /// A row of `dout` in f32.
    line: &'s mut [f32],
}

/// Rows of a query tile, with those that fill up the last block.
#[inline(always)]
fn most_rows<I: Tiles, T>(inputs: &Inputs<'_, T>) -> usize {
    (tile_queries(&inputs.op) * inputs.group() + SPARE_ROWS).next_multiple_of(2 * I::STEP)
}

/// Sizes of the parts of a task's scratch memory: those of f32, then those of pairs.
#[inline(always)]
fn sizes<I: Tiles, T>(inputs: &Inputs<'_, T>) -> ([usize; 7], [usize; 10]) {
    let width = inputs.op.head_dim;
    let (stride, rows) = (width.next_multiple_of(LANES), most_rows::<I, T>(inputs));
    let (lines, panels) = (rows * depth_of::<I>(width), row_pairs_len(rows, width));
    (
        [KEYS * stride, KEYS * stride, rows, rows, I::ROWS * KEYS, I::ROWS * KEYS, stride],
        [
            row_pairs_len(KEYS, width),
            columns_len::<I>(width),
            columns_len::<I>(width),
            lines,
            lines,
            panels,
            panels,
            I::ROWS * KEYS / 2,
            rows / 2 * KEYS,
            rows / 2 * KEYS,
        ],
    )
}

/// Numbers of scratch memory that a task needs.
pub(in super::super) fn scratch_len<I: Tiles, T>(inputs: &Inputs<'_, T>) -> usize {
    let (numbers, pairs) = sizes::<I, T>(inputs);
    numbers.iter().chain(&pairs).sum()
}

/// Sums `dq` of the task's queries, and writes `dk` and `dv` of its keys.
#[inline(always)]
pub(in super::super) fn run<I: Tiles, T: Operand>(
    isa: I,
    inputs: &Inputs<'_, T>,
    saved: &Saved<'_, T>,
    task: &mut KeyTask<'_, T>,
    mut memory: &mut [f32],
) {
    let (width, group) = (inputs.op.head_dim, inputs.group());
    let (stride, most_queries) = (width.next_multiple_of(LANES), tile_queries(&inputs.op));
    task.dq.fill(0.0);
    let (numbers, words) = sizes::<I, T>(inputs);
    let [dk, dv, lse, delta, p, ds, line] = scratch::split(&mut memory, numbers);
    let mut memory: &mut [u32] = bytemuck::cast_slice_mut(memory);
    let [k, k_columns, v_columns, q, dout, q_rows, dout_rows, ds_keys, p_rows, ds_rows] =
        scratch::split(&mut memory, words);
    // What a step has beyond the width.
    k_columns.fill(0);
    v_columns.fill(0);
    let [p_rows, ds_rows] =
        [p_rows, ds_rows].map(|data| Turned { data, pairs: most_rows::<I, T>(inputs) / 2, columns: KEYS });
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
        store(keys.dk, width, inputs.op.scale, dk);
        store(keys.dv, width, 1.0, dv);
    }
}

#[inline(always)]
fn load_keys<I: Tiles, T: Operand>(
    isa: I,
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
fn load_queries<I: Tiles, T: Operand>(
    isa: I,
    inputs: &Inputs<'_, T>,
    saved: &Saved<'_, T>,
    tile: &KeyTile,
    kv_head: usize,
    queries: Range<usize>,
    to: &mut Queries<'_>,
) {
    let (heads, width, group) = (inputs.op.heads, inputs.op.head_dim, inputs.group());
    let (depth, count) = (depth_of::<I>(width), queries.len() * group);
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
    // Rows that fill up the last block.
    let filled = count.next_multiple_of(I::ROWS);
    to.q[count * depth..filled * depth].fill(0);
    to.dout[count * depth..filled * depth].fill(0);
    let room = most_rows::<I, T>(inputs);
    for (from, panels) in [(&*to.q, &mut *to.q_rows), (&*to.dout, &mut *to.dout_rows)] {
        let rows = Matrix::new(bytemuck::cast_slice::<u32, bf16>(from), 2 * depth);
        row_pairs(isa, rows, filled, width, room, panels);
    }
}

/// One query tile meets one key tile: the five products.
#[inline(always)]
fn query_tile<I: Tiles, T: Operand>(
    isa: I,
    inputs: &Inputs<'_, T>,
    tile: &KeyTile,
    queries: Range<usize>,
    keys: &mut Keys<'_>,
    rows: &mut Queries<'_>,
    dq: &mut [f32],
) {
    let (op, group) = (&inputs.op, inputs.group());
    let (depth, stride) = (depth_of::<I>(op.head_dim), op.head_dim.next_multiple_of(LANES));
    let count = queries.len() * group;
    for row in (0..count).step_by(I::ROWS) {
        let present = I::ROWS.min(count - row);
        let last = queries.start + (row + present - 1) / group;
        let used = tile.len.min(visible(op, &tile.span, last).1 - tile.first);
        let n = used.next_multiple_of(LANES);
        for (left, right, to) in
            [(&*rows.q, &*keys.k_columns, &mut *rows.p), (&*rows.dout, &*keys.v_columns, &mut *rows.ds)]
        {
            let (left, right) = (Matrix::new(&left[row * depth..], depth), Panels { data: right, depth });
            isa.product::<false>(left, I::ROWS, depth, right, n, to, KEYS);
        }
        score_block::<I, T>(isa, inputs, tile, queries.start * group + row, row, present, used, rows);
        let pairs = used.div_ceil(2).next_multiple_of(I::STEP);
        let ds = Matrix::new(&*rows.ds_keys, KEYS / 2);
        let k = Panels { data: keys.k, depth: KEYS / 2 };
        isa.product::<true>(ds, I::ROWS, pairs, k, stride, &mut dq[row * stride..], stride);
    }
    let pairs = (count.next_multiple_of(I::ROWS) / 2).next_multiple_of(I::STEP);
    let (columns, depth) = (tile.len.next_multiple_of(I::ROWS), most_rows::<I, T>(inputs) / 2);
    for (left, right, to) in
        [(&rows.p_rows, &*rows.dout_rows, &mut *keys.dv), (&rows.ds_rows, &*rows.q_rows, &mut *keys.dk)]
    {
        isa.turned_product(left, pairs, columns, Panels { data: right, depth }, stride, to, stride);
    }
}

/// Scores of a block of rows and their gradients become factors of the products to come. `first`: the first row,
/// counted over all queries of the span.
#[inline(always)]
fn score_block<I: Tiles, T: Operand>(
    isa: I,
    inputs: &Inputs<'_, T>,
    tile: &KeyTile,
    first: usize,
    row: usize,
    present: usize,
    used: usize,
    rows: &mut Queries<'_>,
) {
    let (op, group, n) = (&inputs.op, inputs.group(), used.next_multiple_of(LANES));
    let pairs = used.div_ceil(2).next_multiple_of(I::STEP).max(n / 2);
    for i in 0..present {
        let seen = seen(visible(op, &tile.span, (first + i) / group), tile.first, n, used);
        let (p, ds) = (&mut rows.p[i * KEYS..][..n], &mut rows.ds[i * KEYS..][..n]);
        score_row::<Fused>(op.softcap, op.scale, seen, n, p, ds, rows.lse[row + i], rows.delta[row + i]);
        let ds_keys = &mut rows.ds_keys[i * (KEYS / 2)..][..KEYS / 2];
        pairs_of_row(isa.avx512(), ds, ds_keys);
        ds_keys[n / 2..pairs].fill(0);
    }
    // Rows that fill up the block weigh nothing: the sums behind `dq` are those of other queries.
    for i in present..I::ROWS {
        rows.p[i * KEYS..][..n].fill(0.0);
        rows.ds[i * KEYS..][..n].fill(0.0);
        rows.ds_keys[i * (KEYS / 2)..][..pairs].fill(0);
    }
    for (from, to) in [(&*rows.p, &mut rows.p_rows), (&*rows.ds, &mut rows.ds_rows)] {
        isa.turn(Matrix::new(from, KEYS), n, row, to);
    }
}
