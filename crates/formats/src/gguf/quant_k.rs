//! Quantisation to GGUF's K-quants (layouts in `dequant_k.rs`): each sub-block's scale is searched, the scales are
//! rounded to their few bits, and the codes are made again from the rounded scales (`ggml-quants.c`,
//! `quantize_row_q4_K_ref` and kin).

use super::dequant::scale;
use super::dequant_k::{q3_scale, scale_and_min_bits};
use super::quant::put_scale;
use super::quant_search::{Affine, nearest, scale_and_min, scale_by_descent, scale_symmetric};

/// Codes of x + m in units of d, within `low..=high` and counted from `low`; untouched where the scale became zero.
fn requantise(x: &[f32], d: f32, m: f32, low: i32, high: i32, codes: &mut [u8]) {
    if d == 0.0 {
        return;
    }
    for (&v, q) in x.iter().zip(codes) {
        *q = (nearest((v + m) / d).clamp(low, high) - low) as u8;
    }
}

/// Largest of the numbers above zero; zero if there is none.
fn largest(values: &[f32]) -> f32 {
    values.iter().fold(0.0, |most, &v| if v > most { v } else { most })
}

fn share(of: f32, largest: f32) -> f32 {
    if largest > 0.0 { of / largest } else { 0.0 }
}

/// Q4_K and Q5_K up to the packing of the codes: header bytes 0–15 are written.
fn eight_sub_blocks(x: &[f32], ask: &Affine, block: &mut [u8], codes: &mut [u8; 256]) {
    let (mut scales, mut mins) = ([0f32; 8], [0f32; 8]);
    for (i, x) in x.chunks_exact(32).enumerate() {
        let mut sum = 0.0f32;
        x.iter().for_each(|v| sum += v * v);
        let root = (sum / 32.0).sqrt();
        let weights: [f32; 32] = std::array::from_fn(|j| root + x[j].abs());
        (scales[i], mins[i]) = scale_and_min(x, &weights, ask, &mut codes[32 * i..32 * (i + 1)]);
    }
    let (max_scale, max_min) = (largest(&scales), largest(&mins));
    let (per_scale, per_min) = (share(63.0, max_scale), share(63.0, max_min));
    let packed = &mut block[4..16];
    for i in 0..8 {
        let s = (nearest(per_scale * scales[i]) as u8).min(63);
        let m = (nearest(per_min * mins[i]) as u8).min(63);
        if i < 4 {
            (packed[i], packed[i + 4]) = (s, m);
        } else {
            packed[i + 4] = (s & 15) | ((m & 15) << 4);
            packed[i - 4] |= (s >> 4) << 6;
            packed[i] |= (m >> 4) << 6;
        }
    }
    put_scale(block, 0, max_scale / 63.0);
    put_scale(block, 2, max_min / 63.0);
    let (d, dmin) = (scale(block, 0), scale(block, 2));
    for (i, x) in x.chunks_exact(32).enumerate() {
        let (s, m) = scale_and_min_bits(&block[4..16], i);
        let codes = &mut codes[32 * i..32 * (i + 1)];
        requantise(x, d * f32::from(s), dmin * f32::from(m), 0, ask.levels, codes);
    }
}

/// d(2) dmin(2) scales(12) qs(128)
pub(super) fn q4_k(x: &[f32], block: &mut [u8]) {
    let mut codes = [0; 256];
    let ask = Affine { levels: 15, first: -1.0, step: 0.1, steps: 20, absolute: false };
    eight_sub_blocks(x, &ask, block, &mut codes);
    low_nibbles(&codes, &mut block[16..144]);
}

/// d(2) dmin(2) scales(12) qh(32) qs(128)
pub(super) fn q5_k(x: &[f32], block: &mut [u8]) {
    let mut codes = [0; 256];
    let ask = Affine { levels: 31, first: -0.5, step: 0.1, steps: 15, absolute: false };
    eight_sub_blocks(x, &ask, block, &mut codes);
    for (i, sub_block) in codes.chunks_exact(32).enumerate() {
        for (h, q) in block[16..48].iter_mut().zip(sub_block) {
            *h |= (q >> 4) << i;
        }
    }
    low_nibbles(&codes, &mut block[48..176]);
}

/// Sub-blocks 2i and 2i+1 share 32 bytes.
fn low_nibbles(codes: &[u8; 256], qs: &mut [u8]) {
    for (pair, bytes) in codes.chunks_exact(64).zip(qs.chunks_exact_mut(32)) {
        for (j, byte) in bytes.iter_mut().enumerate() {
            *byte = (pair[j] & 15) | ((pair[j + 32] & 15) << 4);
        }
    }
}

