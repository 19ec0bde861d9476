//! `adafactor` against the reference and transformers: every fast path, equal bits for any number of threads.

use crate::backend::SquaredMeans;
use crate::testing::{Numbers, assert_near, buffer, check, golden_gradient, golden_start, read};
use crate::{Adafactor, Backend, CpuBackend, Dtype, Isa, Rounding};

const OP: Adafactor = Adafactor {
    lr: 0.01,
    eps: 1e-30,
    clip_threshold: 1.0,
    decay_rate: -0.8,
    weight_decay: 0.1,
    step: 3,
    grad_scale: 1.0,
    rounding: Rounding::Nearest,
};

#[test]
fn every_path_agrees_with_the_reference() {
    for (rows, columns) in [(1, 1), (3, 17), (70, 130), (200, 150)] {
        for op in [OP, Adafactor { step: 1, grad_scale: 0.3, clip_threshold: 0.5, ..OP }] {
            // Sums of some hundred squares in another order, and their roots.
            check(&format!("{rows} {columns} {op:?}"), 3e-6, |backend| {
                let n = rows * columns;
                let mut numbers = Numbers::new(35);
                let grad = buffer(Dtype::F32, &numbers.vec(n, 1.0));
                let start = numbers.vec(n, 1.0);
                let positive = |x: Vec<f32>| buffer(Dtype::F32, &x.iter().map(|x| x * x).collect::<Vec<_>>());
                let [mut row, mut column, mut v] = [rows, columns, n].map(|n| positive(numbers.vec(n, 0.7)));
                let [mut matrix, mut vector] = [0, 1].map(|_| buffer(Dtype::F32, &start));
                let means = SquaredMeans::Matrix { row: &mut row, column: &mut column };
                backend.adafactor([rows, columns], &op, &grad, &mut matrix, means);
                backend.adafactor([rows, columns], &op, &grad, &mut vector, SquaredMeans::Vector(&mut v));
                [&matrix, &vector, &row, &column, &v].map(read).into()
            });
        }
    }
}

// Printed by `crates/kernels/golden/optimizers.py` with transformers 5.23.
const MATRIX: [u32; 48] = [
    0xbf734c76, 0xbf2585ff, 0xbeb1b6e7, 0xbd375ba5, 0x3e93e9d1, 0x3f173b42, 0x3f6c8d97, 0xbf44f011,
    0xbeeed766, 0xbe2a89ae, 0x3e07d34e, 0x3eefec83, 0x3f447278, 0xbf6308ed, 0xbf1614c7, 0xbe92cfa2,
    0x3c688158, 0x3ea01e31, 0x3f26376e, 0x3f7329fc, 0xbf355742, 0xbed05c0e, 0xbddbeb72, 0x3e699e96,
    0x3f07cf08, 0x3f5d8461, 0xbf53f213, 0xbf06a048, 0xbe6758e8, 0x3d9bb719, 0x3ed1b6f0, 0x3f35fdb6,
    0xbf729feb, 0xbf25404b, 0xbeb1fcb5, 0xbd3dd504, 0x3e814fb6, 0x3f1704f5, 0x3f63646a, 0xbf44752d,
    0xbeef8ff0, 0xbe2ae5f6, 0x3e2c6308, 0x3ef071f7, 0x3f4dae49, 0xbf63a53c, 0xbf166426, 0xbe931a40,
];
const ROW: [u32; 6] = [0x3da919b3, 0x3d9e808b, 0x3db65bcf, 0x3dab2a31, 0x3da61727, 0x3dad073e];
const COLUMN: [u32; 8] =
    [0x3daceb35, 0x3da0fd48, 0x3db0fa73, 0x3dad2b48, 0x3db2029b, 0x3daad8f9, 0x3d9fa085, 0x3da7c934];
const VECTOR: [u32; 16] = [
    0xbf74914f, 0xbf270c76, 0xbeb17b5e, 0xbd372d3e, 0x3e95b532, 0x3f172e81, 0x3f6e68a6, 0xbf45c8d5,
    0xbef090c4, 0xbe27d7db, 0x3e0cd208, 0x3ef39d44, 0x3f45e439, 0xbf659697, 0xbf170cbb, 0xbe93377e,
];
const SQUARES: [u32; 16] = [
    0x3dbe1878, 0x3d5b8f7d, 0x3dbf3cde, 0x3d7b8552, 0x3dda7ccd, 0x3db368ca, 0x3d9e181a, 0x3db3f02f,
    0x3d502609, 0x3dd31496, 0x3d960def, 0x3dccfe68, 0x3db446d0, 0x3d836361, 0x3db2c7e7, 0x3d56bc96,
];

#[test]
fn equals_transformers() {
    for isa in Isa::available() {
        let backend = CpuBackend::new(1, isa);
        let [mut matrix, mut vector] = [48, 16].map(|n| buffer(Dtype::F32, &golden_start(n)));
        let [mut row, mut column, mut v] = [6, 8, 16].map(|n| buffer(Dtype::F32, &vec![0.0; n]));
        for step in 0..4 {
            let op = Adafactor { step: step as u64 + 1, ..OP };
            let means = SquaredMeans::Matrix { row: &mut row, column: &mut column };
            let grad = buffer(Dtype::F32, &golden_gradient(48, step));
            backend.adafactor([6, 8], &op, &grad, &mut matrix, means);
            let grad = buffer(Dtype::F32, &golden_gradient(16, step));
            backend.adafactor([1, 16], &op, &grad, &mut vector, SquaredMeans::Vector(&mut v));
        }
        // Some roundings of 2⁻²⁴ in each of four steps.
        for (name, got, golden) in [
            ("matrix", &matrix, &MATRIX[..]),
            ("row", &row, &ROW),
            ("column", &column, &COLUMN),
            ("vector", &vector, &VECTOR),
            ("squares", &v, &SQUARES),
        ] {
            assert_near(&format!("{} {name}", isa.name()), 1e-6, &read(got), golden);
        }
    }
}
