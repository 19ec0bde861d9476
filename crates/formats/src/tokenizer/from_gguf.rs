//! The tokenizer inside a GGUF, written out as `tokenizer.json` and `tokenizer_config.json` and then read like those.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use serde_json::{Map, Value, json};

use super::special::{SpecialTokens, template};
use super::{Tokenizer, TokenizerFiles, byte_level, parse, sentencepiece};
use crate::FormatError;
use crate::gguf::{Gguf, MetaArray, MetaValue};

/// llama.cpp's token types (`enum llama_token_type`).
const CONTROL: i64 = 3;
const USER_DEFINED: i64 = 4;

/// The vocabulary as the metadata states it.
pub(super) struct Vocabulary<'a> {
    pub(super) gguf: &'a Gguf,
    pub(super) tokens: &'a [String],
    types: Vec<i64>,
}

impl Vocabulary<'_> {
    /// True for tokens that are matched whole in the text and keep their own spelling.
    pub(super) fn is_added(&self, id: usize) -> bool {
        matches!(self.types.get(id), Some(&(CONTROL | USER_DEFINED)))
    }

    /// An error about the vocabulary.
    pub(super) fn invalid(&self, problem: String) -> FormatError {
        let problem = format!("{problem}; use the tokenizer of the model's Hugging Face directory instead");
        FormatError::InvalidTokenizer { path: self.gguf.path().to_owned(), problem }
    }

    /// The token of a special role and its id.
    pub(super) fn special(&self, key: &str) -> Result<Option<(String, u32)>, FormatError> {
        let key = format!("tokenizer.ggml.{key}");
        let Some(id) = self.gguf.optional(&key, "a token id", MetaValue::as_u64)? else { return Ok(None) };
        let token = usize::try_from(id).ok().and_then(|i| self.tokens.get(i));
        let outside =
            || self.gguf.bad_key(&key, format!("{id} is not in the vocabulary of {}", self.tokens.len()));
        Ok(Some((token.ok_or_else(outside)?.clone(), id as u32)))
    }
}

/// The parts of a `tokenizer.json` that depend on the kind of tokenizer.
pub(super) struct Parts {
    pub(super) pre_tokenizer: Value,
    pub(super) decoder: Value,
    pub(super) model: Value,
    /// What the kind does if the file does not say.
    pub(super) adds_bos: bool,
}

pub(super) fn build(gguf: &Gguf) -> Result<Tokenizer, FormatError> {
    let kind = gguf.required("tokenizer.ggml.model", "a string", MetaValue::as_str)?;
    let tokens = gguf.required("tokenizer.ggml.tokens", "an array of strings", MetaValue::as_strings)?;
    let vocabulary = Vocabulary { gguf, tokens, types: token_types(gguf, tokens.len())? };
    let parts = match kind {
        "gpt2" => byte_level::parts(&vocabulary)?,
        "llama" => sentencepiece::parts(&vocabulary)?,
        other => {
            let problem =
                format!("GGUF tokenizers of kind `{other}` are not supported; `gpt2` and `llama` are");
            return Err(gguf.unsupported(problem));
        }
    };
    let roles = [
        ("bos_token", "bos_token_id"),
        ("eos_token", "eos_token_id"),
        ("unk_token", "unknown_token_id"),
        ("pad_token", "padding_token_id"),
    ];
    let mut config = Map::new();
    let mut special = Vec::new();
    for (role, key) in roles {
        if let Some((token, id)) = vocabulary.special(key)? {
            config.insert(role.to_owned(), json!(token));
            special.push((role, token, id));
        }
    }
    let flag = |key: &str| gguf.optional(key, "a boolean", MetaValue::as_bool);
    let add_bos = flag("tokenizer.ggml.add_bos_token")?.unwrap_or(parts.adds_bos);
    let add_eos = flag("tokenizer.ggml.add_eos_token")?.unwrap_or(false);
    let role =
        |role: &str| special.iter().find(|(r, ..)| *r == role).map(|(_, token, id)| (token.clone(), *id));
    let post_processor =
        template(role("bos_token").filter(|_| add_bos), role("eos_token").filter(|_| add_eos));
    let ids: Vec<u32> = special.iter().map(|(_, _, id)| *id).collect();
    let tokenizer_json = json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added_tokens(&vocabulary, &ids),
        "normalizer": null,
        "pre_tokenizer": parts.pre_tokenizer,
        "post_processor": post_processor,
        "decoder": parts.decoder,
        "model": parts.model,
    });
    config.insert("tokenizer_class".to_owned(), json!("PreTrainedTokenizerFast"));
    config.insert("clean_up_tokenization_spaces".to_owned(), json!(false));
    let template =
        gguf.optional("tokenizer.chat_template", "a string", MetaValue::as_str)?.map(str::to_owned);
    assemble(gguf.path(), &tokenizer_json, config, template)
}

fn assemble(
    path: &Path,
    tokenizer_json: &Value,
    config: Map<String, Value>,
    chat_template: Option<String>,
) -> Result<Tokenizer, FormatError> {
    let tokenizer_json = tokenizer_json.to_string().into_bytes();
    let inner = parse(&tokenizer_json, path)?;
    let special = SpecialTokens::read(&config, &Map::new());
    let stored = TokenizerFiles {
        tokenizer_json,
        config,
        config_bytes: None,
        chat_template_jinja: chat_template.clone(),
        others: Vec::new(),
    };
    let (path, stored, direct) = (path.to_owned(), Arc::new(stored), OnceLock::new());
    Ok(Tokenizer { inner, path, special, chat_template, stored, direct })
}

/// `tokenizer.ggml.token_type`, empty if absent.
fn token_types(gguf: &Gguf, tokens: usize) -> Result<Vec<i64>, FormatError> {
    let key = "tokenizer.ggml.token_type";
    let types = gguf.optional(key, "an array of integers", |v| match v {
        MetaValue::Array(MetaArray::Signed(types)) => Some(types.clone()),
        MetaValue::Array(MetaArray::Unsigned(types)) => {
            types.iter().map(|&t| i64::try_from(t).ok()).collect()
        }
        _ => None,
    })?;
    match types {
        Some(types) if types.len() != tokens => {
            Err(gguf.bad_key(key, format!("has {} entries for {tokens} tokens", types.len())))
        }
        types => Ok(types.unwrap_or_default()),
    }
}

/// Control tokens and those with a role are special; user-defined ones are matched whole without being special.
fn added_tokens(vocabulary: &Vocabulary<'_>, special_ids: &[u32]) -> Value {
    let mut added = Vec::new();
    for (id, content) in vocabulary.tokens.iter().enumerate() {
        let kind = vocabulary.types.get(id).copied();
        let special = kind == Some(CONTROL) || special_ids.contains(&(id as u32));
        if (special || kind == Some(USER_DEFINED)) && !content.is_empty() {
            added.push(json!({
                "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": special,
            }));
        }
    }
    Value::Array(added)
}
