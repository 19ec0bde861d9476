//! Finding checkpoints: the latest one that is sound, and what is wrong with those that are not.

use super::manifest::{STATE_LIMIT, read_bounded};
use super::{CheckpointError, Damage, STATE, TrainerState, verify};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

const PREFIX: &str = "checkpoint-";
/// A checkpoint that is being written or deleted: worthless.
pub(crate) const PARTIAL: &str = ".partial-checkpoint-";
/// A checkpoint that was moved aside for a new one of the same step: sound, and wanted if the new one is not there.
pub(crate) const REPLACED: &str = ".replaced-checkpoint-";
/// A checkpoint of a course that a resume from an earlier one left: sound, never looked at, the user's to delete.
pub(crate) const ABANDONED: &str = ".abandoned-checkpoint-";

/// Name of a checkpoint's directory.
pub(crate) fn name(step: u64) -> String {
    format!("{PREFIX}{step}")
}

/// A checkpoint whose files are those that were written.
#[derive(Debug, Clone, PartialEq)]
pub struct Checkpoint {
    /// Its directory.
    pub path: PathBuf,
    /// Where the run stood.
    pub state: TrainerState,
}

impl Checkpoint {
    /// It holds the model only (`save_only_model`): a run cannot go on from it.
    pub fn is_model_only(&self) -> bool {
        self.state.arguments.save_only_model
    }
}

/// What a search found.
#[derive(Debug, Default)]
pub struct Search {
    /// The latest sound checkpoint that a run can go on from.
    pub found: Option<Checkpoint>,
    /// Later ones that hold the model only, latest first.
    pub model_only: Vec<PathBuf>,
    /// Later ones that are damaged, latest first; to be shown to the user.
    pub damaged: Vec<(PathBuf, Damage)>,
}

fn at<'a>(path: &'a Path, action: &'static str) -> impl FnOnce(io::Error) -> CheckpointError + 'a {
    move |source| CheckpointError::Read { path: path.to_path_buf(), action, source }
}

/// Entries of `dir` named `prefix` and a number, by number. A directory that does not exist has none.
fn numbered(dir: &Path, prefix: &str) -> Result<Vec<(u64, PathBuf)>, CheckpointError> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(at(dir, "list")(error)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(at(dir, "list"))?.path();
        let number =
            path.file_name().and_then(|name| name.to_str()?.strip_prefix(prefix)?.parse::<u64>().ok());
        if let Some(number) = number.filter(|_| path.is_dir()) {
            found.push((number, path));
        }
    }
    found.sort();
    Ok(found)
}

/// Step and path of every directory `checkpoint-N` in `output_dir`, by step; not verified.
pub fn list(output_dir: &Path) -> Result<Vec<(u64, PathBuf)>, CheckpointError> {
    numbered(output_dir, PREFIX)
}

/// Verifies the checkpoint in `path` and reads its state.
pub fn open(path: &Path) -> Result<Checkpoint, CheckpointError> {
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => {}
        Ok(_) => return Err(at(path, "open")(io::ErrorKind::NotADirectory.into())),
        Err(error) => return Err(at(path, "open")(error)),
    }
    inspect(path).map_err(|damage| CheckpointError::Damaged { path: path.to_path_buf(), damage })
}

fn inspect(path: &Path) -> Result<Checkpoint, Damage> {
    let manifest = verify(path)?;
    let number = path.file_name().and_then(|name| name.to_str()?.strip_prefix(PREFIX)?.parse::<u64>().ok());
    if let Some(directory) = number.filter(|&number| number != manifest.step) {
        return Err(Damage::Step { directory, manifest: manifest.step });
    }
    let unreadable = |reason: String| Damage::Unreadable { file: STATE.into(), reason };
    let listed = |file: &str| match manifest.files.contains_key(file) {
        true => Ok(()),
        false => Err(Damage::Missing { file: file.into() }),
    };
    listed(STATE)?;
    let text = read_bounded(&path.join(STATE), STATE_LIMIT).map_err(|error| unreadable(error.to_string()))?;
    let state: TrainerState = serde_json::from_slice(&text).map_err(|error| unreadable(error.to_string()))?;
    if state.step != manifest.step {
        return Err(unreadable(format!("it is of step {}, the manifest of {}", state.step, manifest.step)));
    }
    if !state.arguments.save_only_model {
        listed(super::OPTIMIZER)?;
    }
    Ok(Checkpoint { path: path.to_path_buf(), state })
}

/// The latest sound checkpoint in `output_dir` that a run can go on from.
pub fn search(output_dir: &Path) -> Result<Search, CheckpointError> {
    let mut search = Search::default();
    for (_, path) in list(output_dir)?.into_iter().rev() {
        match inspect(&path) {
            Ok(checkpoint) if checkpoint.is_model_only() => search.model_only.push(path),
            Ok(checkpoint) => {
                search.found = Some(checkpoint);
                break;
            }
            Err(damage) => search.damaged.push((path, damage)),
        }
    }
    Ok(search)
}

/// Clears up after a run that was killed: half-written directories go, a checkpoint that was moved aside for one that
/// never came returns. To be called before a search.
pub fn sweep_leftovers(output_dir: &Path) -> Result<(), CheckpointError> {
    let written = |path: &Path, action, source| CheckpointError::Write { path: path.into(), action, source };
    for (_, path) in numbered(output_dir, PARTIAL)? {
        fs::remove_dir_all(&path).map_err(|error| written(&path, "delete", error))?;
    }
    for (step, path) in numbered(output_dir, REPLACED)? {
        let target = output_dir.join(name(step));
        if target.exists() {
            fs::remove_dir_all(&path).map_err(|error| written(&path, "delete", error))?;
        } else {
            fs::rename(&path, &target).map_err(|error| written(&path, "move back", error))?;
        }
    }
    Ok(())
}
