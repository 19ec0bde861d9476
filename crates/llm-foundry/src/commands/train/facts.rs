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
pub(super) fn facts(subject: &Subject, corpus: &Corpus, storage: Storage) -> Facts {
    let tuning = match &subject.tuning {
        Tuning::Lora(spec) | Tuning::Adapted(spec) => {
            serde_json::to_value(spec).expect("settings are plain data")
        }
        Tuning::Full => json!("full"),
        Tuning::Frozen => json!("none"),
    };
    let config = Value::Object(subject.hf.0.clone()).to_string();
    Facts::from([
        ("model (SHA-256 of its configuration)".to_owned(), json!(hex(&Sha256::digest(config)))),
        ("lora".to_owned(), tuning),
        ("model.dtype".to_owned(), json!(dtype_name(subject.compute))),
        ("training.bf16_stochastic_round".to_owned(), json!(storage.bf16_parameters)),
        ("training rows (SHA-256)".to_owned(), json!(fingerprint(&corpus.train.rows))),
    ])
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
