//! Downloads into the hub cache, by the official client (crate `hf-hub`), which resumes partial files and keeps the
//! token from other hosts on redirects.

use super::dataset::{list_path, of_split};
use super::settings::Kind;
use super::split::{Part, choose};
use super::{HubError, HubSettings, Need, snapshot};
use crate::console::DownloadBar;
use hf_hub::api::RepoInfo;
use hf_hub::api::sync::{Api, ApiBuilder, ApiError, ApiRepo};
use hf_hub::{Repo, RepoType};
use std::path::{Path, PathBuf};

/// Fetches what is missing of a model and returns the snapshot's directory.
pub(super) fn download(
    settings: &HubSettings,
    id: &str,
    revision: &str,
    need: Need,
    quiet: bool,
) -> Result<PathBuf, HubError> {
    let fetcher = open(settings, Kind::Model, id, revision, quiet)?;
    fetcher.description(need)?;
    if need == Need::Everything {
        fetcher.weights()?;
    }
    fetcher.name_revision()?;
    Ok(fetcher.snapshot())
}

/// Fetches what is missing of a split of a data set and returns its files.
pub(super) fn download_dataset(
    settings: &HubSettings,
    id: &str,
    part: &Part,
    quiet: bool,
) -> Result<Vec<PathBuf>, HubError> {
    let fetcher = open(settings, Kind::Dataset, id, &part.revision, quiet)?;
    let readme = fetcher.has("README.md").then(|| fetcher.file("README.md")).transpose()?;
    let readme = readme.and_then(|()| std::fs::read_to_string(fetcher.snapshot().join("README.md")).ok());
    let files: Vec<String> = fetcher.info.siblings.iter().map(|file| file.rfilename.clone()).collect();
    let chosen = choose(&files, readme.as_deref(), part).map_err(|problem| of_split(id, part, problem))?;
    chosen.iter().try_for_each(|file| fetcher.file(file))?;
    fetcher.remember(&files)?;
    fetcher.name_revision()?;
    Ok(chosen.iter().map(|file| fetcher.snapshot().join(file)).collect())
}

/// Asks the hub for the files of a revision.
fn open<'a>(
    settings: &'a HubSettings,
    kind: Kind,
    id: &'a str,
    revision: &'a str,
    quiet: bool,
) -> Result<Fetcher<'a>, HubError> {
    let (repo_type, what) = match kind {
        Kind::Model => (RepoType::Model, "model"),
        Kind::Dataset => (RepoType::Dataset, "data set"),
    };
    let api = ApiBuilder::new()
        .with_cache_dir(settings.cache.clone())
        .with_endpoint(settings.endpoint.clone())
        .with_token(settings.token.clone())
        .with_user_agent("llm-foundry", env!("CARGO_PKG_VERSION"))
        .with_progress(false)
        .build()
        .map_err(|e| network(settings, id, what, &e))?;
    let named = api.repo(Repo::with_revision(id.to_owned(), repo_type, revision.to_owned()));
    let info = named.info().map_err(|error| match status(&error) {
        Some(404) => {
            let (id, endpoint) = (id.into(), settings.endpoint.clone());
            HubError::NotFound { id, endpoint, revision: revision.into(), what }
        }
        _ => refused(settings, id, "the list of files", &error),
    })?;
    let is_commit =
        info.sha.len() >= 7 && info.sha.len() <= 64 && info.sha.chars().all(|c| c.is_ascii_hexdigit());
    if !is_commit {
        let what = format!("`{}` is not a commit", info.sha);
        return Err(HubError::Nonsense { id: id.into(), file: "the list of files".into(), what });
    }
    // Everything is fetched from one commit, even if the branch moves meanwhile.
    let repo = api.repo(Repo::with_revision(id.to_owned(), repo_type, info.sha.clone()));
    let repository = settings.repository_of(kind, id);
    Ok(Fetcher { settings, id, revision, repository, api, repo, info, quiet })
}

struct Fetcher<'a> {
    settings: &'a HubSettings,
    id: &'a str,
    revision: &'a str,
    /// Its directory in the cache.
    repository: PathBuf,
    api: Api,
    repo: ApiRepo,
    info: RepoInfo,
    quiet: bool,
}

