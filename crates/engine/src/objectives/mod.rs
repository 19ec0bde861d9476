//! What is minimised: one small file per objective, each with its formula and its place in
//! [`foundry_models::Objective`].

pub mod cross_entropy;
pub mod dft;
pub mod label_smoothing;
pub mod neftune;

use crate::arguments::{LossType, TrainingArgs};
use foundry_models::Objective;

/// The objective of a run. `args` must be valid: smoothing and DFT exclude each other.
pub fn objective(args: &TrainingArgs) -> Objective {
    let loss = match args.loss_type {
        LossType::Dft => dft::token_loss(),
        LossType::Nll if args.label_smoothing_factor > 0.0 => {
            label_smoothing::token_loss(args.label_smoothing_factor)
        }
        LossType::Nll => cross_entropy::token_loss(),
    };
    Objective { loss, neftune_alpha: neftune::alpha(args.neftune_noise_alpha) }
}

/// Loops over a small vocabulary, against which each objective is held.
#[cfg(test)]
pub(crate) mod loops {
    use foundry_kernels::{
        Allocator, Backend, Dtype, LinearCrossEntropy, LossSums, MemoryClass, ReferenceBackend, TokenLoss,
    };

    /// Logits of two tokens over five words.
    pub(crate) const LOGITS: [[f32; 5]; 2] = [[0.3, -1.2, 2.0, 0.0, 0.7], [-0.5, 1.1, 0.2, -2.0, 0.4]];
    /// The word each of them should predict.
    pub(crate) const TARGETS: [u32; 2] = [2, 4];

    /// Softmax in f64.
    pub(crate) fn probabilities(logits: &[f32]) -> Vec<f64> {
        let exps: Vec<f64> = logits.iter().map(|&x| f64::from(x).exp()).collect();
        let sum: f64 = exps.iter().sum();
        exps.iter().map(|e| e / sum).collect()
    }

    /// Sum over the two tokens of `f(probabilities, target)`.
    pub(crate) fn sum(f: impl Fn(&[f64], usize) -> f64) -> f64 {
        LOGITS.iter().zip(TARGETS).map(|(logits, target)| f(&probabilities(logits), target as usize)).sum()
    }

    /// The kernel's sums and gradient with respect to the logits: the head is the identity, so that input = logits.
    pub(crate) fn kernel(objective: TokenLoss) -> (LossSums, Vec<f32>) {
        let backend = ReferenceBackend::default();
        let buffer = |values: &[f32]| {
            let mut buffer = backend.alloc(MemoryClass::Workspace, Dtype::F32, values.len());
            backend.upload(values, &mut buffer, 0);
            buffer
        };
        let x = buffer(LOGITS.as_flattened());
        let identity: Vec<f32> = (0..25).map(|i| if i % 6 == 0 { 1.0 } else { 0.0 }).collect();
        let (weight, mut logits, mut dx) = (buffer(&identity), buffer(&[0.0; 10]), buffer(&[0.0; 10]));
        let op = LinearCrossEntropy {
            rows: &[0, 1],
            targets: &TARGETS,
            width: 5,
            vocab: 5,
            objective,
            grad_scale: 0.5,
        };
        let sums = backend.linear_cross_entropy(&op, 2, &x, &weight, &mut logits, Some(&mut dx), None, None);
        let mut gradient = vec![0.0; 10];
        backend.download(&dx, 0, &mut gradient);
        (sums, gradient)
    }

    /// Asserts the kernel's loss and gradient against `f`; the gradient is compared with `gradient(p, target, v)`
    /// times the scale of one half.
    pub(crate) fn check(
        objective: TokenLoss,
        f: impl Fn(&[f64], usize) -> f64,
        gradient: impl Fn(&[f64], usize, usize) -> f64,
    ) {
        let (sums, got) = kernel(objective);
        // The kernel computes in f32 and sums in f64.
        assert!((sums.loss - sum(f)).abs() < 1e-5, "loss {}", sums.loss);
        assert_eq!(sums.count, 2);
        for (token, (logits, target)) in LOGITS.iter().zip(TARGETS).enumerate() {
            let p = probabilities(logits);
            for v in 0..5 {
                let expected = 0.5 * gradient(&p, target as usize, v);
                let got = f64::from(got[token * 5 + v]);
                assert!((got - expected).abs() < 1e-6, "token {token} word {v}: {got}, loops {expected}");
            }
        }
    }
}
