//! Cross-entropy: `-log p(target)`, TRL's `loss_type: nll`. Its gradient with respect to logit `v` is
//! `p(v) - [v = target]`.

use foundry_kernels::TokenLoss;

/// The kernel's loss.
pub fn token_loss() -> TokenLoss {
    TokenLoss::CrossEntropy
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objectives::loops;

    #[test]
    fn equals_the_loops() {
        let indicator = |v: usize, target: usize| if v == target { 1.0 } else { 0.0 };
        loops::check(token_loss(), |p, target| -p[target].ln(), |p, target, v| p[v] - indicator(v, target));
        let (sums, _) = loops::kernel(token_loss());
        let entropy = loops::sum(|p, _| -p.iter().map(|q| q * q.ln()).sum::<f64>());
        assert!((sums.entropy - entropy).abs() < 1e-5, "{} {entropy}", sums.entropy);
        assert_eq!(sums.correct, 1, "the first token's target has the highest logit, the second's has not");
    }
}
