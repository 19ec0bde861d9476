//! Everything that can be wrong with a model's files, as one typed error: which file, what, and what to do.

use std::path::{Path, PathBuf};

use crate::StoredDtype;

/// A problem with a file of a model. Every message names the file, the place or value, and a remedy.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FormatError {
    /// The operating system refused an operation on a file.
    #[error("{}: cannot {action}: {source}; check that the path exists, its permissions and the free disk space", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What was tried: `open`, `read`, `write`, `rename`, …
        action: &'static str,
        /// The operating system's answer.
        source: std::io::Error,
    },
    /// A file that the request needs is not there.
    #[error("{}: no {wanted} here; {remedy}", path.display())]
    NotFound {
        /// The directory or file that was looked at.
        path: PathBuf,
        /// What was looked for.
        wanted: &'static str,
        /// How to get it.
        remedy: &'static str,
    },
    /// A file became shorter after it was opened.
    #[error("{}: the file shrank from {was} to {now} bytes while it was in use; another program is writing it: wait for it and start again", path.display())]
    FileShrank {
        /// The file.
        path: PathBuf,
        /// Bytes when it was opened.
        was: u64,
        /// Bytes now.
        now: u64,
    },
    /// A safetensors file whose header is truncated, malformed, or contradicts its data.
    #[error("{}: not a valid safetensors file: {problem}; the download may be incomplete: fetch the file again", path.display())]
    InvalidSafetensors {
        /// The file.
        path: PathBuf,
        /// What contradicts what.
        problem: String,
    },
    /// `model.safetensors.index.json` is malformed.
    #[error("{}: not a valid shard index: {problem}; fetch the file again", path.display())]
    InvalidIndex {
        /// The index file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The shard index names a file that is not there.
    #[error("{}: tensor `{tensor}` is said to be in `{file}`, but that file is missing; fetch the missing shard", index.display())]
    ShardMissing {
        /// The index file.
        index: PathBuf,
        /// The shard that is missing.
        file: String,
        /// The first tensor (by name) that the index places there.
        tensor: String,
    },
    /// The shard index places a tensor in a file that does not hold it.
    #[error("{}: tensor `{tensor}` is said to be in `{file}`, but that file does not hold it; index and shards belong to different versions: fetch them all again", index.display())]
    ShardLacksTensor {
        /// The index file.
        index: PathBuf,
        /// The shard.
        file: String,
        /// The tensor that is not in it.
        tensor: String,
    },
    /// A pickle checkpoint and nothing else: reading it would execute what is inside.
    #[error(
        "{}: only a pickle checkpoint (`{file}`) is here, and loading pickle runs code from the file, so it is refused; \
         convert it once with Python (`AutoModelForCausalLM.from_pretrained(DIR).save_pretrained(OUT)` writes \
         model.safetensors) or take a revision of the model that has safetensors", path.display()
    )]
    PickleOnly {
        /// The directory or file that was named.
        path: PathBuf,
        /// The pickle file found.
        file: String,
    },
    /// A tensor was asked for that the file does not hold.
    #[error("{}: no tensor `{name}`{}; compare the checkpoint with its config.json", path.display(), hint(nearest))]
    UnknownTensor {
        /// The file or directory.
        path: PathBuf,
        /// The name asked for.
        name: String,
        /// A name in the file that ends alike, if there is one.
        nearest: Option<String>,
    },
    /// More elements were asked for than the tensor has.
    #[error("{}: tensor `{name}` has {elements} elements, but elements {start}..{end} were asked for; its shape does not fit the config.json", path.display())]
    TensorRange {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// Elements it has.
        elements: usize,
        /// First element asked for.
        start: usize,
        /// One past the last element asked for (saturating).
        end: usize,
    },
    /// The tensor's stored type cannot be read as asked.
    #[error("{}: tensor `{name}` is stored as {dtype}, where {wanted} is needed; convert the checkpoint to F32, F16 or BF16 first", path.display())]
    TensorDtype {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// How it is stored.
        dtype: StoredDtype,
        /// What the reader wanted.
        wanted: &'static str,
    },
    /// A tensor type that this program does not read.
    #[error("{}: tensor `{name}` is stored as {dtype}, which is not supported; supported are {supported}: take another quantisation or the unquantised model", path.display())]
    UnsupportedDtype {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// The type's name or number in the file.
        dtype: String,
        /// The types that can be read.
        supported: String,
    },
    /// A GGUF file that is truncated or contradicts itself.
    #[error("{}: not a valid GGUF file: at byte {offset}: {problem}; the download may be incomplete: fetch the file again", path.display())]
    InvalidGguf {
        /// The file.
        path: PathBuf,
        /// Where in the file.
        offset: u64,
        /// What is wrong there.
        problem: String,
    },
    /// A GGUF file of a version (or byte order) that this program does not read.
    #[error("{}: GGUF version {version} is not supported (2 and 3, little-endian, are); convert the model again with a current llama.cpp", path.display())]
    GgufVersion {
        /// The file.
        path: PathBuf,
        /// The version as stored.
        version: String,
    },
    /// A metadata key is missing from a GGUF file.
    #[error("{}: the GGUF metadata has no `{key}`; convert the model again with a current llama.cpp", path.display())]
    GgufKeyMissing {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
    },
    /// A metadata key of a GGUF file has a type or value that cannot be used.
    #[error("{}: GGUF metadata `{key}`: {problem}; convert the model again with a current llama.cpp", path.display())]
    GgufKey {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A model inside a GGUF file that has no Hugging Face equivalent here.
    #[error("{}: {problem}; use the model's Hugging Face directory instead of the GGUF file", path.display())]
    GgufUnsupported {
        /// The file.
        path: PathBuf,
        /// What is not supported, with what is.
        problem: String,
    },
    /// A model or tokenizer that the wanted format cannot express.
    #[error("{}: cannot be exported: {problem}; export with `--to safetensors`, which every model can", path.display())]
    ExportUnsupported {
        /// The configuration or tokenizer.
        path: PathBuf,
        /// What has no equal there.
        problem: String,
    },
    /// A weight that is NaN or infinite, or becomes so in the wanted type.
    #[error(
        "tensor `{name}`: {problem}; a model with such weights does not work: go back to an earlier checkpoint, or choose a type with a wider range (bf16, f32)"
    )]
    NotFinite {
        /// The tensor.
        name: String,
        /// Which element, and what it is.
        problem: String,
    },
    /// A tokenizer with ids that the embedding has no row for.
    #[error("{}: the tokenizer has ids up to {largest}, but the embedding has only {rows} rows; use the tokenizer that belongs to this model", path.display())]
    VocabularyTooLarge {
        /// The tokenizer's file.
        path: PathBuf,
        /// Largest id.
        largest: usize,
        /// Rows of the embedding.
        rows: usize,
    },
    /// A JSON file that does not parse, or is not an object.
    #[error("{}: not valid JSON: {problem}; fetch or write the file again", path.display())]
    InvalidJson {
        /// The file.
        path: PathBuf,
        /// The parser's words, with line and column.
        problem: String,
    },
    /// A key is missing from a config file.
    #[error("{}: `{key}` is missing; add it, or fetch the file again from the model's page", path.display())]
    ConfigKeyMissing {
        /// The file.
        path: PathBuf,
        /// The key, dotted when nested.
        key: String,
    },
    /// A key of a config file has a value of the wrong type.
    #[error("{}: `{key}` should be {wanted}, but is {found}; correct the file", path.display())]
    ConfigKeyType {
        /// The file.
        path: PathBuf,
        /// The key, dotted when nested.
        key: String,
        /// What it should be.
        wanted: &'static str,
        /// What it is (shortened).
        found: String,
    },
    /// A token file that is cut off, or contradicts itself.
    #[error("{}: not a sound token file: {problem}; write it again with `llm-foundry data tokenize`", path.display())]
    InvalidTokenFile {
        /// The file.
        path: PathBuf,
        /// What contradicts what.
        problem: String,
    },
    /// A tokenizer file, or the tokenizer inside a GGUF, that cannot be used.
    #[error("{}: cannot use this tokenizer: {problem}", path.display())]
    InvalidTokenizer {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what to do.
        problem: String,
    },
    /// The tokenizer failed on a text or on token ids.
    #[error("{}: the tokenizer cannot {action}: {problem}; the tokenizer.json does not fit its model: fetch it again", path.display())]
    Tokenization {
        /// The tokenizer's file.
        path: PathBuf,
        /// `encode this text` or `decode these ids`.
        action: &'static str,
        /// The tokenizer's words.
        problem: String,
    },
    /// A text that would take all memory.
    #[error("{}: a text of {bytes} bytes is too long for this tokenizer, which takes at most {most} at once; cut it (of .txt files: `sample_by: paragraph` or `line`)", path.display())]
    TextTooLong {
        /// The tokenizer's file.
        path: PathBuf,
        /// Its length.
        bytes: usize,
        /// The longest that is taken.
        most: usize,
    },
    /// A text that the regex engine under this tokenizer cannot split.
    #[error("{}: the text has {most} or more white-space characters in a row, which this tokenizer cannot split; shorten the run", path.display())]
    TooManyBlanks {
        /// The tokenizer's file.
        path: PathBuf,
        /// From how many on.
        most: usize,
    },
    /// A token was named that the vocabulary does not have.
    #[error("{}: the vocabulary has no token `{token}`; name a token that it has, or another tokenizer", path.display())]
    UnknownToken {
        /// The tokenizer's file.
        path: PathBuf,
        /// The token asked for.
        token: String,
    },
}

impl FormatError {
    /// Attaches path and action to an operating-system error, for use in `map_err`.
    pub(crate) fn io(path: &Path, action: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { path, action, source }
    }
}

fn hint(nearest: &Option<String>) -> String {
    nearest.as_ref().map_or(String::new(), |name| format!(" (there is `{name}`)"))
}
