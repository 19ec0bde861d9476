//! `adamw` against the reference and against torch: every fast path, equal bits for any number of threads.

use crate::testing::{Numbers, buffer, check, read};
use crate::{AdamW, Backend, CpuBackend, Dtype, Isa, Rounding};

const OP: AdamW = AdamW {
    lr: 1e-2,
    beta1: 0.9,
    beta2: 0.999,
    eps: 1e-8,
    weight_decay: 0.01,
    step: 1,
    grad_scale: 1.0,
    rounding: Rounding::Nearest,
};

#[test]
fn every_path_agrees_with_the_reference() {
    for n in [1, 17, 64, 40_000] {
        for op in [OP, AdamW { step: 7, weight_decay: 0.0, grad_scale: 0.3, beta2: 0.95, ..OP }] {
            // A handful of roundings of each element.
            check(&format!("{n} {op:?}"), 1e-6, |backend| {
                let mut numbers = Numbers::new(27);
                let [grad, mut param, mut m, mut v] =
                    [1.0, 1.0, 0.1, 0.01].map(|range| buffer(Dtype::F32, &numbers.vec(n + 3, range)));
                // Second moments are not negative.
                let squares: Vec<f32> = read(&v).iter().map(|v| v.abs()).collect();
                backend.upload(&squares, &mut v, 0);
                backend.adamw(n, &op, &grad, &mut param, &mut m, &mut v);
                [&param, &m, &v].map(read).into()
            });
        }
    }
}

// Printed by `crates/kernels/golden/adamw.py` with torch 2.15.
const PARAM: [u32; 32] = [
    0xbf754096, 0xbf282f01, 0xbead9e59, 0xbd184c8c, 0x3e9138de, 0x3f16bff6, 0x3f6a066a, 0xbf45cf4d,
    0xbef1e111, 0xbe1e067f, 0x3e174117, 0x3eefe813, 0x3f462445, 0xbf6738f6, 0xbf166d4b, 0xbe9358b4,
    0x3cfa0631, 0x3eaa782b, 0x3f275454, 0x3f759123, 0xbf37ef56, 0xbecd2920, 0xbdca3e74, 0x3e6354db,
    0x3f06f4c1, 0x3f5a3731, 0xbf559ddb, 0xbf08b010, 0xbe5d185f, 0x3db0379e, 0x3ed0571a, 0x3f36577e,
];
const M: [u32; 32] = [
    0xbb979252, 0x3ca0f930, 0xbd00ab31, 0x3b3b9747, 0xbd209124, 0x3b500fa0, 0xbd016d81, 0x3c8e08a3,
    0x3d2a7334, 0xbc1ad24f, 0x3ccb6023, 0xbc8d350d, 0x3ccdef2e, 0xbc1ddb8f, 0x3d20faee, 0x3d8234e8,
    0x3c4d0824, 0x3d3fa6af, 0x3b9ae0ae, 0x3d40ee33, 0x3c49fedf, 0xbd1ea80f, 0xbb921b4d, 0xbd3e8e02,
    0xbb87df29, 0xbd1f6a5f, 0x3c241dc9, 0x3d0c7655, 0xbc8962e6, 0x3c8f6666, 0xbcc92eca, 0x3c91f56e,
];
const V: [u32; 32] = [
    0x3cda2551, 0x3c868624, 0x3ccecc93, 0x3ca9b45e, 0x3cb1c8a3, 0x3cc165e1, 0x3c8f275a, 0x3cd90e3e,
    0x3c92b853, 0x3cc71915, 0x3cb135a5, 0x3ca7372f, 0x3cc7c4cc, 0x3c8518f3, 0x3ce1808f, 0x3ca873e6,
    0x3cc8eefa, 0x3cc24051, 0x3ca62f1e, 0x3cd7ad1c, 0x3c8493f2, 0x3cd37c45, 0x3ca95278, 0x3cb76cfc,
    0x3cc164c4, 0x3c94a004, 0x3cd85c00, 0x3c8d9854, 0x3cc89afb, 0x3cada5f4, 0x3ca9adbc, 0x3cc495e4,
];

/// The same bits as torch's fused AdamW where both multiply and add with one rounding. The portable path rounds
/// twice; its first moments nearly cancel, so it is compared relative to the greatest number: a few roundings of 2⁻²⁴.
#[test]
fn equals_torch() {
    let n = PARAM.len();
    let start: Vec<f32> = (0..n).map(|i| ((i * 5 % 32) as f32 - 15.5) / 16.0).collect();
    for isa in Isa::available() {
        let allowed = if isa == Isa::Portable { 4e-7 } else { 0.0 };
        let backend = CpuBackend::new(1, isa);
        let [mut param, mut m, mut v] = [&start, &vec![0.0; n], &vec![0.0; n]].map(|x| buffer(Dtype::F32, x));
        for step in 0..6 {
            let grad: Vec<f32> =
                (0..n).map(|i| ((i * 37 + step * 101) % 64) as f32 / 64.0 - 0.492_187_5).collect();
            let op = AdamW {
                lr: 3e-3,
                beta1: 0.9,
                beta2: 0.95,
                eps: 1e-8,
                weight_decay: 0.1,
                step: step as u64 + 1,
                grad_scale: 1.0,
                rounding: Rounding::Nearest,
            };
            backend.adamw(n, &op, &buffer(Dtype::F32, &grad), &mut param, &mut m, &mut v);
        }
        for (name, got, golden) in [("param", param, PARAM), ("m", m, M), ("v", v, V)] {
            let golden = golden.map(f32::from_bits);
            let bound = allowed * golden.iter().fold(0.0, |a: f32, b| a.max(b.abs()));
            for (i, (got, golden)) in read(&got).into_iter().zip(golden).enumerate() {
                assert!((got - golden).abs() <= bound, "{}: {name}[{i}] is {got}, not {golden}", isa.name());
            }
        }
    }
}
