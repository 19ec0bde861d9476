//! What a checkpoint is bound to besides its training arguments: model, tuning, number format, data.

use crate::corpus::Corpus;
use crate::machine::dtype_name;
use crate::subject::Subject;
use foundry_data::PackedRow;
use foundry_engine::checkpoint::Facts;
use foundry_models::{Storage, Tuning};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// Name of the fact that says which moment chat templates have told, in seconds since 1970: a run that goes on tells
/// the same, so that its rows stay what they were.
pub(super) const RENDERED_AT: &str = "moment told by the chat template";

/// That moment, of the run that is gone on with.
pub(super) fn rendered_at(facts: &Facts) -> Option<i64> {
    facts.get(RENDERED_AT)?.as_i64()
}

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
        training_data(corpus),
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

/// What identifies the training data: its rows, or, of a stream, the settings and the ends of its files.
fn training_data(corpus: &Corpus) -> (String, Value) {
    let Some(stream) = &corpus.stream else {
        return ("training rows (SHA-256)".to_owned(), json!(fingerprint(&corpus.train.rows)));
    };
    let mut spec = stream.spec.clone();
    // Neither changes a row.
    (spec.data.dataset_num_proc, spec.data.eos_token_ids) = (None, Vec::new());
    let mut hash = Sha256::new();
    for file in spec.data.sources.iter_mut().flat_map(|source| &mut source.files) {
        hash.update(file.fingerprint().unwrap_or_default());
        // The file may have been moved.
        *file = foundry_data::DataFile::local(file.path().file_name().unwrap_or_default());
    }
    hash.update(format!("{spec:?}"));
    // The same settings and files with another tokenizer or template give other rows.
    hash.update(fingerprint(&corpus.train.rows));
    ("streamed data (SHA-256 of settings and ends of files)".to_owned(), json!(hex(&hash.finalize())))
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
