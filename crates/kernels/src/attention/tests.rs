//! `attention`: gradients by finite differences, every fast path against the reference, equal bits for any threads.

use super::reference;
use crate::testing::{Numbers, buffer, check, filled, gradcheck, operands, read, weighted};
use crate::{Attention, Backend, CpuBackend, Dtype, Isa, Pages, Span};

fn op(heads: usize, kv_heads: usize, head_dim: usize) -> Attention {
    Attention {
        heads,
        kv_heads,
        head_dim,
        scale: 1.0 / (head_dim as f32).sqrt(),
        window: None,
        softcap: None,
    }
}

fn forward(backend: &dyn Backend, op: &Attention, spans: &[Span], dtype: Dtype) -> Vec<Vec<f32>> {
    let (rows, keys) = super::extents(spans);
    let (query_len, key_len) = (rows * op.heads * op.head_dim, keys * op.kv_heads * op.head_dim);
    let mut numbers = Numbers::new(1);
    let q = buffer(dtype, &numbers.vec(query_len, 2.0));
    let [k, v] = [(); 2].map(|()| buffer(dtype, &numbers.vec(key_len, 2.0)));
    let mut out = filled(dtype, query_len + 3, 0.5);
    let mut lse = filled(Dtype::F32, rows * op.heads + 3, 0.5);
    backend.attention_forward(op, spans, &q, &k, &v, &mut out, &mut lse);
    vec![read(&out), read(&lse)]
}

fn forward_backward(backend: &dyn Backend, op: &Attention, spans: &[Span], dtype: Dtype) -> Vec<Vec<f32>> {
    let (rows, keys) = super::extents(spans);
    let (query_len, key_len) = (rows * op.heads * op.head_dim, keys * op.kv_heads * op.head_dim);
    let mut numbers = Numbers::new(1);
    let q = buffer(dtype, &numbers.vec(query_len, 2.0));
    let [k, v] = [(); 2].map(|()| buffer(dtype, &numbers.vec(key_len, 2.0)));
    let dout = buffer(dtype, &numbers.vec(query_len, 1.0));
    let [mut out, mut dq] = [(); 2].map(|()| filled(dtype, query_len + 3, 0.5));
    let [mut dk, mut dv] = [(); 2].map(|()| filled(dtype, key_len + 3, 0.5));
    let mut lse = filled(Dtype::F32, rows * op.heads, 0.0);
    backend.attention_forward(op, spans, &q, &k, &v, &mut out, &mut lse);
    backend.attention_backward(op, spans, &q, &k, &v, &out, &lse, &dout, &mut dq, &mut dk, &mut dv);
    [&out, &lse, &dq, &dk, &dv].map(read).into()
}

/// Sums of at most 500 products of f32: 1e-5 of the greatest result; bf16 results: one unit, and δ comes from a rounded
/// `out`, hence twice that.
fn check_both(name: &str, op: &Attention, spans: &[Span]) {
    for (dtype, tolerance) in operands(1e-5) {
        check(name, 2.0 * tolerance, |backend| forward_backward(backend, op, spans, dtype));
    }
}

#[test]
fn one_sequence_longer_than_tiles() {
    check_both("T 333", &op(2, 1, 32), &Span::packed(&[333]));
    check_both("T 250, one head", &op(1, 1, 16), &Span::packed(&[250]));
}

#[test]
fn packed_sequences_and_odd_sizes() {
    check_both("packed", &op(6, 2, 20), &Span::packed(&[1, 37, 2, 100, 16]));
    check_both("three heads per key", &op(9, 3, 64), &Span::packed(&[65, 130]));
    check_both("width 7", &op(2, 2, 7), &Span::packed(&[23, 5]));
}

/// Widths that are no whole number of a machine's steps and columns, and more heads to a key than a tile has rows.
#[test]
fn odd_widths_and_many_heads() {
    for width in [31, 33, 48, 80, 128] {
        check_both(&format!("width {width}"), &op(2, 1, width), &Span::packed(&[101, 7, 33]));
    }
    check_both("200 heads per key", &op(200, 1, 8), &Span::packed(&[3, 17]));
}

