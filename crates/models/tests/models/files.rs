//! Saving and loading: bytes, layouts, names.

use crate::fixture::{FAMILIES, Golden, backend, relative_error};
use foundry_formats::{HfConfig, ModelFiles, StoredDtype};
use foundry_kernels::{Backend, Dtype};
use foundry_models::{Decoder, LoraSpec, SaveOptions, TargetModules, Tuning, decoder_config};
use serde_json::Value;
use std::fs;
use std::path::Path;

fn save(backend: &dyn Backend, decoder: &Decoder, files: &ModelFiles, dir: &Path, options: &SaveOptions) {
    decoder.save_model(backend, dir, &files.config, files.generation_config.as_ref(), options).unwrap();
}

#[test]
fn load_save_load_gives_the_same_bytes() {
    let backend = backend();
    for family in FAMILIES {
        let golden = Golden::open(family);
        let dir = tempfile::tempdir().unwrap();
        let decoder = golden.decoder(&backend, &Tuning::Full, Dtype::F32);
        save(&backend, &decoder, &golden.files, dir.path(), &SaveOptions::default());
        let bytes = |dir: &Path, file: &str| fs::read(dir.join(file)).unwrap();
        assert!(
            bytes(dir.path(), "model.safetensors") == bytes(&golden.dir, "model.safetensors"),
            "{family}"
        );
        for file in ["config.json", "generation_config.json"] {
            // Python writes 1e-06 where this writes 1e-6: the same values in the same order.
            let text = |dir: &Path| String::from_utf8(bytes(dir, file)).unwrap().replace("e-0", "e-");
            assert_eq!(text(dir.path()), text(&golden.dir), "{family}/{file}");
        }
        let saved = ModelFiles::open(dir.path()).unwrap();
        let again = tempfile::tempdir().unwrap();
        save(&backend, &decoder, &saved, again.path(), &SaveOptions::default());
        for file in ["model.safetensors", "config.json", "generation_config.json"] {
            assert!(bytes(again.path(), file) == bytes(dir.path(), file), "{family}/{file}");
        }
    }
}

#[test]
fn shards_and_bf16_load_again() {
    let backend = backend();
    let golden = Golden::open("llama_tied");
    let decoder = golden.decoder(&backend, &Tuning::Frozen, Dtype::Bf16);
    let dir = tempfile::tempdir().unwrap();
    let options = SaveOptions { dtype: StoredDtype::BF16, max_shard_size: 100_000 };
    save(&backend, &decoder, &golden.files, dir.path(), &options);
    assert!(dir.path().join("model.safetensors.index.json").exists());
    let files = ModelFiles::open(dir.path()).unwrap();
    assert_eq!(files.config.str("dtype").unwrap(), "bfloat16");
    let names: Vec<String> = files.weights().unwrap().tensors().iter().map(|t| t.name.clone()).collect();
    assert!(!names.contains(&"lm_head.weight".into()), "a tied head is not stored");
    let (_, config) = decoder_config(&files.config).unwrap();
    let mut again = Decoder::allocate(&backend, &config, &Tuning::Frozen, Dtype::Bf16, 128, false).unwrap();
    again.load(&backend, files.weights().unwrap().as_ref()).unwrap();
    let copy = tempfile::tempdir().unwrap();
    save(&backend, &again, &files, copy.path(), &options);
    for entry in fs::read_dir(dir.path()).unwrap() {
        let name = entry.unwrap().file_name();
        let (first, second) =
            (fs::read(dir.path().join(&name)).unwrap(), fs::read(copy.path().join(&name)).unwrap());
        assert!(first == second, "{}", name.display());
    }
    let mut first = decoder;
    let logits = |decoder: &mut Decoder| decoder.logits(&backend, &golden.tokens, &golden.seq_lens).unwrap();
    // Only the norms' weights, float32 in memory, were rounded to 8 bits on the way.
    let error = relative_error(&logits(&mut again), &logits(&mut first));
    assert!(error < 2e-2, "{error}");
}

