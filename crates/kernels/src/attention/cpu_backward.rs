//! One task: a run of key tiles and a key/value head. Probabilities are computed again from the scores and `lse`. The
//! gradients of a tile's keys and values are summed in scratch and written once; those of the queries are summed per
//! task, and the tasks' sums are added in order at the end.

use super::cpu::{Inputs, Saved};
use super::cpu_cut::{KEYS, KeyPart, KeyTile, SPARE_ROWS, seen, tile_queries, visible};
use super::cpu_tile::{Left, product, widen_columns, widen_rows};
use crate::lanes::{LANES, MulAdd, vectorize};
use crate::math;
use crate::matmul::scratch;
use crate::operand::Operand;
use crate::pool::Pool;
use crate::simd::matrix::BlockMut;
use crate::{Attention, Isa};
use std::ops::Range;

pub(super) struct KeyTask<'a, T> {
    pub(super) tiles: &'a [KeyTile],
    /// First row of the packed row that `dq` holds.
    pub(super) first: usize,
    pub(super) kv_head: usize,
    /// Sums for the group's query heads, `[rows, group, stride]`, without the factor `scale`.
    pub(super) dq: &'a mut [f32],
    /// `dk` and `dv` of each tile.
    pub(super) outputs: Vec<(BlockMut<'a, T>, BlockMut<'a, T>)>,
}

/// A key tile in f32, and the sums of its gradients.
struct Keys<'s> {
    /// Keys, `[KEYS, stride]`.
    k: &'s mut [f32],
    /// Keys, `[H, KEYS]`.
    k_columns: &'s mut [f32],
    /// Values, `[H, KEYS]`.
    v_columns: &'s mut [f32],
    /// `[KEYS, stride]`
    dk: &'s mut [f32],
    /// `[KEYS, stride]`
    dv: &'s mut [f32],
}

/// A query tile in f32. Row `r` is query `r / group` and head `r % group`.
struct Queries<'s> {
    /// Scaled queries, `[rows, stride]`.
    q: &'s mut [f32],
    /// `[rows, stride]`
    dout: &'s mut [f32],
    lse: &'s mut [f32],
    delta: &'s mut [f32],
    /// Probabilities, `[rows, KEYS]`.
    p: &'s mut [f32],
    /// Gradients of the scores, `[rows, KEYS]`.
    ds: &'s mut [f32],
}

/// Sizes of the parts of a task's scratch memory.
#[inline(always)]
fn sizes<T>(inputs: &Inputs<'_, T>) -> [usize; 11] {
    let (width, stride) = (inputs.op.head_dim, inputs.op.head_dim.next_multiple_of(LANES));
    let rows = tile_queries(&inputs.op) * inputs.group() + SPARE_ROWS;
    let (key_rows, key_columns, lines) = (KEYS * stride, width * KEYS, rows * stride);
    [
        key_rows,
        key_columns,
        key_columns,
        key_rows,
        key_rows,
        lines,
        lines,
        rows,
        rows,
        rows * KEYS,
        rows * KEYS,
    ]
}

/// Numbers of scratch memory that a task needs.
pub(super) fn scratch_len<T>(inputs: &Inputs<'_, T>) -> usize {
    sizes(inputs).iter().sum()
}

#[inline(always)]
pub(super) fn run<T: Operand, F: MulAdd, const MR: usize, const NV: usize>(
    inputs: &Inputs<'_, T>,
    saved: &Saved<'_, T>,
    task: &mut KeyTask<'_, T>,
    mut memory: &mut [f32],
) {
    let (width, group) = (inputs.op.head_dim, inputs.group());
    let stride = width.next_multiple_of(LANES);
    let most_queries = tile_queries(&inputs.op);
    task.dq.fill(0.0);
    let [k, k_columns, v_columns, dk, dv, q, dout, lse, delta, p, ds] =
        scratch::split(&mut memory, sizes(inputs));
    let mut keys = Keys { k, k_columns, v_columns, dk, dv };
    let mut rows = Queries { q, dout, lse, delta, p, ds };
    for (tile, (dk, dv)) in task.tiles.iter().zip(&mut task.outputs) {
        load_keys(inputs, tile, task.kv_head, &mut keys);
        let seeing = tile.queries(&inputs.op);
        for first in seeing.clone().step_by(most_queries) {
            let queries = first..seeing.end.min(first + most_queries);
            load_queries::<T, F, MR>(inputs, saved, tile, task.kv_head, queries.clone(), &mut rows);
            let at = (tile.span.q_start + first - task.first) * group * stride;
            query_tile::<F, MR, NV>(
                inputs.isa,
                &inputs.op,
                tile,
                queries,
                &mut keys,
                &mut rows,
                &mut task.dq[at..],
            );
        }
        store(keys.dk, width, 1.0, dk);
        store(keys.dv, width, 1.0, dv);
    }
}

