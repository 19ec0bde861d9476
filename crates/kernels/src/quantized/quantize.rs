//! Numbers to codes, on all threads. Each block depends on itself alone, except for the one `offset`.

use super::levels::{NF4_BORDERS, nearest_dynamic};
use super::{ABSMAX_BLOCK, NF4_BLOCK, QuantizedMatrix, Stored, StoredAbsmax, mean};
use crate::Isa;
use crate::pool::Pool;
use half::f16;

/// Blocks of one task.
const TASK_BLOCKS: usize = 256;

/// Replaces the contents of `into` by `values`, row by row.
pub(crate) fn quantize(pool: &Pool, isa: Isa, values: &[f32], into: &mut QuantizedMatrix) {
    let (rows, cols) = (into.rows(), into.cols());
    assert!(values.len() == rows * cols, "quantize: {} values for {rows}×{cols}", values.len());
    if values.is_empty() {
        return;
    }
    match &mut into.stored {
        Stored::Int8 { codes, absmax } => {
            let codes: &mut [i8] = bytemuck::cast_slice_mut(codes.u8_mut());
            pool.pieces2(codes, cols, absmax.f32_mut(), 1, |row, codes, absmax| {
                let values = &values[row * cols..][..cols];
                isa.vectorize(
                    #[inline(always)]
                    || absmax[0] = int8_row(values, codes),
                );
            });
        }
        Stored::Nf4 { codes, absmax: StoredAbsmax::Plain(absmax) } => {
            nf4(pool, isa, values, codes.u8_mut(), absmax.f32_mut());
        }
        Stored::Nf4 { codes, absmax: StoredAbsmax::Nested { codes: small, absmax, offset } } => {
            let mut scales = vec![0.0; small.len()];
            nf4(pool, isa, values, codes.u8_mut(), &mut scales);
            offset.f32_mut()[0] = nested(pool, &mut scales, small.u8_mut(), absmax.f32_mut());
        }
    }
}

/// Codes and scales of blocks of [`NF4_BLOCK`].
fn nf4(pool: &Pool, isa: Isa, values: &[f32], codes: &mut [u8], absmax: &mut [f32]) {
    pool.pieces2(codes, TASK_BLOCKS * NF4_BLOCK / 2, absmax, TASK_BLOCKS, |i, codes, absmax| {
        let first = i * TASK_BLOCKS * NF4_BLOCK;
        let values = &values[first..values.len().min(first + TASK_BLOCKS * NF4_BLOCK)];
        isa.vectorize(
            #[inline(always)]
            || {
                let (whole, rest) = values.as_chunks::<NF4_BLOCK>();
                for (b, block) in whole.iter().enumerate() {
                    absmax[b] = greatest(block);
                    let factor = 1.0 / absmax[b].max(1e-38);
                    nf4_block(block, factor, &mut codes[b * NF4_BLOCK / 2..][..NF4_BLOCK / 2]);
                }
                if !rest.is_empty() {
                    last_nf4_block(rest, &mut absmax[whole.len()], &mut codes[whole.len() * NF4_BLOCK / 2..]);
                }
            },
        );
    });
}

#[inline(always)]
fn greatest<const N: usize>(x: &[f32; N]) -> f32 {
    let mut lanes = [0.0f32; 16];
    for x in x.as_chunks::<16>().0 {
        for i in 0..16 {
            let magnitude = x[i].abs();
            lanes[i] = if magnitude > lanes[i] { magnitude } else { lanes[i] };
        }
    }
    crate::lanes::max_lanes(lanes)
}

/// The number of borders below `x`: how many levels it has left behind. NaN is above all of them, as in torch.
#[inline(always)]
pub(super) fn nf4_code(x: f32) -> u32 {
    let mut code = 0;
    for border in NF4_BORDERS {
        #[allow(clippy::neg_cmp_op_on_partial_ord)]
        let above = !(x <= border);
        code += u32::from(above);
    }
    code
}

#[inline(always)]
fn nf4_block(block: &[f32; NF4_BLOCK], factor: f32, codes: &mut [u8]) {
    let mut wide = [0u32; NF4_BLOCK];
    for i in 0..NF4_BLOCK {
        // Magnitudes of at most 1 within a rounding; there is no border beyond: bitsandbytes' clamp changes nothing.
        wide[i] = nf4_code(block[i] * factor);
    }
    for (code, pair) in codes.iter_mut().zip(wide.as_chunks::<2>().0) {
        *code = (pair[0] << 4 | pair[1]) as u8;
    }
}

/// A shorter last block: bitsandbytes divides here where it multiplies otherwise, and keeps the bound of its divisor. A
/// missing half byte is that of zero.
pub(super) fn last_nf4_block(block: &[f32], absmax: &mut f32, codes: &mut [u8]) {
    *absmax = block.iter().fold(1e-38, |most: f32, x| most.max(x.abs()));
    for (code, pair) in codes.iter_mut().zip(block.chunks(2)) {
        let half = |x: Option<&f32>| nf4_code(x.map_or(0.0, |x| x / *absmax));
        *code = (half(pair.first()) << 4 | half(pair.get(1))) as u8;
    }
}

/// Quantises the scales less their mean, which is returned.
pub(super) fn nested(pool: &Pool, scales: &mut [f32], codes: &mut [u8], absmax: &mut [f32]) -> f32 {
    let offset = mean::mean(scales);
    scales.iter_mut().for_each(|scale| *scale -= offset);
    pool.pieces2(codes, ABSMAX_BLOCK, absmax, 1, |i, codes, absmax| {
        let scales = &scales[i * ABSMAX_BLOCK..][..codes.len()];
        absmax[0] = scales.iter().fold(0.0, |most: f32, x| most.max(x.abs()));
        for (code, scale) in codes.iter_mut().zip(scales) {
            *code = if absmax[0] > 0.0 { nearest_dynamic(scale / absmax[0]) } else { 0 };
        }
    });
    offset
}

/// Codes of a row, and its greatest magnitude. bitsandbytes' weights pass through f16 before they are quantised.
#[inline(always)]
pub(super) fn int8_row(values: &[f32], codes: &mut [i8]) -> f32 {
    let absmax = values.iter().fold(0.0, |most: f32, x| most.max(through_f16(*x).abs()));
    if absmax == 0.0 {
        codes.fill(0);
        return 0.0;
    }
    // Two roundings, as torch divides a number by a tensor.
    let factor = (1.0 / absmax) * 127.0;
    for (code, x) in codes.iter_mut().zip(values) {
        *code = (through_f16(*x) * factor).round_ties_even() as i8;
    }
    absmax
}

/// The nearest f16; the number itself where f16 would overflow (bitsandbytes' weights become infinite there).
#[inline(always)]
fn through_f16(x: f32) -> f32 {
    let rounded = f16::from_f32(x).to_f32();
    if rounded.is_infinite() { x } else { rounded }
}
