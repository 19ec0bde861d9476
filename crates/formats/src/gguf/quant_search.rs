//! The searches for scales and codes of one sub-block that K-quants are made with: the same candidates, in the same
//! order and with the same roundings as llama.cpp's (`ggml-quants.c`: `make_qkx2_quants`, `make_qx_quants`,
//! `make_q3_quants`), so that the errors are the same; held against its bytes.

use super::quant::extreme;

/// Below this a sub-block is zero (`GROUP_MAX_EPS`).
const NOTHING: f32 = 1e-15;

/// To the nearest integer, ties to even, for |x| < 2²²; any other value gives some integer.
pub(super) fn nearest(x: f32) -> i32 {
    // Adding 1.5·2²³ leaves the rounded number in the low bits of the sum.
    ((x + 12_582_912.0).to_bits() & 0x007f_ffff) as i32 - 0x0040_0000
}

/// What is asked of [`scale_and_min`].
pub(super) struct Affine {
    /// The largest code.
    pub(super) levels: i32,
    /// Candidates divide the range into `levels + first + step·i` parts, i = 0..=steps.
    pub(super) first: f32,
    pub(super) step: f32,
    pub(super) steps: i32,
    /// Weigh absolute instead of squared differences.
    pub(super) absolute: bool,
}

/// Codes, scale s and minimum m ≥ 0 such that x ≈ s·q − m with the least weighted error among the candidates; each
/// candidate's s and m are the weighted least squares for its codes.
pub(super) fn scale_and_min(x: &[f32], weights: &[f32], ask: &Affine, codes: &mut [u8]) -> (f32, f32) {
    let (mut min, mut max) = (x[0], x[0]);
    let (mut sum_w, mut sum_x) = (weights[0], weights[0] * x[0]);
    for (&v, &w) in x.iter().zip(weights).skip(1) {
        (min, max) = (if v < min { v } else { min }, if v > max { v } else { max });
        sum_w += w;
        sum_x += w * v;
    }
    min = if min > 0.0 { 0.0 } else { min };
    let levels = ask.levels as f32;
    let inverse = levels / (max - min);
    if max == min || !inverse.is_finite() {
        codes.fill(0);
        return (0.0, -min);
    }
    let code = |v: f32, inverse: f32, min: f32| nearest(inverse * (v - min)).clamp(0, ask.levels) as u8;
    let error = |codes: &[u8], scale: f32, min: f32| {
        let mut sum = 0.0;
        for ((&v, &w), &q) in x.iter().zip(weights).zip(codes) {
            let difference = scale * f32::from(q) + min - v;
            sum += w * if ask.absolute { difference.abs() } else { difference * difference };
        }
        sum
    };
    let mut scale = 1.0 / inverse;
    x.iter().zip(&mut *codes).for_each(|(&v, q)| *q = code(v, inverse, min));
    let mut least = error(codes, scale, min);
    let mut candidate = [0u8; 32];
    let candidate = &mut candidate[..x.len()];
    for i in 0..=ask.steps {
        let inverse = (ask.first + ask.step * i as f32 + levels) / (max - min);
        let (mut sum_l, mut sum_l2, mut sum_xl) = (0.0, 0.0, 0.0);
        for ((&v, &w), q) in x.iter().zip(weights).zip(&mut *candidate) {
            *q = code(v, inverse, min);
            let l = f32::from(*q);
            sum_l += w * l;
            sum_l2 += w * l * l;
            sum_xl += w * l * v;
        }
        let determinant = sum_w * sum_l2 - sum_l * sum_l;
        if determinant > 0.0 {
            let mut this_scale = (sum_w * sum_xl - sum_x * sum_l) / determinant;
            let mut this_min = (sum_l2 * sum_x - sum_l * sum_xl) / determinant;
            if this_min > 0.0 {
                (this_min, this_scale) = (0.0, sum_xl / sum_l2);
            }
            let this_error = error(candidate, this_scale, this_min);
            if this_error < least {
                codes.copy_from_slice(candidate);
                (least, scale, min) = (this_error, this_scale, this_min);
            }
        }
    }
    (scale, -min)
}

