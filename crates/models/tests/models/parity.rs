//! Logits, losses, gradients and trajectories of transformers 5.23 and PEFT 0.21.2 on tiny checkpoints.

use crate::fixture::{FAMILIES, Golden, Optimizer, backend, gradients, mean, relative_error};
use foundry_kernels::{Backend, Dtype};
use foundry_models::{Decoder, Tuning};

/// The parity tolerances of the goldens for float32 arithmetic in another order of summation.
const LOGITS: f32 = 1e-4;
const GRAD_NORM: f64 = 1e-3;
const TRAJECTORY: f64 = 1e-3;

#[test]
fn logits_equal_transformers() {
    let backend = backend();
    for family in FAMILIES {
        let golden = Golden::open(family);
        let mut decoder = golden.decoder(&backend, &Tuning::Frozen, Dtype::F32);
        let logits = decoder.logits(&backend, &golden.tokens, &golden.seq_lens).unwrap();
        let error = relative_error(&logits, &golden.floats("logits"));
        assert!(error < LOGITS, "{family}: {error}");
        let last = decoder.last_logits(&backend, &golden.tokens, &golden.seq_lens).unwrap();
        let (vocab, end) = (decoder.config().vocab_size, golden.seq_lens[0] as usize);
        // One row of a product and a row of many are summed in tiles of another shape.
        let error = relative_error(&last[..vocab], &logits[(end - 1) * vocab..end * vocab]);
        assert!(error < 1e-5, "{family}: {error}");
        assert_eq!(last.len(), vocab * golden.seq_lens.len());
    }
}

#[test]
fn adapter_logits_equal_peft() {
    let backend = backend();
    for family in FAMILIES {
        let golden = Golden::open(family);
        for tuning in [Tuning::Lora(golden.adapter()), Tuning::Adapted(golden.adapter())] {
            let mut decoder = golden.decoder(&backend, &tuning, Dtype::F32);
            let logits = decoder.logits(&backend, &golden.tokens, &golden.seq_lens).unwrap();
            let error = relative_error(&logits, &golden.floats("adapter_logits"));
            assert!(error < LOGITS, "{family}: {error}");
        }
    }
}

fn check_norms(
    family: &str,
    backend: &dyn Backend,
    decoder: &Decoder,
    expected: &serde_json::Value,
    tolerance: f64,
) {
    let expected = expected.as_object().unwrap();
    assert_eq!(decoder.parameters().len(), expected.len(), "{family}: as many gradients as torch has");
    for (parameter, (name, norm)) in decoder.parameters().iter().zip(expected) {
        // torch's names carry the adapter's name; the order is that of `named_parameters` in both.
        assert_eq!(parameter.name, name.replace(".default", ""), "{family}");
        let norm = norm.as_f64().unwrap();
        let ours = backend.sum_of_squares(parameter.elements(), &parameter.grad).sqrt();
        assert!((ours - norm).abs() <= tolerance * norm, "{family}: {name}: {ours}, torch {norm}");
    }
}

#[test]
fn full_gradients_equal_torch() {
    let backend = backend();
    for family in FAMILIES {
        let golden = Golden::open(family);
        let mut decoder = golden.decoder(&backend, &Tuning::Full, Dtype::F32);
        let loss = golden.step(&backend, &mut decoder);
        let expected = golden.expected["loss"].as_f64().unwrap();
        assert!((loss - expected).abs() < 1e-5 * expected, "{family}: {loss}, torch {expected}");
        check_norms(family, &backend, &decoder, &golden.expected["full_grad_norms"], GRAD_NORM);
        let evaluated = mean(decoder.forward_loss(&backend, &golden.batch(), None).unwrap());
        assert!((evaluated - loss).abs() < 1e-6, "{family}: evaluation {evaluated}, training {loss}");
    }
}

