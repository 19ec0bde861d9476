//! One task: a query tile and a key/value head. Key tiles pass by in order; each row keeps the greatest score so
//! far, the sum of exponentials relative to it, and the weighted sum of the values.

use super::cpu::Inputs;
use super::cpu_cut::{KEYS, QueryTile, SPARE_ROWS, seen};
use super::cpu_tile::{Left, product, widen_columns, widen_rows};
use crate::lanes::{LANES, MulAdd, max_lanes, sum_lanes};
use crate::math;
use crate::matmul::scratch;
use crate::operand::Operand;
use crate::simd::matrix::BlockMut;
use crate::{Attention, Isa};

pub(super) struct QueryTask<'a, T> {
    pub(super) tile: QueryTile,
    pub(super) kv_head: usize,
    /// The tile's rows, the group's columns.
    pub(super) out: BlockMut<'a, T>,
    /// The group's heads, the tile's rows.
    pub(super) lse: BlockMut<'a, f32>,
}

/// Row `r` of a task is query `r / group` of the tile and head `r % group` of the group, as in memory.
pub(super) struct Rows<'s, Q> {
    /// Queries: scaled, `[rows, H]`, or as they are, `[rows, ceil(H/2)]` pairs.
    pub(super) q: &'s mut [Q],
    /// Weighted sums of values, `[rows, stride]`.
    pub(super) out: &'s mut [f32],
    /// Greatest score so far.
    pub(super) max: &'s mut [f32],
    /// Sum of exponentials.
    pub(super) sum: &'s mut [f32],
}

impl<'s, Q> Rows<'s, Q> {
    /// Rows that have seen no key yet.
    #[inline(always)]
    pub(super) fn new(q: &'s mut [Q], [out, max, sum]: [&'s mut [f32]; 3]) -> Self {
        out.fill(0.0);
        max.fill(f32::NEG_INFINITY);
        sum.fill(0.0);
        Self { q, out, max, sum }
    }
}

/// The keys and values of one tile.
struct Keys<'s> {
    /// `[H, KEYS]`
    k: &'s mut [f32],
    /// `[KEYS, stride]`
    v: &'s mut [f32],
}

/// Sizes of the parts of a task's scratch memory.
#[inline(always)]
fn sizes<T>(inputs: &Inputs<'_, T>, tile: &QueryTile) -> [usize; 7] {
    let (width, stride) = (inputs.op.head_dim, inputs.op.head_dim.next_multiple_of(LANES));
    let rows = tile.len * inputs.group() + SPARE_ROWS;
    [rows * width, rows * stride, rows, rows, width * KEYS, KEYS * stride, SPARE_ROWS * KEYS]
}

/// Numbers of scratch memory that a task needs.
pub(super) fn scratch_len<T>(inputs: &Inputs<'_, T>, tile: &QueryTile) -> usize {
    sizes(inputs, tile).iter().sum()
}

#[inline(always)]
pub(super) fn run<T: Operand, F: MulAdd, const MR: usize, const NV: usize>(
    inputs: &Inputs<'_, T>,
    task: &mut QueryTask<'_, T>,
    mut memory: &mut [f32],
) {
    let [q, out, max, sum, k, v, scores] = scratch::split(&mut memory, sizes(inputs, &task.tile));
    let (mut rows, mut keys) = (Rows::new(q, [out, max, sum]), Keys { k, v });
    load_queries(inputs, task, rows.q);
    let (first, _) = task.tile.visible(&inputs.op, 0);
    let (_, end) = task.tile.visible(&inputs.op, task.tile.len - 1);
    for start in (first..end).step_by(KEYS) {
        let len = KEYS.min(end - start);
        load_keys(inputs, task, start, len, &mut keys);
        key_tile::<F, MR, NV>(inputs.isa, &inputs.op, &task.tile, start, len, &mut rows, &keys, scores);
    }
    store(inputs, task, &rows);
}

#[inline(always)]
fn load_queries<T: Operand>(inputs: &Inputs<'_, T>, task: &QueryTask<'_, T>, q: &mut [f32]) {
    let Attention { heads, head_dim, scale, .. } = inputs.op;
    let group = inputs.group() * head_dim;
    let at = |t: usize| (t * heads * head_dim) + task.kv_head * group;
    for (row, t) in q.chunks_exact_mut(group).zip(task.tile.rows()) {
        widen_rows(1, group, scale, &inputs.q[at(t)..], group, row, group);
    }
    q[task.tile.len * group..].fill(0.0);
}

