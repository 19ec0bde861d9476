//! Writing vectors of finished sums: scaled, added, rounded once, cut at the right edge.

use super::arch::*;
use super::matrix::{BlockMut, Epilogue, Out};
use half::bf16;

/// Writes (or adds) `alpha · sums` to the rows of `out`, which is wider than `16·(V-1)` and at most `16·V` columns
/// wide.
#[cfg_attr(not(feature = "emulate-avx512"), target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16"))]
pub(super) fn rows<const V: usize>(out: &mut Out<'_>, sums: &[[__m512; V]], epilogue: Epilogue) {
    let (rows, cols) = (out.rows(), out.cols());
    assert!(rows == sums.len() && 16 * (V - 1) < cols && cols <= 16 * V, "{rows}×{cols} for {V} vectors");
    let masks = std::array::from_fn(|v| (u32::MAX >> (32 - (cols - 16 * v).min(16))) as __mmask16);
    match out {
        Out::F32(block) => rows_f32(block, sums, masks, epilogue),
        Out::Bf16(block) => rows_bf16(block, sums, masks, epilogue),
    }
}

#[inline]
#[cfg_attr(not(feature = "emulate-avx512"), target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16"))]
fn rows_f32<const V: usize>(
    block: &mut BlockMut<'_, f32>,
    sums: &[[__m512; V]],
    masks: [__mmask16; V],
    epilogue: Epilogue,
) {
    let alpha = _mm512_set1_ps(epilogue.alpha);
    for (i, sums) in sums.iter().enumerate() {
        let row = block.row(i).as_mut_ptr();
        for v in 0..V {
            let (at, mask) = (row.wrapping_add(16 * v), masks[v]);
            let mut value = _mm512_mul_ps(sums[v], alpha);
            // SAFETY: the masks cover exactly the columns of the row.
            unsafe {
                if epilogue.accumulate {
                    value = _mm512_add_ps(_mm512_maskz_loadu_ps(mask, at), value);
                }
                _mm512_mask_storeu_ps(at, mask, value);
            }
        }
    }
}

#[inline]
#[cfg_attr(not(feature = "emulate-avx512"), target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16"))]
fn rows_bf16<const V: usize>(
    block: &mut BlockMut<'_, bf16>,
    sums: &[[__m512; V]],
    masks: [__mmask16; V],
    epilogue: Epilogue,
) {
    let alpha = _mm512_set1_ps(epilogue.alpha);
    if V == 2 && masks == [u16::MAX; V] && !epilogue.accumulate {
        for (i, sums) in sums.iter().enumerate() {
            let row = block.row(i).as_mut_ptr();
            let rounded =
                _mm512_cvtne2ps_pbh(_mm512_mul_ps(sums[V - 1], alpha), _mm512_mul_ps(sums[0], alpha));
            // SAFETY: the masks say that the row has 32 columns; `__m512bh` and `__m512i` are 64 plain bytes.
            unsafe { _mm512_storeu_si512(row.cast(), std::mem::transmute::<__m512bh, __m512i>(rounded)) };
        }
        return;
    }
    for (i, sums) in sums.iter().enumerate() {
        let row = block.row(i).as_mut_ptr().cast::<i16>();
        for v in 0..V {
            let (at, mask) = (row.wrapping_add(16 * v), masks[v]);
            let mut value = _mm512_mul_ps(sums[v], alpha);
            // SAFETY: the masks cover exactly the columns of the row; `__m256bh` and `__m256i` are 32 plain bytes.
            unsafe {
                if epilogue.accumulate {
                    let old = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, at));
                    value = _mm512_add_ps(_mm512_castsi512_ps(_mm512_slli_epi32::<16>(old)), value);
                }
                let rounded: __m256i = std::mem::transmute(_mm512_cvtneps_pbh(value));
                _mm256_mask_storeu_epi16(at, mask, rounded);
            }
        }
    }
}
