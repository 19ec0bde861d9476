//! Elementary functions as branch-free polynomials, so that loops over them vectorise. A tail runs through the same
//! operations, hence gives the same bits as a full register. Coefficients: weighted least squares at 4000 Chebyshev
//! nodes, reweighted towards the minimax polynomial, in 40 digits.

use crate::lanes::MulAdd;

/// Adding and subtracting it rounds an f32 of magnitude below 2²² to the nearest integer.
const ROUNDER: f32 = 12_582_912.0; // 1.5 · 2²³

/// `eˣ` within 2 ulp on the whole range, denormal results included; overflows to infinity, NaN stays NaN.
///
/// `x = n·ln 2 + r` with `|r| ≤ ln 2 / 2` (Cody & Waite's two-part ln 2), `eʳ = 1 + r + r²·p(r)`, then two
/// multiplications by powers of two, because `2ⁿ` alone may leave the range of an f32.
#[inline(always)]
pub(crate) fn exp<F: MulAdd>(x: f32) -> f32 {
    const LN2_HIGH: f32 = 0.693_359_375;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    // Written so that a NaN passes both comparisons.
    let x = if x < -110.0 { -110.0 } else { x };
    let x = if x > 100.0 { 100.0 } else { x };
    let rounded = F::mul_add(x, std::f32::consts::LOG2_E, ROUNDER);
    let n = rounded - ROUNDER;
    let r = F::mul_add(n, -LN2_LOW, F::mul_add(n, -LN2_HIGH, x));
    let p = F::mul_add(0.001_381_460_2, r, 0.008_368_716);
    let p = F::mul_add(p, r, 0.041_668_39);
    let p = F::mul_add(p, r, 0.166_665_21);
    let p = F::mul_add(p, r, 0.499_999_94);
    let power = F::mul_add(p, r * r, r) + 1.0;
    let n = (rounded.to_bits() as i32).wrapping_sub(ROUNDER.to_bits() as i32);
    let half = n >> 1;
    power * power_of_two(half) * power_of_two(n.wrapping_sub(half))
}

/// `2ⁿ` for `-126 ≤ n ≤ 127`.
#[inline(always)]
fn power_of_two(n: i32) -> f32 {
    f32::from_bits((n.wrapping_add(127) << 23) as u32)
}

/// `1 / (1 + e⁻ˣ)`.
#[inline(always)]
pub(crate) fn sigmoid<F: MulAdd>(x: f32) -> f32 {
    1.0 / (1.0 + exp::<F>(-x))
}

/// `tanh x` within 4 ulp: `x + x³·p(x²)` up to 0.625, `1 - 2/(e²ˣ+1)` beyond.
#[inline(always)]
pub(crate) fn tanh<F: MulAdd>(x: f32) -> f32 {
    let u = x * x;
    let p = F::mul_add(-0.005_717_045, u, 0.020_650_586);
    let p = F::mul_add(p, u, -0.053_743_497);
    let p = F::mul_add(p, u, 0.133_314_91);
    let p = F::mul_add(p, u, -0.333_332_84);
    let small = F::mul_add(p * u, x, x);
    let large = 1.0 - 2.0 / (exp::<F>(2.0 * x.abs()) + 1.0);
    if x.abs() < 0.625 { small } else { large.copysign(x) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lanes::{Fused, Separate};

    /// Distance in units of the last place of the exact result (of the smallest denormal below the normal range).
    fn ulps(got: f32, exact: f64) -> f64 {
        let near = (exact.abs() as f32).max(f32::MIN_POSITIVE);
        let unit = f64::from(f32::from_bits(near.to_bits() + 1)) - f64::from(near);
        (f64::from(got) - exact).abs() / unit
    }

    fn worst(from: f32, to: f32, f: impl Fn(f32) -> f32, exact: impl Fn(f64) -> f64) -> f64 {
        let steps = 2_000_000;
        (0..=steps)
            .map(|i| from + (to - from) * (i as f32 / steps as f32))
            .map(|x| ulps(f(x), exact(f64::from(x))))
            .fold(0.0, f64::max)
    }

    #[test]
    fn exp_is_within_two_ulp() {
        for (from, to) in [(-104.0, -86.0), (-87.5, 88.7), (-1.0, 1.0), (-1e-3, 1e-3)] {
            let (fused, separate) =
                (worst(from, to, exp::<Fused>, f64::exp), worst(from, to, exp::<Separate>, f64::exp));
            assert!(fused <= 2.0 && separate <= 2.0, "{from}..{to}: {fused} and {separate} ulp");
        }
    }

    #[test]
    fn exp_at_the_ends() {
        assert_eq!(exp::<Fused>(0.0), 1.0);
        assert_eq!(exp::<Fused>(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp::<Fused>(-1e30), 0.0);
        assert_eq!(exp::<Fused>(89.0), f32::INFINITY);
        assert_eq!(exp::<Fused>(f32::INFINITY), f32::INFINITY);
        assert!(exp::<Fused>(f32::NAN).is_nan() && exp::<Separate>(f32::NAN).is_nan());
    }

    #[test]
    fn tanh_is_within_four_ulp() {
        for (from, to) in [(-12.0, 12.0), (-0.7, 0.7), (-1e-3, 1e-3)] {
            let (fused, separate) =
                (worst(from, to, tanh::<Fused>, f64::tanh), worst(from, to, tanh::<Separate>, f64::tanh));
            assert!(fused <= 4.0 && separate <= 4.0, "{from}..{to}: {fused} and {separate} ulp");
        }
        assert!(tanh::<Fused>(f32::NAN).is_nan());
        assert_eq!(tanh::<Fused>(f32::NEG_INFINITY), -1.0);
    }

    #[test]
    fn sigmoid_at_the_ends() {
        assert_eq!(sigmoid::<Fused>(0.0), 0.5);
        assert_eq!(sigmoid::<Fused>(200.0), 1.0);
        assert!(sigmoid::<Fused>(-200.0) == 0.0 && sigmoid::<Fused>(f32::NAN).is_nan());
    }
}
