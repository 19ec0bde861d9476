//! The manifest of a shard: `shard-I-of-N.json`, and `shard-I-of-N.partial.json` while it is in the making.

use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, RandomState};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error::DataError;
use crate::pipeline::PipelineState;
use crate::shape::Shape;

/// What `format` says.
pub(super) const FORMAT: &str = "llm-foundry tokens";
/// Version of the manifest and its files. Version 1 is read too: it does not know which documents are of one example,
/// and its files have no sums of blocks.
pub(super) const VERSION: u32 = 2;
/// The largest manifest that is read, in bytes: a shuffle buffer's places are not in it, only lists of files.
const LARGEST: u64 = 64 << 20;

/// What is known of a shard.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Manifest {
    /// [`FORMAT`].
    pub(super) format: String,
    /// [`VERSION`].
    pub(super) version: u32,
    /// Number of the shard, from 0.
    pub(super) shard: u32,
    /// Shards that make up the whole.
    pub(super) shards: u32,
    /// The tokenizer.
    pub(super) tokenizer: TokenizerRecord,
    /// Shape of the rows that the tokens were made from; of the first source with a row.
    pub(super) shape: Option<Shape>,
    /// The chat template; `None` where no row of this shard was a conversation.
    pub(super) chat_template: Option<String>,
    /// The named special tokens that were used: the one that ends plain texts, and those that the template names.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) special_tokens: BTreeMap<String, String>,
    /// The moment that the template told, in seconds since 1970, where it asks for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) rendered_at: Option<i64>,
    /// What decided over tokens and masks, by the names of the configuration.
    pub(super) settings: Map<String, Value>,
    /// SHA-256 of the settings and of the ends of all input files.
    pub(super) inputs: String,
    /// The token files, in their order.
    pub(super) files: Vec<FileRecord>,
    /// What was counted.
    pub(super) counts: ShardCounts,
    /// Where to go on; only in the manifest of a shard in the making.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) next: Option<PipelineState>,
}

/// Which tokenizer made the tokens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TokenizerRecord {
    /// SHA-256 of its vocabulary and of the ids of some texts.
    pub(super) sha256: String,
    /// One more than its largest id.
    pub(super) ids: u32,
    /// SHA-256 of its rules ([`foundry_formats::Tokenizer::rules`]); `None` where they cannot be compared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) rules: Option<String>,
}

impl TokenizerRecord {
    /// Whether both are the same, as far as both say.
    pub(super) fn fits(&self, other: &Self) -> bool {
        let same_rules = self.rules == other.rules || self.rules.is_none() || other.rules.is_none();
        same_rules && self.sha256 == other.sha256 && self.ids == other.ids
    }
}

/// A token file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FileRecord {
    /// Its name, in the directory of the manifest.
    pub(crate) name: String,
    /// Its size.
    pub(crate) bytes: u64,
    /// SHA-256 of its table of sums; in version 1, of all of it.
    pub(crate) sha256: String,
    /// Documents in it.
    pub(crate) documents: u64,
    /// Tokens in it.
    pub(crate) tokens: u64,
    /// Tokens that are learned.
    pub(crate) learned: u64,
}

/// What became of the rows of a shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShardCounts {
    /// Documents written: rows, or parts of conversations that were split.
    pub documents: u64,
    /// Their tokens.
    pub tokens: u64,
    /// Tokens that are learned.
    pub learned: u64,
    /// Documents that train an end-of-sequence token.
    pub ends_learned: u64,
    /// Documents without a learned token.
    pub nothing_learned: u64,
    /// Documents that begin with two BOS tokens.
    pub double_bos: u64,
    /// Blank lines, paragraphs and files.
    pub blank: u64,
    /// Rows that could not be used (`on_error: skip`).
    pub skipped: u64,
    /// Rows left out by the filter.
    pub filtered: u64,
    /// Rows left out because an earlier one is equal.
    pub deduplicated: u64,
    /// Rows that share long runs of words with the evaluation data.
    pub contaminated: u64,
}

impl ShardCounts {
    /// The sum of both.
    pub(super) fn plus(self, other: Self) -> Self {
        Self {
            documents: self.documents + other.documents,
            tokens: self.tokens + other.tokens,
            learned: self.learned + other.learned,
            ends_learned: self.ends_learned + other.ends_learned,
            nothing_learned: self.nothing_learned + other.nothing_learned,
            double_bos: self.double_bos + other.double_bos,
            blank: self.blank + other.blank,
            skipped: self.skipped + other.skipped,
            filtered: self.filtered + other.filtered,
            deduplicated: self.deduplicated + other.deduplicated,
            contaminated: self.contaminated + other.contaminated,
        }
    }
}

/// The name of a shard's manifest without its ending.
pub(super) fn stem(shard: u32, shards: u32) -> String {
    format!("shard-{shard:05}-of-{shards:05}")
}

/// The name of file `number` of a shard.
pub(super) fn file_name(shard: u32, shards: u32, number: usize) -> String {
    format!("{}.{number:05}.tokens", stem(shard, shards))
}

