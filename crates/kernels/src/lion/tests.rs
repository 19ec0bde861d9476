//! `lion` against the reference and bitsandbytes: every fast path, equal bits for any number of threads.

use crate::testing::{Numbers, assert_near, buffer, check, golden_gradient, golden_start, read};
use crate::{Backend, CpuBackend, Dtype, Isa, Lion, Rounding};

const OP: Lion = Lion {
    lr: 0.01,
    beta1: 0.9,
    beta2: 0.99,
    weight_decay: 0.1,
    grad_scale: 1.0,
    rounding: Rounding::Nearest,
};

#[test]
fn every_path_agrees_with_the_reference() {
    for n in [1, 17, 64, 40_000] {
        // A handful of roundings of each element.
        check(&format!("{n}"), 1e-6, |backend| {
            let mut numbers = Numbers::new(31);
            let [grad, mut param, mut m] =
                [1.0, 1.0, 0.1].map(|range| buffer(Dtype::F32, &numbers.vec(n + 3, range)));
            backend.lion(n, &Lion { grad_scale: 0.3, ..OP }, &grad, &mut param, &mut m);
            [&param, &m].map(read).into()
        });
    }
}

#[test]
fn without_a_direction_nothing_moves() {
    let backend = CpuBackend::new(1, Isa::detect());
    let [grad, mut param, mut m] = [0.0, 2.0, 0.0].map(|x| buffer(Dtype::F32, &[x]));
    backend.lion(1, &Lion { weight_decay: 0.0, ..OP }, &grad, &mut param, &mut m);
    assert_eq!(read(&param), [2.0]);
}

// Printed by `crates/kernels/golden/optimizers.py` with bitsandbytes 0.50.2.
const PARAM: [u32; 16] = [
    0xbf7703be, 0xbf2752ea, 0xbeaf4eac, 0xbd5153b2, 0x3e99a796, 0x3f12487d, 0x3f6c2ee4, 0xbf4734d2,
    0xbeef07fe, 0xbe1f61a5, 0x3e0ae6c3, 0x3eef0a9e, 0x3f42176a, 0xbf67117b, 0xbf1765e5, 0xbe8f6a26,
];
const M: [u32; 16] = [
    0xbb9e8269, 0xbaf3847f, 0x3aacf4c2, 0x3b8cde7a, 0xbb256295, 0x3a11b6d1, 0xbbca1a71, 0xbb43f842,
    0xb735b050, 0x3b4f86ef, 0x3bc964c1, 0xba315818, 0x3b1d7a43, 0xbb8d9429, 0xba95d765, 0x3af0adbd,
];

#[test]
fn equals_bitsandbytes() {
    for isa in Isa::available() {
        let backend = CpuBackend::new(1, isa);
        let mut param = buffer(Dtype::F32, &golden_start(16));
        let mut m = buffer(Dtype::F32, &[0.0; 16]);
        for step in 0..4 {
            backend.lion(16, &OP, &buffer(Dtype::F32, &golden_gradient(16, step)), &mut param, &mut m);
        }
        // Some roundings of 2⁻²⁴.
        assert_near(isa.name(), 3e-7, &read(&param), &PARAM);
        assert_near(isa.name(), 3e-7, &read(&m), &M);
    }
}
