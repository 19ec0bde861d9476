//! Dynamic fine-tuning (Wu et al. 2025), TRL 1.16's `loss_type: dft`: `-sg(p(target))·log p(target)`, where `sg` stops
//! the gradient: each token's cross-entropy is weighted by its own probability. Its gradient with respect to logit `v`
//! is `p(target)·(p(v) - [v = target])`.

use foundry_kernels::TokenLoss;

/// The kernel's loss.
pub fn token_loss() -> TokenLoss {
    TokenLoss::Dft
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objectives::loops;

    #[test]
    fn equals_the_loops() {
        loops::check(
            token_loss(),
            |p, target| -p[target] * p[target].ln(),
            |p, target, v| p[target] * (p[v] - if v == target { 1.0 } else { 0.0 }),
        );
    }
}
