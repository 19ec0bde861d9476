//! Wrong files and wrong input: typed errors that name what is wrong.

use crate::fixture::{Golden, backend};
use foundry_formats::safetensors::{self, Entry, Writer};
use foundry_formats::{HfConfig, StoredDtype, TensorSource};
use foundry_kernels::Dtype;
use foundry_models::{Batch, Decoder, LoraSpec, ModelError, Objective, Tuning, decoder_config};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;

/// The golden's tensors after a change to their list.
fn changed(golden: &Golden, dir: &Path, change: impl Fn(&mut Vec<Entry>)) -> Box<dyn TensorSource> {
    let source = golden.files.weights().unwrap();
    let mut entries: Vec<Entry> =
        source.tensors().iter().map(|t| Entry::new(t.name.clone(), StoredDtype::F32, &t.shape)).collect();
    change(&mut entries);
    let path = dir.join("changed.safetensors");
    let mut writer = Writer::create(&path, &entries, &[]).unwrap();
    for entry in &entries {
        writer.write_f32(&entry.name, &vec![0.0; entry.elements()]).unwrap();
    }
    writer.finish().unwrap();
    safetensors::open(&path).unwrap()
}

fn load(golden: &Golden, weights: &dyn TensorSource) -> ModelError {
    let backend = backend();
    let (_, config) = decoder_config(&golden.files.config).unwrap();
    let mut decoder = Decoder::allocate(&backend, &config, &Tuning::Frozen, Dtype::F32, 8, false).unwrap();
    decoder.load(&backend, weights).unwrap_err()
}

#[test]
fn weights_that_do_not_fit_are_named() {
    let golden = Golden::open("llama");
    let dir = tempfile::tempdir().unwrap();
    let missing =
        changed(&golden, dir.path(), |entries| entries.retain(|e| !e.name.contains("1.mlp.up_proj")));
    match load(&golden, missing.as_ref()) {
        ModelError::MissingTensor { name } => assert_eq!(name, "model.layers.1.mlp.up_proj.weight"),
        other => panic!("{other}"),
    }
    let reshaped = changed(&golden, dir.path(), |entries| {
        let norm = entries.iter_mut().find(|e| e.name == "model.norm.weight").unwrap();
        *norm = Entry::new("model.norm.weight", StoredDtype::F32, &[65]);
    });
    match load(&golden, reshaped.as_ref()) {
        ModelError::TensorShape { name, found, expected } => {
            assert_eq!((name.as_str(), found, expected), ("model.norm.weight", vec![65], vec![64]));
        }
        other => panic!("{other}"),
    }
    let more = changed(&golden, dir.path(), |entries| {
        entries.push(Entry::new("model.layers.0.self_attn.q_proj.bias", StoredDtype::F32, &[64]));
        entries.push(Entry::new("model.layers.0.self_attn.rotary_emb.inv_freq", StoredDtype::F32, &[8]));
    });
    match load(&golden, more.as_ref()) {
        ModelError::UnexpectedTensors { names } => assert_eq!(names, "model.layers.0.self_attn.q_proj.bias"),
        other => panic!("{other}"),
    }
}

#[test]
fn a_stored_copy_of_a_tied_head_is_passed_over() {
    let golden = Golden::open("llama_tied");
    let dir = tempfile::tempdir().unwrap();
    let source = changed(&golden, dir.path(), |entries| {
        entries.push(Entry::new("lm_head.weight", StoredDtype::F32, &[512, 64]));
    });
    let backend = backend();
    let (_, config) = decoder_config(&golden.files.config).unwrap();
    let mut decoder = Decoder::allocate(&backend, &config, &Tuning::Frozen, Dtype::F32, 8, false).unwrap();
    decoder.load(&backend, source.as_ref()).unwrap();
}

