//! Causal attention inside the sequences of a packed row, without a score matrix: tiles and a running softmax (Dao
//! et al. 2022, "FlashAttention"; Rabe & Staats 2021).
//!
//! For a query `q_h` at position `i` and the keys `k_jh`, values `v_jh` it sees (`j ≤ i`, `j > i - window`):
//! `s_j = scale · Σ_h q_h·k_jh`, with a soft cap `s_j ← cap · tanh(s_j / cap)`; `lse = log Σ_j exp(s_j)`;
//! `p_j = exp(s_j - lse)`; `out_h = Σ_j p_j·v_jh`.
//!
//! Backward, with `δ = Σ_h dout_h·out_h`: `dv_jh += p_j·dout_h`; `dp_j = Σ_h dout_h·v_jh`; `ds_j = p_j·(dp_j - δ)`,
//! times
//! `1 - (s_j/cap)²` with a soft cap; `dq_h = scale · Σ_j ds_j·k_jh`; `dk_jh += scale · ds_j·q_h`.
//!
//! Legend: `q_tnh`, `k_tkh`, `v_tkh`, `out_tnh`, `lse_nt`; the `N/K` query heads that share a key/value head are
//! neighbours and are called a *group*; a *tile* is a run of queries or of keys of one span.
//!
//! | file | what |
//! |---|---|
//! | `reference.rs` | the definition in plain loops |
//! | `cpu.rs` | entry: picks the kernel for the instruction set |
//! | `cpu_tile.rs` | products of tiles, packing |
//! | `cpu_forward.rs`, `cpu_backward.rs` | the two passes |
//! | `bf16/` | the same for bf16 where the machine multiplies pairs of bf16 |
//! | `cpu_few_rows.rs` | decoding |
//! | `pages.rs` | keys that lie in pages |
//! | `cpu_cut.rs` | tiles, parts, and who may write what |

#[cfg(target_arch = "x86_64")]
mod bf16;
mod cpu;
mod cpu_backward;
mod cpu_cut;
mod cpu_few_rows;
mod cpu_forward;
mod cpu_tile;
mod pages;
pub(crate) mod reference;
#[cfg(test)]
mod tests;

pub use pages::Pages;

use crate::operand::with_operand;
use crate::pool::Pool;
use crate::{Attention, Buffer, Isa, Span};

/// Query rows and key rows that the spans reach: one past the last of each.
pub(crate) fn extents(spans: &[Span]) -> (usize, usize) {
    let rows = spans.iter().map(|s| s.q_start + s.q_len).max().unwrap_or(0);
    let keys = spans.iter().map(|s| s.kv_start + s.kv_len).max().unwrap_or(0);
    (rows, keys)
}

fn check(op: &Attention, spans: &[Span]) {
    let Attention { heads, kv_heads, head_dim, .. } = *op;
    assert!(
        kv_heads > 0 && heads % kv_heads == 0,
        "{heads} query heads cannot share {kv_heads} key/value heads"
    );
    let largest =
        spans.iter().map(|s| s.q_start.saturating_add(s.q_len).max(s.kv_start.saturating_add(s.kv_len)));
    let elements = largest.max().unwrap_or(0).checked_mul(heads).and_then(|n| n.checked_mul(head_dim));
    assert!(elements.is_some(), "more numbers than memory has: {op:?} over {spans:?}");
    assert!(head_dim > 0 && op.window != Some(0), "attention over nothing: {op:?}");
    for span in spans {
        assert!(span.kv_len >= span.q_len, "a span with more queries than keys: {span:?}");
    }
    for pair in spans.windows(2) {
        assert!(
            pair[0].q_start + pair[0].q_len <= pair[1].q_start,
            "spans overlap or are out of order: {pair:?}"
        );
    }
}

/// Most bytes of the sums of `dq` that the backward of a packed row of `tokens` keeps between calls: those of one
/// sequence of that length, all of whose parts reach to its end.
pub(crate) fn sums_bytes(op: &Attention, tokens: usize) -> u64 {
    let tiles = cpu_cut::key_tiles(op, &Span::packed(&[u32::try_from(tokens).unwrap_or(u32::MAX)]));
    let parts = cpu_cut::key_parts(op, &tiles);
    let numbers: usize = parts.iter().map(|part| part.sums_len(op)).sum();
    (numbers * op.kv_heads * size_of::<f32>()) as u64
}

/// Writes `out` and `lse` for the rows that spans cover; other rows are left alone. `pages`: where key rows lie.
pub(crate) fn forward(
    pool: &Pool,
    isa: Isa,
    op: &Attention,
    spans: &[Span],
    pages: Option<Pages<'_>>,
    [q, k, v]: [&Buffer; 3],
    out: &mut Buffer,
    lse: &mut Buffer,
) {
    check(op, spans);
    let (rows, keys) = extents(spans);
    let (query_len, key_len) = (rows * op.heads * op.head_dim, keys * op.kv_heads * op.head_dim);
    let key_len = pages.map_or(key_len, |pages| pages.rows(keys) * op.kv_heads * op.head_dim);
    let lse = &mut lse.f32_mut()[..rows * op.heads];
    with_operand!(q.dtype(), T => {
        let inputs = cpu::Inputs::<T> { op: *op, isa, rows, q: &q.typed()[..query_len],
            k: &k.typed()[..key_len], v: &v.typed()[..key_len], pages };
        cpu::forward(pool, isa, &inputs, spans, &mut out.typed_mut()[..query_len], lse);
    });
}

/// Overwrites the rows of `dq`, `dk` and `dv` up to the spans' extents; zeros where no span is.
pub(crate) fn backward(
    pool: &Pool,
    isa: Isa,
    op: &Attention,
    spans: &[Span],
    [q, k, v, out, lse, dout]: [&Buffer; 6],
    [dq, dk, dv]: [&mut Buffer; 3],
) {
    check(op, spans);
    for pair in spans.windows(2) {
        assert!(
            pair[0].kv_start + pair[0].kv_len <= pair[1].kv_start,
            "spans share keys, so no backward: {pair:?}"
        );
    }
    let (rows, keys) = extents(spans);
    let (query_len, key_len) = (rows * op.heads * op.head_dim, keys * op.kv_heads * op.head_dim);
    with_operand!(q.dtype(), T => {
        let inputs = cpu::Inputs::<T> { op: *op, isa, rows, q: &q.typed()[..query_len],
            k: &k.typed()[..key_len], v: &v.typed()[..key_len], pages: None };
        let saved = cpu::Saved { out: &out.typed()[..query_len],
            lse: &lse.f32()[..rows * op.heads], dout: &dout.typed()[..query_len] };
        let gradients = [&mut dq.typed_mut()[..query_len],
            &mut dk.typed_mut()[..key_len], &mut dv.typed_mut()[..key_len]];
        cpu::backward(pool, isa, &inputs, &saved, spans, gradients);
    });
}
