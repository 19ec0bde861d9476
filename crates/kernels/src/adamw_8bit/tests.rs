//! `adamw_8bit` against the reference and bitsandbytes: every fast path, equal bits for any number of threads.

use crate::backend::BlockwiseState;
use crate::testing::{Numbers, assert_near, buffer, check, golden_gradient, golden_start, read};
use crate::{AdamW, Backend, Buffer, CpuBackend, Dtype, Isa, Rounding};

const OP: AdamW = AdamW {
    lr: 3e-3,
    beta1: 0.9,
    beta2: 0.95,
    eps: 1e-8,
    weight_decay: 0.1,
    step: 1,
    grad_scale: 1.0,
    rounding: Rounding::Nearest,
};

/// Zeroed moments of `n` elements: codes and scales of both.
fn moments(n: usize) -> [Buffer; 4] {
    let blocks = n.div_ceil(256);
    let zeros = |dtype, n| Buffer::host(dtype, n);
    [zeros(Dtype::U8, n), zeros(Dtype::F32, blocks), zeros(Dtype::U8, n), zeros(Dtype::F32, blocks)]
}

fn step(
    backend: &dyn Backend,
    n: usize,
    op: &AdamW,
    grad: &Buffer,
    param: &mut Buffer,
    state: &mut [Buffer; 4],
) {
    let [m, m_absmax, v, v_absmax] = state;
    let m = BlockwiseState { codes: m, absmax: m_absmax };
    backend.adamw_8bit(n, op, grad, param, m, BlockwiseState { codes: v, absmax: v_absmax });
}

#[test]
fn every_path_agrees_with_the_reference() {
    for n in [1, 256, 300, 40_000] {
        // Where an element lies between two codes, f64 may choose the other one: its moment then differs by
        // up to 1 % of the block's maximum, and the parameter by that part of a learning rate.
        check(&format!("{n}"), 1e-4, |backend| {
            let mut numbers = Numbers::new(37);
            let mut param = buffer(Dtype::F32, &numbers.vec(n, 1.0));
            let mut state = moments(n);
            for index in 1..=3 {
                let grad = buffer(Dtype::F32, &numbers.vec(n, 1.0));
                let op = AdamW { step: index, grad_scale: 0.3, ..OP };
                step(backend, n, &op, &grad, &mut param, &mut state);
            }
            vec![read(&param), read(&state[1]), read(&state[3])]
        });
    }
}

#[test]
fn moments_stay_close_to_those_of_32_bits() {
    let (n, backend) = (4096, CpuBackend::new(2, Isa::detect()));
    let mut numbers = Numbers::new(38);
    let [mut param, mut exact] = [0, 1].map(|_| buffer(Dtype::F32, &golden_start(n)));
    let mut state = moments(n);
    let [mut m, mut v] = [0, 1].map(|_| buffer(Dtype::F32, &vec![0.0; n]));
    for index in 1..=20 {
        let grad = buffer(Dtype::F32, &numbers.vec(n, 1.0));
        let op = AdamW { step: index, weight_decay: 0.0, ..OP };
        step(&backend, n, &op, &grad, &mut param, &mut state);
        backend.adamw(n, &op, &grad, &mut exact, &mut m, &mut v);
    }
    let moved = |x: &Buffer| read(x).iter().zip(golden_start(n)).map(|(x, s)| x - s).collect::<Vec<f32>>();
    let (eight, full) = (moved(&param), moved(&exact));
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(a * b)).sum::<f64>();
    let cosine = dot(&eight, &full) / (dot(&eight, &eight) * dot(&full, &full)).sqrt();
    // Codes are within 0.7 % of a number near the block's maximum and coarser below: the direction hardly changes.
    assert!(cosine > 0.995, "{cosine}");
}