/// Codes in -n..n (stored plus n) and scale s such that x ≈ s·q with the least error weighted by x²: nineteen ways to
/// divide the range, each with its least-squares scale.
pub(super) fn scale_symmetric(x: &[f32], n: i32, codes: &mut [u8]) -> f32 {
    let max = extreme(x);
    if max.abs() < NOTHING {
        codes.fill(0);
        return 0.0;
    }
    let code = |v: f32, inverse: f32| nearest(inverse * v).clamp(-n, n - 1);
    let sums = |inverse: f32| {
        let (mut sum_lx, mut sum_l2) = (0.0f32, 0.0f32);
        for &v in x {
            let (l, w) = (code(v, inverse) as f32, v * v);
            sum_lx += w * v * l;
            sum_l2 += w * l * l;
        }
        (sum_lx, sum_l2)
    };
    let mut store = |inverse: f32| {
        x.iter().zip(&mut *codes).for_each(|(&v, q)| *q = (code(v, inverse) + n) as u8);
    };
    let inverse = -n as f32 / max;
    let (sum_lx, sum_l2) = sums(inverse);
    store(inverse);
    let mut scale = if sum_l2 == 0.0 { 0.0 } else { sum_lx / sum_l2 };
    let mut best = scale * sum_lx;
    for i in (-9..=9).filter(|&i| i != 0) {
        let inverse = -(n as f32 + 0.1 * i as f32) / max;
        let (sum_lx, sum_l2) = sums(inverse);
        if sum_l2 > 0.0 && sum_lx * sum_lx > best * sum_l2 {
            store(inverse);
            scale = sum_lx / sum_l2;
            best = scale * sum_lx;
        }
    }
    scale
}

/// As [`scale_symmetric`], but improving one code at a time, in at most five rounds (Q3_K). Returns the scale only:
/// the codes are made again from the rounded scale.
pub(super) fn scale_by_descent(x: &[f32], n: i32, codes: &mut [u8]) -> f32 {
    let max = extreme(x);
    if max.abs() < NOTHING {
        codes.fill(0);
        return 0.0;
    }
    let inverse = -n as f32 / max;
    let mut l = [0i32; 16];
    let l = &mut l[..x.len()];
    let (mut sum_lx, mut sum_l2) = (0.0f32, 0.0f32);
    for (&v, l) in x.iter().zip(&mut *l) {
        *l = nearest(inverse * v).clamp(-n, n - 1);
        let (q, w) = (*l as f32, v * v);
        sum_lx += w * v * q;
        sum_l2 += w * q * q;
    }
    for _ in 0..5 {
        let mut changed = false;
        for (&v, l) in x.iter().zip(&mut *l) {
            let (q, w) = (*l as f32, v * v);
            let mut without_lx = sum_lx - w * v * q;
            if without_lx <= 0.0 || without_lx.is_nan() {
                continue;
            }
            let mut without_l2 = sum_l2 - w * q * q;
            let better = nearest(v * without_l2 / without_lx).clamp(-n, n - 1);
            if better != *l {
                let q = better as f32;
                without_lx += w * v * q;
                without_l2 += w * q * q;
                if without_l2 > 0.0 && without_lx * without_lx * sum_l2 > sum_lx * sum_lx * without_l2 {
                    (*l, sum_lx, sum_l2, changed) = (better, without_lx, without_l2, true);
                }
            }
        }
        if !changed {
            break;
        }
    }
    l.iter().zip(codes).for_each(|(&l, q)| *q = (l + n) as u8);
    if sum_l2 > 0.0 { sum_lx / sum_l2 } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn ties_go_to_even() {
        let rounded: Vec<i32> = [0.5, 1.5, -0.5, -1.5, 2.4999, -31.6, 0.0].map(nearest).to_vec();
        assert_eq!(rounded, [0, 2, 0, -2, 2, -32, 0]);
    }
}
