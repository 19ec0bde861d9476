//! `noise`: gradients by finite differences, every fast path against the reference, equal bits for any threads.

use crate::testing::{Numbers, buffer, check, filled, operands, read};
use crate::{Backend, CpuBackend, Dtype};

#[test]
fn every_path_agrees_with_the_reference() {
    for n in [0, 1, 63, 65, 1000, 33_000] {
        for (dtype, tolerance) in operands(1e-6) {
            check(&format!("{n} {dtype:?}"), tolerance, |backend| {
                let mut x = buffer(dtype, &Numbers::new(25).vec(n + 3, 1.0));
                backend.add_uniform_noise(n, 0.3, 78, &mut x);
                vec![read(&x)]
            });
        }
    }
}

#[test]
fn noise_is_uniform_around_zero() {
    let n = 100_000;
    let mut x = filled(Dtype::F32, n, 0.0);
    CpuBackend::detect().add_uniform_noise(n, 2.0, 5, &mut x);
    let x = read(&x);
    let mean = x.iter().sum::<f32>() / n as f32;
    let variance = x.iter().map(|x| x * x).sum::<f32>() / n as f32;
    // U(-2, 2) has variance 4/3; bounds are five standard deviations of the estimates.
    assert!(mean.abs() < 0.0183 && (variance - 4.0 / 3.0).abs() < 0.019, "{mean} {variance}");
    assert!(x.iter().all(|x| (-2.0..2.0).contains(x)));
}
