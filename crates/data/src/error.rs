//! Everything that can be wrong with data, each with its place and its remedy.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use foundry_formats::FormatError;

use crate::chat::TemplateError;
use crate::shape::{SUPPORTED_SHAPES, Shape};

/// Where an example stands: a file and its line, from 1.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    /// The file as it was named.
    pub path: Arc<Path>,
    /// Line on which the example begins, from 1.
    pub line: u64,
}

impl Place {
    /// The place `path:line`.
    pub fn new(path: &Arc<Path>, line: u64) -> Self {
        Self { path: Arc::clone(path), line }
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.path.display(), self.line)
    }
}

/// An error of the data set or of the settings that describe it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// The file list is empty.
    #[error("no data file is named; list at least one .json, .jsonl or .txt file under `data`")]
    NoFiles,
    /// The file system refused.
    #[error("{}: {source}; check the path and its permissions", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file of a kind that is not read.
    #[error("{}: cannot tell the format from the name; supported are .json, .jsonl, .ndjson and .txt{}", path.display(), extension_hint(path))]
    UnknownExtension {
        /// The file.
        path: PathBuf,
    },
    /// The text is not JSON.
    #[error(
        "{place}: broken JSON: {message}; each line of a .jsonl file must be one complete object, a .json file an array of objects"
    )]
    BrokenJson {
        /// The line serde_json points to (or the line itself in JSON Lines).
        place: Place,
        /// What serde_json said.
        message: String,
    },
    /// A row is JSON but no object.
    #[error("{place}: a row must be an object with named keys, found {found}")]
    NotAnObject {
        /// The row.
        place: Place,
        /// The kind of value found.
        found: &'static str,
    },
    /// The bytes are not UTF-8.
    #[error("{place}: not UTF-8 text; convert the file, for example with `iconv -t utf-8`")]
    NotUtf8 {
        /// The first line with a wrong byte.
        place: Place,
    },
    /// A single line that is far too long to be an example.
    #[error("{place}: the line is longer than {limit} bytes; is this really JSON Lines or text?")]
    LineTooLong {
        /// The line.
        place: Place,
        /// The limit in bytes.
        limit: usize,
    },
    /// The keys fit no supported shape.
    #[error("{place}: no supported shape has the keys {}; supported are:{SUPPORTED_SHAPES}", quoted(keys))]
    UnknownShape {
        /// The row.
        place: Place,
        /// Its keys.
        keys: Vec<String>,
    },
    /// The keys fit several shapes.
    #[error(
        "{place}: the keys {} fit several shapes ({}); say which with `format: {}`",
        quoted(keys),
        names(shapes, ", "),
        names(shapes, " | ")
    )]
    AmbiguousShape {
        /// The row.
        place: Place,
        /// Its keys.
        keys: Vec<String>,
        /// The shapes that fit.
        shapes: Vec<Shape>,
    },
    /// A row of another shape than the rows before it.
    #[error("{place}: this row has the shape {}, the rows before it {}; a data set has one shape: split it into several files and runs, or convert it", found.name(), expected.name())]
    MixedShapes {
        /// The row.
        place: Place,
        /// Shape of the rows before.
        expected: Shape,
        /// Shape of this row.
        found: Shape,
    },
    /// A row lacks what its shape needs.
    #[error("{place}: not a {} row: {problem}; the row has the keys {}", shape.name(), quoted(keys))]
    BadRow {
        /// The row.
        place: Place,
        /// The expected shape.
        shape: Shape,
        /// What is missing or of the wrong type.
        problem: String,
        /// The keys of the row.
        keys: Vec<String>,
    },
    /// No row at all.
    #[error("the data set is empty: no example in {}; check the files", paths(files))]
    Empty {
        /// The files that were read.
        files: Vec<PathBuf>,
    },
    /// Examples, but no tokens or labels in any of them.
    #[error(
        "none of the {examples} example(s) has a token to learn from ({empty} without tokens, {masked} with every label masked); raise `max_length`, or check the data and `completion_only_loss` / `assistant_only_loss`"
    )]
    NothingToLearn {
        /// Examples read.
        examples: usize,
        /// Examples without tokens.
        empty: usize,
        /// Examples whose labels are all masked.
        masked: usize,
    },
    /// Packing needs a length.
    #[error("`packing: true` needs `max_length`: rows are filled up to it")]
    PackingWithoutLength,
    /// A length of 0.
    #[error("`max_length: 0` leaves no token; leave it out for no limit or give at least 2")]
    ZeroLength,
    /// `completion_only_loss` for data without completions.
    #[error("`completion_only_loss: true` needs prompt/completion or Alpaca data, but the data is {}; leave it out, or use `assistant_only_loss` for conversations", shape.name())]
    CompletionOnlyWithoutCompletion {
        /// The shape of the data.
        shape: Shape,
    },
    /// `assistant_only_loss` for data without conversations.
    #[error("`assistant_only_loss: true` needs conversations, but the data is {}; leave it out", shape.name())]
    AssistantOnlyWithoutChat {
        /// The shape of the data.
        shape: Shape,
    },
    /// `train_on` and `multi_turn` are about conversations.
    #[error("`{key}` needs conversations, but the data is {}; leave it out", shape.name())]
    TurnsWithoutChat {
        /// The setting.
        key: &'static str,
        /// The shape of the data.
        shape: Shape,
    },
    /// A conversation that is rendered differently once later messages follow, and is not to be split.
    #[error(
        "{place}: the chat template renders message {message} differently once later messages follow, so that the model would learn from text that it never sees when it answers; use `multi_turn: split` or `auto`"
    )]
    RewrittenTurns {
        /// The row.
        place: Place,
        /// Index of the assistant's message, from 0.
        message: usize,
    },
    /// A conversation in which no token is to be learned.
    #[error(
        "{place}: no token of this conversation is to be learned: it has no assistant turn (or none that `assistant_only_loss`, `train_on`, `train` and `weight` let be learned); give it one, or check the generation tags of the chat template"
    )]
    NoAssistantTokens {
        /// The row.
        place: Place,
    },
    /// Conversations need a template.
    #[error("the data is {} but the tokenizer has no chat template; set `chat_template` (a Jinja file), start from the model's instruct version, or use text prompt/completion data", shape.name())]
    NoChatTemplate {
        /// The shape of the data.
        shape: Shape,
    },
    /// The template cannot be compiled, or its arguments are wrong whatever the conversation.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// The template cannot render this conversation.
    #[error("{place}: {source}")]
    Render {
        /// The row.
        place: Place,
        /// What the template said.
        source: TemplateError,
    },
    /// The assistant's turns cannot be found by rendering prefixes.
    #[error(
        "{place}: cannot tell the learned tokens of message {message}: {problem}; use `multi_turn: auto` (a row for each turn of such a conversation), a template with {{% generation %}} tags, or no mask"
    )]
    NotPrefixPreserving {
        /// The row.
        place: Place,
        /// Index of the assistant's message, from 0.
        message: usize,
        /// What differs.
        problem: &'static str,
    },
    /// EOS is to be appended, but there is none.
    #[error(
        "the tokenizer has no EOS token to end texts with; set `eos_token` under `tokenizer`, or `append_eos: false`"
    )]
    NoEosToken,
    /// The tokenizer failed.
    #[error("{place}: {source}")]
    Tokenizer {
        /// The row.
        place: Place,
        /// What the tokenizer said.
        source: FormatError,
    },
    /// A place in the data that a checkpoint keeps and that this data does not have.
    #[error(
        "the place in the data that the checkpoint keeps does not fit: {problem}; resume with the data and the \
         settings under `data` of the run that wrote it, or start anew"
    )]
    BadState {
        /// What does not fit.
        problem: String,
    },
    /// A held-out split that leaves one side empty.
    #[error(
        "a held-out split of {wanted} leaves no example on one side of the {examples} there are; choose a smaller or larger part, or name a separate file"
    )]
    BadHoldout {
        /// The part asked for.
        wanted: String,
        /// Examples there are.
        examples: usize,
    },
}

fn quoted(keys: &[String]) -> String {
    let keys: Vec<String> = keys.iter().take(20).map(|k| format!("`{k}`")).collect();
    if keys.is_empty() { "(none)".to_owned() } else { keys.join(", ") }
}

fn names(shapes: &[Shape], separator: &str) -> String {
    shapes.iter().map(|s| s.name()).collect::<Vec<_>>().join(separator)
}

fn paths(files: &[PathBuf]) -> String {
    files.iter().map(|p| p.display().to_string()).collect::<Vec<_>>().join(", ")
}

fn extension_hint(path: &Path) -> &'static str {
    match path.extension().and_then(|e| e.to_str()) {
        Some("gz" | "zst" | "xz" | "bz2" | "zip") => " (decompress the file first)",
        Some("parquet" | "arrow" | "csv" | "tsv") => " (convert the table to .jsonl first)",
        None if path.extension().is_none() => " (a directory? name the files in it)",
        _ => "",
    }
}
