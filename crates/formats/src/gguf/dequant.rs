//! Dequantisation of GGUF's blocks of 32 (`ggml-quants.c`, `dequantize_row_q4_0` and its kin), and reading any range
//! of elements out of any supported type.
//!
//! A block of 32 holds half-precision scale `d` (and minimum `m`), and element i is `d·(q_i − offset)` or `d·q_i + m`.
//! Four-bit parts lie in 16 bytes: the low halves are elements 0–15, the high halves 16–31.

use half::f16;

use super::dequant_k;
use crate::{StoredDtype, plain};

/// Largest block, in elements.
const MAX_BLOCK: usize = 256;

/// Elements `start..start + dst.len()` of a tensor's bytes. The range was checked. False for integer types.
pub(super) fn read(dtype: StoredDtype, bytes: &[u8], start: usize, dst: &mut [f32]) -> bool {
    let (per_block, block_bytes) = dtype.block();
    if !dtype.is_quantised() {
        return plain::floats_to_f32(dtype, &bytes[start * block_bytes..][..dst.len() * block_bytes], dst);
    }
    let dequantise = block_function(dtype);
    let mut scratch = [0f32; MAX_BLOCK];
    let mut done = 0;
    while done < dst.len() {
        let (block, skip) = ((start + done) / per_block, (start + done) % per_block);
        let source = &bytes[block * block_bytes..][..block_bytes];
        let len = (per_block - skip).min(dst.len() - done);
        if len == per_block {
            dequantise(source, &mut dst[done..done + len]);
        } else {
            dequantise(source, &mut scratch[..per_block]);
            dst[done..done + len].copy_from_slice(&scratch[skip..skip + len]);
        }
        done += len;
    }
    true
}

/// The function that turns one block's bytes into its elements.
fn block_function(dtype: StoredDtype) -> fn(&[u8], &mut [f32]) {
    match dtype {
        StoredDtype::Q4_0 => q4_0,
        StoredDtype::Q4_1 => q4_1,
        StoredDtype::Q5_0 => q5_0,
        StoredDtype::Q5_1 => q5_1,
        StoredDtype::Q8_0 => q8_0,
        StoredDtype::Q2K => dequant_k::q2_k,
        StoredDtype::Q3K => dequant_k::q3_k,
        StoredDtype::Q4K => dequant_k::q4_k,
        StoredDtype::Q5K => dequant_k::q5_k,
        StoredDtype::Q6K => dequant_k::q6_k,
        plain => unreachable!("{plain} has no blocks"),
    }
}

/// The half-precision number at byte `at`.
pub(super) fn scale(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

/// d(2) qs(16)
fn q4_0(block: &[u8], dst: &mut [f32]) {
    let d = scale(block, 0);
    let (low, high) = dst.split_at_mut(16);
    for ((low, high), &q) in low.iter_mut().zip(high).zip(&block[2..18]) {
        *low = d * (f32::from(q & 15) - 8.0);
        *high = d * (f32::from(q >> 4) - 8.0);
    }
}

/// d(2) m(2) qs(16)
fn q4_1(block: &[u8], dst: &mut [f32]) {
    let (d, m) = (scale(block, 0), scale(block, 2));
    let (low, high) = dst.split_at_mut(16);
    for ((low, high), &q) in low.iter_mut().zip(high).zip(&block[4..20]) {
        *low = d * f32::from(q & 15) + m;
        *high = d * f32::from(q >> 4) + m;
    }
}

/// d(2) qh(4: the fifth bits) qs(16)
fn q5_0(block: &[u8], dst: &mut [f32]) {
    let d = scale(block, 0);
    five_bits(&block[2..6], &block[6..22], dst, |q| d * (q - 16.0));
}

/// d(2) m(2) qh(4: the fifth bits) qs(16)
fn q5_1(block: &[u8], dst: &mut [f32]) {
    let (d, m) = (scale(block, 0), scale(block, 2));
    five_bits(&block[4..8], &block[8..24], dst, |q| d * q + m);
}

/// Element i takes its fifth bit from bit i of `qh`.
fn five_bits(qh: &[u8], qs: &[u8], dst: &mut [f32], element: impl Fn(f32) -> f32) {
    let qh = u32::from_le_bytes([qh[0], qh[1], qh[2], qh[3]]);
    let (low, high) = dst.split_at_mut(16);
    for (i, ((low, high), &q)) in low.iter_mut().zip(high).zip(qs).enumerate() {
        let fifth = |bit: usize| (((qh >> bit) & 1) << 4) as u8;
        *low = element(f32::from((q & 15) | fifth(i)));
        *high = element(f32::from((q >> 4) | fifth(i + 16)));
    }
}

/// d(2) qs(32, signed)
fn q8_0(block: &[u8], dst: &mut [f32]) {
    let d = scale(block, 0);
    for (element, &q) in dst.iter_mut().zip(&block[2..34]) {
        *element = d * f32::from(q as i8);
    }
}