#[inline(always)]
fn load_keys<T: Operand>(inputs: &Inputs<'_, T>, tile: &KeyTile, kv_head: usize, keys: &mut Keys<'_>) {
    let head_dim = inputs.op.head_dim;
    let starts = inputs.key_starts(kv_head, tile.rows());
    let (starts, stride) = (&starts[..tile.len], head_dim.next_multiple_of(LANES));
    for (start, to) in starts.iter().zip(keys.k.chunks_exact_mut(stride)) {
        widen_rows(1, head_dim, 1.0, &inputs.k[*start..], 0, to, stride);
    }
    widen_columns(starts, head_dim, inputs.k, keys.k_columns);
    widen_columns(starts, head_dim, inputs.v, keys.v_columns);
    keys.dk.fill(0.0);
    keys.dv.fill(0.0);
}

#[inline(always)]
fn load_queries<T: Operand, F: MulAdd, const MR: usize>(
    inputs: &Inputs<'_, T>,
    saved: &Saved<'_, T>,
    tile: &KeyTile,
    kv_head: usize,
    queries: Range<usize>,
    to: &mut Queries<'_>,
) {
    let Attention { heads, head_dim, scale, .. } = inputs.op;
    let group = inputs.group();
    let stride = head_dim.next_multiple_of(LANES);
    for (i, query) in queries.clone().enumerate() {
        let t = tile.span.q_start + query;
        let at = (t * heads + kv_head * group) * head_dim;
        let line = i * group * stride;
        widen_rows(group, head_dim, scale, &inputs.q[at..], head_dim, &mut to.q[line..], stride);
        widen_rows(group, head_dim, 1.0, &saved.dout[at..], head_dim, &mut to.dout[line..], stride);
        for head in 0..group {
            let out = &saved.out[at + head * head_dim..][..head_dim];
            let dout = &to.dout[line + head * stride..][..head_dim];
            to.delta[i * group + head] = crate::lanes::dot::<F, T>(out, dout);
            to.lse[i * group + head] = saved.lse[(kv_head * group + head) * inputs.rows + t];
        }
    }
    // Rows that fill up the last block: their probabilities are exp(-∞) = 0.
    let rows = queries.len() * group;
    let filled = rows.next_multiple_of(MR);
    to.q[rows * stride..filled * stride].fill(0.0);
    to.dout[rows * stride..filled * stride].fill(0.0);
    to.delta[rows..filled].fill(0.0);
    to.lse[rows..filled].fill(f32::INFINITY);
}

/// One query tile meets one key tile: the five products.
#[inline(always)]
fn query_tile<F: MulAdd, const MR: usize, const NV: usize>(
    isa: Isa,
    op: &Attention,
    tile: &KeyTile,
    queries: Range<usize>,
    keys: &mut Keys<'_>,
    rows: &mut Queries<'_>,
    dq: &mut [f32],
) {
    let (width, group) = (op.head_dim, op.heads / op.kv_heads);
    let stride = width.next_multiple_of(LANES);
    let count = queries.len() * group;
    for row in (0..count).step_by(MR) {
        let query = |r: usize| queries.start + (r / group).min(queries.len() - 1);
        let (_, end) = visible(op, &tile.span, query(row + MR - 1));
        let used = tile.len.min(end - tile.first);
        let n = used.next_multiple_of(LANES);
        let (p, ds) = (&mut rows.p[row * KEYS..], &mut rows.ds[row * KEYS..]);
        let (q, dout) = (&rows.q[row * stride..], &rows.dout[row * stride..]);
        product::<F, MR, NV, false>(isa, Left::Rows(q, stride), width, keys.k_columns, KEYS, n, p, KEYS);
        product::<F, MR, NV, false>(isa, Left::Rows(dout, stride), width, keys.v_columns, KEYS, n, ds, KEYS);
        for i in 0..MR {
            let seen = seen(visible(op, &tile.span, query(row + i)), tile.first, n, used);
            let (p, ds) = (&mut p[i * KEYS..][..KEYS], &mut ds[i * KEYS..][..KEYS]);
            score_row::<F>(op.softcap, 1.0, seen, n, p, ds, rows.lse[row + i], rows.delta[row + i]);
        }
        let dq = &mut dq[row * stride..];
        product::<F, MR, NV, true>(isa, Left::Rows(ds, KEYS), used, keys.k, stride, stride, dq, stride);
    }
    let k = count.next_multiple_of(MR);
    for key in (0..tile.len).step_by(MR) {
        let (dv, dk) = (&mut keys.dv[key * stride..], &mut keys.dk[key * stride..]);
        product::<F, MR, NV, true>(
            isa,
            Left::Columns(&rows.p[key..], KEYS),
            k,
            rows.dout,
            stride,
            stride,
            dv,
            stride,
        );
        product::<F, MR, NV, true>(
            isa,
            Left::Columns(&rows.ds[key..], KEYS),
            k,
            rows.q,
            stride,
            stride,
            dk,
            stride,
        );
    }
}

