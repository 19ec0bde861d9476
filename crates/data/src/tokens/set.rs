//! A directory of token files, checked: which shards there are, and whether they belong together and to a run.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use foundry_formats::{TokenFile, Tokenizer};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::manifest::{FileRecord, Manifest, is_manifest, of_name, stem};
use super::settings::{contradiction, fingerprint, hex, template};
use crate::error::DataError;
use crate::shape::Shape;
use crate::source::DataFile;
use crate::spec::{DataSpec, Source};

/// Shard and shards, and whether the shard is complete.
type Shards = BTreeMap<(u32, u32), bool>;

/// A complete directory of token files.
#[derive(Debug)]
pub struct TokenSet {
    dir: PathBuf,
    /// Of the first shard, without what belongs to that alone.
    common: Manifest,
    files: Vec<FileRecord>,
}

/// A file of a [`TokenSet`].
#[derive(Debug)]
pub(crate) struct TokenPart {
    set: Arc<TokenSet>,
    record: FileRecord,
    /// The file, once its content was checked.
    opened: Mutex<Option<Arc<TokenFile>>>,
}

impl TokenSet {
    /// Opens a directory that `llm-foundry data tokenize` has written; `None` where no manifest is in it.
    ///
    /// # Errors
    /// [`DataError::TokenManifest`] for a manifest that is damaged or does not belong to the others;
    /// [`DataError::TokenShards`] where shards are missing.
    pub fn open(dir: &Path) -> Result<Option<Self>, DataError> {
        let Some(names) = Self::manifests(dir)? else { return Ok(None) };
        let shards = names.keys().next().map_or(0, |(_, shards)| *shards);
        let missing: Vec<String> = (0..shards.min(100_000))
            .filter(|&shard| !names.get(&(shard, shards)).is_some_and(|complete| *complete))
            .map(|shard| format!("{shard}/{shards}"))
            .collect();
        if let Some((_, other)) = names.keys().find(|(_, other)| *other != shards) {
            let problem =
                format!("shards of a division by {shards} and by {other} are mixed; keep one of them");
            return Err(DataError::TokenShards { dir: dir.to_owned(), problem });
        }
        if !missing.is_empty() {
            let list = missing.iter().take(10).cloned().collect::<Vec<_>>().join(", ");
            let problem = format!(
                "{} of {shards} shard(s) are not complete ({list}{}); make them with `llm-foundry data tokenize … \
                 --shard {}`",
                missing.len(),
                if missing.len() > 10 { ", …" } else { "" },
                missing[0]
            );
            return Err(DataError::TokenShards { dir: dir.to_owned(), problem });
        }
        let mut set: Option<Self> = None;
        for (shard, shards) in names.into_keys() {
            let path = dir.join(format!("{}.json", stem(shard, shards)));
            let manifest = Manifest::read(&path)?;
            let files = manifest.files.clone();
            match &mut set {
                None => set = Some(Self { dir: dir.to_owned(), common: manifest, files }),
                Some(set) => set.add(manifest, &path)?,
            }
        }
        Ok(set)
    }

    /// The manifests in a directory: files of such names are some where they say so, or where token files lie beside
    /// them.
    pub(super) fn manifests(dir: &Path) -> Result<Option<Shards>, DataError> {
        let entries =
            std::fs::read_dir(dir).map_err(|source| DataError::Io { path: dir.to_owned(), source })?;
        let (mut found, mut paths, mut has_tokens) = (BTreeMap::new(), Vec::new(), false);
        for entry in entries {
            let entry = entry.map_err(|source| DataError::Io { path: dir.to_owned(), source })?;
            let name = entry.file_name().to_string_lossy().into_owned();
            has_tokens |= name.ends_with(".tokens");
            if let Some((shard, shards, complete)) = of_name(&name) {
                *found.entry((shard, shards)).or_insert(false) |= complete;
                paths.push(entry.path());
            }
        }
        let is_set = !paths.is_empty() && (has_tokens || paths.iter().any(|path| is_manifest(path)));
        Ok(is_set.then_some(found))
    }

