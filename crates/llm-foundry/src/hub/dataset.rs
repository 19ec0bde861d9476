//! Data sets by hub id: the files of one split, from the cache where they are, else downloaded.

use super::settings::Kind;
use super::split::{Part, choose};
use super::{HubError, HubSettings};
use std::path::{Path, PathBuf};

/// Where the list of all files of a commit is remembered, in the repository's directory of the cache: what is in a
/// snapshot need not be all there is.
const LISTS: &str = "llm-foundry";
/// Most names in such a list, or files looked at in a snapshot.
const MOST_FILES: usize = 1_000_000;

/// Whether files may be fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fetch {
    /// Yes, with progress shown.
    Shown,
    /// Yes, silently.
    Silent,
    /// No: only what is in the cache.
    No,
}

impl Fetch {
    /// Yes; with progress shown unless `quiet`.
    pub(crate) fn unless_quiet(quiet: bool) -> Self {
        if quiet { Self::Silent } else { Self::Shown }
    }
}

/// The files of a split, on this machine.
///
/// # Errors
/// [`HubError`]; [`HubError::Split`] where the data set has no such part.
pub(crate) fn fetch_dataset(
    settings: &HubSettings,
    id: &str,
    part: &Part,
    fetch: Fetch,
) -> Result<Vec<PathBuf>, HubError> {
    let cached = cached(settings, id, part);
    let missing = match cached {
        Ok(Ok(paths)) => return Ok(paths),
        Ok(Err(missing)) => missing,
        Err(error) => return Err(error),
    };
    if settings.offline || fetch == Fetch::No {
        let (id, revision) = (id.to_owned(), part.revision.clone());
        return Err(HubError::Offline { id, revision, missing, cache: settings.cache.clone() });
    }
    #[cfg(feature = "hub")]
    return super::download::download_dataset(settings, id, part, fetch == Fetch::Silent);
    #[cfg(not(feature = "hub"))]
    {
        let (id, revision) = (id.to_owned(), part.revision.clone());
        Err(HubError::NoDownloads { id, revision, missing, cache: settings.cache.clone() })
    }
}

/// What the cache has: the files, or what is missing of them.
fn cached(
    settings: &HubSettings,
    id: &str,
    part: &Part,
) -> Result<Result<Vec<PathBuf>, Vec<String>>, HubError> {
    let nothing = || Ok(Err(vec!["the data set is".to_owned()]));
    let Some(snapshot) = settings.snapshot_of(Kind::Dataset, id, &part.revision) else { return nothing() };
    let commit = snapshot.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let list = list_path(&settings.repository_of(Kind::Dataset, id), &commit);
    let all: Option<Vec<String>> =
        std::fs::read(list).ok().and_then(|text| serde_json::from_slice(&text).ok());
    let is_whole = all.is_some();
    if !is_whole && !settings.offline {
        // Only the hub knows whether this is all.
        return nothing();
    }
    let files = all.unwrap_or_else(|| names_in(&snapshot));
    let has_readme = files.iter().any(|file| file == "README.md");
    let readme = std::fs::read_to_string(snapshot.join("README.md")).ok();
    if has_readme && readme.is_none() {
        return Ok(Err(vec!["README.md is".to_owned()]));
    }
    let chosen = choose(&files, readme.as_deref(), part).map_err(|problem| of_split(id, part, problem))?;
    let missing: Vec<String> = chosen.iter().filter(|file| !snapshot.join(file).is_file()).cloned().collect();
    if missing.is_empty() {
        return Ok(Ok(chosen.iter().map(|file| snapshot.join(file)).collect()));
    }
    Ok(Err(missing))
}

pub(super) fn of_split(id: &str, part: &Part, problem: super::split::SplitProblem) -> HubError {
    HubError::Split { id: id.to_owned(), revision: part.revision.clone(), problem }
}

/// Where the list of a commit's files is kept.
pub(super) fn list_path(repository: &Path, commit: &str) -> PathBuf {
    repository.join(LISTS).join(format!("{commit}.json"))
}

/// Names of all files below a directory.
fn names_in(dir: &Path) -> Vec<String> {
    let (mut names, mut open) = (Vec::new(), vec![dir.to_owned()]);
    while let Some(here) = open.pop() {
        for entry in std::fs::read_dir(&here).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                open.push(path);
            } else if let Ok(inside) = path.strip_prefix(dir) {
                names.push(inside.to_string_lossy().replace('\\', "/"));
            }
            if names.len() > MOST_FILES {
                return names;
            }
        }
    }
    names
}
