//! `rmsnorm`: gradients by finite differences, every fast path against the reference, equal bits for any threads.

use super::reference;
use crate::Dtype::{Bf16, F32};
use crate::testing::{Numbers, buffer, check, filled, gradcheck, operands, read, weighted};
use crate::{Backend, Dtype};

const SHAPES: [[usize; 2]; 5] = [[1, 1], [3, 17], [37, 64], [33, 100], [5, 576]];

fn run(
    backend: &dyn Backend,
    [rows, width]: [usize; 2],
    [x_type, y_type]: [Dtype; 2],
    frozen: bool,
) -> Vec<Vec<f32>> {
    let n = rows * width;
    let mut numbers = Numbers::new(11);
    let x = buffer(x_type, &numbers.vec(n + 1, 3.0));
    let weight = buffer(F32, &numbers.vec(width, 2.0));
    let dy = buffer(y_type, &numbers.vec(n, 1.0));
    let mut y = filled(y_type, n + 3, 0.5);
    let mut rstd = filled(F32, rows + 3, 0.5);
    let mut dx = buffer(x_type, &numbers.vec(n + 3, 1.0));
    let mut dweight = filled(F32, width, 0.125);
    backend.rmsnorm_forward(rows, width, 1e-5, &x, &weight, &mut y, &mut rstd);
    backend.rmsnorm_backward(
        rows,
        width,
        &dy,
        &x,
        &weight,
        &rstd,
        &mut dx,
        (!frozen).then_some(&mut dweight),
    );
    [&y, &rstd, &dx, &dweight].map(read).into()
}

#[test]
fn every_path_agrees_with_the_reference() {
    for shape in SHAPES {
        // Sums of up to 576 f32 in 64 lanes.
        for (dtype, tolerance) in operands(2e-6) {
            for (types, frozen) in [([dtype, dtype], false), ([F32, dtype], true), ([dtype, F32], false)] {
                check(&format!("{shape:?} {types:?}"), tolerance, |backend| {
                    run(backend, shape, types, frozen)
                });
            }
        }
    }
}

#[test]
fn statistics_of_bf16_rows_are_f32() {
    let out = run(&crate::CpuBackend::detect(), [4, 100], [Bf16, Bf16], true);
    let expected = run(&crate::ReferenceBackend::default(), [4, 100], [Bf16, Bf16], true);
    for (got, expected) in out[1].iter().zip(&expected[1]) {
        assert!((got - expected).abs() <= 1e-6 * expected.abs(), "{got} {expected}");
    }
}

#[test]
fn reference_gradients_agree_with_finite_differences() {
    let (rows, width, eps) = (3, 5, 1e-3);
    let mut numbers = Numbers::new(12);
    let inputs = [numbers.vec64(rows * width, 1.0), numbers.vec64(width, 1.0)];
    let dy = numbers.vec64(rows * width, 1.0);
    let run = |x: &[Vec<f64>]| {
        let (mut y, mut rstd) = (vec![0.0; rows * width], vec![0.0; rows]);
        reference::forward(width, eps, &x[0], &x[1], &mut y, &mut rstd);
        (y, rstd)
    };
    let mut gradients = [vec![0.0; rows * width], vec![0.0; width]];
    let [dx, dweight] = &mut gradients;
    reference::backward(width, &dy, &inputs[0], &inputs[1], &run(&inputs).1, dx, Some(dweight));
    gradcheck(&inputs, &gradients, |x| weighted(&run(x).0, &dy));
}
