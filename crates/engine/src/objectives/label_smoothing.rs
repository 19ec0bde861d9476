//! Label smoothing (Szegedy et al. 2016), as in transformers 5.23 `LabelSmoother`:
//! `(1-ε)·(-log p(target)) + ε·mean_v(-log p(v))`, averaged over the same labelled tokens. Its gradient with respect to
//! logit `v` of `V` is `p(v) - (1-ε)·[v = target] - ε/V`.

use foundry_kernels::TokenLoss;

/// The kernel's loss; `epsilon` is `label_smoothing_factor`.
pub fn token_loss(epsilon: f64) -> TokenLoss {
    TokenLoss::LabelSmoothing(epsilon as f32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objectives::loops;

    #[test]
    fn equals_the_loops() {
        let epsilon = 0.2;
        loops::check(
            token_loss(epsilon),
            |p, target| {
                let mean = p.iter().map(|q| -q.ln()).sum::<f64>() / p.len() as f64;
                (1.0 - epsilon) * -p[target].ln() + epsilon * mean
            },
            |p, target, v| {
                let indicator = if v == target { 1.0 } else { 0.0 };
                p[v] - (1.0 - epsilon) * indicator - epsilon / p.len() as f64
            },
        );
    }
}
