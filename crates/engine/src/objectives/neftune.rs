//! NEFTune (Jain et al. 2023; transformers 5.23 `integrations/neftune.py`): while training, `U(-m, m)` with
//! `m = α/√(T·D)` is added to every embedded token; `T` is the length of the whole packed row, as in transformers'
//! padding-free mode, and `D` the width. The noise is new for every micro-batch and is no part of the model; its
//! gradient with respect to the embedding is 1. The model adds it
//! ([`foundry_models::Objective::noise_magnitude`]).

/// The model's `neftune_alpha`; 0 is off.
pub fn alpha(neftune_noise_alpha: Option<f64>) -> Option<f32> {
    neftune_noise_alpha.filter(|&alpha| alpha > 0.0).map(|alpha| alpha as f32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_is_off() {
        assert_eq!([None, Some(0.0), Some(5.0)].map(alpha), [None, None, Some(5.0)]);
    }
}
