//! Where the cache is, which server to ask, and with which token: the environment variables of `huggingface_hub`.

use std::path::{Path, PathBuf};

/// What a repository of the hub holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A model.
    Model,
    /// A data set.
    Dataset,
}

/// Settings of the hub, read from the environment once.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct HubSettings {
    /// `HF_HUB_CACHE`, else `HF_HOME/hub`, else `~/.cache/huggingface/hub`.
    pub(crate) cache: PathBuf,
    /// `HF_ENDPOINT`, else <https://huggingface.co>.
    pub(crate) endpoint: String,
    /// `HF_TOKEN`, else the content of `HF_TOKEN_PATH`, else of `HF_HOME/token`.
    pub(crate) token: Option<String>,
    /// `HF_HUB_OFFLINE=1`: only the cache.
    pub(crate) offline: bool,
}

/// Without the token: settings may end up in messages.
impl std::fmt::Debug for HubSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let token = self.token.as_ref().map(|_| "(set)");
        f.debug_struct("HubSettings")
            .field("cache", &self.cache)
            .field("endpoint", &self.endpoint)
            .field("token", &token)
            .field("offline", &self.offline)
            .finish()
    }
}

impl HubSettings {
    /// Reads the environment through `get`.
    pub(crate) fn from_env(get: impl Fn(&str) -> Option<String>) -> Self {
        let set = |name: &str| get(name).map(|v| v.trim().to_owned()).filter(|v| !v.is_empty());
        let user = set("HOME").or_else(|| set("USERPROFILE")).unwrap_or_else(|| ".".into());
        let path = |text: String| match text.strip_prefix("~/") {
            Some(rest) => Path::new(&user).join(rest),
            None => PathBuf::from(text),
        };
        let home = match (set("HF_HOME"), set("XDG_CACHE_HOME")) {
            (Some(home), _) => path(home),
            (None, Some(xdg)) => path(xdg).join("huggingface"),
            (None, None) => Path::new(&user).join(".cache/huggingface"),
        };
        let token_file = set("HF_TOKEN_PATH").map_or_else(|| home.join("token"), path);
        let read_token = || std::fs::read_to_string(token_file).ok().map(|t| t.trim().to_owned());
        let cache = set("HF_HUB_CACHE")
            .or_else(|| set("HUGGINGFACE_HUB_CACHE"))
            .map_or_else(|| home.join("hub"), path);
        Self {
            // Links inside the cache are made between absolute paths.
            cache: std::path::absolute(&cache).unwrap_or(cache),
            endpoint: set("HF_ENDPOINT").map_or_else(
                || "https://huggingface.co".into(),
                |endpoint| endpoint.trim_end_matches('/').to_owned(),
            ),
            token: set("HF_TOKEN").or_else(read_token).filter(|t| !t.is_empty()),
            offline: set("HF_HUB_OFFLINE")
                .is_some_and(|v| ["1", "on", "yes", "true"].contains(&v.to_lowercase().as_str())),
        }
    }

    /// The cache's directory of one model.
    #[cfg(test)]
    pub(crate) fn repository(&self, id: &str) -> PathBuf {
        self.repository_of(Kind::Model, id)
    }

    /// The cache's directory of one repository.
    pub(crate) fn repository_of(&self, kind: Kind, id: &str) -> PathBuf {
        let kind = match kind {
            Kind::Model => "models",
            Kind::Dataset => "datasets",
        };
        self.cache.join(format!("{kind}--{}", id.replace('/', "--")))
    }

    /// The cached snapshot of a model's branch, tag or commit, complete or not.
    pub(crate) fn snapshot(&self, id: &str, revision: &str) -> Option<PathBuf> {
        self.snapshot_of(Kind::Model, id, revision)
    }

    /// The cached snapshot of a branch, tag or commit, complete or not.
    pub(crate) fn snapshot_of(&self, kind: Kind, id: &str, revision: &str) -> Option<PathBuf> {
        let repository = self.repository_of(kind, id);
        if revision.split('/').any(|part| part.is_empty() || part == ".." || part == ".") {
            return None;
        }
        let by_ref = std::fs::read_to_string(repository.join("refs").join(revision)).ok();
        let commit = by_ref.as_deref().map_or(revision, str::trim);
        let is_name =
            !commit.is_empty() && commit.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
        let snapshot = repository.join("snapshots").join(commit);
        (is_name && !commit.starts_with('.') && snapshot.is_dir()).then_some(snapshot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(vars: &[(&str, &str)]) -> HubSettings {
        HubSettings::from_env(|name| vars.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned()))
    }

    #[test]
    fn directories_are_those_of_huggingface_hub() {
        assert_eq!(settings(&[("HOME", "/u")]).cache, Path::new("/u/.cache/huggingface/hub"));
        assert_eq!(
            settings(&[("HOME", "/u"), ("XDG_CACHE_HOME", "/x")]).cache,
            Path::new("/x/huggingface/hub")
        );
        assert_eq!(settings(&[("HOME", "/u"), ("HF_HOME", "~/hf")]).cache, Path::new("/u/hf/hub"));
        assert_eq!(settings(&[("HF_HOME", "/h"), ("HF_HUB_CACHE", "/c")]).cache, Path::new("/c"));
    }

    #[test]
    fn tokens_come_from_the_variable_or_a_file() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let home = dir.path().to_str().expect("UTF-8");
        std::fs::write(dir.path().join("token"), "from-home\n").expect("written");
        std::fs::write(dir.path().join("other"), "from-path").expect("written");
        let other = format!("{home}/other");
        assert_eq!(settings(&[("HF_HOME", home)]).token.as_deref(), Some("from-home"));
        assert_eq!(
            settings(&[("HF_HOME", home), ("HF_TOKEN_PATH", &other)]).token.as_deref(),
            Some("from-path")
        );
        let all = settings(&[("HF_HOME", home), ("HF_TOKEN_PATH", &other), ("HF_TOKEN", " direct ")]);
        assert_eq!(all.token.as_deref(), Some("direct"));
        assert!(!format!("{all:?}").contains("direct"));
    }

    #[test]
    fn offline_and_endpoint() {
        for (value, offline) in [("1", true), ("TRUE", true), ("on", true), ("0", false), ("", false)] {
            assert_eq!(settings(&[("HF_HUB_OFFLINE", value)]).offline, offline, "{value:?}");
        }
        assert_eq!(settings(&[("HF_ENDPOINT", "http://h/")]).endpoint, "http://h");
    }

    #[test]
    fn snapshots_are_found_by_branch_and_by_commit_and_stay_inside() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let settings = settings(&[("HF_HUB_CACHE", dir.path().to_str().expect("UTF-8"))]);
        let repository = settings.repository("org/name");
        std::fs::create_dir_all(repository.join("snapshots/abc")).expect("made");
        std::fs::create_dir_all(repository.join("refs")).expect("made");
        std::fs::write(repository.join("refs/main"), "abc").expect("written");
        std::fs::write(repository.join("refs/evil"), "../../elsewhere").expect("written");
        let found = Some(repository.join("snapshots/abc"));
        assert_eq!(settings.snapshot("org/name", "main"), found);
        assert_eq!(settings.snapshot("org/name", "abc"), found);
        assert_eq!(settings.snapshot("org/name", "def"), None);
        assert_eq!(settings.snapshot("org/name", "evil"), None);
        assert_eq!(settings.snapshot("org/name", "../refs"), None);
    }
}
