//! What a row is and what is learnt from it.

use foundry_kernels::TokenLoss;

/// One packed row: sequences one after the other, each attending to itself only.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    /// Token ids.
    pub tokens: &'a [u32],
    /// Lengths of the sequences; they add up to the tokens.
    pub seq_lens: &'a [u32],
    /// `labels[i]` belongs to the token at `i`; -100: not learnt. The shift by one is the model's: row `i` predicts
    /// `labels[i + 1]` of the same sequence. May be empty where nothing is learnt.
    pub labels: &'a [i32],
}

/// The loss of a training step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Objective {
    /// Loss of one token.
    pub loss: TokenLoss,
    /// NEFTune (Jain et al. 2023): noise `U(-m, m)` on the embeddings, `m = alpha / √(T·D)`, `T` the row's length as in
    /// transformers 5.23 `integrations/neftune.py`.
    pub neftune_alpha: Option<f32>,
}

impl Objective {
    /// The magnitude `m` of the noise on a row of `tokens` tokens of width `width`; `None`: no noise.
    pub fn noise_magnitude(&self, tokens: usize, width: usize) -> Option<f32> {
        self.neftune_alpha.map(|alpha| alpha / ((tokens * width) as f32).sqrt())
    }
}

impl Default for Objective {
    fn default() -> Self {
        Self { loss: TokenLoss::CrossEntropy, neftune_alpha: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_noise_is_alpha_over_the_root_of_all_elements() {
        let noisy = Objective { neftune_alpha: Some(5.0), ..Objective::default() };
        assert_eq!(noisy.noise_magnitude(64, 25), Some(0.125), "5/√1600");
        assert_eq!(Objective::default().noise_magnitude(64, 25), None);
    }
}
