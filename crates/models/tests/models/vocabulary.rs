//! Vocabularies that have grown: PEFT's files, new rows, merging.

use crate::fixture::{Golden, backend, goldens, relative_error};
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
