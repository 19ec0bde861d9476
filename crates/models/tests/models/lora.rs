//! Variants of LoRA against PEFT: initial values, ranks and scales, chosen modules, fully trained modules.

use crate::fixture::{Golden, Optimizer, backend, gradients, json, numbers};
use foundry_kernels::Dtype;
use foundry_models::{LoraSpec, Tuning};

#[test]
fn variants_follow_pefts_trajectories_from_the_same_seed() {
    let backend = backend();
    for case in json("lora_cases.json").as_array().unwrap() {
        let golden = Golden::open(case["family"].as_str().unwrap());
        let spec: LoraSpec = serde_json::from_value(case["spec"].clone()).unwrap();
        for gradient_checkpointing in [false, true] {
            let tuning = Tuning::Lora(spec.clone());
            let mut decoder = golden.base(&backend, &tuning, Dtype::F32, gradient_checkpointing);
            decoder.init_lora(&backend, case["seed"].as_u64().unwrap());
            let mut optimizer = Optimizer::new(&backend, &decoder, 1e-2, 0.1);
            for (step, expected) in case["trajectory"].as_array().unwrap().iter().enumerate() {
                let loss = golden.step(&backend, &mut decoder);
                if step == 0 {
                    let norms = case["grad_norms"].as_object().unwrap();
                    assert_eq!(norms.len(), decoder.parameters().len(), "{spec:?}");
                    for (name, gradient) in gradients(&backend, &decoder) {
                        let expected = norms[&name].as_f64().unwrap();
                        let norm = gradient.iter().map(|g| f64::from(*g).powi(2)).sum::<f64>().sqrt();
                        assert!(
                            (norm - expected).abs() <= 1e-3 * expected,
                            "{spec:?}: {name}: {norm}, torch {expected}"
                        );
                    }
                }
                // Learning rate 1e-2 moves each weight ten times as far as the goldens' 1e-3.
                let expected = expected.as_f64().unwrap();
                assert!((loss - expected).abs() < 2e-3, "{spec:?}: step {step}: {loss}, torch {expected}");
                optimizer.update(&backend, &mut decoder);
            }
        }
    }
}

#[test]
fn a_new_adapter_changes_nothing_until_it_is_trained() {
    let backend = backend();
    let golden = Golden::open("mistral");
    let mut base = golden.base(&backend, &Tuning::Frozen, Dtype::F32, false);
    let mut adapted = golden.base(&backend, &Tuning::Lora(golden.adapter()), Dtype::F32, false);
    adapted.init_lora(&backend, 0);
    let logits = |decoder: &mut foundry_models::Decoder| {
        decoder.logits(&backend, &golden.tokens, &golden.seq_lens).unwrap()
    };
    assert_eq!(logits(&mut base), logits(&mut adapted));
}

#[test]
fn dropout_acts_in_training_only_and_follows_the_seed() {
    let backend = backend();
    let golden = Golden::open("llama");
    let spec = LoraSpec { lora_dropout: 0.4, ..golden.adapter() };
    let mut decoder = golden.decoder(&backend, &Tuning::Lora(spec), Dtype::F32);
    let mut run = |seed: u64| {
        decoder.zero_grad(&backend);
        let scale = 1.0 / golden.labelled() as f32;
        let objective = foundry_models::Objective::default();
        let sums = decoder.forward_backward(&backend, &golden.batch(), &objective, scale, seed).unwrap();
        (sums.loss, gradients(&backend, &decoder))
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1).0, run(2).0);
    let mut plain = golden.decoder(&backend, &Tuning::Lora(golden.adapter()), Dtype::F32);
    let evaluate = |decoder: &mut foundry_models::Decoder| {
        decoder.forward_loss(&backend, &golden.batch(), None).unwrap()
    };
    assert_eq!(evaluate(&mut decoder), evaluate(&mut plain));
}