#[test]
fn rows_that_do_not_fit_are_refused() {
    let backend = backend();
    let golden = Golden::open("llama");
    let mut decoder = golden.decoder(&backend, &Tuning::Full, Dtype::F32);
    let tokens = vec![3; golden.tokens.len() + 1];
    let labels = vec![3; tokens.len()];
    let batch = Batch { tokens: &tokens, seq_lens: &[tokens.len() as u32], labels: &labels };
    let error = decoder.forward_backward(&backend, &batch, &Objective::default(), 1.0, 0).unwrap_err();
    assert!(matches!(error, ModelError::RowTooLong { tokens: 129, max_tokens: 128 }), "{error}");
    assert!(decoder.forward_loss(&backend, &batch, None).is_err());
    assert!(decoder.logits(&backend, &tokens, &[129]).is_err());
    assert!(matches!(
        decoder.logits(&backend, &[512], &[1]).unwrap_err(),
        ModelError::TokenOutOfRange { token: 512, vocab_size: 512 }
    ));
    let mut frozen = golden.decoder(&backend, &Tuning::Frozen, Dtype::F32);
    let error =
        frozen.forward_backward(&backend, &golden.batch(), &Objective::default(), 1.0, 0).unwrap_err();
    assert!(matches!(error, ModelError::NothingToTrain));
}

/// A copy of the golden's adapter with a changed configuration.
fn adapter_with(golden: &Golden, changes: &Value) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for file in ["adapter_config.json", "adapter_model.safetensors"] {
        fs::copy(golden.dir.join("adapter").join(file), dir.path().join(file)).unwrap();
    }
    let path = dir.path().join("adapter_config.json");
    let mut config = HfConfig::read(&path).unwrap().0;
    config.extend(changes.as_object().unwrap().clone());
    fs::write(&path, serde_json::to_vec(&config).unwrap()).unwrap();
    dir
}

#[test]
fn adapters_of_other_kinds_are_refused_by_name() {
    let golden = Golden::open("llama");
    for (changes, expected) in [
        (json!({ "peft_type": "IA3" }), "IA3"),
        (json!({ "peft_type": null }), "peft_type"),
        (json!({ "use_dora": "yes" }), "yes"),
        (json!({ "rank_pattern": { "q_proj": 0 } }), "rank_pattern.q_proj"),
        (json!({ "rank_pattern": { "q_proj": -4 } }), "-4"),
        (json!({ "rank_pattern": { "(q_proj": 4 } }), "not a regular expression"),
        (json!({ "rank_pattern": [4] }), "map"),
        (json!({ "alpha_pattern": { "(q_proj": 4 } }), "not a regular expression"),
        (json!({ "layers_to_transform": [] }), "layers_to_transform"),
        (json!({ "layers_to_transform": [-1] }), "save the adapter again"),
        (json!({ "layers_to_transform": 1, "target_modules": ".*q_proj" }), "layers_to_transform"),
        (json!({ "layers_pattern": "layers" }), "layers_pattern"),
        (json!({ "lora_bias": true, "use_dora": true }), "exclude each other"),
        (json!({ "lora_bias": true, "init_lora_weights": "pissa" }), "lora_bias"),
        (json!({ "init_lora_weights": "pissa_niter_4" }), "pissa_niter_4"),
        (json!({ "init_lora_weights": "loftq" }), "loftq"),
        (json!({ "target_parameters": ["experts"] }), "target_parameters"),
        (json!({ "trainable_token_indices": [1, 1] }), "names a token twice"),
        (json!({ "trainable_token_indices": { "lm_head": [1] } }), "trainable_token_indices"),
        (json!({ "bias": "some" }), "some"),
        (json!({ "r": 0 }), "`r` is 0"),
        (json!({ "brand_new_option": 3 }), "brand_new_option"),
    ] {
        let dir = adapter_with(&golden, &changes);
        let error = LoraSpec::from_adapter(dir.path()).unwrap_err().to_string();
        assert!(error.contains(expected), "{error} should name {expected}");
    }
    let gaussian = adapter_with(&golden, &json!({ "init_lora_weights": "gaussian" }));
    assert_eq!(LoraSpec::from_adapter(gaussian.path()).unwrap(), golden.adapter());
    let empty = tempfile::tempdir().unwrap();
    assert!(LoraSpec::from_adapter(empty.path()).is_err());
}

