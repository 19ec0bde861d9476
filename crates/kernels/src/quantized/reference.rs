//! Both directions by their definitions, in plain loops on one thread.

use super::levels::NF4_BORDERS;
use super::rows::{int8_weight, nf4_code};
use super::{ABSMAX_BLOCK, Absmax, NF4_BLOCK, NF4_LEVELS, Quantization, QuantizedParts, dynamic_levels};
use super::{levels, mean};
use half::f16;

/// Codes and scales of a matrix of `rows × cols`.
pub(crate) fn quantize(kind: Quantization, rows: usize, cols: usize, values: &[f32]) -> QuantizedParts {
    match kind {
        Quantization::Int8 => {
            let mut codes = Vec::new();
            let mut absmax = Vec::new();
            for row in values.chunks(cols.max(1)) {
                let row: Vec<f32> = row
                    .iter()
                    .map(|&x| Some(f16::from_f32(x)).filter(|x| !x.is_infinite()).map_or(x, f16::to_f32))
                    .collect();
                let most = row.iter().fold(0.0, |most: f32, x| most.max(x.abs()));
                let code = |x: &f32| {
                    if most > 0.0 { (x * ((1.0 / most) * 127.0)).round_ties_even() as i8 } else { 0 }
                };
                codes.extend(row.iter().map(code));
                absmax.push(most);
            }
            absmax.resize(rows, 0.0);
            QuantizedParts::Int8 { codes, absmax }
        }
        Quantization::Nf4 { double_quant } => {
            let (codes, scales) = nf4(values);
            let absmax = if double_quant { nested(&scales) } else { Absmax::Plain(scales) };
            QuantizedParts::Nf4 { codes, absmax }
        }
    }
}

fn nf4(values: &[f32]) -> (Vec<u8>, Vec<f32>) {
    let (mut codes, mut scales) = (Vec::new(), Vec::new());
    for block in values.chunks(NF4_BLOCK) {
        let mut absmax = block.iter().fold(0.0, |most: f32, x| most.max(x.abs()));
        let whole = block.len() == NF4_BLOCK;
        if !whole {
            absmax = absmax.max(1e-38);
        }
        for x in block {
            let scaled = if whole { x * (1.0 / absmax.max(1e-38)) } else { x / absmax };
            let below = NF4_BORDERS.iter().filter(|border| scaled > **border).count();
            codes.push(if scaled.is_nan() { 15 } else { below as u8 });
        }
        scales.push(absmax);
    }
    // Half a byte more than there are weights stands for a zero.
    codes.resize(codes.len().next_multiple_of(2), 7);
    (codes.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect(), scales)
}

fn nested(scales: &[f32]) -> Absmax {
    if scales.is_empty() {
        return Absmax::Nested { codes: Vec::new(), absmax: Vec::new(), offset: 0.0 };
    }
    let offset = mean::mean(scales);
    let (mut codes, mut absmax) = (Vec::new(), Vec::new());
    for block in scales.chunks(ABSMAX_BLOCK) {
        let most = block.iter().fold(0.0, |most: f32, x| most.max((x - offset).abs()));
        let code = |x: &f32| if most > 0.0 { levels::nearest_dynamic((x - offset) / most) } else { 0 };
        codes.extend(block.iter().map(code));
        absmax.push(most);
    }
    Absmax::Nested { codes, absmax, offset }
}

/// The weights in f32.
pub(crate) fn dequantize(parts: &QuantizedParts, rows: usize, cols: usize) -> Vec<f32> {
    let weight = |i: usize| match parts {
        QuantizedParts::Int8 { codes, absmax } => int8_weight(codes[i], absmax[i / cols]),
        QuantizedParts::Nf4 { codes, absmax } => {
            let block = i / NF4_BLOCK;
            let scale = match absmax {
                Absmax::Plain(absmax) => absmax[block],
                Absmax::Nested { codes, absmax, offset } => {
                    dynamic_levels()[usize::from(codes[block])] * absmax[block / ABSMAX_BLOCK] + offset
                }
            };
            NF4_LEVELS[usize::from(nf4_code(codes, i))] * scale
        }
    };
    (0..rows * cols).map(weight).collect()
}
