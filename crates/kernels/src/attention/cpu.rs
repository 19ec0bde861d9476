//! Entry: who computes what, and with which kernel.

#[cfg(target_arch = "x86_64")]
use super::bf16;
use super::cpu_backward::{self, KeyTask};
use super::cpu_cut::{self, KEYS, KeyTile, QueryTile};
use super::cpu_few_rows;
use super::cpu_forward::{self, QueryTask};
use crate::lanes::{Fused, Separate, vectorize};
use crate::matmul::scratch;
use crate::operand::Operand;
use crate::pool::Pool;
use crate::simd::matrix::BlockMut;
use crate::{Attention, Isa, Pages, Span};
#[cfg(target_arch = "x86_64")]
use crate::{
    Dtype,
    simd::{Avx512, tile_amx::Session},
};
use std::ops::Range;
use std::sync::Mutex;

/// What both passes read.
pub(super) struct Inputs<'a, T> {
    pub(super) op: Attention,
    pub(super) isa: Isa,
    /// Row stride of `lse_nt`.
    pub(super) rows: usize,
    pub(super) q: &'a [T],
    pub(super) k: &'a [T],
    pub(super) v: &'a [T],
    /// Where key rows lie; `None`: side by side.
    pub(super) pages: Option<Pages<'a>>,
}

/// What the backward reads besides.
pub(super) struct Saved<'a, T> {
    pub(super) out: &'a [T],
    pub(super) lse: &'a [f32],
    pub(super) dout: &'a [T],
}

impl<T> Inputs<'_, T> {
    /// Query heads per key/value head.
    pub(super) fn group(&self) -> usize {
        self.op.heads / self.op.kv_heads
    }

    /// Where the numbers of up to [`KEYS`] key rows of one head begin in `k` and in `v`.
    #[inline(always)]
    pub(super) fn key_starts(&self, kv_head: usize, rows: Range<usize>) -> [usize; KEYS] {
        let (width, stride) = (self.op.head_dim, self.op.kv_heads * self.op.head_dim);
        let mut starts = [0; KEYS];
        for (start, row) in starts.iter_mut().zip(rows) {
            let row = self.pages.map_or(row, |pages| pages.row(row));
            *start = row * stride + kv_head * width;
        }
        starts
    }
}

/// Calls a pass compiled for an instruction set, with the multiplication, the rows and the lane arrays of its
/// kernel: the sums fill 24 of 32 registers of AVX-512, 12 of 16 of AVX2, 8 of 16 of a plain x86-64.
macro_rules! with_kernel {
    ($isa:expr, $module:ident::$pass:ident, $T:ident, ($($arg:expr),*)) => {
        match $isa {
            Isa::Amx(_) | Isa::Avx512(_) => $isa.vectorize(
                #[inline(always)]
                || $module::$pass::<$T, Fused, 12, 2>($($arg),*),
            ),
            Isa::Avx2(_) => $isa.vectorize(
                #[inline(always)]
                || $module::$pass::<$T, Fused, 6, 1>($($arg),*),
            ),
            Isa::Portable => $module::$pass::<$T, Separate, 2, 1>($($arg),*),
        }
    };
}

/// Runs a pass over a task of bf16 operands where the machine multiplies pairs of them, and returns. Scratch memory is
/// fetched out here, as only what is inlined is compiled for the instruction set.
#[cfg(target_arch = "x86_64")]
macro_rules! return_with_pairs {
    ($isa:expr, $pass:ident, $T:ident, [$($shape:expr),*], $inputs:expr, $($arg:expr),*) => {
        if $T::DTYPE == Dtype::Bf16 {
            match $isa {
                Isa::Amx(witness) => {
                    let session = Session::new(witness);
                    return_with_pairs!(&Session, &session, $isa, $pass, $T, [$($shape),*], $inputs, $($arg),*)
                }
                Isa::Avx512(witness) => {
                    return_with_pairs!(Avx512, witness, $isa, $pass, $T, [$($shape),*], $inputs, $($arg),*)
                }
                _ => {}
            }
        }
    };
    ($W:ty, $tiles:expr, $isa:expr, $pass:ident, $T:ident, [$($shape:expr),*], $inputs:expr, $($arg:expr),*) => {
        return scratch::with(bf16::$pass::scratch_len::<$W, $T>($($shape),*), |memory: &mut [f32]| {
            $isa.vectorize(
                #[inline(always)]
                || bf16::$pass::run($tiles, $inputs, $($arg,)* memory),
            );
        })
    };
}

