//! Decoding: a handful of query rows against many keys, limited by reading keys and values once. Dot products straight
//! from memory instead of tiles: laying keys out in columns would cost more than the products.

use super::cpu::Inputs;
use super::cpu_cut::{KEYS, QueryTile};
use super::cpu_forward::QueryTask;
use crate::lanes::{self, LANES, MulAdd};
use crate::math;
use crate::matmul::scratch;
use crate::operand::Operand;
use std::ops::Range;

/// Up to so many rows (queries × heads of a group) dot products are faster than tiles.
const MOST_ROWS: usize = 12;

/// Whether a tile is computed here.
pub(super) fn fits<T>(inputs: &Inputs<'_, T>, tile: &QueryTile) -> bool {
    tile.len * inputs.group() <= MOST_ROWS
}

/// Sizes of the parts of the scratch memory: queries, results, scores of all heads of a group, partial sums.
#[inline(always)]
fn sizes<T>(inputs: &Inputs<'_, T>, tile: &QueryTile) -> [usize; 4] {
    let (group, width) = (inputs.group(), inputs.op.head_dim);
    [group * width, group * width, group * tile.span.kv_len, KEYS * LANES]
}

/// Numbers of scratch memory that a task needs.
pub(super) fn scratch_len<T>(inputs: &Inputs<'_, T>, tile: &QueryTile) -> usize {
    sizes(inputs, tile).iter().sum()
}

#[inline(always)]
pub(super) fn run<T: Operand, F: MulAdd>(
    inputs: &Inputs<'_, T>,
    task: &mut QueryTask<'_, T>,
    mut memory: &mut [f32],
) {
    let (op, width) = (&inputs.op, inputs.op.head_dim);
    let [q, out, scores, partial] = scratch::split(&mut memory, sizes(inputs, &task.tile));
    for i in 0..task.tile.len {
        let t = task.tile.rows().start + i;
        let from = &inputs.q[(t * op.heads + task.kv_head * inputs.group()) * width..][..q.len()];
        for h in 0..q.len() {
            q[h] = from[h].widen() * op.scale;
        }
        let (first, end) = task.tile.visible(op, i);
        let (start, keys) = (task.tile.span.kv_start, end - first);
        let rows = start + first..start + end;
        all_scores::<T, F>(inputs, task.kv_head, rows.clone(), q, scores, partial);
        for (head, scores) in scores.chunks_mut(keys).take(inputs.group()).enumerate() {
            let (max, sum) = softmax::<F>(op.softcap, scores);
            task.lse.row(head)[i] = max + sum.ln();
            let factor = 1.0 / sum;
            for j in 0..keys {
                scores[j] *= factor;
            }
        }
        weighted_values::<T, F>(inputs, task.kv_head, rows, scores, out);
        let to = &mut task.out.row(i)[..out.len()];
        for h in 0..out.len() {
            to[h] = T::narrow(out[h]);
        }
    }
}

/// `scores[head, key]` for the heads of a group, block by block of keys: each key is read from memory once.
#[inline(always)]
fn all_scores<T: Operand, F: MulAdd>(
    inputs: &Inputs<'_, T>,
    kv_head: usize,
    rows: Range<usize>,
    q: &[f32],
    scores: &mut [f32],
    partial: &mut [f32],
) {
    let width = inputs.op.head_dim;
    for block in rows.clone().step_by(KEYS) {
        let len = KEYS.min(rows.end - block);
        let starts = inputs.key_starts(kv_head, block..block + len);
        for head in 0..inputs.group() {
            let at = head * rows.len() + block - rows.start;
            lanes::dots::<F, T>(
                #[inline(always)]
                |j| &inputs.k[starts[j]..][..width],
                &q[head * width..][..width],
                &mut scores[at..at + len],
                partial,
            );
        }
    }
}

/// `out[head] = Σ_keys scores[head, key] · v[key]`, block by block of keys.
#[inline(always)]
fn weighted_values<T: Operand, F: MulAdd>(
    inputs: &Inputs<'_, T>,
    kv_head: usize,
    rows: Range<usize>,
    scores: &[f32],
    out: &mut [f32],
) {
    let width = inputs.op.head_dim;
    out.fill(0.0);
    for block in rows.clone().step_by(KEYS) {
        let starts = inputs.key_starts(kv_head, block..rows.end.min(block + KEYS));
        for head in 0..inputs.group() {
            let out = &mut out[head * width..][..width];
            for row in block..rows.end.min(block + KEYS) {
                let p = scores[head * rows.len() + row - rows.start];
                let v = &inputs.v[starts[row - block]..][..width];
                for h in 0..width {
                    out[h] = F::mul_add(p, v[h].widen(), out[h]);
                }
            }
        }
    }
}

/// Scores become `exp(score - max)`; the maximum and the sum.
#[inline(always)]
fn softmax<F: MulAdd>(softcap: Option<f32>, scores: &mut [f32]) -> (f32, f32) {
    if let Some(cap) = softcap {
        for s in scores.iter_mut() {
            *s = cap * math::tanh::<F>(*s / cap);
        }
    }
    let max = lanes::greatest(scores);
    for s in scores.iter_mut() {
        *s = math::exp::<F>(*s - max);
    }
    (max, lanes::sum(scores))
}
