//! `sum_of_squares`: gradients by finite differences, every fast path against the reference, equal bits for any
//! threads.

use crate::testing::{Numbers, buffer, check, filled};
use crate::{Backend, CpuBackend, Dtype, Isa};

#[test]
fn every_path_agrees_with_the_reference() {
    for n in [0, 1, 17, 16_384, 50_001] {
        for dtype in [Dtype::F32, Dtype::Bf16] {
            // Summed in f64: the f32 in which the battery compares is the coarsest step.
            check(&format!("{n} {dtype:?}"), 1e-7, |backend| {
                vec![
                    vec![backend.sum_of_squares(n, &buffer(dtype, &Numbers::new(26).vec(n + 3, 1.0))) as f32],
                ]
            });
        }
    }
}

#[test]
fn small_numbers_are_not_lost_behind_large_ones() {
    let mut x = vec![1e-4f32; 100_000];
    x[0] = 1e6;
    let x = buffer(Dtype::F32, &x);
    let exact = 1e12 + 99_999.0 * f64::from(1e-4f32) * f64::from(1e-4f32);
    for isa in Isa::available() {
        let sum = CpuBackend::new(2, isa).sum_of_squares(100_000, &x);
        // Ten thousand roundings of a sum near 10¹² in f64 would be 10⁻¹² relative.
        assert!((sum - exact).abs() < 1e-13 * exact, "{sum} {exact}");
    }
    assert_eq!(CpuBackend::detect().sum_of_squares(3, &filled(Dtype::F32, 3, f32::INFINITY)), f64::INFINITY);
}