#[test]
fn gradients_with_dropout_and_noise_are_those_of_the_loss() {
    // A central difference of the loss along the gradient of one matrix. The loss is a sum of float32 terms, good to
    // about 1e-6; a step that changes it by 1e-2 measures the slope to about 1e-3.
    let backend = backend();
    let golden = Golden::open("llama");
    let spec = LoraSpec { lora_dropout: 0.3, ..golden.adapter() };
    let mut decoder = golden.decoder(&backend, &Tuning::Lora(spec), Dtype::F32);
    let objective = foundry_models::Objective { neftune_alpha: Some(5.0), ..Default::default() };
    let scale = 1.0 / golden.labelled() as f32;
    let loss = |decoder: &mut foundry_models::Decoder| {
        decoder.zero_grad(&backend);
        decoder.forward_backward(&backend, &golden.batch(), &objective, scale, 9).unwrap().loss
            * f64::from(scale)
    };
    for index in [0, 1, 6, 7, 13, 20, 27, 40] {
        loss(&mut decoder);
        let gradient = numbers(&backend, &decoder.parameters()[index].grad);
        let value = numbers(&backend, &decoder.parameters()[index].value);
        let norm = gradient.iter().map(|g| f64::from(*g).powi(2)).sum::<f64>().sqrt();
        let step = (5e-3 / norm) as f32;
        let mut at = |sign: f32| {
            let moved: Vec<f32> =
                value.iter().zip(&gradient).map(|(v, g)| v + sign * step * g / norm as f32).collect();
            backend_upload(&backend, &mut decoder, index, &moved);
            loss(&mut decoder)
        };
        let slope = (at(1.0) - at(-1.0)) / (2.0 * f64::from(step));
        backend_upload(&backend, &mut decoder, index, &value);
        assert!((slope - norm).abs() < 2e-2 * norm, "parameter {index}: slope {slope}, gradient {norm}");
    }
}

fn backend_upload(
    backend: &dyn foundry_kernels::Backend,
    decoder: &mut foundry_models::Decoder,
    index: usize,
    values: &[f32],
) {
    backend.upload(values, &mut decoder.parameters_mut()[index].value, 0);
    decoder.after_update(backend);
}

#[test]
fn initial_adapters_have_torchs_bits() {
    // The shapes of SmolLM2-135M with a small vocabulary; matrices drawn by PEFT after torch.manual_seed(0).
    let config = foundry_formats::HfConfig::from_json(serde_json::json!({
        "architectures": ["LlamaForCausalLM"], "vocab_size": 16, "hidden_size": 576, "intermediate_size": 1536,
        "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3
    }));
    let (_, config) = foundry_models::decoder_config(&config).unwrap();
    let spec =
        LoraSpec { target_modules: Some(foundry_models::TargetModules::AllLinear), ..LoraSpec::default() };
    let backend = backend();
    let tuning = Tuning::Lora(spec);
    let mut decoder =
        foundry_models::Decoder::allocate(&backend, &config, &tuning, Dtype::F32, 1, true).unwrap();
    decoder.init_lora(&backend, 0);
    let facts = json("smollm2.json");
    let matrices: Vec<_> = decoder.parameters().iter().filter(|p| p.name.contains("lora_A")).collect();
    assert_eq!(matrices.len(), facts["adapter"].as_array().unwrap().len());
    for (matrix, expected) in matrices.iter().zip(facts["adapter"].as_array().unwrap()) {
        let bits: Vec<i64> =
            numbers(&backend, &matrix.value).iter().map(|v| i64::from(v.to_bits())).collect();
        let sum: i64 = bits.iter().zip(1..).map(|(b, weight): (&i64, i64)| (b * weight) % (1 << 31)).sum();
        assert_eq!(matrix.name, expected["name"].as_str().unwrap());
        let ends = (bits[0], *bits.last().unwrap());
        assert_eq!(
            (ends, sum),
            ((int(&expected["first"]), int(&expected["last"])), int(&expected["sum"])),
            "{}",
            matrix.name
        );
    }
    assert!(
        decoder
            .parameters()
            .iter()
            .filter(|p| p.name.contains("lora_B"))
            .all(|p| { numbers(&backend, &p.value).iter().all(|v| *v == 0.0) })
    );
}

fn int(value: &serde_json::Value) -> i64 {
    value.as_i64().unwrap()
}
