//! `bias`: gradients by finite differences, every fast path against the reference, equal bits for any threads.

use super::reference;
use crate::Dtype;
use crate::testing::{Numbers, buffer, check, gradcheck, operands, read, weighted};

#[test]
fn every_path_agrees_with_the_reference() {
    for [rows, width] in [[1, 1], [40, 17], [5, 200], [100, 64]] {
        // Column sums of up to 100 numbers.
        for (dtype, tolerance) in operands(2e-6) {
            for bias_type in [dtype, Dtype::F32] {
                check(&format!("{rows} {width} {dtype:?}"), tolerance, |backend| {
                    let mut numbers = Numbers::new(20);
                    let bias = buffer(bias_type, &numbers.vec(width + 1, 1.0));
                    let mut y = buffer(dtype, &numbers.vec(rows * width + 3, 1.0));
                    let dy = buffer(dtype, &numbers.vec(rows * width, 1.0));
                    let mut dbias = buffer(Dtype::F32, &numbers.vec(width + 1, 1.0));
                    backend.add_bias(rows, width, &bias, &mut y);
                    backend.add_bias_backward(rows, width, &dy, &mut dbias);
                    vec![read(&y), read(&dbias)]
                });
            }
        }
    }
}

#[test]
fn reference_gradients_agree_with_finite_differences() {
    let mut numbers = Numbers::new(21);
    let (inputs, y) = ([numbers.vec64(3, 1.0)], numbers.vec64(12, 1.0));
    let dy = numbers.vec64(12, 1.0);
    let mut gradient = vec![0.0; 3];
    reference::backward(&dy, &mut gradient);
    gradcheck(&inputs, &[gradient], |x| {
        let mut y = y.clone();
        reference::forward(&x[0], &mut y);
        weighted(&y, &dy)
    });
}
