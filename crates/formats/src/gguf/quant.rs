//! Quantisation to GGUF's types, the inverse of `dequant.rs`, over any number of threads with the same bytes.
//!
//! Blocks of 32 follow gguf-py (`gguf/quants.py`), whose bytes these are; super-blocks are in `quant_k.rs`.

use half::f16;

use super::quant_k;
use crate::{StoredDtype, plain};

/// Converts `values` (whole blocks) to the stored bytes of `dtype`, on up to `threads` threads. Blocks do not depend on
/// each other, so the bytes do not depend on the number of threads.
///
/// # Panics
/// If `dtype` is not a float or quantised type, or `values` is not whole blocks: the caller's mistake.
pub(super) fn quantise(dtype: StoredDtype, values: &[f32], threads: usize, out: &mut Vec<u8>) {
    let (per_block, block_bytes) = dtype.block();
    out.clear();
    if !dtype.is_quantised() {
        assert!(plain::f32_to_floats(dtype, values, out), "{dtype} is not a float type");
        return;
    }
    assert!(values.len().is_multiple_of(per_block), "{} values are not whole blocks", values.len());
    let blocks = values.len() / per_block;
    out.resize(blocks * block_bytes, 0);
    let block_function = block_function(dtype);
    // A thread is worth its start from some thousand elements on.
    let share = blocks.div_ceil(threads.max(1)).max(8192 / per_block);
    std::thread::scope(|scope| {
        let mut parts = values.chunks(share * per_block).zip(out.chunks_mut(share * block_bytes));
        let first = parts.next();
        let convert = move |(values, bytes): (&[f32], &mut [u8])| {
            for (v, b) in values.chunks_exact(per_block).zip(bytes.chunks_exact_mut(block_bytes)) {
                block_function(v, b);
            }
        };
        for part in parts {
            scope.spawn(move || convert(part));
        }
        first.into_iter().for_each(convert);
    });
}

/// The function that turns one block's elements into its bytes (all zero before).
fn block_function(dtype: StoredDtype) -> fn(&[f32], &mut [u8]) {
    match dtype {
        StoredDtype::Q4_0 => q4_0,
        StoredDtype::Q4_1 => q4_1,
        StoredDtype::Q5_0 => q5_0,
        StoredDtype::Q5_1 => q5_1,
        StoredDtype::Q8_0 => q8_0,
        StoredDtype::Q2K => quant_k::q2_k,
        StoredDtype::Q3K => quant_k::q3_k,
        StoredDtype::Q4K => quant_k::q4_k,
        StoredDtype::Q5K => quant_k::q5_k,
        StoredDtype::Q6K => quant_k::q6_k,
        plain => unreachable!("{plain} has no blocks"),
    }
}

/// Stores a half-precision number at byte `at`.
pub(super) fn put_scale(block: &mut [u8], at: usize, value: f32) {
    block[at..at + 2].copy_from_slice(&f16::from_f32(value).to_le_bytes());
}

/// The element of the largest magnitude, with its sign; of several the first.
pub(super) fn extreme(x: &[f32]) -> f32 {
    x.iter().fold(0.0f32, |max, &v| if v.abs() > max.abs() { v } else { max })
}

fn inverse(d: f32) -> f32 {
    if d == 0.0 { 0.0 } else { 1.0 / d }
}

/// Smallest and largest element.
fn bounds(x: &[f32]) -> (f32, f32) {
    x.iter().fold((f32::MAX, f32::MIN), |(low, high), &v| (low.min(v), high.max(v)))
}

/// Packs elements i and i + 16 into the halves of byte i.
fn pack_halves(q: &[u8; 32], out: &mut [u8]) {
    for (i, byte) in out.iter_mut().enumerate() {
        *byte = (q[i] & 15) | ((q[i + 16] & 15) << 4);
    }
}

/// The fifth bits of 32 elements.
fn fifth_bits(q: &[u8; 32]) -> [u8; 4] {
    q.iter().enumerate().fold(0u32, |bits, (i, q)| bits | (u32::from((q >> 4) & 1) << i)).to_le_bytes()
}

/// Symmetric codes: the extreme element becomes 0. The product x·(1/d) and its sum with the half are rounded one after
/// the other, as gguf-py 0.19 and llama.cpp's `quantize_row_q4_0_ref` of its day do (gguf-py 0.17 rounded once).
fn symmetric(x: &[f32], levels: f32) -> (f32, [u8; 32]) {
    let d = extreme(x) / -levels;
    let id = inverse(d);
    let most = 2.0 * levels - 1.0;
    (d, std::array::from_fn(|i| (x[i] * id + (levels + 0.5)).trunc().clamp(0.0, most) as u8))
}

/// Codes from the smallest element up.
fn asymmetric(x: &[f32], levels: f32) -> (f32, f32, [u8; 32]) {
    let (min, max) = bounds(x);
    let d = (max - min) / levels;
    let id = inverse(d);
    (d, min, std::array::from_fn(|i| ((x[i] - min) * id + 0.5).trunc().clamp(0.0, levels) as u8))
}

fn q4_0(x: &[f32], block: &mut [u8]) {
    let (d, q) = symmetric(x, 8.0);
    put_scale(block, 0, d);
    pack_halves(&q, &mut block[2..18]);
}

fn q4_1(x: &[f32], block: &mut [u8]) {
    let (d, min, q) = asymmetric(x, 15.0);
    put_scale(block, 0, d);
    put_scale(block, 2, min);
    pack_halves(&q, &mut block[4..20]);
}

fn q5_0(x: &[f32], block: &mut [u8]) {
    let (d, q) = symmetric(x, 16.0);
    put_scale(block, 0, d);
    block[2..6].copy_from_slice(&fifth_bits(&q));
    pack_halves(&q, &mut block[6..22]);
}

fn q5_1(x: &[f32], block: &mut [u8]) {
    let (d, min, q) = asymmetric(x, 31.0);
    put_scale(block, 0, d);
    put_scale(block, 2, min);
    block[4..8].copy_from_slice(&fifth_bits(&q));
    pack_halves(&q, &mut block[8..24]);
}

fn q8_0(x: &[f32], block: &mut [u8]) {
    let d = extreme(x).abs() / 127.0;
    let id = inverse(d);
    put_scale(block, 0, d);
    for (byte, &v) in block[2..].iter_mut().zip(x) {
        *byte = (v * id).round() as i8 as u8;
    }
}
