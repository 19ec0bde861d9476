//! One pass over memory; a block of each moment is widened on the stack.

use super::BLOCK;
use crate::adamw::Factors;
use crate::dynamic_map::DynamicMap;
use crate::lanes::{MulAdd, PIECE, vectorize};
use crate::operand::Operand;
use crate::pool::Pool;
use crate::{AdamW, Isa, rounding};

/// Codes, and one scale for each block.
type State<'a> = (&'a mut [u8], &'a mut [f32]);

pub(super) fn step<P: Operand>(
    pool: &Pool,
    isa: Isa,
    op: &AdamW,
    grad: &[f32],
    param: &mut [P],
    m: State<'_>,
    v: State<'_>,
) {
    let factors = Factors::new(op);
    let pieces = |(codes, absmax)| {
        let (codes, absmax): State<'_> = (codes, absmax);
        codes.chunks_mut(PIECE).zip(absmax.chunks_mut(PIECE / BLOCK))
    };
    let mut moments: Vec<_> = pieces(m).zip(pieces(v)).collect();
    pool.pieces2(param, PIECE, &mut moments, 1, |i, param, moments| {
        let grad = &grad[i * PIECE..][..param.len()];
        let (m, v) = &mut moments[0];
        rounding::in_f32(isa, op.rounding, i * PIECE, param, |param| {
            for (block, (param, grad)) in param.chunks_mut(BLOCK).zip(grad.chunks(BLOCK)).enumerate() {
                let codes = block * BLOCK..block * BLOCK + param.len();
                let m = (&mut m.0[codes.clone()], &mut m.1[block]);
                let v = (&mut v.0[codes], &mut v.1[block]);
                vectorize!(isa, F => one_block::<F>(factors, grad, param, m, v));
            }
        });
    });
}

#[inline(always)]
fn one_block<F: MulAdd>(
    f: Factors,
    grad: &[f32],
    param: &mut [f32],
    m: (&mut [u8], &mut f32),
    v: (&mut [u8], &mut f32),
) {
    let (signed, unsigned) = (DynamicMap::signed(), DynamicMap::unsigned());
    let [mut wide_m, mut wide_v] = [[0.0; BLOCK]; 2];
    let len = param.len();
    let (wide_m, wide_v) = (&mut wide_m[..len], &mut wide_v[..len]);
    widen(signed, m.0, *m.1, wide_m);
    widen(unsigned, v.0, *v.1, wide_v);
    f.update::<F>(grad, param, wide_m, wide_v);
    *m.1 = quantise(signed, wide_m, m.0);
    *v.1 = quantise(unsigned, wide_v, v.0);
}

#[inline(always)]
fn widen(map: &DynamicMap, codes: &[u8], absmax: f32, wide: &mut [f32]) {
    for i in 0..wide.len() {
        wide[i] = map.values[codes[i] as usize] * absmax;
    }
}

/// Returns the block's greatest magnitude.
#[inline(always)]
fn quantise(map: &DynamicMap, wide: &[f32], codes: &mut [u8]) -> f32 {
    let mut absmax = 0.0f32;
    for x in wide {
        absmax = if x.abs() > absmax { x.abs() } else { absmax };
    }
    let inverse = 1.0 / absmax.max(1e-38);
    for i in 0..wide.len() {
        codes[i] = map.nearest((wide[i] * inverse).clamp(-1.0, 1.0));
    }
    absmax
}
