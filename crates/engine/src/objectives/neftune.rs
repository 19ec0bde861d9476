//! NEFTune (Jain et al. 2023; transformers 5.23 `integrations/neftune.py`): while training, `U(-m, m)` with
//! `m = α/√(T·D)` is added to every embedded token; `T` is the length of the whole packed row, as in transformers'
//! padding-free mode, and `D` the width. The noise is new for every micro-batch and is no part of the model; its
//! gradient with respect to the embedding is 1. The model adds it ([`foundry_models::Objective::neftune_alpha`]).

/// The model's `neftune_alpha`; 0 is off.
pub fn alpha(neftune_noise_alpha: Option<f64>) -> Option<f32> {
    neftune_noise_alpha.filter(|&alpha| alpha > 0.0).map(|alpha| alpha as f32)
}

/// The noise's magnitude `m` on a row of `tokens` tokens of width `width`.
pub fn magnitude(alpha: f64, tokens: usize, width: usize) -> f64 {
    alpha / ((tokens * width) as f64).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;
    use foundry_kernels::{Allocator, Backend, Dtype, MemoryClass, ReferenceBackend};

    #[test]
    fn zero_is_off() {
        assert_eq!([None, Some(0.0), Some(5.0)].map(alpha), [None, None, Some(5.0)]);
    }

    #[test]
    fn the_kernels_noise_is_uniform_in_its_bounds() {
        let (tokens, width) = (64, 25);
        let m = magnitude(5.0, tokens, width) as f32;
        assert_eq!(m, 0.125, "5/√1600");
        let backend = ReferenceBackend::default();
        let mut x = backend.alloc(MemoryClass::Workspace, Dtype::F32, tokens * width);
        backend.add_uniform_noise(tokens * width, m, 7, &mut x);
        let mut noise = vec![0.0; tokens * width];
        backend.download(&x, 0, &mut noise);
        assert!(noise.iter().all(|v| v.abs() <= m));
        let mean_square = noise.iter().map(|v| f64::from(v * v)).sum::<f64>() / noise.len() as f64;
        let expected = f64::from(m * m) / 3.0;
        // The variance of U(-m, m) is m²/3; over 1600 draws its estimate has a relative deviation of 2.2 %.
        assert!((mean_square / expected - 1.0).abs() < 0.1, "{mean_square} {expected}");
    }
}
