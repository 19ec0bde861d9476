//! Functions that some tasks of lm_eval have in Python, written again here.

mod hellaswag;
mod ifeval;
mod truthfulqa;
mod wikitext;
mod winogrande;

pub(crate) use wikitext::words as wikitext_words;

use crate::document::Scores;
use serde_json::{Map, Value};
use std::path::Path;

/// A built-in function, named after the task's folder and its Python name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Native {
    HellaswagProcessDocs,
    WinograndeText,
    WinograndeTarget,
    WinograndeChoice,
    TruthfulqaMc2,
    WikitextDetokenizer,
    WikitextResults,
    IfevalResults,
}

/// The folder of the task's file in lm_eval's tree, the function's name there, and ours.
const FUNCTIONS: [(&str, &str, Native); 8] = [
    ("hellaswag", "utils.process_docs", Native::HellaswagProcessDocs),
    ("winogrande", "preprocess_winogrande.doc_to_text", Native::WinograndeText),
    ("winogrande", "preprocess_winogrande.doc_to_target", Native::WinograndeTarget),
    ("winogrande", "preprocess_winogrande.doc_to_choice", Native::WinograndeChoice),
    ("truthfulqa", "utils.process_results_mc2", Native::TruthfulqaMc2),
    ("wikitext", "preprocess_wikitext.wikitext_detokenizer", Native::WikitextDetokenizer),
    ("wikitext", "preprocess_wikitext.process_results", Native::WikitextResults),
    ("ifeval", "utils.process_results", Native::IfevalResults),
];

impl Native {
    /// The function that a task's file calls.
    pub(crate) fn find(file: &Path, function: &str) -> Option<Self> {
        let folder = file.parent()?.file_name()?.to_str()?;
        let found = FUNCTIONS.iter().find(|(of, name, _)| *of == folder && *name == function);
        found.map(|(_, _, native)| *native)
    }

    /// Its Python name.
    pub(crate) fn name(self) -> &'static str {
        FUNCTIONS.iter().find(|(_, _, native)| *native == self).map_or("", |(_, name, _)| name)
    }

    /// A document as the task wants it (`process_docs`).
    pub(crate) fn process(self, document: &Value) -> Result<Value, String> {
        match self {
            Self::HellaswagProcessDocs => hellaswag::process(document),
            other => Err(format!("{} does not process documents", other.name())),
        }
    }

    /// A value about a document (`doc_to_text`, `doc_to_target`, `doc_to_choice`).
    pub(crate) fn value(self, document: &Value) -> Result<Value, String> {
        match self {
            Self::WinograndeText => winogrande::text(document),
            Self::WinograndeTarget => winogrande::target(document),
            Self::WinograndeChoice => winogrande::choice(document),
            Self::WikitextDetokenizer => wikitext::detokenized(document),
            other => Err(format!("{} does not give a value", other.name())),
        }
    }

    /// Values of the metrics (`process_results`) from the log-likelihoods.
    pub(crate) fn scores(self, document: &Value, log_likelihoods: &[f64]) -> Result<Scores, String> {
        match self {
            Self::TruthfulqaMc2 => truthfulqa::mc2(document, log_likelihoods),
            Self::WikitextResults => wikitext::scores(document, log_likelihoods),
            other => Err(format!("{} is not about log-likelihoods", other.name())),
        }
    }

    /// Values of the metrics (`process_results`) from the generated text.
    pub(crate) fn text_scores(self, document: &Value, answer: &str) -> Result<Scores, String> {
        match self {
            Self::IfevalResults => ifeval::scores(document, answer),
            other => Err(format!("{} is not about generated text", other.name())),
        }
    }
}

/// A field of a document that must be a text.
pub(crate) fn text<'a>(document: &'a Value, key: &str) -> Result<&'a str, String> {
    match document.get(key) {
        Some(Value::String(text)) => Ok(text),
        Some(other) => Err(format!("the field `{key}` is {other} and not a text")),
        None => Err(format!("there is no field `{key}`")),
    }
}

/// A document with more fields, which win.
fn with_fields(document: &Value, fields: Map<String, Value>) -> Value {
    let mut all = document.as_object().cloned().unwrap_or_default();
    all.extend(fields);
    Value::Object(all)
}