#[test]
fn adapters_that_do_not_fit_the_settings_are_refused() {
    let backend = backend();
    let golden = Golden::open("llama");
    let dir = golden.dir.join("adapter");
    let load = |spec: LoraSpec, dir: &Path| {
        let mut decoder = golden.base(&backend, &Tuning::Lora(spec), Dtype::F32, false);
        decoder.load_adapter(&backend, dir).unwrap_err().to_string()
    };
    let error = load(LoraSpec { r: 4, ..golden.adapter() }, &dir);
    assert!(error.contains("r = 8") && error.contains("r = 4"), "{error}");
    let error = load(LoraSpec { lora_alpha: 8.0, ..golden.adapter() }, &dir);
    assert!(error.contains("scale"), "{error}");
    let error = load(LoraSpec { target_modules: None, ..golden.adapter() }, &dir);
    assert!(error.contains("has no place"), "{error}");
    let error = load(LoraSpec { modules_to_save: Some(vec!["lm_head".into()]), ..golden.adapter() }, &dir);
    assert!(error.contains("base_model.model.lm_head.weight"), "{error}");
    let pickle = adapter_with(&golden, &json!({}));
    fs::rename(pickle.path().join("adapter_model.safetensors"), pickle.path().join("adapter_model.bin"))
        .unwrap();
    let error = load(golden.adapter(), pickle.path());
    assert!(error.contains("pickle") && error.contains("safe_serialization"), "{error}");
    let mut plain = golden.base(&backend, &Tuning::Full, Dtype::F32, false);
    assert!(plain.load_adapter(&backend, &dir).is_err());
    assert!(plain.save_adapter(&backend, pickle.path(), "x").is_err());
    let adapted = golden.decoder(&backend, &Tuning::Lora(golden.adapter()), Dtype::F32);
    let out = pickle.path();
    let error =
        adapted.save_model(&backend, out, &golden.files.config, None, &Default::default()).unwrap_err();
    assert!(error.to_string().contains("adapter"), "{error}");
}

#[test]
fn unwritable_places_are_named() {
    let backend = backend();
    let golden = Golden::open("llama");
    let decoder = golden.decoder(&backend, &Tuning::Lora(golden.adapter()), Dtype::F32);
    let nowhere = golden.dir.join("no/such/folder");
    let error = decoder.save_adapter(&backend, &nowhere, "x").unwrap_err().to_string();
    assert!(error.contains("no/such/folder"), "{error}");
}

/// Name, shape and numbers.
type Tensor = (String, Vec<usize>, Vec<f32>);

/// The golden's adapter after a change to its tensors.
fn adapter_tensors(golden: &Golden, change: impl Fn(&mut Vec<Tensor>)) -> tempfile::TempDir {
    let dir = adapter_with(golden, &json!({}));
    let path = dir.path().join("adapter_model.safetensors");
    let source = safetensors::open(&path).unwrap();
    let read = |t: &foundry_formats::TensorInfo| {
        let mut values = vec![0.0; t.elements()];
        source.read_f32(&t.name, 0, &mut values).unwrap();
        (t.name.clone(), t.shape.clone(), values)
    };
    let mut tensors: Vec<_> = source.tensors().iter().map(read).collect();
    change(&mut tensors);
    let entries: Vec<Entry> =
        tensors.iter().map(|(name, shape, _)| Entry::new(name.clone(), StoredDtype::F32, shape)).collect();
    drop(source);
    fs::remove_file(&path).unwrap();
    let mut writer = Writer::create(&path, &entries, &[]).unwrap();
    for (name, _, values) in &tensors {
        writer.write_f32(name, values).unwrap();
    }
    writer.finish().unwrap();
    dir
}

