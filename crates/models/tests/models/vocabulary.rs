//! Vocabularies that have grown: PEFT's files, new rows, merging.

use crate::fixture::{Golden, backend, goldens, relative_error};
use foundry_formats::safetensors::Entry;
use foundry_formats::{TensorSource, safetensors};
use foundry_kernels::{Backend, Dtype};
use foundry_models::{
    Decoder, DecoderConfig, LoraSpec, MergedWeights, TargetModules, Tuning, adapter_vocabulary,
    decoder_config, with_vocabulary,
};
use std::path::Path;

/// Rows of the grown tables; the base has 128.
const ROWS: usize = 130;

fn shapes(golden: &Golden, rows: usize) -> DecoderConfig {
    let (_, config) = decoder_config(&golden.files.config).unwrap();
    DecoderConfig { vocab_size: rows, ..config }
}

/// The base with as many rows as the shapes say.
fn grown(golden: &Golden, config: &DecoderConfig, adapter: Option<&Path>) -> Box<dyn TensorSource> {
    with_vocabulary(golden.files.weights().unwrap(), config, adapter).unwrap()
}

/// Logits of the first sequence, its fourth token being the first of the new ones.
fn logits(golden: &Golden, decoder: &mut Decoder) -> Vec<f32> {
    let len = golden.seq_lens[0];
    let mut tokens = golden.tokens[..len as usize].to_vec();
    tokens[3] = 128;
    decoder.logits(&backend(), &tokens, &[len]).unwrap()
}

#[test]
fn adapters_of_a_resized_model_give_pefts_logits_and_are_merged() {
    let (backend, golden) = (backend(), Golden::open("llama_bias"));
    let expected = safetensors::open(&goldens().join("variants/logits.safetensors")).unwrap();
    for name in ["resized", "resized_tokens", "resized_saved"] {
        let dir = goldens().join("variants").join(name);
        assert_eq!(adapter_vocabulary(&dir).unwrap(), ROWS, "{name}");
        let mut peft = vec![0.0; expected.find(name).unwrap().elements()];
        expected.read_f32(name, 0, &mut peft).unwrap();
        let config = shapes(&golden, ROWS);
        let base = grown(&golden, &config, Some(&dir));
        let tuning = Tuning::Adapted(LoraSpec::from_adapter(&dir).unwrap());
        let mut decoder = Decoder::allocate(&backend, &config, &tuning, Dtype::F32, 64, false).unwrap();
        decoder.load(&backend, base.as_ref()).unwrap();
        decoder.load_adapter(&backend, &dir).unwrap();
        // As in `adapters_that_peft_saved_give_its_logits`.
        let error = relative_error(&logits(&golden, &mut decoder), &peft);
        assert!(error < 1e-5, "{name}: {error}");
        let merged = MergedWeights::open(base.as_ref(), &config, &dir).unwrap();
        let mut decoder =
            Decoder::allocate(&backend, &config, &Tuning::Frozen, Dtype::F32, 64, false).unwrap();
        decoder.load(&backend, &merged).unwrap();
        let error = relative_error(&logits(&golden, &mut decoder), &peft);
        assert!(error < 1e-5, "{name}, merged: {error}");
    }
}

/// The first sequence's logits of the base of `variants` with an adapter merged into it.
fn merged_logits(golden: &Golden, dir: &Path) -> Result<Vec<f32>, foundry_models::ModelError> {
    let backend = backend();
    let config = shapes(golden, 128);
    let base = grown(golden, &config, Some(dir));
    let merged = MergedWeights::open(base.as_ref(), &config, dir)?;
    let mut decoder = Decoder::allocate(&backend, &config, &Tuning::Frozen, Dtype::F32, 64, false)?;
    decoder.load(&backend, &merged)?;
    let len = golden.seq_lens[0];
    decoder.logits(&backend, &golden.tokens[..len as usize], &[len])
}

#[test]
fn merged_adapters_of_every_kind_give_pefts_logits() {
    let golden = Golden::open("llama_bias");
    let expected = safetensors::open(&goldens().join("variants/logits.safetensors")).unwrap();
    let names = ["dora", "lora_bias", "plain", "other", "tokens", "bias_all", "bias_lora_only", "tables"];
    for name in names {
        let mut peft = vec![0.0; expected.find(name).unwrap().elements()];
        expected.read_f32(name, 0, &mut peft).unwrap();
        let error =
            relative_error(&merged_logits(&golden, &goldens().join("variants").join(name)).unwrap(), &peft);
        // As in `adapters_that_peft_saved_give_its_logits`.
        assert!(error < 1e-5, "{name}: {error}");
    }
}

