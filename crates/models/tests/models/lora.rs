//! Variants of LoRA against PEFT: initial values, ranks and scales, chosen modules, fully trained modules.

use crate::fixture::{Golden, Optimizer, backend, goldens, gradients, json, numbers, relative_error};
use foundry_kernels::{Backend, Dtype};
use foundry_models::{
    Combination, CombineOptions, CombinedAdapter, Decoder, InitLora, LoraSpec, MajoritySign, TargetModules,
    Tuning,
};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

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

/// The logits of the first sequence under an adapter that PEFT saved.
fn variant_logits(golden: &Golden, name: &str, compute: Dtype) -> Vec<f32> {
    let backend = backend();
    let dir = goldens().join("variants").join(name);
    let tuning = Tuning::Adapted(LoraSpec::from_adapter(&dir).unwrap());
    let mut decoder = golden.base(&backend, &tuning, compute, false);
    decoder.load_adapter(&backend, &dir).unwrap();
    first_logits(golden, &mut decoder)
}

fn first_logits(golden: &Golden, decoder: &mut Decoder) -> Vec<f32> {
    let len = golden.seq_lens[0];
    decoder.logits(&backend(), &golden.tokens[..len as usize], &[len]).unwrap()
}

fn expected_logits(name: &str) -> Vec<f32> {
    let source = foundry_formats::safetensors::open(&goldens().join("variants/logits.safetensors")).unwrap();
    let mut values = vec![0.0; source.find(name).unwrap().elements()];
    source.read_f32(name, 0, &mut values).unwrap();
    values
}

#[test]
fn adapters_that_peft_saved_give_its_logits() {
    let golden = Golden::open("llama_bias");
    for name in
        ["dora", "lora_bias", "pissa", "olora", "plain", "other", "tokens", "bias_all", "bias_lora_only"]
    {
        let error = relative_error(&variant_logits(&golden, name, Dtype::F32), &expected_logits(name));
        // float32 in another order of summation; measured below 3e-6.
        assert!(error < 1e-5, "{name}: {error}");
        // Eight bits of the operands, as in `bf16_stays_near_float32`.
        let error = relative_error(&variant_logits(&golden, name, Dtype::Bf16), &expected_logits(name));
        assert!(error < 3e-2, "{name}: {error}");
    }
}

#[test]
fn what_is_saved_again_is_what_peft_saved() {
    let backend = backend();
    let golden = Golden::open("llama_bias");
    for name in ["dora", "lora_bias", "plain", "other", "tokens", "bias_all", "bias_lora_only"] {
        let dir = goldens().join("variants").join(name);
        let spec = LoraSpec::from_adapter(&dir).unwrap();
        let mut decoder = golden.base(&backend, &Tuning::Lora(spec), Dtype::F32, false);
        decoder.load_adapter(&backend, &dir).unwrap();
        let saved = tempfile::tempdir().unwrap();
        let read = |dir: &Path, file: &str| fs::read(dir.join(file)).unwrap();
        let settings = |dir: &Path| {
            let mut value: Value = serde_json::from_slice(&read(dir, "adapter_config.json")).unwrap();
            value["target_modules"].as_array_mut().unwrap().sort_by_key(|t| t.as_str().unwrap().to_string());
            value
        };
        let base = settings(&dir)["base_model_name_or_path"].as_str().unwrap().to_owned();
        decoder.save_adapter(&backend, saved.path(), &base).unwrap();
        let weights = "adapter_model.safetensors";
        assert!(read(saved.path(), weights) == read(&dir, weights), "{name}: {weights}");
        assert_eq!(settings(saved.path()), settings(&dir), "{name}");
    }
}

