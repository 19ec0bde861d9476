//! GGUF tokenizers of kind `llama`: SentencePiece's BPE with scores and byte fallback.

use std::cmp::Ordering;
use std::collections::HashMap;

use serde_json::{Map, Value, json};

use super::from_gguf::{Parts, Vocabulary};
use crate::FormatError;
use crate::gguf::{MetaArray, MetaValue};

/// SentencePiece's stand-in for a space.
const SPACE: &str = "▁";
/// Longest token whose splits are searched for merges: the search is quadratic, real pieces have a few dozen letters.
const MAX_PIECE: usize = 1024;

pub(super) fn parts(vocabulary: &Vocabulary<'_>) -> Result<Parts, FormatError> {
    let mut vocab = Map::new();
    for (id, token) in vocabulary.tokens.iter().enumerate() {
        if let Some(first) = vocab.insert(token.clone(), json!(id)) {
            return Err(vocabulary.invalid(format!("tokens {first} and {id} are both `{token}`")));
        }
    }
    let prefix =
        vocabulary.gguf.optional("tokenizer.ggml.add_space_prefix", "a boolean", MetaValue::as_bool)?;
    let prefix = prefix.unwrap_or(true);
    let scheme = if prefix { "first" } else { "never" };
    let pre_tokenizer =
        json!({ "type": "Metaspace", "replacement": SPACE, "prepend_scheme": scheme, "split": false });
    let mut decoders = vec![
        json!({ "type": "Replace", "pattern": { "String": SPACE }, "content": " " }),
        json!({ "type": "ByteFallback" }),
        json!({ "type": "Fuse" }),
    ];
    if prefix {
        decoders.push(json!({ "type": "Strip", "content": " ", "start": 1, "stop": 0 }));
    }
    let model = json!({
        "type": "BPE",
        "dropout": null,
        "unk_token": vocabulary.special("unknown_token_id")?.map(|(token, _)| token),
        "continuing_subword_prefix": null,
        "end_of_word_suffix": null,
        "fuse_unk": true,
        "byte_fallback": true,
        "ignore_merges": false,
        "vocab": vocab,
        "merges": merges(vocabulary)?,
    });
    let decoder = json!({ "type": "Sequence", "decoders": decoders });
    Ok(Parts { pre_tokenizer, decoder, model, adds_bos: true })
}

/// The merges that the scores imply: every split of a token into two tokens, the highest score first; among equals
/// longer left parts, then longer right parts, then the file's order (transformers, `generate_merges`).
fn merges(vocabulary: &Vocabulary<'_>) -> Result<Value, FormatError> {
    let scores = scores(vocabulary)?;
    let ids: HashMap<&str, usize> =
        vocabulary.tokens.iter().enumerate().map(|(i, t)| (t.as_str(), i)).collect();
    let mut merges = Vec::new();
    for (token, &score) in vocabulary.tokens.iter().zip(&scores) {
        let length = token.chars().count();
        if length > MAX_PIECE {
            return Err(vocabulary.invalid(format!("a token has {length} characters")));
        }
        let splits = token.char_indices().skip(1).enumerate().filter_map(|(before, (at, _))| {
            let (left, right) = token.split_at(at);
            let key = (*ids.get(left)?, *ids.get(right)?);
            Some((key, Merge { left, right, score, left_len: before + 1, right_len: length - before - 1 }))
        });
        let mut local: Vec<_> = splits.collect();
        local.sort_by_key(|(key, _)| *key);
        merges.extend(local.into_iter().map(|(_, merge)| merge));
    }
    merges.sort_by(Merge::best_first);
    Ok(merges.iter().map(|m| json!([m.left, m.right])).collect())
}

struct Merge<'a> {
    left: &'a str,
    right: &'a str,
    score: f32,
    left_len: usize,
    right_len: usize,
}

impl Merge<'_> {
    fn best_first(&self, other: &Self) -> Ordering {
        // Adding zero makes -0 equal to 0, as Python compares them; NaN still has a place in the order.
        let by_score = (other.score + 0.0).total_cmp(&(self.score + 0.0));
        by_score.then(other.left_len.cmp(&self.left_len)).then(other.right_len.cmp(&self.right_len))
    }
}

/// `tokenizer.ggml.scores`, one per token.
fn scores(vocabulary: &Vocabulary<'_>) -> Result<Vec<f32>, FormatError> {
    let key = "tokenizer.ggml.scores";
    let scores = vocabulary.gguf.required(key, "an array of floats", |v| match v {
        MetaValue::Array(MetaArray::F32(scores)) => Some(scores.clone()),
        _ => None,
    })?;
    if scores.len() != vocabulary.tokens.len() {
        let problem = format!("has {} entries for {} tokens", scores.len(), vocabulary.tokens.len());
        return Err(vocabulary.gguf.bad_key(key, problem));
    }
    Ok(scores)
}
