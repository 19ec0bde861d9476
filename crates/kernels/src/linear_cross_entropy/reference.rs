//! The truth: plain loops in f64.

use crate::{LinearCrossEntropy, LossSums, RowLoss, TokenLoss};

/// Loss, entropy and statistics of one row of logits; the logits become `dloss/dlogits` (without `grad_scale`).
pub(crate) fn row(objective: TokenLoss, z: &mut [f64], target: usize) -> (f64, f64, RowLoss) {
    let max = z.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let lse = max + z.iter().map(|z| (z - max).exp()).sum::<f64>().ln();
    let log_prob = z[target] - lse;
    let is_greedy = z.iter().position(|&z| z == max) == Some(target);
    let entropy = lse - z.iter().map(|&z| (z - lse).exp() * z).sum::<f64>();
    let vocab = z.len() as f64;
    let (loss, weight, smoothing) = match objective {
        TokenLoss::CrossEntropy => (-log_prob, 1.0, 0.0),
        TokenLoss::LabelSmoothing(eps) => {
            let eps = f64::from(eps);
            let mean = lse - z.iter().sum::<f64>() / vocab;
            ((1.0 - eps) * -log_prob + eps * mean, 1.0, eps)
        }
        TokenLoss::Dft => (-log_prob.exp() * log_prob, log_prob.exp(), 0.0),
    };
    for (v, z) in z.iter_mut().enumerate() {
        let onehot = if v == target { 1.0 - smoothing } else { 0.0 };
        *z = weight * ((*z - lse).exp() - onehot - smoothing / vocab);
    }
    (loss, entropy, RowLoss { log_prob: log_prob as f32, is_greedy })
}

/// Head and loss over the labelled rows, one row at a time.
pub(crate) fn forward_backward(
    op: &LinearCrossEntropy<'_>,
    x: &[f64],
    weight: &[f64],
    mut dx: Option<&mut [f64]>,
    mut dweight: Option<&mut [f64]>,
    mut per_row: Option<&mut [RowLoss]>,
) -> LossSums {
    let (width, mut sums) = (op.width, LossSums::default());
    if let Some(dx) = dx.as_deref_mut() {
        dx.fill(0.0);
    }
    for (index, (&t, &target)) in op.rows.iter().zip(op.targets).enumerate() {
        let at = t as usize * width;
        let mut z: Vec<f64> =
            (0..op.vocab).map(|v| (0..width).map(|d| x[at + d] * weight[v * width + d]).sum()).collect();
        let (loss, entropy, result) = row(op.objective, &mut z, target as usize);
        sums += LossSums { loss, entropy, correct: u64::from(result.is_greedy), count: 1 };
        if let Some(per_row) = per_row.as_deref_mut() {
            per_row[index] = result;
        }
        for v in 0..op.vocab {
            let dz = z[v] * f64::from(op.grad_scale);
            for d in 0..width {
                if let Some(dx) = dx.as_deref_mut() {
                    dx[at + d] += dz * weight[v * width + d];
                }
                if let Some(dweight) = dweight.as_deref_mut() {
                    dweight[v * width + d] += dz * x[at + d];
                }
            }
        }
    }
    sums
}
