//! One task of the forward: a query tile and a key/value head, as in `cpu_forward.rs`, on tiles of bf16 pairs.

use super::super::cpu::Inputs;
use super::super::cpu_cut::{KEYS, QueryTile, SPARE_ROWS, seen};
use super::super::cpu_forward::{QueryTask, Rows, store};
use super::{Tiles, columns, columns_len, depth_of, pairs, row_pairs, row_pairs_len, rows_of, staging_len};
use crate::Attention;
use crate::lanes::{Fused, LANES};
use crate::math;
use crate::matmul::scratch;
use crate::operand::Operand;
use crate::simd::matrix::Matrix;
use crate::simd::softmax_bf16::{self, softmax_row};
use crate::simd::tile_bf16::Panels;
use std::f32::consts::{LN_2, LOG2_E};
use std::ops::Range;

/// The keys and values of one tile, and room for the scores of a block of rows.
struct Keys<'s> {
    /// Panels of the keys as columns.
    k: &'s mut [u32],
    /// Panels of pairs of values.
    v: &'s mut [u32],
    /// `[ROWS, KEYS]`
    scores: &'s mut [f32],
    /// The exponentials of this block and of the one before, `[ROWS, KEYS / 2]` pairs each.
    weights: &'s mut [u32],
}

/// Sizes of the parts of a task's scratch memory: those of f32, then those of pairs.
#[inline(always)]
fn sizes<I: Tiles, T>(inputs: &Inputs<'_, T>, tile: &QueryTile) -> ([usize; 4], [usize; 5]) {
    let (width, stride) = (inputs.op.head_dim, inputs.op.head_dim.next_multiple_of(LANES));
    // Whole cache lines, so that everything begins with one: rows of tiles that do not are three times as slow.
    let rows = (tile.len * inputs.group() + SPARE_ROWS).next_multiple_of(LANES);
    (
        [rows * stride, rows, rows, I::ROWS * KEYS],
        [
            rows * depth_of::<I>(width),
            columns_len::<I>(width),
            row_pairs_len(KEYS, width),
            2 * I::ROWS * KEYS / 2,
            staging_len(inputs),
        ],
    )
}

/// Numbers of scratch memory that a task needs.
pub(in super::super) fn scratch_len<I: Tiles, T>(inputs: &Inputs<'_, T>, tile: &QueryTile) -> usize {
    let (numbers, pairs) = sizes::<I, T>(inputs, tile);
    numbers.iter().chain(&pairs).sum()
}

/// Writes the rows of `out` and `lse` that the task owns.
#[inline(always)]
pub(in super::super) fn run<I: Tiles, T: Operand>(
    isa: I,
    inputs: &Inputs<'_, T>,
    task: &mut QueryTask<'_, T>,
    mut memory: &mut [f32],
) {
    let (numbers, words) = sizes::<I, T>(inputs, &task.tile);
    let [out, max, sum, scores] = scratch::split(&mut memory, numbers);
    let mut memory: &mut [u32] = bytemuck::cast_slice_mut(memory);
    let [q, k, v, weights, staging] = scratch::split(&mut memory, words);
    let (mut rows, mut keys) = (Rows::new(q, [out, max, sum]), Keys { k, v, scores, weights });
    load_queries::<I, T>(inputs, task, rows.q);
    // What a step has beyond the width.
    keys.k.fill(0);
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
    rows.max.iter_mut().for_each(|max| *max *= LN_2);
    store(inputs, task, &rows);
}

