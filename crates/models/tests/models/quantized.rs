//! Quantised base weights: bitsandbytes' files in and out, its numbers, and adapters on top.

use crate::fixture::{Golden, backend, gradients};
use foundry_formats::{ModelFiles, safetensors};
use foundry_kernels::{Allocator, Dtype, MemoryClass, Meter, Quantization};
use foundry_models::{
    Decoder, ModelError, QuantizedWeights, SaveOptions, Storage, Tuning, decoder_config, quantized_weights,
};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

const KINDS: [(&str, Quantization); 3] = [
    ("nf4", Quantization::Nf4 { double_quant: false }),
    ("nf4_double", Quantization::Nf4 { double_quant: true }),
    ("int8", Quantization::Int8),
];

fn goldens() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/bitsandbytes")
}

fn expected() -> Value {
    serde_json::from_slice(&fs::read(goldens().join("expected.json")).unwrap()).unwrap()
}

fn storage(kind: Quantization) -> Storage {
    Storage { quantization: Some(QuantizedWeights { kind, skip: Vec::new() }), ..Storage::default() }
}

/// The model in `folder`, its blocks stored as `storage` says.
fn load(folder: &Path, storage: Storage) -> Result<Decoder, ModelError> {
    let files = ModelFiles::open(folder).unwrap();
    let (_, config) = decoder_config(&files.config)?;
    let backend = backend();
    let mut decoder = Decoder::allocate(&backend, &config, &Tuning::Frozen, Dtype::F32, 64, storage)?;
    decoder.load(&backend, files.weights().unwrap().as_ref())?;
    Ok(decoder)
}

fn logits(decoder: &mut Decoder) -> Vec<f32> {
    let tokens: Vec<u32> =
        expected()["tokens"].as_array().unwrap().iter().map(|t| t.as_u64().unwrap() as u32).collect();
    decoder.logits(&backend(), &tokens, &[tokens.len() as u32]).unwrap()
}

/// Every tensor of a file as its bytes, but for descriptions, which are JSON.
fn tensors(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let source = safetensors::open(&folder.join("model.safetensors")).unwrap();
    let names: Vec<String> = source.tensors().iter().map(|tensor| tensor.name.clone()).collect();
    let bytes = |name: &String| source.raw(name).unwrap().unwrap().to_vec();
    names.into_iter().map(|name| (name.clone(), bytes(&name))).collect()
}

#[test]
fn logits_are_those_of_bitsandbytes() {
    for (name, kind) in KINDS {
        let golden: Vec<f32> =
            expected()[name].as_array().unwrap().iter().map(|x| x.as_f64().unwrap() as f32).collect();
        let files = ModelFiles::open(&goldens().join(name)).unwrap();
        let stored = quantized_weights(&files.config).unwrap();
        assert_eq!(stored, Some(QuantizedWeights { kind, skip: Vec::new() }), "{name}");
        let scale = golden.iter().fold(0.0f32, |max, x| max.max(x.abs()));
        // From its own file, from the plain model quantised here, and widened: sums of some dozens of f32 products.
        for (folder, storage) in [(name, storage(kind)), ("base", storage(kind)), (name, Storage::default())]
        {
            let got = logits(&mut load(&goldens().join(folder), storage).unwrap());
            let error = got.iter().zip(&golden).fold(0.0f32, |max, (a, b)| max.max((a - b).abs()));
            assert!(error <= 1e-5 * scale, "{name} from {folder}: {error} of {scale}");
        }
    }
}

#[test]
fn files_are_bitsandbytes_bit_for_bit() {
    for (name, kind) in KINDS {
        // Quantised here, and loaded from bitsandbytes' file: saved, both are that file.
        for from in ["base", name] {
            let decoder = load(&goldens().join(from), storage(kind)).unwrap();
            let dir = tempfile::tempdir().unwrap();
            let files = ModelFiles::open(&goldens().join(from)).unwrap();
            let options = SaveOptions::default();
            decoder.save_model(&backend(), dir.path(), &files.config, None, &options).unwrap();
            let (ours, theirs) = (tensors(dir.path()), tensors(&goldens().join(name)));
            for ((our_name, ours), (their_name, theirs)) in ours.iter().zip(&theirs) {
                assert_eq!(our_name, their_name, "{name}");
                if our_name.contains("quant_state") {
                    let json = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).unwrap();
                    assert_eq!(json(ours), json(theirs), "{our_name}");
                } else {
                    assert!(ours == theirs, "{name} from {from}: {our_name}");
                }
            }
            assert_eq!(ours.len(), theirs.len());
            let saved = ModelFiles::open(dir.path()).unwrap();
            assert_eq!(
                saved.config.get("quantization_config"),
                ModelFiles::open(&goldens().join(name)).unwrap().config.get("quantization_config"),
                "{name}"
            );
        }
    }
}

