//! `dropout`: gradients by finite differences, every fast path against the reference, equal bits for any threads.

use crate::testing::{Numbers, buffer, check, filled, operands, read};
use crate::{Backend, CpuBackend, Dtype};

#[test]
fn every_path_agrees_with_the_reference() {
    for n in [0, 1, 63, 65, 1000, 33_000] {
        for (dtype, tolerance) in operands(1e-6) {
            for p in [0.0, 0.1, 0.75] {
                check(&format!("{n} {dtype:?} {p}"), tolerance, |backend| {
                    let x = buffer(dtype, &Numbers::new(24).vec(n + 1, 1.0));
                    let mut y = filled(dtype, n + 3, 0.5);
                    backend.dropout(n, p, 77, &x, &mut y);
                    vec![read(&y)]
                });
            }
        }
    }
}

fn kept(seed: u64, n: usize, p: f32) -> Vec<bool> {
    let (x, mut y) = (filled(Dtype::F32, n, 1.0), filled(Dtype::F32, n, 0.5));
    CpuBackend::detect().dropout(n, p, seed, &x, &mut y);
    read(&y).into_iter().map(|y| y != 0.0).collect()
}

#[test]
fn the_mask_depends_on_seed_and_index_alone() {
    assert_eq!(kept(1, 5000, 0.3)[..100], kept(1, 100, 0.3));
    assert_ne!(kept(1, 100, 0.3), kept(2, 100, 0.3));
}

#[test]
fn the_share_of_dropped_elements_is_p() {
    // Five standard deviations of a binomial with 10⁵ trials are 0.007.
    let share = kept(3, 100_000, 0.3).iter().filter(|kept| !**kept).count() as f32 / 1e5;
    assert!((share - 0.3).abs() < 0.0073, "{share}");
}
