//! The real SmolLM2-135M-Instruct GGUF against what transformers makes of it. Needs the model: `cargo xtask test`.

mod fixture;

use fixture::{check_lines, fixture, json_fixture, smollm2_gguf};
use foundry_formats::gguf::Gguf;
use foundry_formats::{ModelFiles, Tokenizer};
use half::bf16;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

#[test]
fn smollm2_tensors_round_to_transformers_bf16() {
    let weights = ModelFiles::open(&smollm2_gguf()).unwrap().weights().unwrap();
    let golden = std::fs::read_to_string(fixture("smollm2_tensors.txt")).unwrap();
    assert_eq!(golden.lines().count(), weights.tensors().len());
    for line in golden.lines() {
        let (name, rest) = line.split_once(' ').unwrap();
        let (shape, digest) = rest.split_once(' ').unwrap();
        let info = weights.find(name).unwrap_or_else(|| panic!("{name} is missing"));
        assert_eq!(info.shape.iter().map(usize::to_string).collect::<Vec<_>>().join("x"), shape, "{name}");
        assert_eq!(bf16_digest(&*weights, name, info.elements()), digest, "{name}");
    }
}

/// First 16 hex digits of the SHA-256 of the tensor rounded to bf16, read in uneven pieces.
fn bf16_digest(weights: &dyn foundry_formats::TensorSource, name: &str, elements: usize) -> String {
    let mut hash = Sha256::new();
    let mut piece = vec![0f32; 100_003];
    let mut start = 0;
    while start < elements {
        let len = piece.len().min(elements - start);
        weights.read_f32(name, start, &mut piece[..len]).unwrap();
        let bytes: Vec<u8> = piece[..len].iter().flat_map(|&v| bf16::from_f32(v).to_le_bytes()).collect();
        hash.update(&bytes);
        start += len;
    }
    hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn smollm2_config_equals_transformers() {
    let files = ModelFiles::open(&smollm2_gguf()).unwrap();
    assert_eq!(Value::Object(files.config.0.clone()), json_fixture("smollm2_config.json"));
    assert_eq!(files.eos_token_ids(), [2]);
    let expected =
        json!({ "_from_model_config": true, "bos_token_id": 1, "pad_token_id": 2, "eos_token_id": 2 });
    assert_eq!(files.generation_config, Some(expected));
}

#[test]
fn smollm2_token_ids_equal_transformers() {
    let tokenizer = Tokenizer::from_gguf(&Gguf::open(&smollm2_gguf()).unwrap()).unwrap();
    check_lines(&tokenizer, "smollm2_line_ids.txt", true);
    check_texts(&tokenizer);
    assert_eq!(tokenizer.vocab_size(), 49_152);
    assert_eq!(tokenizer.missing_byte_atoms(), [0x04u8, 0x06, 0x13, 0x14, 0x16, 0x1d, 0xf1, 0xf2]);
}

#[test]
fn smollm2_saved_tokenizer_gives_the_same_ids() {
    let dir = tempfile::tempdir().unwrap();
    let tokenizer = Tokenizer::from_gguf(&Gguf::open(&smollm2_gguf()).unwrap()).unwrap();
    tokenizer.save(dir.path()).unwrap();
    let read = Tokenizer::from_dir(dir.path()).unwrap();
    check_lines(&read, "smollm2_line_ids.txt", true);
    check_texts(&read);
    assert_eq!(read.chat_template(), tokenizer.chat_template());
    assert_eq!(read.special_tokens(), tokenizer.special_tokens());
}

/// Rendered conversations and odd texts: ids and decoded text.
fn check_texts(tokenizer: &Tokenizer) {
    for row in json_fixture("smollm2_texts.json").as_array().unwrap() {
        let text = row["text"].as_str().unwrap();
        let ids = tokenizer.encode(text, true).unwrap();
        assert_eq!(json!(ids), row["ids"], "{text:?}");
        assert_eq!(tokenizer.decode(&ids, false).unwrap(), row["decoded"].as_str().unwrap());
    }
}