#[test]
fn adapters_are_saved_as_peft_saves_them() {
    let backend = backend();
    for family in FAMILIES {
        let golden = Golden::open(family);
        let theirs = golden.dir.join("adapter");
        let settings = HfConfig::read(&theirs.join("adapter_config.json")).unwrap();
        let mut decoder = golden.decoder(&backend, &Tuning::Lora(golden.adapter()), Dtype::F32);
        let dir = tempfile::tempdir().unwrap();
        decoder.save_adapter(&backend, dir.path(), settings.str("base_model_name_or_path").unwrap()).unwrap();
        let bytes = |dir: &Path| fs::read(dir.join("adapter_model.safetensors")).unwrap();
        assert!(bytes(dir.path()) == bytes(&theirs), "{family}: adapter_model.safetensors");
        // The same text, but for the order of target_modules: a set in PEFT, sorted here.
        let text = |dir: &Path| fs::read_to_string(dir.join("adapter_config.json")).unwrap();
        let normal = |text: &str| {
            let mut value: Value = serde_json::from_str(text).unwrap();
            let targets = value["target_modules"].as_array_mut().unwrap();
            targets.sort_by_key(|t| t.as_str().unwrap().to_string());
            serde_json::to_string_pretty(&value).unwrap()
        };
        assert_eq!(text(dir.path()), normal(&text(&theirs)), "{family}");
        // And what was saved works.
        let mut again = golden.base(&backend, &Tuning::Lora(golden.adapter()), Dtype::F32, false);
        again.load_adapter(&backend, dir.path()).unwrap();
        let logits =
            |decoder: &mut Decoder| decoder.logits(&backend, &golden.tokens, &golden.seq_lens).unwrap();
        assert!(logits(&mut again) == logits(&mut decoder), "{family}");
    }
}

#[test]
fn fully_trained_modules_travel_with_the_adapter() {
    let backend = backend();
    let golden = Golden::open("llama_tied");
    let spec = LoraSpec {
        target_modules: Some(TargetModules::AllLinear),
        modules_to_save: Some(vec!["embed_tokens".into(), "lm_head".into()]),
        ..LoraSpec::default()
    };
    let tuning = Tuning::Lora(spec.clone());
    let mut decoder = golden.base(&backend, &tuning, Dtype::F32, false);
    decoder.init_lora(&backend, 1);
    let mut optimizer = crate::fixture::Optimizer::new(&backend, &decoder, 1e-2, 0.0);
    golden.step(&backend, &mut decoder);
    optimizer.update(&backend, &mut decoder);
    let dir = tempfile::tempdir().unwrap();
    decoder.save_adapter(&backend, dir.path(), "base").unwrap();
    let saved = foundry_formats::safetensors::open(&dir.path().join("adapter_model.safetensors")).unwrap();
    for name in ["base_model.model.model.embed_tokens.weight", "base_model.model.lm_head.weight"] {
        assert_eq!(saved.find(name).unwrap().shape, [512, 64]);
    }
    assert_eq!(LoraSpec::from_adapter(dir.path()).unwrap().modules_to_save, spec.modules_to_save);
    let mut again = golden.base(&backend, &Tuning::Adapted(spec), Dtype::F32, false);
    again.load_adapter(&backend, dir.path()).unwrap();
    let logits = |decoder: &mut Decoder| decoder.logits(&backend, &golden.tokens, &golden.seq_lens).unwrap();
    assert!(logits(&mut again) == logits(&mut decoder));
}

#[test]
fn new_models_have_the_asked_spread() {
    let backend = backend();
    let golden = Golden::open("llama_bias");
    let (_, config) = decoder_config(&golden.files.config).unwrap();
    let mut decoder = Decoder::allocate(&backend, &config, &Tuning::Full, Dtype::F32, 8, false).unwrap();
    decoder.init_random(&backend, 3, 0.05);
    for parameter in decoder.parameters() {
        let values = crate::fixture::numbers(&backend, &parameter.value);
        let mean = values.iter().sum::<f32>() / values.len() as f32;
        let deviation = (values.iter().map(|v| (v - mean).powi(2)).sum::<f32>() / values.len() as f32).sqrt();
        match (parameter.shape.len(), parameter.name.ends_with("bias")) {
            (1, true) => assert!(values.iter().all(|v| *v == 0.0), "{}", parameter.name),
            (1, false) => assert!(values.iter().all(|v| *v == 1.0), "{}", parameter.name),
            // At least 2048 draws: five standard errors of a deviation are below 8 %.
            _ => assert!((deviation / 0.05 - 1.0).abs() < 0.08, "{}: {deviation}", parameter.name),
        }
    }
}