pub(super) fn forward<T: Operand>(
    pool: &Pool,
    isa: Isa,
    inputs: &Inputs<'_, T>,
    spans: &[Span],
    out: &mut [T],
    lse: &mut [f32],
) {
    let Attention { heads, kv_heads, head_dim, .. } = inputs.op;
    let tiles = cpu_cut::query_tiles(&inputs.op, spans);
    let ranges: Vec<_> = tiles.iter().map(QueryTile::rows).collect();
    let out = BlockMut::new(out, inputs.rows, heads * head_dim, heads * head_dim);
    let out = cpu_cut::grid(out, &ranges, &cpu_cut::even(kv_heads, inputs.group() * head_dim));
    let lse = BlockMut::new(lse, heads, inputs.rows, inputs.rows);
    let mut lse: Vec<_> =
        cpu_cut::grid(lse, &cpu_cut::even(kv_heads, inputs.group()), &ranges).into_iter().map(Some).collect();
    let tasks: Vec<_> = out
        .into_iter()
        .enumerate()
        .map(|(i, out)| {
            let (tile, kv_head) = (i / kv_heads, i % kv_heads);
            let lse = lse[kv_head * tiles.len() + tile].take().expect("each part of lse belongs to one task");
            Mutex::new(QueryTask { tile: tiles[tile], kv_head, out, lse })
        })
        .collect();
    // The last tiles see the most keys: they go first, so that the threads finish together.
    pool.run(tasks.len(), |i| {
        let mut task = tasks[tasks.len() - 1 - i].lock().expect("a task is run once");
        if cpu_few_rows::fits(inputs, &task.tile) {
            return scratch::with(cpu_few_rows::scratch_len(inputs, &task.tile), |memory: &mut [f32]| {
                vectorize!(isa, F => cpu_few_rows::run::<T, F>(inputs, &mut task, memory));
            });
        }
        #[cfg(target_arch = "x86_64")]
        return_with_pairs!(isa, forward, T, [inputs, &task.tile], inputs, &mut task);
        scratch::with(cpu_forward::scratch_len(inputs, &task.tile), |memory: &mut [f32]| {
            with_kernel!(isa, cpu_forward::run, T, (inputs, &mut task, memory));
        });
    });
}

pub(super) fn backward<T: Operand>(
    pool: &Pool,
    isa: Isa,
    inputs: &Inputs<'_, T>,
    saved: &Saved<'_, T>,
    spans: &[Span],
    [dq, dk, dv]: [&mut [T]; 3],
) {
    let Attention { kv_heads, head_dim, .. } = inputs.op;
    let tiles = cpu_cut::key_tiles(&inputs.op, spans);
    let parts = cpu_cut::key_parts(&inputs.op, &tiles);
    let ranges: Vec<_> = tiles.iter().map(KeyTile::rows).collect();
    let keys = dk.len() / (kv_heads * head_dim);
    if ranges.iter().map(ExactSizeIterator::len).sum::<usize>() < keys {
        dk.fill(T::zeroed());
        dv.fill(T::zeroed());
    }
    let strips = cpu_cut::even(kv_heads, head_dim);
    let block =
        |x| cpu_cut::grid(BlockMut::new(x, keys, kv_heads * head_dim, kv_heads * head_dim), &ranges, &strips);
    let mut outputs: Vec<_> = block(dk).into_iter().zip(block(dv)).map(Some).collect();
    let sizes: Vec<usize> = parts.iter().map(|part| part.sums_len(&inputs.op)).collect();
    scratch::shared(sizes.iter().sum::<usize>() * kv_heads, |sums: &mut [f32]| {
        let mut rest = &mut *sums;
        let mut tasks = Vec::new();
        for (part, size) in parts.iter().zip(&sizes) {
            for kv_head in 0..kv_heads {
                let dq = rest.split_off_mut(..*size).expect("the sizes add up");
                let take = |i| -> (_, _) {
                    Option::take(&mut outputs[i * kv_heads + kv_head]).expect("one task each")
                };
                let outputs = part.tiles.clone().map(take).collect();
                tasks.push(Mutex::new(KeyTask {
                    tiles: &tiles[part.tiles.clone()],
                    first: part.queries.start,
                    kv_head,
                    dq,
                    outputs,
                }));
            }
        }
        pool.run(tasks.len(), |i| {
            let mut task = tasks[i].lock().expect("a task is run once");
            #[cfg(target_arch = "x86_64")]
            return_with_pairs!(isa, backward, T, [inputs], inputs, saved, &mut task);
            scratch::with(cpu_backward::scratch_len(inputs), |memory: &mut [f32]| {
                with_kernel!(isa, cpu_backward::run, T, (inputs, saved, &mut task, memory));
            });
        });
        drop(tasks);
        cpu_backward::gather_dq(pool, isa, inputs, &parts, sums, dq);
    });
}