/// `p`: scores, which are still to be multiplied by `scale`, become probabilities; `ds`: their gradients become those
/// of the scores. Zero for keys not seen.
#[inline(always)]
pub(super) fn score_row<F: MulAdd>(
    softcap: Option<f32>,
    scale: f32,
    seen: Range<usize>,
    n: usize,
    p: &mut [f32],
    ds: &mut [f32],
    lse: f32,
    delta: f32,
) {
    if let Some(cap) = softcap {
        for (p, ds) in p[..n].iter_mut().zip(&mut ds[..n]) {
            let tanh = math::tanh::<F>(*p * scale / cap);
            *p = math::exp::<F>(cap * tanh - lse);
            *ds = *p * (*ds - delta) * (1.0 - tanh * tanh);
        }
    } else {
        for (p, ds) in p[..n].iter_mut().zip(&mut ds[..n]) {
            *p = math::exp::<F>(F::mul_add(*p, scale, -lse));
            *ds = *p * (*ds - delta);
        }
    }
    for x in [p, ds] {
        x[..seen.start.min(seen.end)].fill(0.0);
        x[seen.end..].fill(0.0);
    }
}

/// Writes the first columns of finished sums, times `factor`.
#[inline(always)]
pub(super) fn store<T: Operand>(from: &[f32], width: usize, factor: f32, to: &mut BlockMut<'_, T>) {
    for (i, from) in from.chunks_exact(width.next_multiple_of(LANES)).take(to.rows()).enumerate() {
        to.row(i).iter_mut().zip(from).for_each(|(to, x)| *to = T::narrow(*x * factor));
    }
}

/// `dq = scale · Σ_parts`, the parts in order.
pub(super) fn gather_dq<T: Operand>(
    pool: &Pool,
    isa: Isa,
    inputs: &Inputs<'_, T>,
    parts: &[KeyPart],
    sums: &[f32],
    dq: &mut [T],
) {
    /// Rows of one task.
    const ROWS: usize = 16;
    let Attention { heads, kv_heads, head_dim, .. } = inputs.op;
    let mut places = Vec::new();
    let mut at = 0;
    for part in parts {
        let size = part.sums_len(&inputs.op);
        places.push((part.queries.clone(), at, size));
        at += kv_heads * size;
    }
    pool.pieces(dq, ROWS * heads * head_dim, |piece, dq| {
        for (i, dq) in dq.chunks_exact_mut(head_dim).enumerate() {
            let (t, head) = (piece * ROWS + i / heads, i % heads);
            vectorize!(isa, F => gather_head(inputs, &places, sums, t, head, dq));
        }
    });
}

#[inline(always)]
fn gather_head<T: Operand>(
    inputs: &Inputs<'_, T>,
    places: &[(Range<usize>, usize, usize)],
    sums: &[f32],
    t: usize,
    head: usize,
    dq: &mut [T],
) {
    let (group, stride) = (inputs.group(), dq.len().next_multiple_of(LANES));
    for (block, dq) in dq.chunks_mut(LANES).enumerate() {
        let mut total = [0.0; LANES];
        for (queries, at, size) in places.iter().filter(|(queries, ..)| queries.contains(&t)) {
            let row = (t - queries.start) * group + head % group;
            let at = at + head / group * size + row * stride + block * LANES;
            let part: &[f32; LANES] = sums[at..].first_chunk().expect("rows are whole lane arrays");
            for l in 0..LANES {
                total[l] += part[l];
            }
        }
        dq.iter_mut().zip(total).for_each(|(dq, x)| *dq = T::narrow(x * inputs.op.scale));
    }
}
