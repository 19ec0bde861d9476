//! `rope`: gradients by finite differences, every fast path against the reference, equal bits for any threads.

use super::reference;
use crate::testing::{Numbers, buffer, check, gradcheck, ids, operands, read, weighted};
use crate::{Backend, CpuBackend, Dtype};

/// Cosines and sines of `positions` rows for heads of width `head_dim`.
fn table(positions: usize, head_dim: usize) -> Vec<f32> {
    let angle = |t: usize, i: usize| t as f32 * 10_000f32.powf(-2.0 * i as f32 / head_dim as f32);
    (0..positions)
        .flat_map(|t| {
            let cos = (0..head_dim / 2).map(move |i| angle(t, i).cos());
            cos.chain((0..head_dim / 2).map(move |i| angle(t, i).sin()))
        })
        .collect()
}

#[test]
fn every_path_agrees_with_the_reference() {
    for [tokens, heads, head_dim] in [[1, 1, 2], [35, 3, 6], [20, 2, 64], [7, 5, 38]] {
        // Two products and a sum: one unit of f32 of the greatest result.
        for (dtype, tolerance) in operands(3e-7) {
            let run = |backend: &dyn Backend| {
                let mut numbers = Numbers::new(13);
                let positions = ids(&numbers.below(tokens, 50));
                let table = buffer(Dtype::F32, &table(50, head_dim));
                let [mut x, mut dx] =
                    [(); 2].map(|()| buffer(dtype, &numbers.vec(tokens * heads * head_dim + 3, 1.0)));
                backend.rope_forward(tokens, heads, head_dim, &positions, &table, &mut x);
                backend.rope_backward(tokens, heads, head_dim, &positions, &table, &mut dx);
                vec![read(&x), read(&dx)]
            };
            check(&format!("{tokens} {heads} {head_dim} {dtype:?}"), tolerance, run);
        }
    }
}

#[test]
fn backward_undoes_forward() {
    let (tokens, heads, head_dim) = (9, 2, 10);
    let x = Numbers::new(14).vec(tokens * heads * head_dim, 1.0);
    let positions = ids(&(0..tokens as u32).collect::<Vec<_>>());
    let table = buffer(Dtype::F32, &table(tokens, head_dim));
    let mut turned = buffer(Dtype::F32, &x);
    let backend = CpuBackend::detect();
    backend.rope_forward(tokens, heads, head_dim, &positions, &table, &mut turned);
    backend.rope_backward(tokens, heads, head_dim, &positions, &table, &mut turned);
    for (a, b) in x.iter().zip(read(&turned)) {
        assert!((a - b).abs() < 1e-6, "{a} {b}");
    }
}

#[test]
fn reference_gradients_agree_with_finite_differences() {
    let (heads, head_dim, positions) = (2, 4, [3, 0, 7]);
    let table: Vec<f64> = table(8, head_dim).into_iter().map(f64::from).collect();
    let mut numbers = Numbers::new(15);
    let inputs = [numbers.vec64(3 * heads * head_dim, 1.0)];
    let dy = numbers.vec64(3 * heads * head_dim, 1.0);
    let mut gradient = dy.clone();
    reference::rotate(heads, head_dim, &positions, &table, -1.0, &mut gradient);
    gradcheck(&inputs, &[gradient], |x| {
        let mut y = x[0].clone();
        reference::rotate(heads, head_dim, &positions, &table, 1.0, &mut y);
        weighted(&y, &dy)
    });
}
