//! `sgd` against the reference and torch: every fast path, equal bits for any number of threads.

use crate::testing::{Numbers, assert_near, buffer, check, golden_gradient, golden_start, read};
use crate::{Backend, CpuBackend, Dtype, Isa, Rounding, Sgd};

const OP: Sgd = Sgd {
    lr: 0.1,
    momentum: 0.9,
    dampening: 0.25,
    nesterov: false,
    weight_decay: 0.1,
    step: 2,
    grad_scale: 1.0,
    rounding: Rounding::Nearest,
};

#[test]
fn every_path_agrees_with_the_reference() {
    for n in [1, 17, 64, 40_000] {
        let nesterov = Sgd { nesterov: true, dampening: 0.0, ..OP };
        for op in [OP, Sgd { step: 1, grad_scale: 0.3, ..OP }, nesterov, Sgd { momentum: 0.0, ..OP }] {
            // A handful of roundings of each element.
            check(&format!("{n} {op:?}"), 1e-6, |backend| {
                let mut numbers = Numbers::new(33);
                let [grad, mut param, mut momentum] =
                    [1.0, 1.0, 0.5].map(|range| buffer(Dtype::F32, &numbers.vec(n + 3, range)));
                let kept = (op.momentum != 0.0).then_some(&mut momentum);
                backend.sgd(n, &op, &grad, &mut param, kept);
                [&param, &momentum].map(read).into()
            });
        }
    }
}

// Printed by `crates/kernels/golden/optimizers.py` with torch 2.15.
const MOMENTUM: [u32; 16] = [
    0xbf46dace, 0xbf1e3178, 0xbe840a33, 0xbdcade1b, 0x3e85a136, 0x3efd5a49, 0x3f6bfc54, 0xbf1f0118,
    0xbeecaf82, 0xbdd15b1c, 0x3d67df2e, 0x3ed554a1, 0x3f2686db, 0xbf5353c0, 0xbeee4ec3, 0xbe9cfc17,
];
const NESTEROV: [u32; 16] = [
    0xbf424a65, 0xbf240a30, 0xbe84f924, 0xbe10f175, 0x3e754504, 0x3f0c354c, 0x3f813fab, 0xbf1bf30c,
    0xbefb65af, 0xbde129c8, 0x3c06bee0, 0x3ec75134, 0x3f328ca6, 0xbf572952, 0xbeeb3765, 0xbeaeb6fd,
];
const PLAIN: [u32; 16] = [
    0xbf5ddce7, 0xbf22da3a, 0xbe9cfdac, 0xbd9be14e, 0x3e81be75, 0x3f157b81, 0x3f69955b, 0xbf32da48,
    0xbeefaf37, 0xbe0df0dd, 0x3dbc33a6, 0x3ed7c3b2, 0x3f407e1f, 0xbf5c330d, 0xbf07d7aa, 0xbe99a9fa,
];

#[test]
fn equals_torch() {
    let nesterov = Sgd { nesterov: true, dampening: 0.0, weight_decay: 0.0, ..OP };
    for (op, golden) in [(OP, MOMENTUM), (nesterov, NESTEROV), (Sgd { momentum: 0.0, ..OP }, PLAIN)] {
        for isa in Isa::available() {
            let backend = CpuBackend::new(1, isa);
            let mut param = buffer(Dtype::F32, &golden_start(16));
            let mut momentum = buffer(Dtype::F32, &[0.0; 16]);
            for step in 0..3 {
                let op = Sgd { step: step as u64 + 1, ..op };
                let grad = buffer(Dtype::F32, &golden_gradient(16, step));
                let kept = (op.momentum != 0.0).then_some(&mut momentum);
                backend.sgd(16, &op, &grad, &mut param, kept);
            }
            // Some roundings of 2⁻²⁴.
            assert_near(&format!("{} {op:?}", isa.name()), 3e-7, &read(&param), &golden);
        }
    }
}