#[inline(always)]
fn load_queries<I: Tiles, T: Operand>(inputs: &Inputs<'_, T>, task: &QueryTask<'_, T>, q: &mut [u32]) {
    let (heads, width, group) = (inputs.op.heads, inputs.op.head_dim, inputs.group());
    let from: &[half::bf16] = bytemuck::cast_slice(inputs.q);
    let (depth, mut row) = (depth_of::<I>(width), 0);
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
fn key_tile<I: Tiles, T: Operand>(
    isa: I,
    inputs: &Inputs<'_, T>,
    tile: &QueryTile,
    start: usize,
    len: usize,
    rows: &mut Rows<'_, u32>,
    keys: &mut Keys<'_>,
) {
    let (op, group) = (&inputs.op, inputs.group());
    let (depth, stride, count) =
        (depth_of::<I>(op.head_dim), op.head_dim.next_multiple_of(LANES), tile.len * group);
    let mut before = None;
    for row in (0..count).step_by(I::ROWS) {
        let present = I::ROWS.min(count - row);
        let query = |r: usize| r / group;
        let (first, _) = tile.visible(op, query(row));
        let (_, end) = tile.visible(op, query(row + present - 1));
        if end <= start || first >= start + len {
            continue;
        }
        let used = len.min(end - start);
        let q = Matrix::new(&rows.q[row * depth..], depth);
        let k = Panels { data: keys.k, depth };
        isa.product::<false>(q, I::ROWS, depth, k, used.next_multiple_of(LANES), keys.scores, KEYS);
        if let Some(block) = before {
            weigh(isa, block, rows, keys, stride);
        }
        weights(isa, op, tile, start, Block { row, present, used }, rows, keys);
        before = Some(Block { row, present, used });
    }
    if let Some(block) = before {
        weigh(isa, block, rows, keys, stride);
    }
}

/// A block of rows that see the first `used` keys of a tile, or some of them.
#[derive(Clone, Copy)]
struct Block {
    row: usize,
    present: usize,
    used: usize,
}

impl Block {
    /// Where its weights are: those of two neighbouring blocks lie apart, so that a product does not wait for what was
    /// written last.
    #[inline(always)]
    fn weights<I: Tiles>(self) -> Range<usize> {
        let len = I::ROWS * (KEYS / 2);
        let at = self.row / I::ROWS % 2 * len;
        at..at + len
    }

    /// Pairs of keys that its weights meet.
    #[inline(always)]
    fn pairs<I: Tiles>(self) -> usize {
        self.used.div_ceil(2).next_multiple_of(I::STEP)
    }
}

/// Scores become weights. Rows beyond the last one weigh whatever is there: nobody reads their sums.
#[inline(always)]
fn weights<I: Tiles>(
    isa: I,
    op: &Attention,
    tile: &QueryTile,
    start: usize,
    block: Block,
    rows: &mut Rows<'_, u32>,
    keys: &mut Keys<'_>,
) {
    let Block { row, present, used } = block;
    let (stride, group) = (op.head_dim.next_multiple_of(LANES), op.heads / op.kv_heads);
    let (n, pairs) = (used.next_multiple_of(LANES), block.pairs::<I>());
    let weights = &mut keys.weights[block.weights::<I>()];
    for i in 0..present {
        let seen = seen(tile.visible(op, (row + i) / group), start, n, used);
        let line = &mut keys.scores[i * KEYS..][..n];
        let factor = op.softcap.map_or(op.scale, |cap| capped(cap, op.scale, line)) * LOG2_E;
        let weights = &mut weights[i * (KEYS / 2)..][..KEYS / 2];
        let row = softmax_bf16::Row {
            max: &mut rows.max[row + i],
            sum: &mut rows.sum[row + i],
            out: &mut rows.out[(row + i) * stride..][..stride],
        };
        softmax_row(isa.avx512(), factor, seen, line, row, weights);
        if pairs > n / 2 {
            weights[n / 2..pairs].fill(0);
        }
    }
}

/// Adds the values times the weights.
#[inline(always)]
fn weigh<I: Tiles>(isa: I, block: Block, rows: &mut Rows<'_, u32>, keys: &Keys<'_>, stride: usize) {
    let weights = Matrix::new(&keys.weights[block.weights::<I>()], KEYS / 2);
    let v = Panels { data: keys.v, depth: KEYS / 2 };
    let out = &mut rows.out[block.row * stride..];
    isa.product::<true>(weights, I::ROWS, block.pairs::<I>(), v, stride, out, stride);
}

/// Scores become capped ones; what they still are to be multiplied by.
#[inline(always)]
fn capped(cap: f32, scale: f32, scores: &mut [f32]) -> f32 {
    for s in scores {
        *s = cap * math::tanh::<Fused>(*s * scale / cap);
    }
    1.0
}
