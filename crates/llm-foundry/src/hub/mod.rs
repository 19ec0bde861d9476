//! Models and data sets by hub id: the Hugging Face cache on disk, and (feature `hub`) downloads into it.
//!
//! Directories and environment variables are those of `huggingface_hub` 1.x, so that a model that Python has fetched is
//! not fetched again, and the other way round: `CACHE/models--ORG--NAME/{blobs,refs,snapshots}`,
//! `CACHE/datasets--…`.

mod dataset;
#[cfg(feature = "hub")]
mod download;
mod settings;
mod snapshot;
mod split;
#[cfg(feature = "hub")]
mod upload;
#[cfg(feature = "hub")]
mod upload_error;

pub(crate) use dataset::{Fetch, fetch_dataset};
pub(crate) use settings::HubSettings;
pub(crate) use snapshot::Need;
pub(crate) use split::{NO_DATA, Part};
#[cfg(feature = "hub")]
pub(crate) use upload::{Target, Upload, Uploader};
#[cfg(feature = "hub")]
pub(crate) use upload_error::PushError;

use std::path::PathBuf;

/// Why a model of the hub cannot be had. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HubError {
    #[error(
        "{id} (revision {revision}): {} not in the cache {}, and HF_HUB_OFFLINE forbids the network; unset it, or copy \
         the files there", missing.join(", "), cache.display()
    )]
    Offline { id: String, revision: String, missing: Vec<String>, cache: PathBuf },
    #[error("the data set {id} (revision {revision}): {problem}")]
    Split { id: String, revision: String, problem: split::SplitProblem },
    #[cfg(not(feature = "hub"))]
    #[error(
        "{id} (revision {revision}): {} not in the cache {}, and this program was built without the feature `hub`; \
         build with it, or download it yourself and give its directory", missing.join(", "), cache.display()
    )]
    NoDownloads { id: String, revision: String, missing: Vec<String>, cache: PathBuf },
    #[cfg(feature = "hub")]
    #[error("{id}: {endpoint} answers {status} (not authorised): it is private or gated, or its name is wrong; \
             {}",
        if *has_token { "the token in HF_TOKEN has no access: request it on its page" }
        else { "set HF_TOKEN to an access token of an account that may read it" })]
    Unauthorized { id: String, endpoint: String, status: u16, has_token: bool },
    #[cfg(feature = "hub")]
    #[error("{id}: {endpoint} knows no such {what} with revision {revision}; check the spelling")]
    NotFound { id: String, endpoint: String, revision: String, what: &'static str },
    #[cfg(feature = "hub")]
    #[error("{id} (revision {revision}): the hub has no {file} for it; {remedy}")]
    FileMissing { id: String, revision: String, file: String, remedy: String },
    #[cfg(feature = "hub")]
    #[error("{id}: {file}: the hub's answer makes no sense: {what}")]
    Nonsense { id: String, file: String, what: String },
    #[cfg(feature = "hub")]
    #[error(
        "{id}: download of {file} from {endpoint} failed: {cause}; run the command again to continue it, or set \
             HF_HUB_OFFLINE=1 to use the cache only"
    )]
    Network { id: String, file: String, endpoint: String, cause: String },
}

impl HubError {
    /// The world's fault (exit code 1), not the input's (2).
    pub(crate) fn is_of_the_world(&self) -> bool {
        #[cfg(feature = "hub")]
        return matches!(self, HubError::Network { .. } | HubError::Nonsense { .. });
        #[cfg(not(feature = "hub"))]
        false
    }
}

/// `org/name` or `name`, as the hub allows: letters, digits, `-`, `_`, `.`; no `--`, no `..`, at most 96 characters.
pub(crate) fn is_hub_id(name: &str) -> bool {
    let good = |part: &str| {
        !part.is_empty()
            && part.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
            && !part.starts_with(['-', '.'])
            && !part.ends_with(['-', '.'])
    };
    let parts: Vec<&str> = name.split('/').collect();
    name.len() <= 96
        && parts.len() <= 2
        && parts.into_iter().all(good)
        && !name.contains("--")
        && !name.contains("..")
}

/// The directory with what is needed of a model: from the cache where it is complete, else downloaded, with its
/// progress shown unless `quiet`.
pub(crate) fn fetch(
    settings: &HubSettings,
    id: &str,
    revision: &str,
    need: Need,
    #[cfg_attr(not(feature = "hub"), expect(unused_variables))] quiet: bool,
) -> Result<PathBuf, HubError> {
    let cached = settings.snapshot(id, revision);
    let missing = match &cached {
        Some(dir) => snapshot::missing(dir, need),
        None => vec!["the model is".to_owned()],
    };
    let error = match cached.clone() {
        Some(dir) if missing.is_empty() => return Ok(dir),
        _ if settings.offline => {
            let (id, revision) = (id.to_owned(), revision.to_owned());
            HubError::Offline { id, revision, missing, cache: settings.cache.clone() }
        }
        #[cfg(feature = "hub")]
        _ => match download::download(settings, id, revision, need, quiet) {
            Ok(dir) => return Ok(dir),
            Err(error) => error,
        },
        #[cfg(not(feature = "hub"))]
        _ => {
            let (id, revision) = (id.to_owned(), revision.to_owned());
            HubError::NoDownloads { id, revision, missing, cache: settings.cache.clone() }
        }
    };
    // Where nothing can be fetched, a plan makes do without a tokenizer.
    cached.filter(|dir| need == Need::Description && snapshot::has_config(dir)).ok_or(error)
}

#[cfg(all(test, feature = "hub"))]
mod dataset_tests;
#[cfg(all(test, feature = "hub"))]
mod tests;

#[cfg(test)]
mod id_tests {
    use super::*;

    #[test]
    fn ids_are_told_from_paths() {
        for id in
            ["gpt2", "HuggingFaceTB/SmolLM2-135M-Instruct", "mistralai/Mistral-7B-Instruct-v0.3", "a/b_c.d"]
        {
            assert!(is_hub_id(id), "{id}");
        }
        for path in ["./x", "a/b/c", "/abs", "a//b", "", "..", "a/..", "models/.hidden", "a b", "x--y", "~/m"]
        {
            assert!(!is_hub_id(path), "{path}");
        }
    }
}
