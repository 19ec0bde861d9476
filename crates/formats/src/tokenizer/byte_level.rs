//! GGUF tokenizers of kind `gpt2`: byte-level BPE with merges, text split by a pattern that `tokenizer.ggml.pre` names.

use std::collections::HashSet;

use serde_json::{Map, Value, json};

use super::byte_atoms::alphabet;
use super::from_gguf::{Parts, Vocabulary};
use crate::FormatError;
use crate::gguf::MetaValue;

/// How text is cut before merging.
enum Split {
    /// GPT-2's own pattern, built into the byte-level pre-tokenizer.
    Gpt2,
    /// This pattern.
    Pattern(&'static str),
}

/// One `tokenizer.ggml.pre`: its name, the pattern, and whether a piece that is a token as it stands is taken whole
/// (`ignore_merges` in `tokenizer.json`).
struct Pre {
    names: &'static [&'static str],
    split: Split,
    ignore_merges: bool,
}

/// Llama 3's pattern (its tokenizer.json; also tiktoken's cl100k with possessive quantifiers written out).
pub(super) const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// Qwen 2's pattern: digits one by one.
pub(super) const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// Mistral's Tekken pattern.
const TEKKEN: &str = concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+",
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*",
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);

/// Patterns by name. As in transformers 5.23 (`integrations/gguf/gguf_tokenizer_mapping.py`), so that ids equal its
/// ids: in particular `smollm` is GPT-2's pattern there. (The model's own tokenizer.json also cuts digits apart first,
/// which differs only in which token takes the spaces before a number.) `ignore_merges` as in Llama 3's tokenizer.json.
const PRES: [Pre; 4] = [
    Pre { names: &["gpt-2", "gpt2", "default", "smollm"], split: Split::Gpt2, ignore_merges: false },
    Pre {
        names: &["llama-bpe", "llama3", "llama-v3", "pixtral"],
        split: Split::Pattern(LLAMA3),
        ignore_merges: true,
    },
    Pre {
        names: &["qwen2", "deepseek-r1-qwen", "megrez"],
        split: Split::Pattern(QWEN2),
        ignore_merges: false,
    },
    Pre { names: &["tekken"], split: Split::Pattern(TEKKEN), ignore_merges: true },
];

/// A key of ours: the pre-tokenizer `smollm` is meant as llama.cpp and the model's own tokenizer.json read it, with
/// digits cut apart first. Without it the name is read as transformers reads it (docs/decisions.md, 13 and 70).
pub(super) const DIGITS_KEY: &str = "llm_foundry.tokenizer.individual_digits";

/// The name under which llama.cpp knows a byte-level `tokenizer.json`.
pub(super) struct PreName {
    pub(super) name: &'static str,
    /// Digits are cut apart first.
    pub(super) digits: bool,
    pub(super) warning: Option<String>,
}

/// Recognises the pre-tokenizer by what it does. (llama.cpp's converter hashes the ids of a fixed text, which tells
/// the same apart, but cannot say what is different about an unknown one.)
pub(super) fn pre_of(json: &Value) -> Result<PreName, String> {
    let parts = match json["pre_tokenizer"]["pretokenizers"].as_array() {
        Some(parts) => parts.clone(),
        None => vec![json["pre_tokenizer"].clone()],
    };
    let kinds: Vec<&str> = parts.iter().map(|part| part["type"].as_str().unwrap_or("null")).collect();
    let unknown = || {
        let known: Vec<_> = PRES.iter().map(|pre| pre.names[0]).collect();
        Err(format!(
            "its pre-tokenizer ({}) is none of those that GGUF has a name for here: {known:?}",
            kinds.join(", ")
        ))
    };
    let last = parts.last().filter(|part| part["type"] == "ByteLevel" && part["add_prefix_space"] != true);
    let Some(last) = last else { return unknown() };
    let uses_regex = last["use_regex"].as_bool().unwrap_or(true);
    let ignores_merges = json["model"]["ignore_merges"].as_bool().unwrap_or(false);
    let (name, digits, ignore_merges) = match (kinds.as_slice(), uses_regex) {
        (["ByteLevel"], true) => ("gpt-2", false, false),
        (["Digits", "ByteLevel"], true) if parts[0]["individual_digits"] == true => ("smollm", true, false),
        (["Split", "ByteLevel"], false) => {
            let pattern = parts[0]["pattern"]["Regex"].as_str().unwrap_or_default();
            let is_plain = parts[0]["behavior"] == "Isolated" && parts[0]["invert"] != true;
            let found =
                PRES.iter().find(|pre| matches!(pre.split, Split::Pattern(p) if p == pattern && is_plain));
            let Some(pre) = found else { return unknown() };
            (pre.names[0], false, pre.ignore_merges)
        }
        _ => return unknown(),
    };
    let mut problems = Vec::new();
    if !json["normalizer"].is_null() {
        problems.push(format!(
            "llama.cpp does not apply the tokenizer's normalizer ({})",
            json["normalizer"]["type"]
        ));
    }
    if ignores_merges != ignore_merges {
        problems.push(format!(
            "`ignore_merges` is {ignores_merges}, which llama.cpp assumes to be {ignore_merges}"
        ));
    }
    let warning = (!problems.is_empty())
        .then(|| format!("{}: some texts may get other token ids there", problems.join("; ")));
    Ok(PreName { name, digits, warning })
}