impl Fetcher<'_> {
    fn snapshot(&self) -> PathBuf {
        self.repository.join("snapshots").join(&self.info.sha)
    }

    fn has(&self, file: &str) -> bool {
        self.info.siblings.iter().any(|s| s.rfilename == file)
    }

    fn absent(&self, file: &str, remedy: impl Into<String>) -> HubError {
        let (id, revision, file) = (self.id.into(), self.revision.into(), file.into());
        HubError::FileMissing { id, revision, file, remedy: remedy.into() }
    }

    fn description(&self, need: Need) -> Result<(), HubError> {
        let wanted = if need == Need::Tokenizer { "tokenizer.json" } else { "config.json" };
        if !self.has(wanted) {
            let gguf = self.info.siblings.iter().find(|s| s.rfilename.ends_with(".gguf"));
            return Err(self.absent(
                wanted,
                match gguf {
                    Some(file) => {
                        format!("it has GGUF files: download one ({}) and give its path", file.rfilename)
                    }
                    None => "name a model in transformers' format".to_owned(),
                },
            ));
        }
        snapshot::DESCRIPTION.iter().filter(|file| self.has(file)).try_for_each(|file| self.file(file))
    }

    fn weights(&self) -> Result<(), HubError> {
        if self.has(snapshot::INDEX) {
            self.file(snapshot::INDEX)?;
            let text = std::fs::read_to_string(self.snapshot().join(snapshot::INDEX)).unwrap_or_default();
            let what = "it is not an index of .safetensors files beside it".to_owned();
            let nonsense = || HubError::Nonsense { id: self.id.into(), file: snapshot::INDEX.into(), what };
            let shards = snapshot::shards(&text).ok_or_else(nonsense)?;
            return shards.iter().try_for_each(|file| self.file(file));
        }
        if self.has(snapshot::WEIGHTS) {
            return self.file(snapshot::WEIGHTS);
        }
        let pickle =
            self.info.siblings.iter().find(|s| s.rfilename.ends_with(".bin") || s.rfilename.ends_with(".pt"));
        Err(self.absent(
            snapshot::WEIGHTS,
            match pickle {
                Some(file) => format!(
                    "it has only a pickle checkpoint ({}), and loading pickle runs code from the file, so it is \
                     refused; convert it once with transformers (`save_pretrained` writes safetensors)",
                    file.rfilename
                ),
                None => "name a model with safetensors weights".to_owned(),
            },
        ))
    }

    /// One file, unless it is there already.
    fn file(&self, file: &str) -> Result<(), HubError> {
        let path = self.snapshot().join(file);
        if path.is_file() {
            return Ok(());
        }
        let fetch = || self.repo.download_with_progress(file, DownloadBar::new(self.quiet));
        let fetched = fetch().or_else(|error| match status(&error) {
            // A complete part file that was never renamed: its next byte does not exist.
            Some(416) => self.forget_part(file).map_or(Err(error), |()| fetch()),
            _ => Err(error),
        });
        fetched.map_err(|e| refused(self.settings, self.id, file, &e))?;
        self.check_length(file, &path)
    }

    fn forget_part(&self, file: &str) -> Option<()> {
        let metadata = self.api.metadata(&self.repo.url(file)).ok()?;
        let blob = self.repository.join("blobs").join(metadata.etag());
        std::fs::remove_file(blob.with_extension("part")).ok()
    }

    /// A server that ignores ranges would have appended the whole file to a part of it.
    fn check_length(&self, file: &str, path: &Path) -> Result<(), HubError> {
        let failed = |e: &ApiError| network(self.settings, self.id, file, e);
        let wanted = self.api.metadata(&self.repo.url(file)).map_err(|e| failed(&e))?.size() as u64;
        let got = std::fs::metadata(path).map(|m| m.len()).unwrap_or(0);
        if got == wanted {
            return Ok(());
        }
        if let Ok(blob) = std::fs::canonicalize(path) {
            let _ = std::fs::remove_file(blob);
        }
        let _ = std::fs::remove_file(path);
        let what = format!("{got} bytes came instead of {wanted}; they were thrown away");
        Err(HubError::Nonsense { id: self.id.into(), file: file.into(), what })
    }

    /// Keeps the list of all files, so that a later run knows without the network what belongs to a split.
    fn remember(&self, files: &[String]) -> Result<(), HubError> {
        let path = list_path(&self.repository, &self.info.sha);
        let text = serde_json::to_string(files).expect("texts are JSON");
        let partial = path.with_extension("partial");
        let written = path
            .parent()
            .map_or(Ok(()), std::fs::create_dir_all)
            .and_then(|()| std::fs::write(&partial, text))
            .and_then(|()| std::fs::rename(&partial, &path));
        written.map_err(|e| network(self.settings, self.id, "the list of files", &ApiError::IoError(e)))
    }

    /// Notes which commit the branch stands for, as `huggingface_hub` does.
    fn name_revision(&self) -> Result<(), HubError> {
        let refs = self.repository.join("refs");
        // The client makes a reference for the commit itself; others do not.
        let _ = std::fs::remove_file(refs.join(&self.info.sha));
        if self.revision == self.info.sha {
            return Ok(());
        }
        let path = refs.join(self.revision);
        let written = path
            .parent()
            .map_or(Ok(()), std::fs::create_dir_all)
            .and_then(|()| std::fs::write(&path, &self.info.sha));
        written.map_err(|e| network(self.settings, self.id, "refs", &ApiError::IoError(e)))
    }
}

fn status(error: &ApiError) -> Option<u16> {
    match error {
        ApiError::RequestError(error) => match **error {
            ureq::Error::StatusCode(code) => Some(code),
            _ => None,
        },
        ApiError::TooManyRetries(error) => status(error),
        _ => None,
    }
}

fn network(settings: &HubSettings, id: &str, file: &str, error: &ApiError) -> HubError {
    let (id, file, endpoint) = (id.into(), file.into(), settings.endpoint.clone());
    HubError::Network { id, file, endpoint, cause: error.to_string() }
}

fn refused(settings: &HubSettings, id: &str, file: &str, error: &ApiError) -> HubError {
    let endpoint = settings.endpoint.clone();
    match status(error) {
        Some(status @ (401 | 403)) => {
            HubError::Unauthorized { id: id.into(), endpoint, status, has_token: settings.token.is_some() }
        }
        _ => network(settings, id, file, error),
    }
}
