//! What can go wrong between a model's files and a running decoder, said so that the user can act on it.

use crate::inference::RequestId;
use foundry_formats::FormatError;
use std::path::PathBuf;

/// An error of this crate: the place, the value found and what to do.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// `architectures` / `model_type` name a family that has no table here.
    #[error(
        "config.json: architecture {found} is not supported; supported architectures: {supported}. \
         Choose a model of one of these families"
    )]
    UnsupportedArchitecture {
        /// What config.json names.
        found: String,
        /// Every architecture with a table.
        supported: String,
    },
    /// A key of config.json has a value that no decoder can have.
    #[error("config.json: `{key}` is {found}, expected {expected}; correct the file or download it again")]
    ConfigValue {
        /// The key.
        key: String,
        /// Its value.
        found: String,
        /// What it must be.
        expected: String,
    },
    /// config.json asks for something this program does not do; running without it would be another model.
    #[error("config.json: {what} is not supported; {remedy}")]
    Unsupported {
        /// Key and value.
        what: String,
        /// The way out.
        remedy: String,
    },
    /// The weights lack a tensor.
    #[error(
        "tensor `{name}` is missing from the weights; the checkpoint is incomplete or belongs to another config.json \
         (download it again)"
    )]
    MissingTensor {
        /// Name in the checkpoint.
        name: String,
    },
    /// A tensor has another shape than config.json says.
    #[error(
        "tensor `{name}` has shape {found:?}, config.json asks for {expected:?}; weights and config.json must come \
         from the same model"
    )]
    TensorShape {
        /// Name in the checkpoint.
        name: String,
        /// Shape in the checkpoint.
        found: Vec<usize>,
        /// Shape by the configuration.
        expected: Vec<usize>,
    },
    /// A quantised weight is not what bitsandbytes writes.
    #[error(
        "quantised weight `{name}`: {what}; the file is damaged or of another version: quantise the model again"
    )]
    QuantizedWeight {
        /// Name in the checkpoint.
        name: String,
        /// What is wrong.
        what: String,
    },
    /// The weights hold tensors that have no place in this decoder.
    #[error(
        "the weights hold tensors that this model has no place for: {names}; leaving them out would be another model, \
         so check that config.json belongs to the weights"
    )]
    UnexpectedTensors {
        /// The first few names.
        names: String,
    },
    /// A packed row is longer than the buffers.
    #[error(
        "a row of {tokens} tokens does not fit the {max_tokens} planned for; raise max_length or shorten the row"
    )]
    RowTooLong {
        /// Tokens of the row.
        tokens: usize,
        /// Tokens allocated for.
        max_tokens: usize,
    },
    /// The parts of a packed row contradict each other.
    #[error("a packed row is malformed: {0}")]
    Row(String),
    /// A token id outside the vocabulary.
    #[error(
        "token id {token} is outside the model's vocabulary of {vocab_size}; tokenizer and model must belong together"
    )]
    TokenOutOfRange {
        /// The id.
        token: u32,
        /// Rows of the embedding.
        vocab_size: usize,
    },
    /// A LoRA setting that cannot be done.
    #[error("lora: {what}; {remedy}")]
    Lora {
        /// Key, value and what is wrong with it.
        what: String,
        /// The way out.
        remedy: String,
    },
    /// An adapter directory that cannot be used.
    #[error("adapter {}: {what}; {remedy}", path.display())]
    Adapter {
        /// The directory or file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
        /// The way out.
        remedy: String,
    },
    /// A setting of text generation that cannot be done.
    #[error("generation: `{key}` is {found}, expected {expected}")]
    Sampling {
        /// The setting.
        key: &'static str,
        /// Its value.
        found: String,
        /// What it must be.
        expected: &'static str,
    },
    /// Prompt and answer do not fit the key/value cache.
    #[error(
        "{tokens} tokens do not fit the key/value cache of {capacity}; shorten the prompt, lower max_new_tokens or \
         allocate a larger cache"
    )]
    CacheFull {
        /// Tokens wanted.
        tokens: usize,
        /// Tokens allocated for.
        capacity: usize,
    },
    /// A model whose numbers are no numbers has no next token.
    #[error(
        "the model's scores of the next token are not finite; the weights are damaged (check the download), or the \
         adapter was trained into overflow"
    )]
    LogitsNotFinite {
        /// Whose next token it was to be.
        request: RequestId,
    },
    /// As little as a likelihood.
    #[error(
        "the model's scores of given tokens are not finite; the weights are damaged (check the download), or the adapter \
         was trained into overflow"
    )]
    ScoreNotFinite {
        /// The group of continuations that was to be scored, from 0.
        group: usize,
        /// Which of its continuations, from 0.
        ending: usize,
    },
    /// Nothing can be trained with these settings.
    #[error("nothing to train: this decoder was allocated for inference; choose LoRA or full fine-tuning")]
    NothingToTrain,
    /// A file could not be read or written.
    #[error("{}: {source}; check that the path exists and may be written", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The operating system's words.
        source: std::io::Error,
    },
    /// A file of a model is broken.
    #[error(transparent)]
    Format(#[from] FormatError),
}
