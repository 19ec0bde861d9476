//! Licence and base models of a model, as llama.cpp's converter writes them (gguf-py 0.19, `Metadata`).

use super::{Gguf, MetaValue};

/// Where hub ids are addresses.
const HUB: &str = "https://huggingface.co/";

/// Whose work a model is, as far as that is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// The hub's name of the licence: `general.license`.
    pub license: Option<String>,
    /// Hub ids of the models that it was made from: `general.base_model.*`.
    pub base_models: Vec<String>,
}

impl Origin {
    /// What a file says.
    pub fn of(gguf: &Gguf) -> Self {
        let text = |key: &str| gguf.metadata(key).and_then(MetaValue::as_str).map(str::to_owned);
        let count = gguf.metadata("general.base_model.count").and_then(MetaValue::as_u64).unwrap_or(0);
        // A file may lie about the count.
        let urls = (0..count.min(64)).filter_map(|i| text(&format!("general.base_model.{i}.repo_url")));
        let base_models = urls.filter_map(|url| url.strip_prefix(HUB).map(str::to_owned)).collect();
        Self { license: text("general.license"), base_models }
    }

    pub(super) fn metadata(&self) -> Vec<(String, MetaValue)> {
        let mut metadata = Vec::new();
        let mut put = |key: String, text: String| metadata.push((key, MetaValue::String(text)));
        if let Some(license) = &self.license {
            put("general.license".to_owned(), license.clone());
        }
        let bases: Vec<_> =
            self.base_models.iter().filter_map(|id| Some((id, id.split_once('/')?))).collect();
        for (i, (id, (organization, name))) in bases.iter().enumerate() {
            put(format!("general.base_model.{i}.name"), title(name));
            put(format!("general.base_model.{i}.organization"), title(organization));
            put(format!("general.base_model.{i}.repo_url"), format!("{HUB}{id}"));
        }
        if !bases.is_empty() {
            metadata.push(("general.base_model.count".to_owned(), MetaValue::Unsigned(bases.len() as u64)));
        }
        metadata
    }
}

/// An id as a title: words in small letters get a capital one, versions and sizes stay (gguf-py's `id_to_title`).
fn title(id: &str) -> String {
    let words = id.split(|c: char| c == '-' || c.is_whitespace()).filter(|word| !word.is_empty());
    let words = words.map(|word| {
        let is_small = word.chars().any(char::is_lowercase) && !word.chars().any(char::is_uppercase);
        if is_small && !is_number(word) { capitalised(word) } else { word.to_owned() }
    });
    words.collect::<Vec<_>>().join(" ")
}

/// `v0.1`, `7b`.
fn is_number(word: &str) -> bool {
    let digits = |part: &str| !part.is_empty() && part.chars().all(|c| c.is_ascii_digit());
    word.starts_with(|c: char| c.is_ascii_digit())
        || word.strip_prefix('v').is_some_and(|rest| rest.split('.').all(digits))
}

/// Python's `str.title`: a capital wherever letters begin.
fn capitalised(word: &str) -> String {
    let mut inside = false;
    let letter = |c: char| {
        let first = !inside;
        inside = c.is_alphabetic();
        if first { c.to_uppercase().collect::<String>() } else { c.to_string() }
    };
    word.chars().map(letter).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn titles_are_gguf_pys() {
        for (id, expected) in [
            ("SmolLM2-135M-Instruct", "SmolLM2 135M Instruct"),
            ("meta-llama", "Meta Llama"),
            ("tiny-model-7b-v0.1", "Tiny Model 7b v0.1"),
            ("llama3b-v1.x", "Llama3B V1.X"),
            ("a--b", "A B"),
        ] {
            assert_eq!(title(id), expected, "{id}");
        }
    }
}