#[test]
fn lora_gradients_equal_torch() {
    let backend = backend();
    for family in FAMILIES {
        let golden = Golden::open(family);
        let mut decoder = golden.decoder(&backend, &Tuning::Lora(golden.adapter()), Dtype::F32);
        let loss = golden.step(&backend, &mut decoder);
        let expected = golden.expected["lora_loss"].as_f64().unwrap();
        assert!((loss - expected).abs() < 1e-5 * expected, "{family}: {loss}, torch {expected}");
        check_norms(family, &backend, &decoder, &golden.expected["lora_grad_norms"], GRAD_NORM);
    }
}

/// Largest difference from torch's ten losses at learning rate 1e-3.
fn trajectory_error(golden: &Golden, tuning: &Tuning, compute: Dtype, key: &str) -> f64 {
    let backend = backend();
    let mut decoder = golden.decoder(&backend, tuning, compute);
    let mut optimizer = Optimizer::new(&backend, &decoder, 1e-3, 0.0);
    let expected = golden.expected[key].as_array().unwrap();
    assert_eq!(expected.len(), 10);
    let mut worst = 0.0f64;
    for expected in expected {
        let loss = golden.step(&backend, &mut decoder);
        worst = worst.max((loss - expected.as_f64().unwrap()).abs());
        optimizer.update(&backend, &mut decoder);
    }
    worst
}

#[test]
fn full_trajectories_equal_torch() {
    for family in FAMILIES {
        let golden = Golden::open(family);
        let error = trajectory_error(&golden, &Tuning::Full, Dtype::F32, "full_trajectory_lr1e-3");
        assert!(error < TRAJECTORY, "{family}: {error}");
    }
}

#[test]
fn lora_trajectories_equal_torch() {
    for family in FAMILIES {
        let golden = Golden::open(family);
        let tuning = Tuning::Lora(golden.adapter());
        let error = trajectory_error(&golden, &tuning, Dtype::F32, "lora_trajectory_lr1e-3");
        assert!(error < TRAJECTORY, "{family}: {error}");
    }
}

#[test]
fn bf16_stays_near_float32() {
    // Operands carry 8 bits: a relative rounding of 2^-9 per operand, averaged over sums of 64 and 176 terms and three
    // blocks, moves logits by about 1 %, gradient norms by a few per cent, and a loss near 6 by a few hundredths.
    let backend = backend();
    for family in FAMILIES {
        let golden = Golden::open(family);
        let mut decoder = golden.decoder(&backend, &Tuning::Frozen, Dtype::Bf16);
        let logits = decoder.logits(&backend, &golden.tokens, &golden.seq_lens).unwrap();
        let error = relative_error(&logits, &golden.floats("logits"));
        assert!(error > 1e-6, "{family}: bf16 should not be float32");
        assert!(error < 3e-2, "{family}: {error}");
        let lora = Tuning::Lora(golden.adapter());
        for (tuning, key) in [(&Tuning::Full, "full_grad_norms"), (&lora, "lora_grad_norms")] {
            let mut decoder = golden.decoder(&backend, tuning, Dtype::Bf16);
            golden.step(&backend, &mut decoder);
            check_norms(family, &backend, &decoder, &golden.expected[key], 5e-2);
        }
        for (tuning, key) in [(&Tuning::Full, "full_trajectory_lr1e-3"), (&lora, "lora_trajectory_lr1e-3")] {
            let error = trajectory_error(&golden, tuning, Dtype::Bf16, key);
            assert!(error < 3e-2, "{family} {key}: {error}");
        }
    }
}

#[test]
fn gradients_are_nowhere_empty() {
    let backend = backend();
    let golden = Golden::open("llama_bias");
    let mut decoder = golden.decoder(&backend, &Tuning::Full, Dtype::F32);
    golden.step(&backend, &mut decoder);
    for (name, gradient) in gradients(&backend, &decoder) {
        assert!(gradient.iter().any(|g| *g != 0.0), "{name}");
    }
}
