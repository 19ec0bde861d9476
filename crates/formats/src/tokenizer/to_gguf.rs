//! A tokenizer as GGUF metadata: the inverse of `from_gguf.rs`, with what llama.cpp's converter writes
//! (`conversion/base.py`, `_set_vocab_gpt2`; gguf-py's `SpecialVocab`).

use std::collections::HashMap;

use serde_json::Value;

use super::Tokenizer;
use super::byte_level::{self, DIGITS_KEY};
use crate::FormatError;
use crate::gguf::{MetaArray, MetaValue};

/// `enum llama_token_type`.
const NORMAL: i64 = 1;
const UNKNOWN: i64 = 2;
const CONTROL: i64 = 3;
const USER_DEFINED: i64 = 4;
const UNUSED: i64 = 5;
const BYTE: i64 = 6;

type Metadata = Vec<(String, MetaValue)>;

impl Tokenizer {
    /// The metadata of a GGUF with `rows` rows in its embedding: rows without a token become unused ones.
    ///
    /// # Errors
    /// [`FormatError::VocabularyTooLarge`]; [`FormatError::ExportUnsupported`] for tokenizers that llama.cpp has no
    /// equal of.
    pub(crate) fn gguf_metadata(
        &self,
        rows: usize,
        warnings: &mut Vec<String>,
    ) -> Result<Metadata, FormatError> {
        let json: Value = serde_json::from_slice(&self.stored.tokenizer_json)
            .map_err(|e| FormatError::InvalidJson { path: self.path.clone(), problem: e.to_string() })?;
        let model = &json["model"];
        if model["type"].as_str().is_some_and(|kind| kind != "BPE") {
            return Err(
                self.unsupported(format!("a tokenizer of type {} has no equal in GGUF", model["type"]))
            );
        }
        let vocabulary = self.inner.get_vocab(true);
        let largest = vocabulary.values().max().copied().unwrap_or(0) as usize;
        if largest >= rows {
            return Err(FormatError::VocabularyTooLarge { path: self.path.clone(), largest, rows });
        }
        let is_sentencepiece = model["byte_fallback"] == Value::Bool(true);
        let mut out = Metadata::new();
        let mut set = |key: &str, value: MetaValue| out.push((format!("tokenizer.ggml.{key}"), value));
        let (tokens, types) = self.tokens_and_types(&vocabulary, rows, is_sentencepiece);
        if is_sentencepiece {
            set("model", MetaValue::String("llama".to_owned()));
            set("pre", MetaValue::String("default".to_owned()));
            set("scores", MetaValue::Array(MetaArray::F32(scores(&tokens, &merges(model)))));
            set("add_space_prefix", MetaValue::Bool(adds_space(&json)));
        } else {
            let pre = byte_level::pre_of(&json).map_err(|problem| self.unsupported(problem))?;
            warnings.extend(pre.warning);
            set("model", MetaValue::String("gpt2".to_owned()));
            set("pre", MetaValue::String(pre.name.to_owned()));
            let joined =
                merges(model).into_iter().map(|(l, r)| format!("{} {}", spaceless(&l), spaceless(&r)));
            set("merges", MetaValue::Array(MetaArray::String(joined.collect())));
            set("add_space_prefix", MetaValue::Bool(false));
        }
        set("tokens", MetaValue::Array(MetaArray::String(tokens)));
        set("token_type", MetaValue::Array(MetaArray::Signed(types)));
        let roles = [
            ("bos_token_id", self.bos_token()),
            ("eos_token_id", self.eos_token()),
            ("unknown_token_id", self.unk_token()),
            ("padding_token_id", self.pad_token()),
        ];
        for (key, token) in roles {
            if let Some(id) = token.and_then(|token| self.token_to_id(token)) {
                set(key, MetaValue::Unsigned(u64::from(id)));
            }
        }
        set("add_bos_token", MetaValue::Bool(self.adds_bos()));
        set("add_eos_token", MetaValue::Bool(self.adds_eos()));
        if !is_sentencepiece && byte_level::pre_of(&json).is_ok_and(|pre| pre.digits) {
            out.push((DIGITS_KEY.to_owned(), MetaValue::Bool(true)));
        }
        if let Some(template) = self.chat_template() {
            out.push(("tokenizer.chat_template".to_owned(), MetaValue::String(template.to_owned())));
        }
        Ok(out)
    }