#[test]
fn adapters_of_another_base_and_damaged_ones_are_refused() {
    let backend = backend();
    let golden = Golden::open("llama");
    let load = |dir: &Path| {
        let mut decoder = golden.base(&backend, &Tuning::Adapted(golden.adapter()), Dtype::F32, false);
        decoder.load_adapter(&backend, dir).unwrap_err().to_string()
    };
    let name = "base_model.model.model.layers.2.mlp.up_proj.lora_A.weight";
    let missing = adapter_tensors(&golden, |tensors| tensors.retain(|(n, ..)| n != name));
    let error = load(missing.path());
    assert!(error.contains(name) && error.contains("is missing"), "{error}");
    let deeper = adapter_tensors(&golden, |tensors| {
        tensors.push((
            "base_model.model.model.layers.7.mlp.up_proj.lora_A.weight".into(),
            vec![8, 64],
            vec![0.0; 512],
        ));
    });
    let error = load(deeper.path());
    assert!(error.contains("layers.7") && error.contains("no place"), "{error}");
    let wider = adapter_tensors(&golden, |tensors| {
        let tensor = tensors.iter_mut().find(|(n, ..)| n == name).unwrap();
        (tensor.1, tensor.2) = (vec![8, 80], vec![0.0; 640]);
    });
    let error = load(wider.path());
    assert!(
        error.contains("[8, 80]") && error.contains("[8, 64]") && error.contains("another base"),
        "{error}"
    );
    for value in [f32::NAN, f32::INFINITY] {
        let damaged = adapter_tensors(&golden, |tensors| {
            tensors.iter_mut().find(|(n, ..)| n == name).unwrap().2[500] = value;
        });
        let error = load(damaged.path());
        assert!(error.contains(name) && error.contains("holds"), "{error}");
    }
    // A vocabulary larger than the base model's embedding.
    let saved = LoraSpec { modules_to_save: Some(vec!["embed_tokens".into()]), ..golden.adapter() };
    let grown = adapter_tensors(&golden, |tensors| {
        tensors.push((
            "base_model.model.model.embed_tokens.weight".into(),
            vec![513, 64],
            vec![0.0; 513 * 64],
        ));
    });
    let path = grown.path().join("adapter_config.json");
    let mut config = HfConfig::read(&path).unwrap().0;
    config.insert("modules_to_save".into(), json!(["embed_tokens"]));
    fs::write(&path, serde_json::to_vec(&config).unwrap()).unwrap();
    let mut decoder = golden.base(&backend, &Tuning::Adapted(saved), Dtype::F32, false);
    let error = decoder.load_adapter(&backend, grown.path()).unwrap_err().to_string();
    assert!(error.contains("[513, 64]") && error.contains("[512, 64]"), "{error}");
}

#[test]
fn settings_that_the_model_cannot_have_are_refused() {
    let backend = backend();
    let golden = Golden::open("llama");
    let refuse = |spec: LoraSpec| {
        let (_, config) = decoder_config(&golden.files.config).unwrap();
        let tuning = Tuning::Lora(spec);
        let Err(error) = Decoder::allocate(&backend, &config, &tuning, Dtype::F32, 8, false) else {
            panic!("{tuning:?} was accepted");
        };
        error.to_string()
    };
    let error = refuse(LoraSpec { layers_to_transform: Some(vec![0, 3]), ..golden.adapter() });
    assert!(error.contains("layer 3") && error.contains("0 to 2"), "{error}");
    let rows = |ids: &[u32]| Some(ids.to_vec());
    let error = refuse(LoraSpec { trainable_token_indices: rows(&[511, 512]), ..golden.adapter() });
    assert!(error.contains("token 512") && error.contains("0 to 511"), "{error}");
    let saved = Some(vec!["embed_tokens".into()]);
    let spec = LoraSpec { trainable_token_indices: rows(&[1]), modules_to_save: saved, ..golden.adapter() };
    assert!(refuse(spec).contains("both train the embedding"));
    let pissa = foundry_models::InitLora::Pissa;
    let error = refuse(LoraSpec { r: 33, init_lora_weights: pissa, ..golden.adapter() });
    assert!(error.contains("k_proj") && error.contains("at most 32"), "{error}");
}
