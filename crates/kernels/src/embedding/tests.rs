//! `embedding`: gradients by finite differences, every fast path against the reference, equal bits for any threads.

use super::reference;
use crate::testing::{Numbers, buffer, check, filled, gradcheck, ids, operands, read, weighted};
use crate::{Backend, CpuBackend, Dtype};

#[test]
fn every_path_agrees_with_the_reference() {
    for [tokens, width, vocab] in [[1, 1, 1], [50, 19, 7], [33, 64, 100], [200, 33, 1000]] {
        // The forward is exact; the backward adds up to 200 rows in f32.
        for (dtype, tolerance) in operands(2e-6) {
            for out_type in [dtype, Dtype::F32] {
                check(&format!("{tokens} {width} {vocab} {dtype:?}"), tolerance, |backend| {
                    let mut numbers = Numbers::new(18);
                    let tokens_t = ids(&numbers.below(tokens, vocab as u32));
                    let table = buffer(dtype, &numbers.vec(vocab * width, 1.0));
                    let dout = buffer(out_type, &numbers.vec(tokens * width, 1.0));
                    let mut out = filled(out_type, tokens * width + 3, 0.5);
                    let mut dtable = filled(Dtype::F32, vocab * width, 0.125);
                    backend.embedding_forward(tokens, width, &tokens_t, &table, &mut out);
                    backend.embedding_backward(tokens, width, &tokens_t, &dout, &mut dtable);
                    vec![read(&out), read(&dtable)]
                });
            }
        }
    }
}

#[test]
#[should_panic(expected = "token id 5 is outside a table of 5 rows")]
fn an_id_beyond_the_table_is_named() {
    let (table, mut out) = (filled(Dtype::F32, 10, 0.0), filled(Dtype::F32, 2, 0.0));
    CpuBackend::detect().embedding_forward(1, 2, &ids(&[5]), &table, &mut out);
}

#[test]
fn reference_gradients_agree_with_finite_differences() {
    let (width, ids) = (3, [2, 0, 2, 1]);
    let mut numbers = Numbers::new(19);
    let inputs = [numbers.vec64(4 * width, 1.0)];
    let dout = numbers.vec64(4 * width, 1.0);
    let mut gradient = vec![0.0; 4 * width];
    reference::backward(width, &ids, &dout, &mut gradient);
    gradcheck(&inputs, &[gradient], |x| {
        let mut out = vec![0.0; 4 * width];
        reference::forward(width, &ids, &x[0], &mut out);
        weighted(&out, &dout)
    });
}