pub(super) fn parts(vocabulary: &Vocabulary<'_>) -> Result<Parts, FormatError> {
    let gguf = vocabulary.gguf;
    let name = gguf.optional("tokenizer.ggml.pre", "a string", MetaValue::as_str)?.unwrap_or("default");
    let Some(pre) = PRES.iter().find(|pre| pre.names.contains(&name)) else {
        let known: Vec<_> = PRES.iter().flat_map(|pre| pre.names).collect();
        return Err(vocabulary.invalid(format!("`tokenizer.ggml.pre` is `{name}`; known are {known:?}")));
    };
    let byte_level = |use_regex: bool| json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": use_regex });
    let digits = gguf.optional(DIGITS_KEY, "a boolean", MetaValue::as_bool)?.unwrap_or(false);
    let pre_tokenizer = match pre.split {
        Split::Gpt2 if digits => {
            let digits = json!({ "type": "Digits", "individual_digits": true });
            json!({ "type": "Sequence", "pretokenizers": [digits, byte_level(true)] })
        }
        Split::Gpt2 => byte_level(true),
        Split::Pattern(pattern) => {
            let split = json!({ "type": "Split", "pattern": { "Regex": pattern }, "behavior": "Isolated", "invert": false });
            json!({ "type": "Sequence", "pretokenizers": [split, byte_level(false)] })
        }
    };
    let decoder =
        json!({ "type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true });
    let model = json!({
        "type": "BPE",
        "dropout": null,
        "unk_token": null,
        "continuing_subword_prefix": "",
        "end_of_word_suffix": "",
        "fuse_unk": false,
        "byte_fallback": false,
        "ignore_merges": pre.ignore_merges,
        "vocab": vocab(vocabulary)?,
        "merges": merges(vocabulary)?,
    });
    Ok(Parts { pre_tokenizer, decoder, model, adds_bos: false })
}

/// Token → id. Tokens spelled in the byte alphabet, and those matched whole, stay as they are; any other is respelled
/// byte by byte.
fn vocab(vocabulary: &Vocabulary<'_>) -> Result<Value, FormatError> {
    let spelling = alphabet();
    let letters: HashSet<char> = spelling.iter().copied().collect();
    let mut vocab = Map::new();
    for (id, token) in vocabulary.tokens.iter().enumerate() {
        let token = if vocabulary.is_added(id) || token.chars().all(|c| letters.contains(&c)) {
            token.clone()
        } else {
            token.bytes().map(|byte| spelling[usize::from(byte)]).collect()
        };
        if let Some(first) = vocab.insert(token.clone(), json!(id)) {
            return Err(vocabulary.invalid(format!("tokens {first} and {id} are both `{token}`")));
        }
    }
    Ok(Value::Object(vocab))
}

/// `tokenizer.ggml.merges`, each "left right".
fn merges(vocabulary: &Vocabulary<'_>) -> Result<Value, FormatError> {
    let merges =
        vocabulary.gguf.required("tokenizer.ggml.merges", "an array of strings", MetaValue::as_strings)?;
    let pair = |merge: &String| match merge.split_once(' ') {
        Some((left, right)) if !left.is_empty() && !right.is_empty() && !right.contains(' ') => {
            Ok(json!([left, right]))
        }
        _ => Err(vocabulary.invalid(format!("the merge `{merge}` is not two parts"))),
    };
    merges.iter().map(pair).collect::<Result<Vec<_>, _>>().map(Value::Array)
}