/// Two bits of each code: the four rows of 32 in each half of the block share 32 bytes.
fn low_pairs(codes: &[u8; 256], qs: &mut [u8]) {
    for (half, bytes) in codes.chunks_exact(128).zip(qs.chunks_exact_mut(32)) {
        for (j, byte) in bytes.iter_mut().enumerate() {
            *byte = (0..4).fold(0, |bits, r| bits | ((half[j + 32 * r] & 3) << (2 * r)));
        }
    }
}

/// ql(128) qh(64) scales(16, signed) d(2)
pub(super) fn q6_k(x: &[f32], block: &mut [u8]) {
    let mut codes = [0u8; 256];
    let mut scales = [0f32; 16];
    for (i, x) in x.chunks_exact(16).enumerate() {
        scales[i] = scale_symmetric(x, 32, &mut codes[16 * i..16 * (i + 1)]);
    }
    let max_scale = super::quant::extreme(&scales);
    if max_scale.abs() < 1e-15 {
        return; // all zero, as the block is
    }
    let inverse = -128.0 / max_scale;
    put_scale(block, 208, 1.0 / inverse);
    let d = scale(block, 208);
    for (i, x) in x.chunks_exact(16).enumerate() {
        let s = nearest(inverse * scales[i]).min(127) as i8;
        block[192 + i] = s as u8;
        requantise(x, d * f32::from(s), 0.0, -32, 31, &mut codes[16 * i..16 * (i + 1)]);
    }
    for (h, half) in codes.chunks_exact(128).enumerate() {
        for j in 0..32 {
            let q = [half[j], half[j + 32], half[j + 64], half[j + 96]];
            block[64 * h + j] = (q[0] & 15) | (q[2] << 4);
            block[64 * h + j + 32] = (q[1] & 15) | (q[3] << 4);
            block[128 + 32 * h + j] = (0..4).fold(0, |bits, r| bits | (((q[r] >> 4) & 3) << (2 * r)));
        }
    }
}

/// scales(16) qs(64) d(2) dmin(2)
pub(super) fn q2_k(x: &[f32], block: &mut [u8]) {
    let mut codes = [0u8; 256];
    let (mut scales, mut mins) = ([0f32; 16], [0f32; 16]);
    let ask = Affine { levels: 3, first: -0.5, step: 0.1, steps: 15, absolute: true };
    for (i, x) in x.chunks_exact(16).enumerate() {
        let weights: [f32; 16] = std::array::from_fn(|j| x[j].abs());
        (scales[i], mins[i]) = scale_and_min(x, &weights, &ask, &mut codes[16 * i..16 * (i + 1)]);
    }
    let (max_scale, max_min) = (largest(&scales), largest(&mins));
    let (per_scale, per_min) = (share(15.0, max_scale), share(15.0, max_min));
    put_scale(block, 80, max_scale / 15.0);
    put_scale(block, 82, max_min / 15.0);
    let (d, dmin) = (scale(block, 80), scale(block, 82));
    for (i, x) in x.chunks_exact(16).enumerate() {
        let (s, m) = (nearest(per_scale * scales[i]) as u8, nearest(per_min * mins[i]) as u8);
        let packed = s | (m << 4);
        block[i] = packed;
        let (d, m) = (d * f32::from(packed & 15), dmin * f32::from(packed >> 4));
        requantise(x, d, m, 0, 3, &mut codes[16 * i..16 * (i + 1)]);
    }
    low_pairs(&codes, &mut block[16..80]);
}

/// hmask(32) qs(64) scales(12) d(2)
pub(super) fn q3_k(x: &[f32], block: &mut [u8]) {
    let mut codes = [0u8; 256];
    let mut scales = [0f32; 16];
    for (i, x) in x.chunks_exact(16).enumerate() {
        scales[i] = scale_by_descent(x, 4, &mut codes[16 * i..16 * (i + 1)]);
    }
    let max_scale = super::quant::extreme(&scales);
    if max_scale != 0.0 {
        let inverse = -32.0 / max_scale;
        let packed = &mut block[96..108];
        for (i, s) in scales.iter().enumerate() {
            let s = (i32::from(nearest(inverse * s) as i8).clamp(-32, 31) + 32) as u8;
            packed[i % 8] |= (s & 15) << (4 * (i / 8));
            packed[8 + i % 4] |= (s >> 4) << (2 * (i / 4));
        }
        put_scale(block, 108, 1.0 / inverse);
    }
    let d = scale(block, 108);
    for (i, x) in x.chunks_exact(16).enumerate() {
        let s = f32::from(q3_scale(&block[96..108], i)) - 32.0;
        requantise(x, d * s, 0.0, -4, 3, &mut codes[16 * i..16 * (i + 1)]);
    }
    for (r, row) in codes.chunks_exact(32).enumerate() {
        for (mask, q) in block[..32].iter_mut().zip(row) {
            *mask |= (q >> 2) << r;
        }
    }
    low_pairs(&codes, &mut block[32..96]);
}