#[test]
fn an_adapter_that_changed_the_base_is_saved_for_the_unchanged_one() {
    let backend = backend();
    for (family, init, dora) in [
        ("llama", InitLora::Pissa, false),
        ("llama_bias", InitLora::PissaIterations(3), false),
        ("mistral", InitLora::Olora, false),
        ("llama_tied", InitLora::Pissa, true),
    ] {
        let golden = Golden::open(family);
        let spec = LoraSpec {
            r: 4,
            lora_alpha: 6.0,
            use_rslora: family == "llama",
            use_dora: dora,
            rank_pattern: [("k_proj".to_owned(), 2)].into_iter().collect(),
            alpha_pattern: [("up_proj".to_owned(), 3.0)].into_iter().collect(),
            target_modules: Some(TargetModules::AllLinear),
            init_lora_weights: init,
            ..LoraSpec::default()
        };
        let mut decoder = golden.base(&backend, &Tuning::Lora(spec), Dtype::F32, false);
        decoder.init_lora(&backend, 5);
        let base = golden.floats("logits");
        let logits =
            |decoder: &mut Decoder| decoder.logits(&backend, &golden.tokens, &golden.seq_lens).unwrap();
        let error = relative_error(&logits(&mut decoder), &base);
        assert!(error < 1e-4, "{family} {init}: a new adapter changes nothing, but {error}");
        let mut optimizer = Optimizer::new(&backend, &decoder, 1e-2, 0.0);
        for _ in 0..3 {
            golden.step(&backend, &mut decoder);
            optimizer.update(&backend, &mut decoder);
        }
        let trained = logits(&mut decoder);
        assert!(relative_error(&trained, &base) > 1e-2, "{family} {init}: three steps change something");
        let dir = tempfile::tempdir().unwrap();
        decoder.save_adapter(&backend, dir.path(), "base").unwrap();
        let saved = LoraSpec::from_adapter(dir.path()).unwrap();
        assert_eq!((saved.r, saved.init_lora_weights), (8, InitLora::Default));
        let mut again = golden.base(&backend, &Tuning::Adapted(saved), Dtype::F32, false);
        again.load_adapter(&backend, dir.path()).unwrap();
        let error = relative_error(&logits(&mut again), &trained);
        assert!(error < 1e-4, "{family} {init}: {error}");
    }
}

#[test]
fn combined_adapters_are_pefts() {
    let backend = backend();
    let golden = Golden::open("llama_bias");
    let dirs = [("plain", 0.7), ("other", -0.4)].map(|(n, w)| (goldens().join("variants").join(n), w));
    let plain = ["linear", "cat", "svd", "ties", "ties_frequency", "magnitude_prune"];
    // What the last two keep is drawn at random; the bits of the draw are torch's.
    let random = ["dare_linear", "dare_ties", "dare_linear_half", "dare_ties_half"];
    for name in plain.into_iter().chain(random) {
        let majority_sign =
            if name == "ties_frequency" { MajoritySign::Frequency } else { MajoritySign::Total };
        let method: Combination =
            name.trim_end_matches("_frequency").trim_end_matches("_half").parse().unwrap();
        let density = if ["dare_linear", "dare_ties"].contains(&name) { 1.0 } else { 0.5 };
        let options = CombineOptions { method, density, majority_sign, svd_rank: Some(3), seed: 11 };
        let combined = CombinedAdapter::new(&dirs, &options).unwrap();
        let mut decoder = golden.base(&backend, &Tuning::Adapted(combined.spec.clone()), Dtype::F32, false);
        decoder.load_combined(&backend, &combined).unwrap();
        let logits = first_logits(&golden, &mut decoder);
        let error = relative_error(&logits, &expected_logits(name));
        assert!(error < 1e-5, "{name}: {error}");
        // And from disk.
        let dir = tempfile::tempdir().unwrap();
        combined.save(dir.path(), decoder.family()).unwrap();
        let saved = LoraSpec::from_adapter(dir.path()).unwrap();
        let mut again = golden.base(&backend, &Tuning::Adapted(saved), Dtype::F32, false);
        again.load_adapter(&backend, dir.path()).unwrap();
        assert_eq!(first_logits(&golden, &mut again), logits, "{name}");
    }
}

