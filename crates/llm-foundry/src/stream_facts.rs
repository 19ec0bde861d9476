//! What streamed data is known by when a run goes on: the settings that decide over its rows, each under its name, its
//! files, and its first rows.

use crate::config::DataSection;
use crate::corpus::Stream;
use crate::failure::{Failure, Outcome};
use foundry_data::PackedRow;
use foundry_engine::checkpoint::Facts;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

/// The one fact of older versions, a sum over everything.
const OF_OLDER_VERSIONS: &str = "streamed data (SHA-256 of settings and ends of files)";
const FILES: &str = "files of the streamed data (SHA-256 of their sizes, starts and ends)";
const FIRST_ROWS: &str = "first rows of the streamed data (SHA-256)";
/// Keys of `data` that change no row, or say only where the files are, which have their own sum. (`on_error` decides
/// about rows that make none.)
const WITHOUT_ROWS: [&str; 10] = [
    "train",
    "name",
    "split",
    "revision",
    "eval",
    "eval_split",
    "eval_packing",
    "streaming",
    "on_error",
    "allow_missing_eos",
];
/// The same of a source, and of `decontaminate`.
const PLACES: [&str; 4] = ["path", "name", "split", "revision"];

/// The facts of a stream. (Batches are cut from the stream of rows, so that their size is none.)
pub(crate) fn stream_facts(data: &DataSection, stream: &Stream, first: &[PackedRow]) -> Outcome<Facts> {
    let mut facts = settings(data);
    let mut hash = Sha256::new();
    let spec = &stream.spec.data;
    let texts = spec.decontaminate.iter().map(|wanted| &wanted.files);
    for files in spec.sources.iter().map(|source| &source.files).chain(texts) {
        hash.update((files.len() as u64).to_le_bytes());
        for file in files {
            hash.update(file.fingerprint().map_err(Failure::input)?);
        }
    }
    facts.insert(FILES.to_owned(), json!(hex(&hash.finalize())));
    // The same settings and files with another tokenizer or template give other rows.
    facts.insert(FIRST_ROWS.to_owned(), json!(fingerprint(first)));
    Ok(facts)
}

/// The settings that are not defaults: a key that a later version adds does not separate it from this one.
fn settings(data: &DataSection) -> Facts {
    let object = |data: &DataSection| match serde_json::to_value(data) {
        Ok(Value::Object(map)) => map,
        other => unreachable!("a section is an object with text keys, not {other:?}"),
    };
    let defaults = object(&DataSection::default());
    let decides = |(key, value): &(String, Value)| {
        !WITHOUT_ROWS.contains(&key.as_str()) && defaults.get(key) != Some(value)
    };
    let mut facts = Facts::new();
    for (key, mut value) in object(data).into_iter().filter(decides) {
        match &mut value {
            Value::Array(sources) if key == "sources" => {
                sources.iter_mut().filter_map(Value::as_object_mut).for_each(without_places);
            }
            Value::Object(wanted) if key == "decontaminate" => without_places(wanted),
            _ => {}
        }
        facts.insert(format!("data.{key}"), value);
    }
    facts
}

fn without_places(section: &mut Map<String, Value>) {
    section.retain(|key, value| !PLACES.contains(&key.as_str()) && !value.is_null());
}

/// Makes the facts of a run comparable with those of a checkpoint that an older version wrote, whose sum over all
/// settings cannot be made any more: it is taken over. Whether that was so.
pub(crate) fn speak_like(checkpoint: &Facts, facts: &mut Facts) -> bool {
    let Some(old) = checkpoint.get(OF_OLDER_VERSIONS).filter(|_| facts.contains_key(FIRST_ROWS)) else {
        return false;
    };
    facts.retain(|key, _| !key.starts_with("data.") && key != FILES && key != FIRST_ROWS);
    facts.insert(OF_OLDER_VERSIONS.to_owned(), old.clone());
    true
}

/// A sum over rows.
pub(crate) fn fingerprint(rows: &[PackedRow]) -> String {
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

/// Bytes as hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Facts {
        settings(&serde_json::from_str(text).expect("a section"))
    }

    #[test]
    fn only_what_decides_over_rows_is_a_fact() {
        assert_eq!(of("{}"), Facts::new());
        let elsewhere = r#"{"train": "a.jsonl", "on_error": "skip", "eval": "b.jsonl", "streaming": true}"#;
        assert_eq!(of(elsewhere), Facts::new());
        let facts =
            of(r#"{"sources": [{"path": "a", "weight": 2}, {"path": "b", "weight": 1}], "packing": true,
                           "decontaminate": {"path": "c", "ngram": 5}}"#);
        let source = |weight: f64| json!({"weight": weight, "columns": {}, "skip": 0});
        assert_eq!(facts["data.sources"], json!([source(2.0), source(1.0)]));
        assert_eq!(
            (&facts["data.packing"], &facts["data.decontaminate"]["ngram"]),
            (&json!(true), &json!(5))
        );
        assert!(facts["data.decontaminate"].get("path").is_none(), "{facts:?}");
    }

    #[test]
    fn the_sum_of_an_older_version_is_taken_over() {
        let mut facts = Facts::from([
            ("lora".to_owned(), json!("full")),
            ("data.packing".to_owned(), json!(true)),
            (FILES.to_owned(), json!("a")),
            (FIRST_ROWS.to_owned(), json!("b")),
        ]);
        assert!(!speak_like(&Facts::new(), &mut facts) && facts.len() == 4);
        let old =
            Facts::from([("lora".to_owned(), json!("r")), (OF_OLDER_VERSIONS.to_owned(), json!("sum"))]);
        assert!(speak_like(&old, &mut facts));
        let expected =
            Facts::from([("lora".to_owned(), json!("full")), (OF_OLDER_VERSIONS.to_owned(), json!("sum"))]);
        assert_eq!(facts, expected);
    }
}