#[test]
fn adapters_train_on_quantised_weights_in_a_fraction_of_the_memory() {
    let (backend, golden) = (backend(), Golden::open("llama"));
    let (_, config) = decoder_config(&golden.files.config).unwrap();
    let tuning = Tuning::Lora(golden.adapter());
    let weights = |storage: Storage| {
        let meter = Meter::default();
        Decoder::allocate(&meter, &config, &tuning, Dtype::Bf16, 8, storage).unwrap();
        meter.allocated().iter().find(|(class, _)| *class == MemoryClass::Weights).unwrap().1
    };
    let mut plain = golden.decoder(&backend, &tuning, Dtype::F32);
    let plain_loss = golden.step(&backend, &mut plain);
    for (name, kind) in KINDS {
        assert!(weights(storage(kind)) < weights(Storage::default()), "{name}");
        let mut decoder = golden.decoder_with(&backend, &tuning, Dtype::F32, storage(kind));
        let before = backend.allocated();
        let loss = golden.step(&backend, &mut decoder);
        assert_eq!(backend.allocated(), before, "{name}: nothing is allocated in a step");
        assert!((loss - plain_loss).abs() < 0.05, "{name}: {loss}, in float32 {plain_loss}");
        let (quantised, exact) = (gradients(&backend, &decoder), gradients(&backend, &plain));
        assert_eq!(quantised.len(), exact.len(), "only the adapter is trained");
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(a * b)).sum::<f64>();
        for ((parameter, a), (_, b)) in quantised.iter().zip(&exact) {
            let cosine = dot(a, b) / (dot(a, a) * dot(b, b)).sqrt();
            // Weights of 4 bits are off by some per cent each, and random ones have no structure to hide that.
            assert!(cosine > 0.8, "{name}: {parameter} points elsewhere: {cosine}");
        }
    }
}

#[test]
fn damaged_quantised_files_are_refused_by_name() {
    let nf4 = goldens().join("nf4_double");
    let files = ModelFiles::open(&nf4).unwrap();
    let (_, config) = decoder_config(&files.config).unwrap();
    let backend = backend();
    let other = storage(Quantization::Nf4 { double_quant: false });
    let mut decoder = Decoder::allocate(&backend, &config, &Tuning::Frozen, Dtype::F32, 64, other).unwrap();
    let error = decoder.load(&backend, files.weights().unwrap().as_ref()).unwrap_err();
    assert!(matches!(error, ModelError::QuantizedWeight { .. }), "{error}");

    // The description's bytes changed in the file: another block size, a number that is none.
    let original = fs::read(nf4.join("model.safetensors")).unwrap();
    for (from, to, word) in [
        ("\"blocksize\": 64", "\"blocksize\": 32", "blocksize"),
        ("\"quant_type\": \"nf4\"", "\"quant_type\": \"fp4\"", "quant_type"),
        ("\"nested_offset\": ", "\"nested_offsat\": ", "nested_offset"),
        ("\"nested_blocksize\": 256", "\"nested_blocksize\": 512", "nested_blocksize"),
        ("{\"quant_type\"", "(\"quant_type\"", "JSON"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        fs::copy(nf4.join("config.json"), dir.path().join("config.json")).unwrap();
        let at = original.windows(from.len()).position(|part| part == from.as_bytes()).expect("it is there");
        let mut damaged = original.clone();
        damaged[at..at + to.len()].copy_from_slice(to.as_bytes());
        fs::write(dir.path().join("model.safetensors"), damaged).unwrap();
        let kind = Quantization::Nf4 { double_quant: true };
        let error = load(dir.path(), storage(kind)).err().expect("damaged").to_string();
        assert!(error.contains(word), "{from}: {error}");
    }
}