/// Scratch memory holds what the last call left: no number that fills up a tile may reach a result.
#[test]
fn what_was_left_in_scratch_memory_is_not_seen() {
    let spans = Span::packed(&[5, 75, 40]);
    for isa in Isa::available() {
        for (dtype, _) in operands(1e-5) {
            let op = op(6, 2, 20);
            let expected = forward_backward(&CpuBackend::new(1, isa), &op, &spans, dtype);
            let backend = CpuBackend::new(1, isa);
            let nan = Attention { scale: f32::NAN, ..super::tests::op(6, 2, 64) };
            let left = forward_backward(&backend, &nan, &Span::packed(&[300]), dtype);
            assert!(left[0][0].is_nan(), "{}", isa.name());
            let got = forward_backward(&backend, &op, &spans, dtype);
            assert!(got == expected, "{} {dtype:?}", isa.name());
        }
    }
}

#[test]
fn sliding_window_and_soft_cap() {
    for window in [1, 7, 33, 96, 150] {
        let op = Attention { window: Some(window), ..op(4, 2, 16) };
        check_both(&format!("window {window}"), &op, &Span::packed(&[210, 30]));
    }
    let capped = Attention { softcap: Some(1.5), window: Some(40), ..op(2, 1, 16) };
    check_both("soft cap", &capped, &Span::packed(&[120, 9]));
}

/// A checkpoint may say "no window" by a number without end.
#[test]
fn a_window_wider_than_any_sequence_is_none() {
    let spans = Span::packed(&[150, 9]);
    let backend = CpuBackend::detect();
    let open = forward_backward(&backend, &op(4, 2, 16), &spans, Dtype::F32);
    for window in [150, 1 << 40, usize::MAX] {
        let wide = Attention { window: Some(window), ..op(4, 2, 16) };
        assert!(forward_backward(&backend, &wide, &spans, Dtype::F32) == open, "window {window}");
    }
}

#[test]
fn decoding_with_cached_keys_in_a_window() {
    let spans = [Span { q_start: 0, q_len: 2, kv_start: 0, kv_len: 200 }];
    for window in [1, 50, 199] {
        let op = Attention { window: Some(window), ..op(4, 2, 16) };
        check("cache in a window", 2e-5, |backend| forward(backend, &op, &spans, Dtype::F32));
    }
}

#[test]
fn decoding_with_cached_keys() {
    let spans = [
        Span { q_start: 0, q_len: 1, kv_start: 0, kv_len: 200 },
        Span { q_start: 1, q_len: 3, kv_start: 256, kv_len: 5 },
        Span { q_start: 4, q_len: 70, kv_start: 300, kv_len: 170 },
    ];
    for (dtype, tolerance) in operands(1e-5) {
        check("cache", tolerance, |backend| forward(backend, &op(6, 2, 24), &spans, dtype));
        check_both("cache, backward", &op(6, 2, 24), &spans);
    }
}

/// Pages in disorder, one of them shared: any number of rows in a page gives what keys side by side give, bit for bit.
#[test]
fn keys_in_pages_are_keys_side_by_side() {
    for (page, window) in [(1, None), (5, None), (16, Some(50)), (96, None), (130, Some(7))] {
        let op = Attention { window, ..op(6, 2, 20) };
        // A prompt, a long and a short decoding step, whose second page on is the first one's.
        let lens = [(70, 170), (1, 200), (3, 2 * page + 3)];
        let (mut spans, mut table, mut row) = (Vec::new(), Vec::new(), 0);
        for (index, (q_len, kv_len)) in lens.into_iter().enumerate() {
            spans.push(Span { q_start: row, q_len, kv_start: table.len() * page, kv_len });
            row += q_len;
            table.extend((0..kv_len.div_ceil(page) as u32).map(|i| (i * 7 + index as u32 * 131) % 211));
        }
        let shared = table[1];
        *table.last_mut().expect("pages") = shared;
        let pages = Pages { tokens: page, table: &table };
        let mut numbers = Numbers::new(2);
        let (query_len, width) = (row * 6 * 20, 2 * 20);
        let q = numbers.vec(query_len, 2.0);
        let [k, v] = [(); 2].map(|()| numbers.vec(211 * page * width, 2.0));
        let keys = table.len() * page;
        for (dtype, tolerance) in operands(1e-5) {
            let run = |backend: &dyn Backend, is_paged: bool| {
                let mut out = filled(dtype, query_len + 3, 0.5);
                let mut lse = filled(Dtype::F32, row * 6 + 3, 0.5);
                let q = buffer(dtype, &q);
                let [k, v] = [&k, &v].map(|x| match is_paged {
                    true => buffer(dtype, x),
                    false => buffer(dtype, &pages.gather(keys, width, x)),
                });
                match is_paged {
                    true => {
                        backend.attention_forward_paged(&op, &spans, pages, &q, &k, &v, &mut out, &mut lse)
                    }
                    false => backend.attention_forward(&op, &spans, &q, &k, &v, &mut out, &mut lse),
                }
                vec![read(&out), read(&lse)]
            };
            check(&format!("pages of {page}"), tolerance, |backend| run(backend, true));
            let backend = CpuBackend::detect();
            assert!(run(&backend, true) == run(&backend, false), "pages of {page}");
        }
    }
}