    /// True if `encode(…, true)` puts an EOS token last.
    fn adds_eos(&self) -> bool {
        let Some(eos) = self.eos_token_id() else { return false };
        self.encode("a", true).is_ok_and(|ids| ids.last() == Some(&eos))
    }

    fn tokens_and_types(
        &self,
        vocabulary: &HashMap<String, u32>,
        rows: usize,
        is_sentencepiece: bool,
    ) -> (Vec<String>, Vec<i64>) {
        let mut tokens: Vec<Option<String>> = vec![None; rows];
        for (token, &id) in vocabulary {
            tokens[id as usize] = Some(token.clone());
        }
        let added = self.inner.get_added_tokens_decoder();
        let unknown = self.unk_token().filter(|_| is_sentencepiece).and_then(|token| self.token_to_id(token));
        let kind = |id: usize, token: &Option<String>| {
            let id = id as u32;
            match (token, added.get(&id)) {
                (None, _) => UNUSED,
                _ if Some(id) == unknown => UNKNOWN,
                (_, Some(added)) => {
                    if added.special {
                        CONTROL
                    } else {
                        USER_DEFINED
                    }
                }
                (Some(token), None) if is_sentencepiece && is_byte(token) => BYTE,
                _ => NORMAL,
            }
        };
        let types: Vec<i64> = tokens.iter().enumerate().map(|(id, token)| kind(id, token)).collect();
        let spelled = tokens.into_iter().zip(&types).enumerate().map(|(id, (token, &kind))| match token {
            None => format!("[PAD{id}]"),
            // llama.cpp matches these in the text itself, where a space is a space.
            Some(token) if kind == USER_DEFINED && is_sentencepiece => token.replace('▁', " "),
            Some(token) => token,
        });
        (spelled.collect(), types)
    }

    fn unsupported(&self, problem: String) -> FormatError {
        FormatError::ExportUnsupported { path: self.path.clone(), problem }
    }
}

/// `<0xNN>`
fn is_byte(token: &str) -> bool {
    let digits = token.strip_prefix("<0x").and_then(|rest| rest.strip_suffix('>'));
    digits.is_some_and(|digits| digits.len() == 2 && u8::from_str_radix(digits, 16).is_ok())
}

/// Merges in either of the spellings of `tokenizer.json`: "a b" or ["a", "b"].
fn merges(model: &Value) -> Vec<(String, String)> {
    let list = model["merges"].as_array().map(Vec::as_slice).unwrap_or_default();
    let pair = |merge: &Value| match merge {
        Value::String(text) => text.split_once(' ').map(|(l, r)| (l.to_owned(), r.to_owned())),
        other => Some((other.get(0)?.as_str()?.to_owned(), other.get(1)?.as_str()?.to_owned())),
    };
    list.iter().filter_map(pair).collect()
}

/// A space inside a merge's part would split it in two: the byte alphabet spells it Ġ.
fn spaceless(part: &str) -> String {
    part.replace(' ', "\u{120}")
}

/// Scores that give the merges' order back: minus the rank of the first merge that makes the token. Tokens that no
/// merge makes come last; nothing is lost by that, for nothing is merged into them.
fn scores(tokens: &[String], merges: &[(String, String)]) -> Vec<f32> {
    let mut rank: HashMap<String, usize> = HashMap::new();
    for (left, right) in merges {
        let next = rank.len();
        rank.entry(format!("{left}{right}")).or_insert(next);
    }
    let last = rank.len();
    tokens.iter().map(|token| -(*rank.get(token).unwrap_or(&last) as f32)).collect()
}

/// A space is put before the text: `Prepend` among the normalizers, or `Metaspace` with a scheme other than never.
fn adds_space(json: &Value) -> bool {
    fn any(part: &Value, test: &dyn Fn(&Value) -> bool) -> bool {
        test(part)
            || match part {
                Value::Object(fields) => fields.values().any(|v| any(v, test)),
                Value::Array(list) => list.iter().any(|v| any(v, test)),
                _ => false,
            }
    }
    let prepends = any(&json["normalizer"], &|part| part["type"] == "Prepend");
    let metaspace = any(&json["pre_tokenizer"], &|part| {
        part["type"] == "Metaspace"
            && match part["prepend_scheme"].as_str() {
                Some(scheme) => scheme != "never",
                None => part["add_prefix_space"].as_bool().unwrap_or(true),
            }
    });
    prepends || metaspace
}
