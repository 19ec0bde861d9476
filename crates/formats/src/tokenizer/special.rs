//! Special tokens: their roles, their place in the vocabulary, and the BOS/EOS template.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value, json};
use tokenizers::AddedToken;

use super::guard::guarded;
use crate::FormatError;

/// The roles that transformers gives special tokens, in its order.
const ROLES: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// Which token plays which role, and special tokens without a role.
#[derive(Clone, Debug, Default)]
pub(super) struct SpecialTokens {
    roles: Vec<(&'static str, String)>,
    /// `additional_special_tokens` (transformers 4) or `extra_special_tokens` (5).
    others: Vec<String>,
}

impl SpecialTokens {
    /// Roles from `tokenizer_config.json`, filled up from `special_tokens_map.json`. A token is a string or an
    /// object with `content`.
    pub(super) fn read(config: &Map<String, Value>, map: &Map<String, Value>) -> Self {
        let find = |role: &str| content(config.get(role)).or_else(|| content(map.get(role)));
        let roles = ROLES.iter().filter_map(|&role| Some((role, find(role)?))).collect();
        let keys = ["additional_special_tokens", "extra_special_tokens"];
        let lists = keys.iter().flat_map(|key| [config.get(*key), map.get(*key)]).flatten();
        let tokens = lists.flat_map(|list| match list {
            Value::Array(tokens) => tokens.iter().collect(),
            Value::Object(by_name) => by_name.values().collect(),
            _ => Vec::new(),
        });
        Self { roles, others: tokens.filter_map(|token| content(Some(token))).collect() }
    }

    pub(super) fn get(&self, role: &str) -> Option<&str> {
        self.roles.iter().find(|(r, _)| *r == role).map(|(_, token)| token.as_str())
    }

    pub(super) fn set(&mut self, role: &'static str, token: &str) {
        match self.roles.iter_mut().find(|(r, _)| *r == role) {
            Some((_, old)) => token.clone_into(old),
            None => self.roles.push((role, token.to_owned())),
        }
    }

    pub(super) fn named(&self) -> Vec<(String, String)> {
        self.roles.iter().map(|(role, token)| ((*role).to_owned(), token.clone())).collect()
    }

