//! One task of the backward: a run of key tiles and a key/value head, as in `cpu_backward.rs`, on tiles of bf16 pairs.
//! Neighbouring key tiles of a span make a *strip*: a query tile is laid out once for all of them.

use super::super::cpu::{Inputs, Saved};
use super::super::cpu_backward::{KeyTask, score_row, store};
use super::super::cpu_cut::{KEYS, KeyTile, SPARE_ROWS, seen, tile_queries, visible};
use super::tiles::Turned;
use super::{Tiles, columns, columns_len, depth_of, pairs, row_pairs, row_pairs_len, rows_of};
use crate::lanes::{Fused, LANES};
use crate::matmul::scratch;
use crate::operand::Operand;
use crate::simd::dot_bf16::dots;
use crate::simd::matrix::Matrix;
use crate::simd::softmax_bf16;
use crate::simd::tile_bf16::{Panels, pairs_of_row};
use half::bf16;
use std::f32::consts::LOG2_E;
use std::ops::Range;

/// Most key tiles of a strip.
const STRIP: usize = 4;

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
    /// The latter of this block and of the one before, `[ROWS, KEYS / 2]` pairs of keys each.
    ds_keys: &'s mut [u32],
    /// Probabilities of all rows.
    p_rows: Turned<'s>,
    /// Gradients of all scores.
    ds_rows: Turned<'s>,
}

/// Rows of a query tile, with those that fill up the last block.
#[inline(always)]
fn most_rows<I: Tiles, T>(inputs: &Inputs<'_, T>) -> usize {
    (tile_queries(&inputs.op) * inputs.group() + SPARE_ROWS).next_multiple_of(2 * I::STEP)
}

/// Sizes of the parts of a key tile's scratch memory: those of f32, then those of pairs.
#[inline(always)]
fn key_sizes<I: Tiles>(width: usize) -> ([usize; 2], [usize; 3]) {
    let sums = KEYS * width.next_multiple_of(LANES);
    let columns = columns_len::<I>(width);
    ([sums, sums], [row_pairs_len(KEYS, width), columns, columns])
}

/// The same of a query tile.
#[inline(always)]
fn query_sizes<I: Tiles, T>(inputs: &Inputs<'_, T>) -> ([usize; 4], [usize; 7]) {
    let (width, rows) = (inputs.op.head_dim, most_rows::<I, T>(inputs));
    let (lines, panels, block) = (rows * depth_of::<I>(width), row_pairs_len(rows, width), I::ROWS * KEYS);
    ([rows, rows, block, block], [lines, lines, panels, panels, block, rows / 2 * KEYS, rows / 2 * KEYS])
}

/// Numbers of scratch memory that a task needs.
pub(in super::super) fn scratch_len<I: Tiles, T>(inputs: &Inputs<'_, T>) -> usize {
    let ((numbers, pairs), (sums, words)) = (query_sizes::<I, T>(inputs), key_sizes::<I>(inputs.op.head_dim));
    let of_a_tile: usize = sums.iter().chain(&words).sum();
    numbers.iter().chain(&pairs).sum::<usize>() + STRIP * of_a_tile
}

