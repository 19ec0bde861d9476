//! What a checkpoint is bound to besides its training arguments: model, tuning, number format, data.

use crate::corpus::Corpus;
use crate::machine::dtype_name;
use crate::subject::Subject;
use foundry_data::PackedRow;
use foundry_engine::checkpoint::Facts;
use foundry_models::{Storage, Tuning};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// Facts that must be the same when a run goes on. The model is known by its shapes, not by its path: it may be moved.
pub(super) fn facts(subject: &Subject, corpus: &Corpus, storage: &Storage) -> Facts {
    let tuning = match &subject.tuning {
        Tuning::Lora(spec) | Tuning::Adapted(spec) => {
            serde_json::to_value(spec).expect("settings are plain data")
        }
        Tuning::Full => json!("full"),
        Tuning::Frozen => json!("none"),
    };
    let config = Value::Object(subject.hf.0.clone()).to_string();
    let mut facts = Facts::from([
        ("model (SHA-256 of its configuration)".to_owned(), json!(hex(&Sha256::digest(config)))),
        ("lora".to_owned(), tuning),
        ("model.dtype".to_owned(), json!(dtype_name(subject.compute))),
        (
            "quantization".to_owned(),
            json!(storage.quantization.as_ref().map(|w| format!("{:?} but {:?}", w.kind, w.skip))),
        ),
        ("training.bf16_stochastic_round".to_owned(), json!(storage.bf16_parameters)),
        ("training rows (SHA-256)".to_owned(), json!(fingerprint(&corpus.train.rows))),
    ]);
    // Full fine-tuning has every weight in the checkpoint; an adapter says nothing without its base.
    if let Some(base) = base_weights(subject).filter(|_| matches!(subject.tuning, Tuning::Lora(_))) {
        facts.insert("base weights (SHA-256 of a sample)".to_owned(), json!(base));
    }
    facts
}

/// Numbers read of each tensor, in pieces spread over it.
const PIECES: usize = 8;
const PIECE: usize = 64;

/// A fingerprint of the base model's weights: names, shapes, and some numbers of each tensor. Two fine-tunes of one
/// model differ in nearly all numbers, so that a sample tells them apart, in milliseconds.
fn base_weights(subject: &Subject) -> Option<String> {
    let weights = subject.files.as_ref()?.weights().ok()?;
    let mut hash = Sha256::new();
    for tensor in weights.tensors() {
        let elements = tensor.elements();
        hash.update(format!("{} {:?}\n", tensor.name, tensor.shape));
        let mut piece = vec![0.0f32; PIECE.min(elements)];
        for index in 0..PIECES {
            let start = (elements - piece.len()) * index / (PIECES - 1);
            weights.read_f32(&tensor.name, start, &mut piece).ok()?;
            hash.update(piece.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>());
        }
    }
    Some(hex(&hash.finalize()))
}

fn fingerprint(rows: &[PackedRow]) -> String {
    let mut hash = Sha256::new();
    let mut bytes = Vec::new();
    for row in rows {
        bytes.clear();
        bytes.extend((row.tokens.len() as u64).to_le_bytes());
        bytes.extend(row.tokens.iter().flat_map(|t| t.to_le_bytes()));
        bytes.extend(row.labels.iter().flat_map(|l| l.to_le_bytes()));
        bytes.extend(row.seq_lens.iter().flat_map(|l| l.to_le_bytes()));
        hash.update(&bytes);
    }
    hex(&hash.finalize())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
