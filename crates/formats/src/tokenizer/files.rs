//! A tokenizer from the files of a Hugging Face directory.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use serde_json::{Map, Value};

use super::special::{SpecialTokens, add_listed_tokens, apply_bos_eos};
use super::{Tokenizer, TokenizerFiles, parse};
use crate::FormatError;
use crate::json::{parse_object, read_bytes, read_object_if_there};

/// Side files that are read if they exist and copied unchanged when the tokenizer is saved.
const COPIED: [&str; 2] = ["special_tokens_map.json", "added_tokens.json"];

/// The most template text that is read: real ones have some thousand characters.
const MAX_TEMPLATE_BYTES: usize = 4 << 20;

pub(super) fn read_file(path: &Path) -> Result<Tokenizer, FormatError> {
    let tokenizer_json = read_bytes(path)?;
    let inner = parse(&tokenizer_json, path)?;
    let stored = TokenizerFiles {
        tokenizer_json,
        config: Map::new(),
        config_bytes: None,
        chat_template_jinja: None,
        others: Vec::new(),
    };
    Ok(Tokenizer {
        inner,
        path: path.to_owned(),
        special: SpecialTokens::default(),
        chat_template: None,
        stored: Arc::new(stored),
        direct: OnceLock::new(),
    })
}

pub(super) fn read_dir(dir: &Path) -> Result<Tokenizer, FormatError> {
    let path = dir.join("tokenizer.json");
    if !path.exists() {
        return Err(no_tokenizer_json(dir));
    }
    let mut tokenizer = read_file(&path)?;
    let stored = Arc::make_mut(&mut tokenizer.stored);
    let config_path = dir.join("tokenizer_config.json");
    if config_path.exists() {
        let bytes = read_bytes(&config_path)?;
        stored.config = parse_object(&config_path, &bytes)?;
        stored.config_bytes = Some(bytes);
    }
    for name in COPIED {
        if dir.join(name).exists() {
            stored.others.push((name, read_bytes(&dir.join(name))?));
        }
    }
    let side = |name: &str| Ok::<_, FormatError>(read_object_if_there(&dir.join(name))?.unwrap_or_default());
    let special = SpecialTokens::read(&stored.config, &side("special_tokens_map.json")?);
    let (inner, config) = (&mut tokenizer.inner, &stored.config);
    add_listed_tokens(inner, config, &side("added_tokens.json")?, &path)?;
    special.register(inner, &path)?;
    apply_bos_eos(inner, &special, config, &path)?;
    tokenizer.special = special;
    stored.chat_template_jinja = read_template(&dir.join("chat_template.jinja"))?;
    let in_config = || template_in_config(&stored.config);
    tokenizer.chat_template = stored.chat_template_jinja.clone().or_else(in_config);
    Ok(tokenizer)
}

/// `chat_template` in `tokenizer_config.json`: a string, a list of `{name, template}`, or an object by name; of
/// several, `default`.
pub(super) fn template_in_config(config: &Map<String, Value>) -> Option<String> {
    let template = match config.get("chat_template")? {
        Value::String(template) => Some(template.as_str()),
        Value::Object(by_name) => by_name.get("default")?.as_str(),
        Value::Array(list) => {
            let default = list.iter().find(|t| t.get("name").and_then(Value::as_str) == Some("default"))?;
            default.get("template")?.as_str()
        }
        _ => None,
    };
    template.map(str::to_owned)
}

fn read_template(path: &Path) -> Result<Option<String>, FormatError> {
    if !path.exists() {
        return Ok(None);
    }
    let invalid =
        |problem: &str| FormatError::InvalidTokenizer { path: path.to_owned(), problem: problem.to_owned() };
    let bytes = read_bytes(path)?;
    if bytes.len() > MAX_TEMPLATE_BYTES {
        return Err(invalid("the chat template is larger than 4 MB; fetch the file again"));
    }
    let text = String::from_utf8(bytes)
        .map_err(|_| invalid("the chat template is not UTF-8; fetch the file again"))?;
    Ok(Some(text))
}

fn no_tokenizer_json(dir: &Path) -> FormatError {
    let remedy = if dir.join("tokenizer.model").exists() {
        "there is only a SentencePiece tokenizer.model: convert it once with Python \
         (`AutoTokenizer.from_pretrained(DIR).save_pretrained(DIR)` writes tokenizer.json)"
    } else if dir.join("vocab.json").exists() {
        "there is only a vocab.json: convert it once with Python \
         (`AutoTokenizer.from_pretrained(DIR).save_pretrained(DIR)` writes tokenizer.json)"
    } else {
        "fetch it from the model's page, or name another directory for the tokenizer"
    };
    FormatError::NotFound { path: dir.to_owned(), wanted: "tokenizer.json", remedy }
}
