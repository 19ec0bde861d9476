//! The truth: plain loops in f64 that write every probability down.

use crate::{Attention, Span};

/// First and one past the last key row (counted inside the span) that query `i` of the span sees.
pub(crate) fn visible(op: &Attention, span: &Span, i: usize) -> (usize, usize) {
    let end = span.kv_len - span.q_len + i + 1;
    (op.window.map_or(0, |window| end.saturating_sub(window)), end)
}

/// Score of one query and one key, and its derivative with respect to the scaled dot product.
fn score(op: &Attention, q: &[f64], k: &[f64]) -> (f64, f64) {
    let dot = q.iter().zip(k).map(|(q, k)| q * k).sum::<f64>() * f64::from(op.scale);
    match op.softcap.map(f64::from) {
        None => (dot, 1.0),
        Some(cap) => {
            let tanh = (dot / cap).tanh();
            (cap * tanh, 1.0 - tanh * tanh)
        }
    }
}

/// `out`, and `lse_nt` with row stride `rows`.
pub(crate) fn forward(
    op: &Attention,
    spans: &[Span],
    rows: usize,
    q: &[f64],
    k: &[f64],
    v: &[f64],
    out: &mut [f64],
    lse: &mut [f64],
) {
    let (heads, width) = (op.heads, op.head_dim);
    for (span, n) in spans.iter().flat_map(|span| (0..heads).map(move |n| (span, n))) {
        let kv_head = n / (heads / op.kv_heads);
        for i in 0..span.q_len {
            let at = ((span.q_start + i) * heads + n) * width;
            let key = |j: usize| ((span.kv_start + j) * op.kv_heads + kv_head) * width;
            let (first, end) = visible(op, span, i);
            let scores: Vec<f64> =
                (first..end).map(|j| score(op, &q[at..at + width], &k[key(j)..key(j) + width]).0).collect();
            let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let sum = max + scores.iter().map(|s| (s - max).exp()).sum::<f64>().ln();
            lse[n * rows + span.q_start + i] = sum;
            out[at..at + width].fill(0.0);
            for (j, s) in (first..end).zip(&scores) {
                for h in 0..width {
                    out[at + h] += (s - sum).exp() * v[key(j) + h];
                }
            }
        }
    }
}

/// With `p = exp(score - lse)` and `δ = Σ_h dout·out`: `dv += p·dout`, `ds = p·(dout·v - δ)·score'·scale`,
/// `dq += ds·k`, `dk += ds·q`.
pub(crate) fn backward(
    op: &Attention,
    spans: &[Span],
    rows: usize,
    [q, k, v, out, lse, dout]: [&[f64]; 6],
    [dq, dk, dv]: [&mut [f64]; 3],
) {
    let (heads, width) = (op.heads, op.head_dim);
    dq.fill(0.0);
    dk.fill(0.0);
    dv.fill(0.0);
    for (span, n) in spans.iter().flat_map(|span| (0..heads).map(move |n| (span, n))) {
        let kv_head = n / (heads / op.kv_heads);
        for i in 0..span.q_len {
            let at = ((span.q_start + i) * heads + n) * width;
            let delta: f64 = (at..at + width).map(|h| dout[h] * out[h]).sum();
            let (first, end) = visible(op, span, i);
            for j in first..end {
                let key = ((span.kv_start + j) * op.kv_heads + kv_head) * width;
                let (s, slope) = score(op, &q[at..at + width], &k[key..key + width]);
                let p = (s - lse[n * rows + span.q_start + i]).exp();
                let dp: f64 = (0..width).map(|h| dout[at + h] * v[key + h]).sum();
                let ds = p * (dp - delta) * slope * f64::from(op.scale);
                for h in 0..width {
                    dv[key + h] += p * dout[at + h];
                    dq[at + h] += ds * k[key + h];
                    dk[key + h] += ds * q[at + h];
                }
            }
        }
    }
}
