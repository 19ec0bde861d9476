//! What decides over tokens and masks, and so is settled when they are written: a later run that asks for something
//! else is refused, not ignored.

use foundry_formats::Tokenizer;
use serde::Serialize;
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use super::manifest::TokenizerRecord;
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

/// Which tokenizer this is: equal for tokenizers that give equal ids, whatever file they come from.
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
    TokenizerRecord { sha256: hex(&hash.finalize()), ids }
}

/// The settings of a source that are settled in its tokens, by the names of the configuration.
pub(super) fn settled(spec: &DataSpec, source: &Source) -> Map<String, Value> {
    let filter = &spec.filter;
    let decontaminate = spec.decontaminate.as_ref().map(|wanted| (wanted.ngram, wanted.drop));
    let pairs = [
        ("format", json(&source.format)),
        ("text_field", json(&source.text_field)),
        ("columns", json(&source.columns)),
        ("sample_by", json(&spec.sample_by)),
        ("completion_only_loss", json(&spec.completion_only_loss)),
        ("assistant_only_loss", json(&spec.assistant_only_loss)),
        ("train_on", json(&spec.train_on)),
        ("multi_turn", json(&spec.multi_turn)),
        ("append_eos", json(&spec.append_eos)),
        ("chat_template_kwargs", json(&spec.chat_template_kwargs)),
        ("filter", json(&(filter.min_chars, filter.max_chars, filter.charset, filter.min_charset_fraction))),
        ("deduplicate", json(&spec.deduplicate)),
        ("decontaminate", json(&decontaminate)),
    ];
    pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

/// The settings of several sources; where they differ, a list of what each has.
pub(super) fn of_all(spec: &DataSpec, sources: &[Source]) -> Map<String, Value> {
    let each: Vec<_> = sources.iter().map(|source| settled(spec, source)).collect();
    let mut all = each.first().cloned().unwrap_or_default();
    for (key, value) in &mut all {
        if each.iter().any(|other| other[key] != *value) {
            *value = each.iter().map(|other| other[key].clone()).collect();
        }
    }
    all
}

/// The first setting that a run asks for (that is, not its default) and that the tokens were not made with.
pub(super) fn contradiction(
    spec: &DataSpec,
    source: &Source,
    recorded: &Map<String, Value>,
) -> Option<(String, Value, Value)> {
    let defaults = settled(&DataSpec::default(), &Source::default());
    let asked = settled(spec, source).into_iter().filter(|(key, value)| defaults[key] != *value);
    let mut other = asked.filter(|(key, value)| recorded.get(key) != Some(value));
    let (key, asked) = other.next()?;
    let recorded = recorded.get(&key).cloned().unwrap_or_default();
    Some((key, asked, recorded))
}

fn json(value: &impl Serialize) -> Value {
    serde_json::to_value(value).expect("settings are plain data")
}

/// Bytes as hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