    /// Every one becomes a special token of the tokenizer, as transformers sees to it. One that the vocabulary lacks
    /// gets the next free id.
    pub(super) fn register(&self, inner: &mut tokenizers::Tokenizer, path: &Path) -> Result<(), FormatError> {
        let known = inner.get_added_tokens_decoder();
        let is_special = |t: &str| known.values().any(|k| k.special && k.content == t);
        let all = self.roles.iter().map(|(_, token)| token).chain(&self.others);
        let missing: Vec<_> = all.filter(|token| !is_special(token)).cloned().collect();
        let missing = missing.into_iter().map(|t| AddedToken::from(t, true));
        guarded(|| inner.add_special_tokens(missing)).map(|_| ()).map_err(|e| cannot_add(path, &e))
    }
}

/// A token given as a string or as an object with `content`.
fn content(token: Option<&Value>) -> Option<String> {
    match token? {
        Value::String(token) => Some(token.clone()),
        Value::Object(token) => token.get("content")?.as_str().map(str::to_owned),
        _ => None,
    }
}

/// Tokens that `added_tokens_decoder` (in `tokenizer_config.json`) or `added_tokens.json` list by id, but
/// `tokenizer.json` lacks: they are added, and must come out at the ids listed.
pub(super) fn add_listed_tokens(
    inner: &mut tokenizers::Tokenizer,
    config: &Map<String, Value>,
    added_tokens: &Map<String, Value>,
    path: &Path,
) -> Result<(), FormatError> {
    let mut missing: BTreeMap<u64, AddedToken> = BTreeMap::new();
    for (token, id) in added_tokens {
        if inner.token_to_id(token).is_none() {
            let id = id
                .as_u64()
                .ok_or_else(|| invalid(path, format!("the id of added token `{token}` is {id}")))?;
            missing.insert(id, AddedToken::from(token.clone(), false));
        }
    }
    let listed = config.get("added_tokens_decoder").and_then(Value::as_object);
    for (id, token) in listed.into_iter().flatten() {
        let bad = |what: &str| invalid(path, format!("added_tokens_decoder: `{id}` {what}"));
        let number = id.parse().map_err(|_| bad("is not an id"))?;
        let token: AddedToken =
            serde_json::from_value(token.clone()).map_err(|_| bad("is not a token object"))?;
        if inner.token_to_id(&token.content).is_none() {
            missing.insert(number, token);
        }
    }
    for (id, token) in missing {
        let content = token.content.clone();
        let result = guarded(|| {
            if token.special { inner.add_special_tokens([token]) } else { inner.add_tokens([token]) }
        });
        result.map_err(|e| cannot_add(path, &e))?;
        let got = inner.token_to_id(&content).map(u64::from);
        if got != Some(id) {
            let got = got.map_or("none".to_owned(), |g| g.to_string());
            return Err(invalid(
                path,
                format!("added token `{content}` is listed with id {id}, but would get {got}"),
            ));
        }
    }
    Ok(())
}

/// Adds tokens to the tokenizer and to the text of its `tokenizer.json`.
pub(super) fn add_tokens(
    inner: &mut tokenizers::Tokenizer,
    tokenizer_json: &mut Vec<u8>,
    tokens: &[String],
    special: bool,
    path: &Path,
) -> Result<Vec<u32>, FormatError> {
    if tokens.iter().any(String::is_empty) {
        return Err(invalid(path, "an empty text cannot be added as a token".into()));
    }
    let mut json: Value = serde_json::from_slice(tokenizer_json)
        .map_err(|e| FormatError::InvalidJson { path: path.to_owned(), problem: e.to_string() })?;
    let added = tokens.iter().map(|token| AddedToken::from(token.clone(), special)).collect::<Vec<_>>();
    guarded(|| if special { inner.add_special_tokens(added) } else { inner.add_tokens(added) })
        .map_err(|e| cannot_add(path, &e))?;
    let id = |token: &String| {
        inner.token_to_id(token).ok_or_else(|| cannot_add(path, &format!("`{token}` got no id")))
    };
    let ids = tokens.iter().map(id).collect::<Result<_, _>>()?;
    // All of them: what only side files listed would otherwise come after these, with other ids.
    let all: BTreeMap<u32, AddedToken> = inner.get_added_tokens_decoder().into_iter().collect();
    let entries = all.into_iter().map(|(id, token)| {
        json!({
            "id": id, "content": token.content, "single_word": token.single_word, "lstrip": token.lstrip,
            "rstrip": token.rstrip, "normalized": token.normalized, "special": token.special,
        })
    });
    json["added_tokens"] = Value::Array(entries.collect());
    *tokenizer_json = serde_json::to_vec_pretty(&json).expect("JSON with text keys is written");
    Ok(ids)
}

/// `add_bos_token` and `add_eos_token`, where the config states them, replace the template of `tokenizer.json`; a
/// tokenizer without any template gets one that adds nothing (transformers 5.23, `TokenizersBackend`).
pub(super) fn apply_bos_eos(
    inner: &mut tokenizers::Tokenizer,
    special: &SpecialTokens,
    config: &Map<String, Value>,
    path: &Path,
) -> Result<(), FormatError> {
    let stated = |key: &str| config.get(key).and_then(Value::as_bool);
    let (bos, eos) = (stated("add_bos_token"), stated("add_eos_token"));
    if bos.is_none() && eos.is_none() {
        return Ok(());
    }
    let token = |add: Option<bool>, role: &str| {
        let token = special.get(role).filter(|_| add == Some(true))?;
        Some((token.to_owned(), inner.token_to_id(token)?))
    };
    let template = template(token(bos, "bos_token"), token(eos, "eos_token"));
    let processor: tokenizers::PostProcessorWrapper = serde_json::from_value(template)
        .map_err(|e| invalid(path, format!("add_bos_token/add_eos_token: {e}")))?;
    inner.with_post_processor(Some(processor));
    Ok(())
}

/// A `TemplateProcessing` post-processor as `tokenizer.json` has it: optional BOS, the sequence, optional EOS.
pub(super) fn template(bos: Option<(String, u32)>, eos: Option<(String, u32)>) -> Value {
    let special = |token: &Option<(String, u32)>, type_id: u8| {
        token.as_ref().map(|(t, _)| json!({ "SpecialToken": { "id": t, "type_id": type_id } }))
    };
    let part = |id: &str, type_id: u8| {
        let sequence = json!({ "Sequence": { "id": id, "type_id": type_id } });
        [special(&bos, type_id), Some(sequence), special(&eos, type_id)]
            .into_iter()
            .flatten()
            .collect::<Vec<_>>()
    };
    let tokens = [&bos, &eos].into_iter().flatten();
    let tokens: Map<_, _> =
        tokens.map(|(t, id)| (t.clone(), json!({ "id": t, "ids": [id], "tokens": [t] }))).collect();
    let single = part("A", 0);
    let pair: Vec<_> = single.iter().cloned().chain(part("B", 1)).collect();
    json!({ "type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": tokens })
}

fn invalid(path: &Path, problem: String) -> FormatError {
    FormatError::InvalidTokenizer {
        path: path.to_owned(),
        problem: format!("{problem}; fetch the tokenizer's files again, all from one revision"),
    }
}

fn cannot_add(path: &Path, error: &str) -> FormatError {
    invalid(path, format!("its added tokens are refused ({error})"))
}
