//! Where what can be made again is kept: blocks of remote files, counts of rows.

use std::path::{Path, PathBuf};

/// `FOUNDRY_CACHE`, else `XDG_CACHE_HOME/llm-foundry`, else `~/.cache/llm-foundry`.
pub(crate) fn cache_dir(get: &impl Fn(&str) -> Option<String>) -> PathBuf {
    let set = |name: &str| get(name).filter(|value| !value.is_empty());
    let home = || set("HOME").or_else(|| set("USERPROFILE")).unwrap_or_else(|| ".".into());
    match (set("FOUNDRY_CACHE"), set("XDG_CACHE_HOME")) {
        (Some(own), _) => PathBuf::from(own),
        (None, Some(cache)) => Path::new(&cache).join("llm-foundry"),
        (None, None) => Path::new(&home()).join(".cache/llm-foundry"),
    }
}
