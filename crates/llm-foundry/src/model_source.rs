//! From what a user calls a model to files on disk: a directory, a `.gguf` file, or a hub id.

use crate::checkpoint_dir;
use crate::failure::{Failure, Outcome};
use crate::hub::{self, HubSettings, Need};
use std::path::{Path, PathBuf};

/// Finds a model (or, with [`Need::Tokenizer`], a tokenizer). A path that exists comes first; then hub ids. A damaged
/// checkpoint whose weights are wanted is refused.
pub(crate) fn find(name: &str, revision: &str, need: Need, quiet: bool) -> Outcome<PathBuf> {
    let path = expand_home(name);
    if path.exists() {
        if need == Need::Everything {
            checkpoint_dir::check(&path)?;
        }
        return Ok(path);
    }
    let looks_like_path =
        !hub::is_hub_id(name) || path.extension().is_some_and(|e| e.eq_ignore_ascii_case("gguf"));
    if looks_like_path {
        return Err(Failure::Input(not_found(name, &path)));
    }
    let settings = HubSettings::from_env(|variable| std::env::var(variable).ok());
    hub::fetch(&settings, name, revision, need, quiet).map_err(|error| {
        let near = neighbour(&path).map_or_else(String::new, |near| {
            format!("\n  did you mean {}, which is here?", path.with_file_name(near).display())
        });
        let message =
            format!("no file or directory `{name}` here, so it was looked up as a hub id:\n  {error}{near}");
        if error.is_of_the_world() { Failure::Run(message) } else { Failure::Input(message) }
    })
}

fn not_found(name: &str, path: &Path) -> String {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let why = if name.to_lowercase().ends_with(".gguf") {
        "it names a .gguf file, so it was not looked up on the hub"
    } else {
        "it is not a hub id either (those look like org/name)"
    };
    let near = neighbour(&absolute).map_or_else(String::new, |near| format!("\n  a near name there: {near}"));
    format!(
        "no model `{name}`\n  tried: the path {} (does not exist); {why}{near}\n  give a directory with config.json \
         and safetensors, a .gguf file, or a hub id such as HuggingFaceTB/SmolLM2-135M-Instruct",
        absolute.display()
    )
}

/// A similarly spelled name in the same directory.
pub(crate) fn neighbour(path: &Path) -> Option<String> {
    let path = std::path::absolute(path).ok()?;
    let wanted = path.file_name()?.to_string_lossy().to_lowercase();
    let names = std::fs::read_dir(path.parent()?)
        .ok()?
        .flatten()
        .map(|e| e.file_name().to_string_lossy().into_owned());
    names
        .map(|name| (strsim::damerau_levenshtein(&wanted, &name.to_lowercase()), name))
        .filter(|(edits, _)| *edits <= 2)
        .min()
        .map(|(_, name)| name)
}

/// `~/x` as the shell would read it: YAML files are not seen by a shell.
pub(crate) fn expand_home(name: &str) -> PathBuf {
    match (name.strip_prefix("~/"), std::env::var_os("HOME")) {
        (Some(rest), Some(home)) => Path::new(&home).join(rest),
        _ => PathBuf::from(name),
    }
}
