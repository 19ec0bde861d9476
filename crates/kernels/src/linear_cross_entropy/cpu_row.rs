//! One row of logits: two passes for the statistics, one for the gradient, all in the second-level cache.

use crate::lanes::{LANES, MulAdd, greatest, sum_lanes};
use crate::math;
use crate::operand::Operand;
use crate::{LossSums, RowLoss, TokenLoss};

/// Elements whose f32 sum is taken before it goes to f64: keeps the error of a sum over 10⁵ logits near one ulp.
const BLOCK: usize = 1024;

/// What one labelled row said.
#[derive(Clone, Copy, Default)]
pub(super) struct Row {
    loss: f64,
    entropy: f64,
    pub(super) result: RowLoss,
}

impl Row {
    pub(super) fn sums(&self) -> LossSums {
        let Self { loss, entropy, result } = *self;
        LossSums { loss, entropy, correct: u64::from(result.is_greedy), count: 1 }
    }
}

/// The gradient `factor·e_v - everywhere - [v = target]·at_target` of exponentials `e_v`.
#[derive(Clone, Copy)]
pub(super) struct Slope {
    factor: f32,
    everywhere: f32,
    at_target: f32,
}

impl Slope {
    #[inline(always)]
    pub(super) fn times(self, scale: f32) -> Self {
        let Self { factor, everywhere, at_target } = self;
        Self { factor: factor * scale, everywhere: everywhere * scale, at_target: at_target * scale }
    }
}

/// Statistics of the row; its logits become `exp(z - max z)`.
#[inline(always)]
pub(super) fn statistics<F: MulAdd>(objective: TokenLoss, target: usize, z: &mut [f32]) -> (Row, Slope) {
    let (before, max) = (greatest(&z[..target]), greatest(z));
    let at_target = f64::from(z[target]) - f64::from(max);
    let is_greedy = z[target] == max && before < max;
    let mean = match objective {
        TokenLoss::LabelSmoothing(_) => mean_above(z, max),
        _ => 0.0,
    };
    let (sum, moment) = exponentials::<F>(z, max);
    let (log_sum, vocab) = (sum.ln(), z.len() as f64);
    let log_prob = at_target - log_sum;
    let (loss, weight, smoothing) = match objective {
        TokenLoss::CrossEntropy => (-log_prob, 1.0, 0.0),
        TokenLoss::LabelSmoothing(eps) => {
            let eps = f64::from(eps);
            ((1.0 - eps) * -log_prob + eps * (log_sum - mean), 1.0, eps)
        }
        TokenLoss::Dft => (-log_prob.exp() * log_prob, log_prob.exp(), 0.0),
    };
    let slope = Slope {
        factor: (weight / sum) as f32,
        everywhere: (smoothing / vocab) as f32,
        at_target: (weight * (1.0 - smoothing)) as f32,
    };
    let entropy = log_sum - moment / sum;
    (Row { loss, entropy, result: RowLoss { log_prob: log_prob as f32, is_greedy } }, slope)
}

/// Mean of `z - max`.
#[inline(always)]
fn mean_above(z: &[f32], max: f32) -> f64 {
    let mut total = 0.0;
    for block in z.chunks(BLOCK) {
        let (lanes, tail) = block.as_chunks::<LANES>();
        let mut sums = [0.0; LANES];
        for z in lanes {
            for l in 0..LANES {
                sums[l] += z[l] - max;
            }
        }
        for l in 0..tail.len() {
            sums[l] += tail[l] - max;
        }
        total += f64::from(sum_lanes(sums));
    }
    total / z.len() as f64
}

/// `Σ e` and `Σ e·(z - max)` with `e = exp(z - max)`, which takes the place of `z`.
#[inline(always)]
fn exponentials<F: MulAdd>(z: &mut [f32], max: f32) -> (f64, f64) {
    let (mut total, mut moment) = (0.0, 0.0);
    for block in z.chunks_mut(BLOCK) {
        let (lanes, tail) = block.as_chunks_mut::<LANES>();
        let (mut sums, mut moments) = ([0.0; LANES], [0.0; LANES]);
        for z in lanes {
            for l in 0..LANES {
                let e = math::exp::<F>(z[l] - max);
                moments[l] = F::mul_add(e, z[l] - max, moments[l]);
                sums[l] += e;
                z[l] = e;
            }
        }
        for (l, z) in tail.iter_mut().enumerate() {
            let e = math::exp::<F>(*z - max);
            moments[l] = F::mul_add(e, *z - max, moments[l]);
            sums[l] += e;
            *z = e;
        }
        total += f64::from(sum_lanes(sums));
        moment += f64::from(sum_lanes(moments));
    }
    (total, moment)
}

/// Turns exponentials into `dz`, rounded to `T`, from the front of the row's memory on.
#[inline(always)]
pub(super) fn gradient<F: MulAdd, T: Operand>(slope: Slope, target: usize, row: &mut [f32]) {
    let len = row.len();
    let at_target = F::mul_add(row[target], slope.factor, -slope.everywhere) - slope.at_target;
    let whole = len / LANES * LANES;
    // The rounded numbers never overtake what is still to be read: they are at most as wide.
    for at in (0..whole).step_by(LANES) {
        let mut block = [0.0; LANES];
        block.copy_from_slice(&row[at..at + LANES]);
        let to = &mut bytemuck::cast_slice_mut::<f32, T>(row)[at..at + LANES];
        for l in 0..LANES {
            to[l] = T::narrow(F::mul_add(block[l], slope.factor, -slope.everywhere));
        }
    }
    for at in whole..len {
        let x = F::mul_add(row[at], slope.factor, -slope.everywhere);
        bytemuck::cast_slice_mut::<f32, T>(row)[at] = T::narrow(x);
    }
    bytemuck::cast_slice_mut::<f32, T>(row)[target] = T::narrow(at_target);
}
