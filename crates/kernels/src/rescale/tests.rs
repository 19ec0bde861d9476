//! `rescale`: gradients by finite differences, every fast path against the reference, equal bits for any threads.

use super::reference;
use crate::testing::{Numbers, buffer, check, gradcheck, operands, read, weighted};
use crate::{Dtype, Rescale};

#[test]
fn every_path_agrees_with_the_reference() {
    for [rows, width] in [[1, 1], [40, 17], [5, 200], [100, 64]] {
        // Column sums of up to 100 numbers.
        for (dtype, tolerance) in operands(2e-6) {
            for (accumulate, shift) in [(false, 0.0), (true, 0.0), (true, -1.0)] {
                check(&format!("{rows} {width} {dtype:?} {accumulate} {shift}"), tolerance, |backend| {
                    let mut numbers = Numbers::new(22);
                    let magnitude = buffer(Dtype::F32, &numbers.vec(width + 1, 1.0));
                    let inverse_norm = buffer(Dtype::F32, &numbers.vec(width, 1.0));
                    let magnitude = &magnitude;
                    let op =
                        Rescale { rows, width, magnitude, inverse_norm: &inverse_norm, shift, accumulate };
                    let x = buffer(dtype, &numbers.vec(rows * width, 1.0));
                    let mut y = buffer(dtype, &numbers.vec(rows * width + 3, 1.0));
                    let mut wide = buffer(Dtype::F32, &numbers.vec(rows * width, 1.0));
                    let dy = buffer(dtype, &numbers.vec(rows * width, 1.0));
                    let mut dm = buffer(Dtype::F32, &numbers.vec(width + 1, 1.0));
                    backend.rescale(&op, &x, &mut y);
                    backend.rescale(&op, &x, &mut wide);
                    backend.rescale_backward(&op, &dy, &x, &mut dm);
                    vec![read(&y), read(&wide), read(&dm)]
                });
            }
        }
    }
}

#[test]
fn reference_gradients_agree_with_finite_differences() {
    let mut numbers = Numbers::new(23);
    let (m, r) = (numbers.vec64(3, 1.0), numbers.vec64(3, 1.0));
    let (x, dy) = (numbers.vec64(12, 1.0), numbers.vec64(12, 1.0));
    let mut gradient = vec![0.0; 3];
    reference::backward(&r, &dy, &x, &mut gradient);
    gradcheck(&[m], &[gradient], |inputs| {
        let factors: Vec<f64> = inputs[0].iter().zip(&r).map(|(m, r)| m * r - 1.0).collect();
        let mut y = vec![0.0; 12];
        reference::forward(false, &factors, &x, &mut y);
        weighted(&y, &dy)
    });
}