#[test]
fn many_key_tiles_in_parts() {
    // More tiles than parts, so that a part spans several sequences and a sequence several parts.
    check_both("parts", &op(2, 2, 16), &Span::packed(&[700, 50, 300]));
}

#[test]
fn reference_gradients_agree_with_finite_differences() {
    let spans = Span::packed(&[5, 1, 4]);
    for (window, softcap) in [(None, None), (Some(2), None), (None, Some(1.3))] {
        let op = Attention { window, softcap, ..op(4, 2, 3) };
        let (rows, query_len, key_len) = (10, 10 * 4 * 3, 10 * 2 * 3);
        let mut numbers = Numbers::new(3);
        let inputs = [query_len, key_len, key_len].map(|n| numbers.vec64(n, 1.0));
        let dout = numbers.vec64(query_len, 1.0);
        let run = |x: &[Vec<f64>]| {
            let (mut out, mut lse) = (vec![0.0; query_len], vec![0.0; rows * 4]);
            reference::forward(&op, &spans, rows, &x[0], &x[1], &x[2], &mut out, &mut lse);
            (out, lse)
        };
        let (out, lse) = run(&inputs);
        let mut gradients = inputs.clone();
        let [dq, dk, dv] = &mut gradients;
        let saved = [&inputs[0], &inputs[1], &inputs[2], &out, &lse, &dout].map(Vec::as_slice);
        reference::backward(&op, &spans, rows, saved, [dq, dk, dv]);
        gradcheck(&inputs, &gradients, |x| weighted(&run(x).0, &dout));
    }
}

/// What a plan counts for the sums of `dq` is enough for every way to fill a row.
#[test]
fn one_long_sequence_needs_the_most_sums() {
    for op in [op(9, 3, 64), op(32, 8, 128), op(4, 1, 7)] {
        for tokens in [1, 95, 700, 4096] {
            let bound = super::sums_bytes(&op, tokens);
            for sequences in [1, 2, 3, 7, tokens] {
                let lens: Vec<u32> = (0..sequences.min(tokens))
                    .map(|i| {
                        (tokens * (i + 1) / sequences.min(tokens) - tokens * i / sequences.min(tokens)) as u32
                    })
                    .collect();
                let tiles = super::cpu_cut::key_tiles(&op, &Span::packed(&lens));
                let parts = super::cpu_cut::key_parts(&op, &tiles);
                let sums: usize = parts.iter().map(|part| part.sums_len(&op)).sum();
                let bytes = (sums * op.kv_heads * 4) as u64;
                // Each part has some spare rows, and short sequences may make more parts than one long one has.
                let spare =
                    12 * super::cpu_cut::SPARE_ROWS * op.head_dim.next_multiple_of(16) * op.kv_heads * 4;
                assert!(
                    bytes <= bound + spare as u64,
                    "{op:?}: {sequences} in {tokens}: {bytes}, bound {bound}"
                );
            }
        }
    }
}