    /// Adds a shard.
    fn add(&mut self, manifest: Manifest, path: &Path) -> Result<(), DataError> {
        let common = &mut self.common;
        let differs = [
            ("another version of this program", common.version != manifest.version),
            ("another tokenizer", common.tokenizer != manifest.tokenizer),
            ("other settings", common.settings != manifest.settings),
            ("another chat template", !common.agrees(&manifest)),
            ("other data", common.inputs != manifest.inputs),
        ];
        if let Some((what, _)) = differs.iter().find(|(_, differs)| *differs) {
            let problem =
                format!("it was made with {what} than shard {}; make all shards anew", common.shard);
            return Err(DataError::TokenManifest { path: path.to_owned(), problem });
        }
        if let (Some(a), Some(b)) = (common.rendered_at, manifest.rendered_at)
            && a != b
        {
            let problem = format!(
                "its chat template told another moment ({b}) than shard {}'s ({a}, in seconds since 1970); make it anew \
                 with --force --rendered-at {a}",
                common.shard
            );
            return Err(DataError::TokenShards { dir: path.to_owned(), problem });
        }
        common.shape = common.shape.or(manifest.shape);
        common.chat_template = common.chat_template.take().or(manifest.chat_template);
        common.rendered_at = common.rendered_at.or(manifest.rendered_at);
        common.special_tokens.extend(manifest.special_tokens);
        common.counts = common.counts.plus(manifest.counts);
        self.files.extend(manifest.files);
        Ok(())
    }

    /// Its files, in their order.
    pub fn into_files(self) -> Vec<DataFile> {
        let set = Arc::new(self);
        let part = |record: &FileRecord| TokenPart {
            set: Arc::clone(&set),
            record: record.clone(),
            opened: Mutex::new(None),
        };
        set.files
            .iter()
            .map(|record| DataFile::tokens(set.dir.join(&record.name), Arc::new(part(record))))
            .collect()
    }

    /// What was counted when it was written.
    pub fn counts(&self) -> super::ShardCounts {
        self.common.counts
    }

    /// Whether it is known which documents are of one example: from version 2 on, or where none was split.
    fn knows_examples(&self) -> bool {
        let is_whole = |setting: &Value| ["whole", "refuse"].iter().any(|whole| setting == whole);
        let whole = self.common.settings.get("multi_turn").is_some_and(|setting| match setting {
            Value::Array(each) => each.iter().all(is_whole),
            one => is_whole(one),
        });
        self.common.version >= 2 || whole
    }

    /// The error of a run that these tokens were not made for.
    fn check(&self, spec: &DataSpec, source: &Source, tokenizer: &Tokenizer) -> Result<Shape, DataError> {
        let dir = || self.dir.clone();
        if !fingerprint(tokenizer).fits(&self.common.tokenizer) {
            return Err(DataError::OtherTokenizer { dir: dir() });
        }
        if let Some((key, asked, made)) = contradiction(spec, source, &self.common.settings)? {
            let (asked, made) = (asked.to_string(), made.to_string());
            return Err(DataError::SettledInTokens { dir: dir(), key, asked, made });
        }
        let template = template(spec, tokenizer);
        if self.common.chat_template.as_deref().is_some_and(|made| template != Some(made)) {
            return Err(DataError::OtherTemplate { dir: dir() });
        }
        let special: BTreeMap<String, String> = tokenizer.special_tokens().into_iter().collect();
        if let Some((name, made)) =
            self.common.special_tokens.iter().find(|(name, made)| special.get(*name) != Some(made))
        {
            let (name, made) = (name.clone(), made.clone());
            let asked = special.get(&name).cloned();
            return Err(DataError::OtherSpecialToken { dir: dir(), name, made, asked });
        }
        // Without rows there are no files either.
        Ok(self.common.shape.unwrap_or(Shape::Text))
    }
}