#[test]
fn adapters_that_do_not_go_together_are_refused() {
    let variant = |name: &str| (goldens().join("variants").join(name), 1.0);
    let options = |method| CombineOptions {
        method,
        density: 1.0,
        majority_sign: MajoritySign::Total,
        svd_rank: None,
        seed: 0,
    };
    let refused = |adapters: &[(PathBuf, f64)], method| {
        CombinedAdapter::new(adapters, &options(method)).err().expect("refused").to_string()
    };
    assert!(refused(&[], Combination::Cat).contains("no adapter"));
    let keys = [
        ("dora", "use_dora"),
        ("lora_bias", "lora_bias"),
        ("pissa", "init_lora_weights"),
        ("bias_all", "bias"),
        ("resized", "resized, and cannot be combined"),
    ];
    for (name, key) in keys {
        let error = refused(&[variant("plain"), variant(name)], Combination::Cat);
        assert!(error.contains(key) && error.contains(name), "{error}");
    }
    let llama = (Golden::open("llama").dir.join("adapter"), 1.0);
    let error = refused(&[variant("plain"), llama.clone()], Combination::Linear);
    assert!(error.contains("its rank is 8") && error.contains("cat or svd"), "{error}");
    // Ranks may differ here, but the widths are those of one model: 64 each, so they do go together.
    assert!(CombinedAdapter::new(&[variant("plain"), llama], &options(Combination::Cat)).is_ok());
    let wide = CombinedAdapter::new(
        &[variant("plain")],
        &CombineOptions { svd_rank: Some(0), ..options(Combination::Svd) },
    );
    assert!(wide.is_ok(), "a single adapter is only weighted");
    let error = CombinedAdapter::new(
        &[variant("plain"), variant("other")],
        &CombineOptions { svd_rank: Some(0), ..options(Combination::Svd) },
    );
    assert!(error.err().expect("refused").to_string().contains("rank 0"));
}

#[test]
fn gradients_of_dora_with_dropout_are_those_of_the_loss() {
    // As in `gradients_with_dropout_and_noise_are_those_of_the_loss`. The norms are constants for the gradient: they
    // stay as they are here too, because nothing tells the decoder that values have changed.
    let backend = backend();
    let golden = Golden::open("llama");
    let spec = LoraSpec {
        lora_dropout: 0.3,
        use_dora: true,
        init_lora_weights: InitLora::Random,
        ..golden.adapter()
    };
    let mut decoder = golden.base(&backend, &Tuning::Lora(spec), Dtype::F32, false);
    decoder.init_lora(&backend, 2);
    let scale = 1.0 / golden.labelled() as f32;
    let loss = |decoder: &mut Decoder| {
        decoder.zero_grad(&backend);
        let objective = foundry_models::Objective::default();
        decoder.forward_backward(&backend, &golden.batch(), &objective, scale, 9).unwrap().loss
            * f64::from(scale)
    };
    let of_layer = |i: &usize| decoder.parameters()[*i].name.contains("layers.1.");
    let chosen: Vec<usize> = (0..decoder.parameters().len()).filter(of_layer).collect();
    assert_eq!(chosen.len(), 3 * 7, "A, B and magnitudes");
    for index in chosen {
        loss(&mut decoder);
        let gradient = numbers(&backend, &decoder.parameters()[index].grad);
        let value = numbers(&backend, &decoder.parameters()[index].value);
        let norm = gradient.iter().map(|g| f64::from(*g).powi(2)).sum::<f64>().sqrt();
        let step = (5e-3 / norm) as f32;
        let mut at = |sign: f32| {
            let moved: Vec<f32> =
                value.iter().zip(&gradient).map(|(v, g)| v + sign * step * g / norm as f32).collect();
            backend.upload(&moved, &mut decoder.parameters_mut()[index].value, 0);
            loss(&mut decoder)
        };
        let slope = (at(1.0) - at(-1.0)) / (2.0 * f64::from(step));
        backend.upload(&value, &mut decoder.parameters_mut()[index].value, 0);
        assert!((slope - norm).abs() < 2e-2 * norm, "parameter {index}: slope {slope}, gradient {norm}");
    }
}
