//! Dequantisation of GGUF's K-quants: super-blocks of 256 elements (`ggml-quants.c`, `dequantize_row_q4_K` and kin).
//!
//! Q4_K and Q5_K: eight sub-blocks of 32 with 6-bit scale s and minimum n, element = (d·s)·q − (dmin·n).
//! Q6_K: sixteen sub-blocks of 16 with an 8-bit scale, element = (d·s)·(q − 32).
//! Q2_K: sixteen sub-blocks of 16 with 4-bit scale s and minimum n, element = (d·s)·q − (dmin·n).
//! Q3_K: sixteen sub-blocks of 16 with a 6-bit scale, element = (d·(s − 32))·(q − 4).

use super::dequant::scale;

/// Scale and minimum of sub-block `i`, six bits each, out of twelve bytes: 0–3 and 4–7 hold sub-blocks 0–3; the
/// upper two bits of those bytes and the halves of bytes 8–11 hold sub-blocks 4–7.
pub(super) fn scale_and_min_bits(packed: &[u8], i: usize) -> (u8, u8) {
    if i < 4 {
        (packed[i] & 63, packed[i + 4] & 63)
    } else {
        let halves = packed[i + 4];
        ((halves & 15) | ((packed[i - 4] >> 6) << 4), (halves >> 4) | ((packed[i] >> 6) << 4))
    }
}

/// The same as numbers.
fn scale_and_min(packed: &[u8], i: usize) -> (f32, f32) {
    let (s, n) = scale_and_min_bits(packed, i);
    (f32::from(s), f32::from(n))
}

/// d(2) dmin(2) scales(12) qs(128)
pub(super) fn q4_k(block: &[u8], dst: &mut [f32]) {
    let (d, dmin, scales, qs) = (scale(block, 0), scale(block, 2), &block[4..16], &block[16..144]);
    for (i, sub_block) in dst.chunks_exact_mut(32).enumerate() {
        let (s, n) = scale_and_min(scales, i);
        let (ds, dn) = (d * s, dmin * n);
        let shift = 4 * (i % 2);
        for (element, q) in sub_block.iter_mut().zip(&qs[32 * (i / 2)..]) {
            *element = ds * f32::from((q >> shift) & 15) - dn;
        }
    }
}

/// d(2) dmin(2) scales(12) qh(32: bit i is the fifth bit of sub-block i) qs(128)
pub(super) fn q5_k(block: &[u8], dst: &mut [f32]) {
    let (d, dmin, scales) = (scale(block, 0), scale(block, 2), &block[4..16]);
    let (qh, qs) = (&block[16..48], &block[48..176]);
    for (i, sub_block) in dst.chunks_exact_mut(32).enumerate() {
        let (s, n) = scale_and_min(scales, i);
        let (ds, dn) = (d * s, dmin * n);
        let shift = 4 * (i % 2);
        for ((element, q), h) in sub_block.iter_mut().zip(&qs[32 * (i / 2)..]).zip(qh) {
            let q = ((q >> shift) & 15) | (((h >> i) & 1) << 4);
            *element = ds * f32::from(q) - dn;
        }
    }
}

/// ql(128) qh(64) scales(16, signed) d(2). Each half of 128 elements has four rows of 32: rows 0 and 1 take the low
/// halves of 64 bytes of ql, rows 2 and 3 the high halves; row r takes bits 2r and 2r+1 of 32 bytes of qh.
pub(super) fn q6_k(block: &[u8], dst: &mut [f32]) {
    let (ql, qh, scales, d) = (&block[..128], &block[128..192], &block[192..208], scale(block, 208));
    for (i, row) in dst.chunks_exact_mut(32).enumerate() {
        let (half, r) = (i / 4, i % 4);
        let low = &ql[64 * half + 32 * (r % 2)..];
        let high = &qh[32 * half..];
        for (j, element) in row.iter_mut().enumerate() {
            let q = ((low[j] >> (4 * (r / 2))) & 15) | (((high[j] >> (2 * r)) & 3) << 4);
            let s = scales[2 * i + j / 16] as i8;
            *element = (d * f32::from(s)) * (f32::from(q) - 32.0);
        }
    }
}

/// scales(16: scale in the low half, minimum in the high) qs(64) d(2) dmin(2). Each half of 128 elements has four rows
/// of 32; row r takes bits 2r and 2r+1 of 32 bytes of qs.
pub(super) fn q2_k(block: &[u8], dst: &mut [f32]) {
    let (scales, qs, d, dmin) = (&block[..16], &block[16..80], scale(block, 80), scale(block, 82));
    for (i, row) in dst.chunks_exact_mut(32).enumerate() {
        let bits = &qs[32 * (i / 4)..];
        for (j, element) in row.iter_mut().enumerate() {
            let s = scales[2 * i + j / 16];
            let q = (bits[j] >> (2 * (i % 4))) & 3;
            *element = (d * f32::from(s & 15)) * f32::from(q) - dmin * f32::from(s >> 4);
        }
    }
}

/// hmask(32: bit r of byte j is the third bit of element j of row r) qs(64) scales(12) d(2). Rows as in Q2_K.
pub(super) fn q3_k(block: &[u8], dst: &mut [f32]) {
    let (hmask, qs, scales, d) = (&block[..32], &block[32..96], &block[96..108], scale(block, 108));
    for (i, row) in dst.chunks_exact_mut(32).enumerate() {
        let bits = &qs[32 * (i / 4)..];
        for (j, element) in row.iter_mut().enumerate() {
            let s = f32::from(q3_scale(scales, 2 * i + j / 16)) - 32.0;
            let q = ((bits[j] >> (2 * (i % 4))) & 3) | (((hmask[j] >> i) & 1) << 2);
            *element = (d * s) * (f32::from(q) - 4.0);
        }
    }
}

/// Scale of sub-block `i` of Q3_K, six bits: the low four in the halves of bytes 0-7, the upper two in bytes 8-11.
pub(super) fn q3_scale(packed: &[u8], i: usize) -> u8 {
    let low = if i < 8 { packed[i] & 15 } else { packed[i - 8] >> 4 };
    low | (((packed[8 + i % 4] >> (2 * (i / 4))) & 3) << 4)
}