// Printed by `crates/kernels/golden/optimizers.py` with bitsandbytes 0.50.2.
const PARAM8: [u32; 32] = [
    0xbf755d5a, 0x3cfbe14d, 0xbf773228, 0x3cc99d14, 0xbf755d5a, 0x3cfbe14d, 0xbf773228, 0x3cc99d14,
    0xbf755d5a, 0x3cfbe14d, 0xbf773228, 0x3cc99d14, 0xbf755d5a, 0x3cfbe14d, 0xbf773228, 0x3cc99d14,
    0xbf755d5a, 0x3cfbe14d, 0xbf773228, 0x3cc99d14, 0xbf755d5a, 0x3cfbe14d, 0xbf773228, 0x3cc99d14,
    0xbf755d5a, 0x3cfbe14d, 0xbf773228, 0x3cc99d14, 0xbf755d5a, 0x3cfbe14d, 0xbf773228, 0x3cc99d14,
];
const M_CODES: [u8; 512] = [
    15, 212, 200, 57, 58, 38, 48, 35, 233, 222, 192, 192, 60, 94, 58, 255, 244, 214, 214, 194, 204, 193, 50,
    50, 31, 40, 30, 226, 215, 162, 164, 52, 63, 50, 249, 236, 206, 207, 175, 197, 168, 42, 43, 23, 33, 22,
    218, 208, 71, 68, 45, 55, 44, 241, 229, 199, 200, 80, 184, 71, 35, 36, 16, 26, 15, 212, 200, 57, 58, 38,
    48, 35, 233, 222, 192, 192, 60, 94, 58, 255, 244, 214, 214, 194, 204, 193, 50, 50, 31, 40, 30, 226, 215,
    162, 164, 52, 63, 50, 249, 236, 206, 207, 175, 197, 168, 42, 43, 23, 33, 22, 218, 208, 71, 68, 45, 55,
    44, 241, 229, 199, 200, 80, 184, 71, 35, 36, 16, 26, 15, 212, 200, 57, 58, 38, 48, 35, 233, 222, 192,
    192, 60, 94, 58, 255, 244, 214, 214, 194, 204, 193, 50, 50, 31, 40, 30, 226, 215, 162, 164, 52, 63, 50,
    249, 236, 206, 207, 175, 197, 168, 42, 43, 23, 33, 22, 218, 208, 71, 68, 45, 55, 44, 241, 229, 199, 200,
    80, 184, 71, 35, 36, 16, 26, 15, 212, 200, 57, 58, 38, 48, 35, 233, 222, 192, 192, 60, 94, 58, 255, 244,
    214, 214, 194, 204, 193, 50, 50, 31, 40, 30, 226, 215, 162, 164, 52, 63, 50, 249, 236, 206, 207, 175,
    197, 168, 42, 43, 23, 33, 22, 218, 208, 71, 68, 45, 55, 44, 241, 229, 199, 200, 80, 184, 71, 35, 36, 16,
    26, 15, 212, 200, 57, 58, 38, 48, 35, 233, 222, 192, 192, 60, 94, 58, 255, 244, 214, 214, 194, 204, 193,
    50, 50, 31, 40, 30, 226, 215, 162, 164, 52, 63, 50, 249, 236, 206, 207, 175, 197, 168, 42, 43, 23, 33,
    22, 218, 208, 71, 68, 45, 55, 44, 241, 229, 199, 200, 80, 184, 71, 35, 36, 16, 26, 15, 212, 200, 57, 58,
    38, 48, 35, 233, 222, 192, 192, 60, 94, 58, 255, 244, 214, 214, 194, 204, 193, 50, 50, 31, 40, 30, 226,
    215, 162, 164, 52, 63, 50, 249, 236, 206, 207, 175, 197, 168, 42, 43, 23, 33, 22, 218, 208, 71, 68, 45,
    55, 44, 241, 229, 199, 200, 80, 184, 71, 35, 36, 16, 26, 15, 212, 200, 57, 58, 38, 48, 35, 233, 222, 192,
    192, 60, 94, 58, 255, 244, 214, 214, 194, 204, 193, 50, 50, 31, 40, 30, 226, 215, 162, 164, 52, 63, 50,
    249, 236, 206, 207, 175, 197, 168, 42, 43, 23, 33, 22, 218, 208, 71, 68, 45, 55, 44, 241, 229, 199, 200,
    80, 184, 71, 35, 36, 16, 26, 15, 212, 200, 57, 58, 38, 48, 35, 233, 222, 192, 192, 60, 94, 58, 255, 244,
    214, 214, 194, 204, 193, 50, 50, 31, 40, 30, 226, 215, 162, 164, 52, 63, 50, 249, 236, 206, 207, 175,
    197, 168, 42, 43, 23, 33, 22, 218, 208, 71, 68, 45, 55, 44, 241, 229, 199, 200, 80, 184, 71, 35, 36, 16,
    26,
];
const V_CODES: [u8; 512] = [
    238, 223, 216, 246, 230, 243, 224, 224, 232, 223, 247, 230, 238, 219, 216, 250, 236, 255, 236, 240, 221,
    215, 247, 232, 246, 227, 227, 229, 219, 246, 230, 240, 220, 218, 243, 231, 251, 234, 239, 219, 214, 248,
    234, 250, 230, 233, 225, 218, 245, 230, 241, 222, 220, 237, 227, 249, 231, 238, 218, 214, 251, 237, 254,
    235, 238, 223, 216, 246, 230, 243, 224, 224, 232, 223, 247, 230, 238, 219, 216, 250, 236, 255, 236, 240,
    221, 215, 247, 232, 246, 227, 227, 229, 219, 246, 230, 240, 220, 218, 243, 231, 251, 234, 239, 219, 214,
    248, 234, 250, 230, 233, 225, 218, 245, 230, 241, 222, 220, 237, 227, 249, 231, 238, 218, 214, 251, 237,
    254, 235, 238, 223, 216, 246, 230, 243, 224, 224, 232, 223, 247, 230, 238, 219, 216, 250, 236, 255, 236,
    240, 221, 215, 247, 232, 246, 227, 227, 229, 219, 246, 230, 240, 220, 218, 243, 231, 251, 234, 239, 219,
    214, 248, 234, 250, 230, 233, 225, 218, 245, 230, 241, 222, 220, 237, 227, 249, 231, 238, 218, 214, 251,
    237, 254, 235, 238, 223, 216, 246, 230, 243, 224, 224, 232, 223, 247, 230, 238, 219, 216, 250, 236, 255,
    236, 240, 221, 215, 247, 232, 246, 227, 227, 229, 219, 246, 230, 240, 220, 218, 243, 231, 251, 234, 239,
    219, 214, 248, 234, 250, 230, 233, 225, 218, 245, 230, 241, 222, 220, 237, 227, 249, 231, 238, 218, 214,
    251, 237, 254, 235, 238, 223, 216, 246, 230, 243, 224, 224, 232, 223, 247, 230, 238, 219, 216, 250, 236,
    255, 236, 240, 221, 215, 247, 232, 246, 227, 227, 229, 219, 246, 230, 240, 220, 218, 243, 231, 251, 234,
    239, 219, 214, 248, 234, 250, 230, 233, 225, 218, 245, 230, 241, 222, 220, 237, 227, 249, 231, 238, 218,
    214, 251, 237, 254, 235, 238, 223, 216, 246, 230, 243, 224, 224, 232, 223, 247, 230, 238, 219, 216, 250,
    236, 255, 236, 240, 221, 215, 247, 232, 246, 227, 227, 229, 219, 246, 230, 240, 220, 218, 243, 231, 251,
    234, 239, 219, 214, 248, 234, 250, 230, 233, 225, 218, 245, 230, 241, 222, 220, 237, 227, 249, 231, 238,
    218, 214, 251, 237, 254, 235, 238, 223, 216, 246, 230, 243, 224, 224, 232, 223, 247, 230, 238, 219, 216,
    250, 236, 255, 236, 240, 221, 215, 247, 232, 246, 227, 227, 229, 219, 246, 230, 240, 220, 218, 243, 231,
    251, 234, 239, 219, 214, 248, 234, 250, 230, 233, 225, 218, 245, 230, 241, 222, 220, 237, 227, 249, 231,
    238, 218, 214, 251, 237, 254, 235, 238, 223, 216, 246, 230, 243, 224, 224, 232, 223, 247, 230, 238, 219,
    216, 250, 236, 255, 236, 240, 221, 215, 247, 232, 246, 227, 227, 229, 219, 246, 230, 240, 220, 218, 243,
    231, 251, 234, 239, 219, 214, 248, 234, 250, 230, 233, 225, 218, 245, 230, 241, 222, 220, 237, 227, 249,
    231, 238, 218, 214, 251, 237, 254, 235,
];
const M_ABSMAX: [u32; 2] = [0x3d7f1ea5, 0x3d7f1ea5];
const V_ABSMAX: [u32; 2] = [0x3cb6498f, 0x3cb6498f];

#[test]
fn equals_bitsandbytes() {
    let n = M_CODES.len();
    for isa in Isa::available() {
        let backend = CpuBackend::new(1, isa);
        let mut param = buffer(Dtype::F32, &golden_start(n));
        let mut state = moments(n);
        for index in 0..5 {
            let op = AdamW { step: index as u64 + 1, ..OP };
            let grad = buffer(Dtype::F32, &golden_gradient(n, index));
            step(&backend, n, &op, &grad, &mut param, &mut state);
        }
        let sampled: Vec<f32> = read(&param).into_iter().step_by(16).collect();
        // Some roundings of 2⁻²⁴.
        assert_near(isa.name(), 5e-7, &sampled, &PARAM8);
        assert_near(isa.name(), 3e-7, &read(&state[1]), &M_ABSMAX);
        assert_near(isa.name(), 3e-7, &read(&state[3]), &V_ABSMAX);
        for (codes, golden) in [(&state[0], &M_CODES), (&state[2], &V_CODES)] {
            assert_eq!(codes.u8(), golden, "{}", isa.name());
        }
    }
}