#[inline(always)]
fn load_keys<T: Operand>(
    inputs: &Inputs<'_, T>,
    task: &QueryTask<'_, T>,
    start: usize,
    len: usize,
    keys: &mut Keys<'_>,
) {
    let head_dim = inputs.op.head_dim;
    let first = task.tile.span.kv_start + start;
    let starts = inputs.key_starts(task.kv_head, first..first + len);
    let (starts, stride) = (&starts[..len], head_dim.next_multiple_of(LANES));
    widen_columns(starts, head_dim, inputs.k, keys.k);
    for (start, to) in starts.iter().zip(keys.v.chunks_exact_mut(stride)) {
        widen_rows(1, head_dim, 1.0, &inputs.v[*start..], 0, to, stride);
    }
}

/// All rows of the task meet one key tile.
#[inline(always)]
fn key_tile<F: MulAdd, const MR: usize, const NV: usize>(
    isa: Isa,
    op: &Attention,
    tile: &QueryTile,
    start: usize,
    len: usize,
    rows: &mut Rows<'_, f32>,
    keys: &Keys<'_>,
    scores: &mut [f32],
) {
    let (width, group) = (op.head_dim, op.heads / op.kv_heads);
    let stride = width.next_multiple_of(LANES);
    let query = |r: usize| (r / group).min(tile.len - 1);
    for row in (0..tile.len * group).step_by(MR) {
        let (first, _) = tile.visible(op, query(row));
        let (_, end) = tile.visible(op, query(row + MR - 1));
        if end <= start || first >= start + len {
            continue;
        }
        let used = len.min(end - start);
        let n = used.next_multiple_of(LANES);
        product::<F, MR, NV, false>(
            isa,
            Left::Rows(&rows.q[row * width..], width),
            width,
            keys.k,
            KEYS,
            n,
            scores,
            KEYS,
        );
        for i in 0..MR {
            let seen = seen(tile.visible(op, query(row + i)), start, n, used);
            let line = &mut scores[i * KEYS..][..n];
            let out = &mut rows.out[(row + i) * stride..][..stride];
            softmax_row::<F>(op.softcap, seen, line, &mut rows.max[row + i], &mut rows.sum[row + i], out);
        }
        let out = &mut rows.out[row * stride..];
        product::<F, MR, NV, true>(isa, Left::Rows(scores, KEYS), used, keys.v, stride, stride, out, stride);
    }
}

/// Scores become `exp(score - max)`; what was summed under a smaller maximum is scaled down.
#[inline(always)]
fn softmax_row<F: MulAdd>(
    softcap: Option<f32>,
    seen: std::ops::Range<usize>,
    scores: &mut [f32],
    max: &mut f32,
    sum: &mut f32,
    out: &mut [f32],
) {
    if let Some(cap) = softcap {
        for s in scores.iter_mut() {
            *s = cap * math::tanh::<F>(*s / cap);
        }
    }
    scores[..seen.start.min(seen.end)].fill(f32::NEG_INFINITY);
    scores[seen.end..].fill(f32::NEG_INFINITY);
    let (lanes, _) = scores.as_chunks_mut::<LANES>();
    let mut greatest = [f32::NEG_INFINITY; LANES];
    for s in lanes.iter() {
        for l in 0..LANES {
            greatest[l] = if s[l] > greatest[l] { s[l] } else { greatest[l] };
        }
    }
    let greatest = max_lanes(greatest);
    if greatest > *max {
        let shrink = math::exp::<F>(*max - greatest);
        *max = greatest;
        *sum *= shrink;
        out.iter_mut().for_each(|out| *out *= shrink);
    }
    // A row that has seen nothing yet: any finite number makes the exponentials zero.
    let base = if *max == f32::NEG_INFINITY { 0.0 } else { *max };
    let mut sums = [0.0; LANES];
    for s in lanes {
        for l in 0..LANES {
            s[l] = math::exp::<F>(s[l] - base);
            sums[l] += s[l];
        }
    }
    *sum += sum_lanes(sums);
}

/// Divides the rows of `out` by their sums and writes them, and `lse`.
#[inline(always)]
pub(super) fn store<T: Operand, Q>(inputs: &Inputs<'_, T>, task: &mut QueryTask<'_, T>, rows: &Rows<'_, Q>) {
    let (width, group) = (inputs.op.head_dim, inputs.group());
    let stride = width.next_multiple_of(LANES);
    for i in 0..task.tile.len {
        for (head, to) in task.out.row(i).chunks_exact_mut(width).enumerate() {
            let r = i * group + head;
            let factor = 1.0 / rows.sum[r];
            to.iter_mut().zip(&rows.out[r * stride..]).for_each(|(to, x)| *to = T::narrow(x * factor));
            task.lse.row(head)[i] = rows.max[r] + rows.sum[r].ln();
        }
    }
}
