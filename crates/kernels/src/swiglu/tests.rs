//! `swiglu`: gradients by finite differences, every fast path against the reference, equal bits for any threads.

use super::reference;
use crate::testing::{Numbers, buffer, check, filled, gradcheck, operands, read, weighted};

#[test]
fn every_path_agrees_with_the_reference() {
    for n in [1, 15, 64, 1000, 40_000] {
        // A few roundings of each element.
        for (dtype, tolerance) in operands(1e-6) {
            check(&format!("{n} {dtype:?}"), tolerance, |backend| {
                let mut numbers = Numbers::new(16);
                let [gate, up, dout] = [(); 3].map(|()| buffer(dtype, &numbers.vec(n + 1, 12.0)));
                let [mut out, mut dgate, mut dup] = [(); 3].map(|()| filled(dtype, n + 3, 0.5));
                backend.swiglu_forward(n, &gate, &up, &mut out);
                backend.swiglu_backward(n, &gate, &up, &dout, &mut dgate, &mut dup);
                [&out, &dgate, &dup].map(read).into()
            });
        }
    }
}

#[test]
fn extreme_gates_stay_finite() {
    let gates = [-1e30, -200.0, -90.0, -0.0, 90.0, 200.0, 1e30];
    check("extreme", 1e-6, |backend| {
        let [gate, up] = [&gates, &[1.0; 7]].map(|x| buffer(crate::Dtype::F32, x));
        let [mut out, mut dgate, mut dup] = [(); 3].map(|()| filled(crate::Dtype::F32, 7, 0.5));
        backend.swiglu_forward(7, &gate, &up, &mut out);
        backend.swiglu_backward(7, &gate, &up, &up, &mut dgate, &mut dup);
        let results: Vec<_> = [&out, &dgate, &dup].map(read).into();
        assert!(results.iter().flatten().all(|x| x.is_finite()), "{results:?}");
        // Divided by the greatest gate, or the tolerance would hide the small ones.
        results
            .into_iter()
            .map(|x| x.iter().zip(gates).map(|(x, g)| x / f32::max(g.abs(), 1.0)).collect())
            .collect()
    });
}

#[test]
fn reference_gradients_agree_with_finite_differences() {
    let mut numbers = Numbers::new(17);
    let inputs = [numbers.vec64(20, 4.0), numbers.vec64(20, 1.0)];
    let dout = numbers.vec64(20, 1.0);
    let mut gradients = inputs.clone();
    let [dgate, dup] = &mut gradients;
    reference::backward(&inputs[0], &inputs[1], &dout, dgate, dup);
    gradcheck(&inputs, &gradients, |x| {
        let mut out = vec![0.0; 20];
        reference::forward(&x[0], &x[1], &mut out);
        weighted(&out, &dout)
    });
}
