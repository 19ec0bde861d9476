//! What decides over tokens and masks, and so is settled when they are written: a later run that asks for something
//! else is refused, not ignored.

use std::collections::BTreeMap;

use foundry_formats::Tokenizer;
use serde::Serialize;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use super::manifest::TokenizerRecord;
use crate::error::DataError;
use crate::shape::Shape;
use crate::spec::{DataSpec, Source};

/// Texts whose ids belong to a tokenizer's fingerprint: what vocabularies alone do not tell is how text is cut, cased
/// and prepared.
const PROBES: [&str; 5] = [
    "Hello, world! 3.14159 + 2024 = ?",
    "  leading spaces,\ttabs\n\nand line breaks  ",
    "Überstraße naïve İstanbul ﬁ 東京 Привет 🙂",
    "don't can't we'll I'm fn main() { println!(\"x\"); }",
    "<s>user</s> aaaaaaaaaaaaaaaaaaaa 1234567890123",
];

/// Which tokenizer this is: equal for tokenizers that give equal ids, whatever file they come from. Where both come
/// from a `tokenizer.json`, their rules are compared as well.
pub(crate) fn fingerprint(tokenizer: &Tokenizer) -> TokenizerRecord {
    let vocabulary = tokenizer.vocabulary();
    let mut hash = Sha256::new();
    for (id, token) in &vocabulary {
        hash.update(id.to_le_bytes());
        hash.update((token.len() as u64).to_le_bytes());
        hash.update(token);
    }
    for probe in PROBES {
        for special in [false, true] {
            let ids = tokenizer.encode(probe, special).unwrap_or_default();
            hash.update((ids.len() as u64).to_le_bytes());
            ids.iter().for_each(|id| hash.update(id.to_le_bytes()));
        }
    }
    let ids = vocabulary.last().map_or(0, |(largest, _)| largest.saturating_add(1));
    let rules = tokenizer.rules().map(|rules| hex(&Sha256::digest(rules)));
    TokenizerRecord { sha256: hex(&hash.finalize()), ids, rules }
}

/// The chat template of a run.
pub(super) fn template<'a>(spec: &'a DataSpec, tokenizer: &'a Tokenizer) -> Option<&'a str> {
    spec.chat_template.as_deref().or(tokenizer.chat_template())
}

/// The named special tokens that decide over the tokens of rows of these shapes.
pub(super) fn special_tokens(
    spec: &DataSpec,
    tokenizer: &Tokenizer,
    shapes: &[Shape],
) -> BTreeMap<String, String> {
    let ends_texts = spec.append_eos && shapes.iter().any(|shape| !shape.is_chat());
    let template = template(spec, tokenizer).filter(|_| shapes.iter().any(|shape| shape.is_chat()));
    let is_used = |name: &str| {
        (ends_texts && name == "eos_token") || template.is_some_and(|template| template.contains(name))
    };
    tokenizer.special_tokens().into_iter().filter(|(name, _)| is_used(name)).collect()
}

/// The settings of a source that are settled in its tokens, by the names of the configuration.
fn settled(spec: &DataSpec, source: &Source) -> Result<Map<String, Value>, DataError> {
    let filter = &spec.filter;
    let mut decontaminate = Value::Null;
    if let Some(wanted) = &spec.decontaminate {
        let texts = wanted.files.iter().map(|file| Ok(hex(&file.fingerprint()?)));
        let texts = texts.collect::<Result<Vec<String>, DataError>>()?;
        decontaminate = json!({"ngram": wanted.ngram, "drop": wanted.drop, "texts": texts});
    }
    let mut of_filter =
        plain(&(filter.min_chars, filter.max_chars, filter.charset, filter.min_charset_fraction));
    if let (Some(list), true) = (of_filter.as_array_mut(), filter.drop_empty_answers) {
        // Only where it is set: older manifests do not know it.
        list.push(true.into());
    }
    let pairs = [
        ("format", plain(&source.format)),
        ("text_field", plain(&source.text_field)),
        ("columns", plain(&source.columns)),
        ("sample_by", plain(&spec.sample_by)),
        ("completion_only_loss", plain(&spec.completion_only_loss)),
        ("assistant_only_loss", plain(&spec.assistant_only_loss)),
        ("train_on", plain(&spec.train_on)),
        ("multi_turn", plain(&spec.multi_turn)),
        ("append_eos", plain(&spec.append_eos)),
        ("chat_template_kwargs", plain(&spec.chat_template_kwargs)),
        ("filter", of_filter),
        ("deduplicate", plain(&spec.deduplicate)),
        ("decontaminate", decontaminate),
    ];
    Ok(pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
}

/// The settings of several sources; where they differ, a list of what each has.
pub(super) fn of_all(spec: &DataSpec, sources: &[Source]) -> Result<Map<String, Value>, DataError> {
    let each = sources.iter().map(|source| settled(spec, source)).collect::<Result<Vec<_>, _>>()?;
    let mut all = each.first().cloned().unwrap_or_default();
    for (key, value) in &mut all {
        if each.iter().any(|other| other[key] != *value) {
            *value = each.iter().map(|other| other[key].clone()).collect();
        }
    }
    Ok(all)
}

/// The first setting that a run asks for and that the tokens were not made with: one that was given, or that is not its
/// default.
pub(super) fn contradiction(
    spec: &DataSpec,
    source: &Source,
    recorded: &Map<String, Value>,
) -> Result<Option<(String, Value, Value)>, DataError> {
    let defaults = settled(&DataSpec::default(), &Source::default())?;
    // A format that is to be found out is no demand.
    let demands = |key: &String, value: &Value| key != "format" || value != "auto";
    let is_asked = |key: &String, value: &Value| {
        (source.given.contains(key) && demands(key, value)) || defaults[key] != *value
    };
    let asked = settled(spec, source)?.into_iter().filter(|(key, value)| is_asked(key, value));
    let mut other = asked.filter(|(key, value)| recorded.get(key) != Some(value));
    Ok(other.next().map(|(key, asked)| {
        let recorded = recorded.get(&key).cloned().unwrap_or_default();
        (key, asked, recorded)
    }))
}

fn plain(value: &impl Serialize) -> Value {
    serde_json::to_value(value).expect("settings are plain data")
}

/// Bytes as hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