/// Room for the key tiles of a strip, and for a query tile.
#[inline(always)]
fn cut<'s, I: Tiles, T>(
    inputs: &Inputs<'_, T>,
    mut memory: &'s mut [f32],
) -> ([Keys<'s>; STRIP], Queries<'s>) {
    let (sums, words) = key_sizes::<I>(inputs.op.head_dim);
    let keys = [(); STRIP].map(
        #[inline(always)]
        |()| {
            let [dk, dv] = scratch::split(&mut memory, sums);
            let [k, k_columns, v_columns] = scratch::split(&mut memory, words);
            let [k, k_columns, v_columns] =
                [k, k_columns, v_columns].map(bytemuck::cast_slice_mut::<f32, u32>);
            // What a step has beyond the width.
            k_columns.fill(0);
            v_columns.fill(0);
            Keys { k, k_columns, v_columns, dk, dv }
        },
    );
    let (numbers, words) = query_sizes::<I, T>(inputs);
    let [lse, delta, p, ds] = scratch::split(&mut memory, numbers);
    let mut memory: &mut [u32] = bytemuck::cast_slice_mut(memory);
    let [q, dout, q_rows, dout_rows, ds_keys, p_rows, ds_rows] = scratch::split(&mut memory, words);
    let pairs = most_rows::<I, T>(inputs) / 2;
    let [p_rows, ds_rows] = [p_rows, ds_rows].map(|data| Turned { data, pairs, columns: KEYS });
    (keys, Queries { q, dout, q_rows, dout_rows, lse, delta, p, ds, ds_keys, p_rows, ds_rows })
}

/// Sums `dq` of the task's queries, and writes `dk` and `dv` of its keys.
#[inline(always)]
pub(in super::super) fn run<I: Tiles, T: Operand>(
    isa: I,
    inputs: &Inputs<'_, T>,
    saved: &Saved<'_, T>,
    task: &mut KeyTask<'_, T>,
    memory: &mut [f32],
) {
    task.dq.fill(0.0);
    let (mut keys, mut rows) = cut::<I, T>(inputs, memory);
    let mut done = 0;
    while done < task.tiles.len() {
        let here = &task.tiles[done..];
        let same =
            here.iter().take(STRIP).take_while(|tile| tile.span.q_start == here[0].span.q_start).count();
        strip(isa, inputs, saved, task, done..done + same, &mut keys, &mut rows);
        done += same;
    }
}

/// A strip of key tiles meets all queries that see any of them.
#[inline(always)]
fn strip<I: Tiles, T: Operand>(
    isa: I,
    inputs: &Inputs<'_, T>,
    saved: &Saved<'_, T>,
    task: &mut KeyTask<'_, T>,
    which: Range<usize>,
    keys: &mut [Keys<'_>; STRIP],
    rows: &mut Queries<'_>,
) {
    let (op, group) = (&inputs.op, inputs.group());
    let (stride, most_queries) = (op.head_dim.next_multiple_of(LANES), tile_queries(op));
    let tiles = &task.tiles[which.clone()];
    for (tile, keys) in tiles.iter().zip(&mut *keys) {
        load_keys(isa, inputs, tile, task.kv_head, keys);
    }
    let span = &tiles[0].span;
    let end = tiles[tiles.len() - 1].queries(op).end;
    for first in (tiles[0].queries(op).start..end).step_by(most_queries) {
        let queries = first..end.min(first + most_queries);
        load_queries(isa, inputs, saved, span.q_start, task.kv_head, queries.clone(), rows);
        let dq = &mut task.dq[(span.q_start + first - task.first) * group * stride..];
        for (tile, keys) in tiles.iter().zip(&mut *keys) {
            query_tile(isa, inputs, tile, queries.clone(), keys, rows, dq);
        }
    }
    for ((dk, dv), keys) in task.outputs[which].iter_mut().zip(keys) {
        store(keys.dk, op.head_dim, op.scale, dk);
        store(keys.dv, op.head_dim, 1.0, dv);
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

/// `first`: the row of the span's first query.
#[inline(always)]
fn load_queries<I: Tiles, T: Operand>(
    isa: I,
    inputs: &Inputs<'_, T>,
    saved: &Saved<'_, T>,
    first: usize,
    kv_head: usize,
    queries: Range<usize>,
    to: &mut Queries<'_>,
) {
    let (heads, width, group) = (inputs.op.heads, inputs.op.head_dim, inputs.group());
    let (depth, count) = (depth_of::<I>(width), queries.len() * group);
    let [q, dout, out]: [&[bf16]; 3] = [inputs.q, saved.dout, saved.out].map(bytemuck::cast_slice);
    for (i, query) in queries.enumerate() {
        let t = first + query;
        for head in 0..group {
            let at = (t * heads + kv_head * group + head) * width;
            let r = i * group + head;
            pairs(&q[at..][..width], &mut to.q[r * depth..][..depth]);
            pairs(&dout[at..][..width], &mut to.dout[r * depth..][..depth]);
            let out = Matrix::new(&out[at..][..width], width);
            [to.delta[r], ..] = dots(isa.avx512(), out, 1, &dout[at..][..width]);
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

/// One query tile meets one key tile, of which it may see nothing: the five products.
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
    let seeing = tile.queries(op);
    let (start, end) = (seeing.start.max(queries.start), seeing.end.min(queries.end));
    if start >= end {
        return;
    }
    // The first block has rows that see nothing where the first query to see something lies inside.
    let first = (start - queries.start) * group / I::ROWS * I::ROWS;
    let count = (end - queries.start) * group;
    let mut before = None;
    for row in (first..count).step_by(I::ROWS) {
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
        if let Some((row, used)) = before {
            add_dq(isa, row, used, keys, rows, dq, stride);
        }
        score_block::<I, T>(isa, inputs, tile, queries.start * group + row, row, present, used, rows);
        before = Some((row, used));
    }
    if let Some((row, used)) = before {
        add_dq(isa, row, used, keys, rows, dq, stride);
    }
    let pairs = first / 2..(count.next_multiple_of(I::ROWS) / 2).next_multiple_of(I::STEP);
    let (columns, depth) = (tile.len.next_multiple_of(I::ROWS), most_rows::<I, T>(inputs) / 2);
    for (left, right, to) in
        [(&rows.p_rows, &*rows.dout_rows, &mut *keys.dv), (&rows.ds_rows, &*rows.q_rows, &mut *keys.dk)]
    {
        let right = Panels { data: right, depth }.from(pairs.start);
        isa.turned_product(left, pairs.clone(), columns, right, stride, to, stride);
    }
}

/// Where a block's gradients of scores are: those of two neighbouring blocks lie apart, so that a product does not wait
/// for what was written last.
#[inline(always)]
fn ds_of_block<I: Tiles>(row: usize) -> Range<usize> {
    let len = I::ROWS * (KEYS / 2);
    let at = row / I::ROWS % 2 * len;
    at..at + len
}

/// Adds the keys times the gradients of the scores of a block, which sees the first `used` keys, to its rows of `dq`.
#[inline(always)]
fn add_dq<I: Tiles>(
    isa: I,
    row: usize,
    used: usize,
    keys: &Keys<'_>,
    rows: &Queries<'_>,
    dq: &mut [f32],
    stride: usize,
) {
    let pairs = used.div_ceil(2).next_multiple_of(I::STEP);
    let ds = Matrix::new(&rows.ds_keys[ds_of_block::<I>(row)], KEYS / 2);
    let k = Panels { data: keys.k, depth: KEYS / 2 };
    isa.product::<true>(ds, I::ROWS, pairs, k, stride, &mut dq[row * stride..], stride);
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
    let all_ds_keys = &mut rows.ds_keys[ds_of_block::<I>(row)];
    for i in 0..present {
        let seen = seen(visible(op, &tile.span, (first + i) / group), tile.first, n, used);
        let (p, ds) = (&mut rows.p[i * KEYS..][..n], &mut rows.ds[i * KEYS..][..n]);
        let ds_keys = &mut all_ds_keys[i * (KEYS / 2)..][..KEYS / 2];
        let (lse, delta) = (rows.lse[row + i], rows.delta[row + i]);
        if op.softcap.is_some() {
            score_row::<Fused>(op.softcap, op.scale, seen, n, p, ds, lse, delta);
            pairs_of_row(isa.avx512(), ds, ds_keys);
        } else {
            let saved = softmax_bf16::Saved { lse: lse * LOG2_E, delta };
            softmax_bf16::score_row(isa.avx512(), op.scale * LOG2_E, seen, saved, p, ds, ds_keys);
        }
        if pairs > n / 2 {
            ds_keys[n / 2..pairs].fill(0);
        }
    }
    // Rows that fill up the block weigh nothing: the sums behind `dq` are those of other queries.
    for i in present..I::ROWS {
        rows.p[i * KEYS..][..n].fill(0.0);
        rows.ds[i * KEYS..][..n].fill(0.0);
        all_ds_keys[i * (KEYS / 2)..][..pairs].fill(0);
    }
    for (from, to) in [(&*rows.p, &mut rows.p_rows), (&*rows.ds, &mut rows.ds_rows)] {
        isa.turn(Matrix::new(from, KEYS), n, row, to);
    }
}