/// The shape of a source of token files; `None` where it has other files.
pub(crate) fn check_source(
    spec: &DataSpec,
    source: &Source,
    tokenizer: &Tokenizer,
) -> Result<Option<Shape>, DataError> {
    let parts: Vec<_> = source.files.iter().filter_map(DataFile::token_part).collect();
    if parts.is_empty() {
        return Ok(None);
    }
    let other = source.files.iter().find(|file| file.token_part().is_none());
    if let Some(other) = other {
        let (dir, file) = (parts[0].set.dir.clone(), other.path().to_path_buf());
        return Err(DataError::TokensAmongFiles { dir, file });
    }
    let mut shape = None;
    let mut checked: Vec<&Arc<TokenSet>> = Vec::new();
    for part in parts {
        if checked.iter().any(|set| Arc::ptr_eq(set, &part.set)) {
            continue;
        }
        shape = shape.or(Some(part.set.check(spec, source, tokenizer)?));
        checked.push(&part.set);
    }
    Ok(shape)
}

/// The error of token files of which no part can be held out: conversations that were split would be torn.
pub(crate) fn check_holdout(sources: &[Source]) -> Result<(), DataError> {
    let mut parts = sources.iter().flat_map(|source| &source.files).filter_map(DataFile::token_part);
    match parts.find(|part| !part.set.knows_examples()) {
        Some(part) => Err(DataError::ExamplesUnknown { dir: part.set.dir.clone() }),
        None => Ok(()),
    }
}

impl TokenPart {
    /// One more than the largest id.
    pub(crate) fn ids(&self) -> u32 {
        self.set.common.tokenizer.ids
    }

    /// What the manifest says of its content.
    pub(super) fn sha256(&self) -> &str {
        &self.record.sha256
    }

    /// The file: its size and its sums, which stand for all of its content, are checked the first time (of version 1
    /// all of its content).
    pub(crate) fn open(&self, path: &Path) -> Result<Arc<TokenFile>, DataError> {
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = &*opened {
            return Ok(Arc::clone(file));
        }
        let file = open_checked(path, &self.record, self.set.common.version)?;
        Ok(Arc::clone(opened.insert(Arc::new(file))))
    }
}

/// Opens a token file that is what its manifest, of `version`, says; blocks of version 2 are checked when they are
/// read.
pub(super) fn open_checked(path: &Path, record: &FileRecord, version: u32) -> Result<TokenFile, DataError> {
    let io = |source| DataError::Io { path: path.to_owned(), source };
    let damaged = |problem: String| DataError::TokenManifest { path: path.to_owned(), problem };
    let bytes = std::fs::metadata(path).map_err(io)?.len();
    if bytes != record.bytes {
        return Err(damaged(format!("it has {bytes} bytes, its manifest says {}", record.bytes)));
    }
    let other = || damaged("its SHA-256 is not that of its manifest".to_owned());
    if version == 1 && digest(path).map_err(io)? != record.sha256 {
        return Err(other());
    }
    let failed = |e| DataError::TokenFile(Box::new(e));
    let file = TokenFile::open(path).map_err(failed)?;
    let sums = file.sums_sha256().map_err(failed)?;
    if version != 1 && sums.is_none_or(|sums| hex(&sums) != record.sha256) {
        return Err(other());
    }
    let counts = (file.documents(), file.tokens());
    if counts != (record.documents, record.tokens) {
        let (documents, tokens) = counts;
        let problem =
            format!("it has {documents} documents and {tokens} tokens, its manifest says otherwise");
        return Err(damaged(problem));
    }
    Ok(file)
}

/// The whole content of a token file, held against its manifest, of `version`.
pub(super) fn check_content(path: &Path, record: &FileRecord, version: u32) -> Result<(), DataError> {
    let file = open_checked(path, record, version)?;
    file.check_all().map_err(|e| DataError::TokenFile(Box::new(e)))
}

/// SHA-256 of a file.
pub(super) fn digest(path: &Path) -> io::Result<String> {
    let mut hash = Sha256::new();
    let mut file = File::open(path)?;
    let mut buffer = vec![0; 1 << 20];
    loop {
        match io::Read::read(&mut file, &mut buffer)? {
            0 => return Ok(hex(&hash.finalize())),
            read => hash.update(&buffer[..read]),
        }
    }
}