/// Shard and shards of a manifest's name, and whether the shard is complete.
pub(super) fn of_name(name: &str) -> Option<(u32, u32, bool)> {
    let (stem, complete) = match name.strip_suffix(".partial.json") {
        Some(stem) => (stem, false),
        None => (name.strip_suffix(".json")?, true),
    };
    let (shard, shards) = stem.strip_prefix("shard-")?.split_once("-of-")?;
    let number = |digits: &str| digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok())?;
    Some((number(shard)?, number(shards)?, complete))
}

/// Whether a file whose name is that of a manifest is one: data sets have files of such names too.
pub(super) fn is_manifest(path: &Path) -> bool {
    /// Bytes at the start in which it must say so.
    const START: u64 = 1 << 20;
    let mut start = Vec::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(START).read_to_end(&mut start));
    read.is_ok() && start.windows(FORMAT.len()).any(|window| window == FORMAT.as_bytes())
}

impl Manifest {
    /// Reads and checks one.
    pub(super) fn read(path: &Path) -> Result<Self, DataError> {
        let io = |source| DataError::Io { path: path.to_owned(), source };
        let wrong = |problem: String| DataError::TokenManifest { path: path.to_owned(), problem };
        let bytes = std::fs::metadata(path).map_err(io)?.len();
        if bytes > LARGEST {
            return Err(wrong(format!("it has {bytes} bytes")));
        }
        let text = std::fs::read(path).map_err(io)?;
        let manifest: Self = serde_json::from_slice(&text).map_err(|error| wrong(error.to_string()))?;
        manifest.check(path).map_err(wrong)?;
        Ok(manifest)
    }

    fn check(&self, path: &Path) -> Result<(), String> {
        if self.format != FORMAT || !(1..=VERSION).contains(&self.version) {
            let (format, version) = (&self.format, self.version);
            return Err(format!(
                "it is `{format}`, version {version}, not `{FORMAT}`, version 1 to {VERSION}"
            ));
        }
        let named = path.file_name().and_then(|name| of_name(&name.to_string_lossy()));
        if named.is_none_or(|(shard, shards, _)| (shard, shards) != (self.shard, self.shards))
            || self.shard >= self.shards
        {
            return Err(format!(
                "it is of shard {} of {}, not of the one in its name",
                self.shard, self.shards
            ));
        }
        for (number, file) in self.files.iter().enumerate() {
            let expected = file_name(self.shard, self.shards, number);
            if file.name != expected {
                return Err(format!("file {number} should be {expected}, but is {:?}", file.name));
            }
        }
        Ok(())
    }

    /// Whether what another shard was made with is no contradiction: each forgets the template and the special tokens
    /// that none of its rows needs.
    pub(super) fn agrees(&self, other: &Self) -> bool {
        let templates = self.chat_template == other.chat_template
            || self.chat_template.is_none()
            || other.chat_template.is_none();
        let special = |(name, token): (&String, &String)| {
            other.special_tokens.get(name).is_none_or(|other| other == token)
        };
        templates && self.special_tokens.iter().all(special)
    }

    /// Writes it so that it is there whole or not at all.
    pub(super) fn write(&self, path: &Path) -> Result<(), DataError> {
        let text = serde_json::to_vec_pretty(self).expect("plain data");
        write_whole(path, |file| file.write_all(&text))
    }
}

/// Writes a file under another name, flushes it, and gives it its name.
fn write_whole(
    path: &Path,
    write: impl FnOnce(&mut std::fs::File) -> std::io::Result<()>,
) -> Result<(), DataError> {
    let temporary = Temporary::of(path);
    let created = std::fs::File::options().write(true).create_new(true).open(&temporary.path);
    let written = created.and_then(|mut file| {
        write(&mut file)?;
        file.sync_all()
    });
    let moved = written.and_then(|()| temporary.publish(path));
    moved.map_err(|source| DataError::Io { path: path.to_owned(), source })
}

/// How names of files in the making end.
pub(super) const UNFINISHED: &str = ".partial";

/// The name of a file in the making, which no other attempt at the same file has; what is under it is removed with
/// this, unless it was published.
#[derive(Debug)]
pub(super) struct Temporary {
    pub(super) path: PathBuf,
}

impl Temporary {
    /// For a file that will be `path`.
    pub(super) fn of(path: &Path) -> Self {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        // Numbers of processes are not enough: every container has its number 1. The standard library's hasher has a
        // random key.
        let own = RandomState::new().hash_one(path);
        Self { path: path.with_file_name(format!(".{name}.{own:016x}{UNFINISHED}")) }
    }

    /// Gives a flushed file its name, and flushes that.
    pub(super) fn publish(&self, path: &Path) -> std::io::Result<()> {
        std::fs::rename(&self.path, path)?;
        foundry_formats::flush_dir(path.parent().unwrap_or(Path::new(".")))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // After publishing there is nothing under this name.
        let _ = std::fs::remove_file(&self.path);
    }
}
