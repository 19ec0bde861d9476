//! A directory of token files, checked: which shards there are, and whether they belong together and to a run.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use foundry_formats::{TokenFile, Tokenizer};
use sha2::{Digest as _, Sha256};

use super::manifest::{FileRecord, Manifest, of_name, stem};
use super::settings::{contradiction, fingerprint, hex};
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

    /// The manifests in a directory.
    fn manifests(dir: &Path) -> Result<Option<Shards>, DataError> {
        let entries =
            std::fs::read_dir(dir).map_err(|source| DataError::Io { path: dir.to_owned(), source })?;
        let mut found = BTreeMap::new();
        for entry in entries {
            let entry = entry.map_err(|source| DataError::Io { path: dir.to_owned(), source })?;
            if let Some((shard, shards, complete)) = of_name(&entry.file_name().to_string_lossy()) {
                *found.entry((shard, shards)).or_insert(false) |= complete;
            }
        }
        Ok((!found.is_empty()).then_some(found))
    }

    /// Adds a shard.
    fn add(&mut self, manifest: Manifest, path: &Path) -> Result<(), DataError> {
        let common = &mut self.common;
        let differs = [
            ("another tokenizer", common.tokenizer != manifest.tokenizer),
            ("other settings", common.settings != manifest.settings),
            ("another chat template", common.chat_template != manifest.chat_template),
            ("other data", common.inputs != manifest.inputs),
        ];
        if let Some((what, _)) = differs.iter().find(|(_, differs)| *differs) {
            let problem =
                format!("it was made with {what} than shard {}; make all shards anew", common.shard);
            return Err(DataError::TokenManifest { path: path.to_owned(), problem });
        }
        common.shape = common.shape.or(manifest.shape);
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

    /// The error of a run that these tokens were not made for.
    fn check(&self, spec: &DataSpec, source: &Source, tokenizer: &Tokenizer) -> Result<Shape, DataError> {
        let dir = || self.dir.clone();
        if fingerprint(tokenizer) != self.common.tokenizer {
            return Err(DataError::OtherTokenizer { dir: dir() });
        }
        if let Some((key, asked, made)) = contradiction(spec, source, &self.common.settings) {
            let (asked, made) = (asked.to_string(), made.to_string());
            return Err(DataError::SettledInTokens { dir: dir(), key, asked, made });
        }
        let template = spec.chat_template.as_deref().or(tokenizer.chat_template());
        if self.common.chat_template.as_deref().is_some_and(|made| template != Some(made)) {
            return Err(DataError::OtherTemplate { dir: dir() });
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

impl TokenPart {
    /// One more than the largest id.
    pub(crate) fn ids(&self) -> u32 {
        self.set.common.tokenizer.ids
    }

    /// The file, whose whole content is checked the first time.
    pub(crate) fn open(&self, path: &Path) -> Result<Arc<TokenFile>, DataError> {
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = &*opened {
            return Ok(Arc::clone(file));
        }
        check_content(path, &self.record)?;
        let file = TokenFile::open(path).map_err(|e| DataError::TokenFile(Box::new(e)))?;
        let counts = (file.documents(), file.tokens());
        if counts != (self.record.documents, self.record.tokens) {
            let problem =
                format!("it has {} documents and {} tokens, its manifest says otherwise", counts.0, counts.1);
            return Err(DataError::TokenManifest { path: path.to_owned(), problem });
        }
        Ok(Arc::clone(opened.insert(Arc::new(file))))
    }
}

/// Size and SHA-256 of a token file, held against its manifest.
pub(super) fn check_content(path: &Path, record: &FileRecord) -> Result<(), DataError> {
    let io = |source| DataError::Io { path: path.to_owned(), source };
    let damaged = |problem: String| DataError::TokenManifest { path: path.to_owned(), problem };
    let bytes = std::fs::metadata(path).map_err(io)?.len();
    if bytes != record.bytes {
        return Err(damaged(format!("it has {bytes} bytes, its manifest says {}", record.bytes)));
    }
    if digest(path).map_err(io)? != record.sha256 {
        return Err(damaged("its SHA-256 is not that of its manifest".to_owned()));
    }
    Ok(())
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
