//! What a checkpoint is bound to besides its training arguments: model, tuning, number format, data.

use crate::config::DataSection;
use crate::corpus::Corpus;
use crate::failure::Outcome;
use crate::machine::dtype_name;
use crate::stream_facts::{fingerprint, hex, stream_facts};
use crate::subject::Subject;
use foundry_engine::checkpoint::Facts;
use foundry_formats::{FormatError, ModelFiles};
use foundry_models::{Storage, Tuning};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::ops::Range;

/// Name of the fact that says which moment chat templates have told, in seconds since 1970: a run that goes on tells
/// the same, so that its rows stay what they were.
pub(super) const RENDERED_AT: &str = "moment told by the chat template";

/// That moment, of the run that is gone on with.
pub(super) fn rendered_at(facts: &Facts) -> Option<i64> {
    facts.get(RENDERED_AT)?.as_i64()
}

/// Facts that must be the same when a run goes on. The model is known by its shapes, not by its path: it may be moved.
///
/// If only the base's weights cannot be read, the facts are without them, and say why.
pub(super) fn facts(
    subject: &Subject,
    data: &DataSection,
    corpus: &Corpus,
    storage: &Storage,
) -> Outcome<(Facts, Option<FormatError>)> {
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
    ]);
    facts.extend(training_data(data, corpus)?);
    // Full fine-tuning has every weight in the checkpoint; an adapter says nothing without its base.
    let files = subject.files.as_ref().filter(|_| matches!(subject.tuning, Tuning::Lora(_)));
    let unreadable = match files.map(base_weights) {
        Some(Ok(base)) => {
            facts.insert("base weights (SHA-256 of a sample)".to_owned(), json!(base));
            None
        }
        Some(Err(error)) => Some(error),
        None => None,
    };
    Ok((facts, unreadable))
}

/// Numbers read of each tensor, in pieces spread over it.
const PIECES: usize = 8;
const PIECE: usize = 64;

/// A fingerprint of the base model's weights: names, shapes, and some numbers of each tensor. Two fine-tunes of one
/// model differ in nearly all numbers, so that a sample tells them apart, in milliseconds.
fn base_weights(files: &ModelFiles) -> Result<String, FormatError> {
    let weights = files.weights()?;
    let mut hash = Sha256::new();
    for tensor in weights.tensors() {
        hash.update(format!("{} {:?}\n", tensor.name, tensor.shape));
        // Codes of a model that is stored quantised, and other integers, are no numbers to widen.
        match (tensor.dtype.is_float(), weights.raw(&tensor.name)?) {
            (false, Some(bytes)) => pieces(bytes.len(), |range| {
                hash.update(&bytes[range]);
                Ok(())
            })?,
            _ => pieces(tensor.elements(), |range| {
                let mut piece = vec![0.0f32; range.len()];
                weights.read_f32(&tensor.name, range.start, &mut piece)?;
                hash.update(piece.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>());
                Ok(())
            })?,
        }
    }
    Ok(hex(&hash.finalize()))
}

/// Calls `take` with pieces that are spread over `0..length`.
fn pieces<E>(length: usize, mut take: impl FnMut(Range<usize>) -> Result<(), E>) -> Result<(), E> {
    let piece = PIECE.min(length);
    (0..PIECES).try_for_each(|index| {
        // In wide numbers: a product of two sizes.
        let start = ((length - piece) as u128 * index as u128 / (PIECES as u128 - 1)) as usize;
        take(start..start + piece)
    })
}

/// What identifies the training data: its rows; of token files their sums and the order of their documents; of a stream
/// its settings and files.
fn training_data(data: &DataSection, corpus: &Corpus) -> Outcome<Facts> {
    if let Some(stream) = &corpus.stream {
        return stream_facts(data, stream, &corpus.train.rows);
    }
    let (name, sum) = match &corpus.indexed {
        Some(rows) => ("indexed tokens (SHA-256 of their sums and their order)", rows.sha256()),
        None => ("training rows (SHA-256)", fingerprint(&corpus.train.rows)),
    };
    Ok(Facts::from([(name.to_owned(), json!(sum))]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use foundry_formats::StoredDtype;
    use foundry_formats::safetensors::{Entry, Writer};

    /// A model of a float tensor and one of codes, as bitsandbytes stores quantised weights.
    fn print_of(code: u8) -> String {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::write(dir.path().join("config.json"), "{}").expect("written");
        let entries =
            [Entry::new("codes", StoredDtype::U8, &[900, 1]), Entry::new("norm", StoredDtype::F32, &[2])];
        let mut writer =
            Writer::create(&dir.path().join("model.safetensors"), &entries, &[]).expect("created");
        writer.write_bytes("codes", &[code; 900]).expect("written");
        writer.write_f32("norm", &[1.0, 2.0]).expect("written");
        writer.finish().expect("finished");
        base_weights(&ModelFiles::open(dir.path()).expect("a model")).expect("a fingerprint")
    }

    #[test]
    fn a_base_that_is_stored_quantised_has_a_fingerprint() {
        assert_eq!(print_of(7), print_of(7));
        assert_ne!(print_of(7), print_of(8));
    }
}
