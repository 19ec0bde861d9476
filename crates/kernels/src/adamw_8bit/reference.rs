//! The truth: each block widened, updated by AdamW's definition in f64, and quantised by comparing with every code.

use super::BLOCK;
use crate::AdamW;
use crate::dynamic_map::DynamicMap;

/// One update; `m`, `v`: codes, and one scale for each block.
pub(crate) fn step(
    op: &AdamW,
    grad: &[f64],
    param: &mut [f64],
    m: (&mut [u8], &mut [f32]),
    v: (&mut [u8], &mut [f32]),
) {
    let (signed, unsigned) = (DynamicMap::signed(), DynamicMap::unsigned());
    for block in 0..param.len().div_ceil(BLOCK) {
        let part = block * BLOCK..param.len().min((block + 1) * BLOCK);
        let mut wide_m = widen(signed, &m.0[part.clone()], m.1[block]);
        let mut wide_v = widen(unsigned, &v.0[part.clone()], v.1[block]);
        let (grad, param) = (&grad[part.clone()], &mut param[part.clone()]);
        crate::adamw::reference::step(op, grad, param, &mut wide_m, &mut wide_v);
        m.1[block] = quantise(signed, &wide_m, &mut m.0[part.clone()]);
        v.1[block] = quantise(unsigned, &wide_v, &mut v.0[part]);
    }
}

fn widen(map: &DynamicMap, codes: &[u8], absmax: f32) -> Vec<f64> {
    codes.iter().map(|&code| f64::from(map.values[code as usize]) * f64::from(absmax)).collect()
}

fn quantise(map: &DynamicMap, wide: &[f64], codes: &mut [u8]) -> f32 {
    let absmax = wide.iter().fold(0.0f64, |max, x| max.max(x.abs()));
    for (code, x) in codes.iter_mut().zip(wide) {
        let x = if absmax > 0.0 { x / absmax } else { 0.0 };
        let distance = |code: usize| (f64::from(map.values[code]) - x).abs();
        *code = (0..256).min_by(|a, b| distance(*a).total_cmp(&distance(*b))).expect("256 codes") as u8;
    }
    absmax as f32
}