#[test]
fn an_adapter_that_lacks_tensors_is_not_merged() {
    let golden = Golden::open("llama_bias");
    for (name, lost) in [
        (
            "plain",
            &[
                "model.layers.0.self_attn.q_proj.lora_A.weight",
                "model.layers.0.self_attn.q_proj.lora_B.weight",
            ][..],
        ),
        ("dora", &["model.layers.1.self_attn.v_proj.lora_magnitude_vector"]),
        ("bias_all", &["model.layers.0.self_attn.k_proj.bias"]),
        ("tables", &["lm_head.lora_B.weight"]),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let source = goldens().join("variants").join(name);
        std::fs::copy(source.join("adapter_config.json"), dir.path().join("adapter_config.json")).unwrap();
        let whole = safetensors::open(&source)
            .unwrap_or_else(|_| safetensors::open(&source.join("adapter_model.safetensors")).unwrap());
        let is_lost = |info: &&foundry_formats::TensorInfo| lost.iter().any(|lost| info.name.ends_with(lost));
        assert_eq!(
            whole.tensors().iter().filter(is_lost).count(),
            lost.len(),
            "{name}: {:?}",
            whole.tensors()
        );
        let kept = whole.tensors().iter().filter(|info| !is_lost(info));
        let entries: Vec<_> = kept.map(|i| Entry::new(i.name.as_str(), i.dtype, &i.shape)).collect();
        let path = dir.path().join("adapter_model.safetensors");
        let mut writer = safetensors::Writer::create(&path, &entries, &[]).unwrap();
        for entry in &entries {
            let mut values = vec![0.0; entry.elements()];
            whole.read_f32(&entry.name, 0, &mut values).unwrap();
            writer.write_f32(&entry.name, &values).unwrap();
        }
        writer.finish().unwrap();
        let message = merged_logits(&golden, dir.path()).unwrap_err().to_string();
        assert!(message.contains(lost[0]) && message.contains("missing"), "{name}: {message}");
    }
}

#[test]
fn new_rows_are_the_mean_of_the_old_whatever_is_read() {
    let golden = Golden::open("llama");
    let base = golden.files.weights().unwrap();
    let (rows, width) = (512, 64);
    let config = shapes(&golden, rows + 3);
    let source = grown(&golden, &config, None);
    for name in ["model.embed_tokens.weight", "lm_head.weight"] {
        let mut old = vec![0.0; rows * width];
        base.read_f32(name, 0, &mut old).unwrap();
        let mean = |column: usize| {
            let sum: f64 = (0..rows).map(|row| f64::from(old[row * width + column])).sum();
            (sum / rows as f64) as f32
        };
        assert_eq!(source.find(name).unwrap().shape, [rows + 3, width]);
        // Across the seam, and not from the start of a row.
        let (start, len) = ((rows - 1) * width + 5, 3 * width);
        let mut read = vec![0.0; len];
        source.read_f32(name, start, &mut read).unwrap();
        for (at, value) in (start..).zip(read) {
            let expected = if at < rows * width { old[at] } else { mean(at % width) };
            assert_eq!(value, expected, "{name} {at}");
        }
        assert!(source.raw(name).unwrap().is_none(), "the file's bytes are not the table's");
    }
    let other = "model.norm.weight";
    assert!(source.raw(other).unwrap().is_some());
    let same = shapes(&golden, rows);
    let same = grown(&golden, &same, None);
    assert!(same.raw("lm_head.weight").unwrap().is_some(), "nothing grows, nothing changes");
}

#[test]
fn rows_of_new_tokens_are_trained_saved_and_merged() {
    let backend = backend();
    for family in ["llama", "llama_tied"] {
        let golden = Golden::open(family);
        let config = shapes(&golden, 514);
        let spec = LoraSpec {
            r: 2,
            target_modules: Some(TargetModules::List(vec!["v_proj".into()])),
            trainable_token_indices: Some(vec![512, 513]),
            ..LoraSpec::default()
        };
        let base = grown(&golden, &config, None);
        let allocate = |tuning: &Tuning| {
            let mut decoder = Decoder::allocate(&backend, &config, tuning, Dtype::F32, 160, false).unwrap();
            decoder.load(&backend, base.as_ref()).unwrap();
            decoder
        };
        let mut decoder = allocate(&Tuning::Lora(spec.clone()));
        decoder.init_lora(&backend, 3);
        let rows = decoder.parameters_mut().iter_mut().find(|p| p.name.contains("token_adapter")).unwrap();
        let moved: Vec<f32> = (0..2 * 64).map(|i| (i as f32 * 0.37).sin() * 0.1).collect();
        backend.upload(&moved, &mut rows.value, 0);
        decoder.after_update(&backend);
        let tokens = [5, 512, 9, 513, 17];
        let expected = decoder.logits(&backend, &tokens, &[5]).unwrap();
        let dir = tempfile::tempdir().unwrap();
        decoder.save_adapter(&backend, dir.path(), "base").unwrap();
        assert_eq!(adapter_vocabulary(dir.path()).unwrap(), 514);
        let mut again = allocate(&Tuning::Adapted(LoraSpec::from_adapter(dir.path()).unwrap()));
        again.load_adapter(&backend, dir.path()).unwrap();
        assert_eq!(again.logits(&backend, &tokens, &[5]).unwrap(), expected, "{family}");
        let merged = MergedWeights::open(base.as_ref(), &config, dir.path()).unwrap();
        assert!(!merged.unties_head(), "{family}");
        let mut plain =
            Decoder::allocate(&backend, &config, &Tuning::Frozen, Dtype::F32, 160, false).unwrap();
        plain.load(&backend, &merged).unwrap();
        let error = relative_error(&plain.logits(&backend, &tokens, &[5]).unwrap(), &expected);
        assert!(error < 1e-6, "{family}: {error}");
    }
}
