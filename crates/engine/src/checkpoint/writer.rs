//! Writing a checkpoint so that a kill, a crash or a full disk at any moment leaves the earlier ones as they were.

use super::manifest::{FORMAT, record};
use super::search::{PARTIAL, REPLACED, name};
use super::{CheckpointError, FileRecord, MANIFEST, Manifest, STATE, TrainerState, tensors};
use crate::callbacks::Snapshot;
use crate::model::WriteFiles;
use foundry_formats::{flush_dir, flush_tree};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Called at named moments of a write, for tests of what a crash there leaves behind: it may end the process, or return
/// an error as the system would.
pub type CrashHook = Arc<dyn Fn(&'static str) -> io::Result<()> + Send + Sync>;

/// Every moment a [`CrashHook`] is called at, in this order, on another thread than training. Up to `after_state` the
/// next update waits.
pub const CRASH_POINTS: [&str; 10] = [
    "checkpoint.after_model",
    "checkpoint.after_optimizer",
    "checkpoint.after_state",
    "checkpoint.before_flush",
    "checkpoint.before_manifest",
    "checkpoint.after_manifest",
    "checkpoint.before_rename",
    "checkpoint.between_renames",
    "checkpoint.after_rename",
    "checkpoint.during_rotation",
];

/// The hook of an ordinary run.
pub fn no_crash() -> CrashHook {
    Arc::new(|_| Ok(()))
}

/// Attaches path and action to an error of the system.
pub(super) fn at<'a>(path: &'a Path, action: &'static str) -> impl FnOnce(io::Error) -> CheckpointError + 'a {
    move |source| CheckpointError::Write { path: path.to_path_buf(), action, source }
}

/// What a checkpoint is made of, as it was when it was due. The numbers are shared with the run, which must not change
/// them before they are written.
pub(crate) struct Contents {
    state: TrainerState,
    model: WriteFiles,
    /// What only this program reads, and the name of its file.
    tensors: Option<(&'static str, Vec<tensors::Gathered>)>,
}

impl Contents {
    /// Takes hold of everything; `output_dir` is for messages.
    pub(crate) fn gather(output_dir: &Path, snapshot: &Snapshot<'_>) -> Result<Self, CheckpointError> {
        let Snapshot { state, backend, model, optimizer } = *snapshot;
        let tensors = if !state.arguments.save_only_model {
            Some((super::OPTIMIZER, tensors::gather(backend, model, Some(optimizer))))
        } else if state.arguments.load_best_model_at_end {
            // The model's own file may be bf16.
            Some((super::VALUES, tensors::gather(backend, model, None)))
        } else {
            None
        };
        let path = partial(output_dir, state.step);
        let model = model.gather(backend).map_err(|source| CheckpointError::Model { path, source })?;
        Ok(Self { state: state.clone(), model, tensors })
    }

    /// Where the run stood.
    pub(crate) fn state(&self) -> &TrainerState {
        &self.state
    }

    /// Builds the checkpoint in `dir`: everything but the manifest, nothing flushed.
    fn fill(self, dir: &Path, crash: &CrashHook) -> Result<(), CheckpointError> {
        fs::create_dir(dir).map_err(at(dir, "create this directory"))?;
        (self.model)(dir).map_err(|source| CheckpointError::Model { path: dir.to_path_buf(), source })?;
        crash("checkpoint.after_model").map_err(at(dir, "write"))?;
        if let Some((name, tensors)) = &self.tensors {
            tensors::write(&dir.join(name), tensors).map_err(CheckpointError::State)?;
        }
        crash("checkpoint.after_optimizer").map_err(at(dir, "write"))?;
        write_file(&dir.join(STATE), &json(&self.state))?;
        crash("checkpoint.after_state").map_err(at(dir, "write"))
    }
}

/// A checkpoint whose numbers have been handed to the system: what is left needs neither model nor optimiser.
pub(crate) struct Draft {
    output_dir: PathBuf,
    /// `.partial-checkpoint-N`.
    partial: PathBuf,
    step: u64,
}

/// The provisional directory of a checkpoint.
pub(crate) fn partial(output_dir: &Path, step: u64) -> PathBuf {
    output_dir.join(format!("{PARTIAL}{step}"))
}

/// Writes the files of a checkpoint under a provisional name, unflushed. On an error nothing of it is left.
pub(crate) fn draft(
    output_dir: &Path,
    contents: Contents,
    crash: &CrashHook,
) -> Result<Draft, CheckpointError> {
    fs::create_dir_all(output_dir).map_err(at(output_dir, "create this directory"))?;
    let step = contents.state.step;
    let partial = partial(output_dir, step);
    remove(&partial)?;
    let draft = Draft { output_dir: output_dir.to_path_buf(), partial, step };
    draft.or_nothing(contents.fill(&draft.partial, crash))?;
    Ok(draft)
}

impl Draft {
    /// Makes the checkpoint durable and gives it its name. On an error nothing of it is left.
    pub(crate) fn finish(&self, crash: &CrashHook) -> Result<PathBuf, CheckpointError> {
        self.or_nothing(self.seal(crash).and_then(|()| self.publish(crash)))
    }

    fn or_nothing<T>(&self, result: Result<T, CheckpointError>) -> Result<T, CheckpointError> {
        if result.is_err() {
            // The error at hand says more than one of the clean-up would.
            let _ = fs::remove_dir_all(&self.partial);
        }
        result
    }

    /// Flushes every file to disk, then writes the manifest.
    fn seal(&self, crash: &CrashHook) -> Result<(), CheckpointError> {
        let dir = &self.partial;
        crash("checkpoint.before_flush").map_err(at(dir, "flush"))?;
        flush_tree(dir)?;
        let mut files = BTreeMap::new();
        record_tree(dir, "", &mut files)?;
        crash("checkpoint.before_manifest").map_err(at(dir, "write"))?;
        let manifest = Manifest { format: FORMAT, step: self.step, files };
        let path = dir.join(MANIFEST);
        write_file(&path, &json(&manifest))?;
        File::open(&path).and_then(|file| file.sync_all()).map_err(at(&path, "flush"))?;
        flush_dir(dir).map_err(at(dir, "flush"))?;
        crash("checkpoint.after_manifest").map_err(at(dir, "write"))
    }

    /// Gives the finished directory its name. A checkpoint of the same step (of before a resume from an earlier one) is
    /// moved aside first and deleted afterwards.
    fn publish(&self, crash: &CrashHook) -> Result<PathBuf, CheckpointError> {
        let output_dir = &self.output_dir;
        let target = output_dir.join(name(self.step));
        let replaced = output_dir.join(format!("{REPLACED}{}", self.step));
        remove(&replaced)?;
        crash("checkpoint.before_rename").map_err(at(&target, "rename"))?;
        if target.exists() {
            fs::rename(&target, &replaced).map_err(at(&target, "move aside"))?;
        }
        let renamed = crash("checkpoint.between_renames").and_then(|()| fs::rename(&self.partial, &target));
        if let Err(error) = renamed {
            // Back to where it was; if even that fails, `sweep_leftovers` does it at the next start.
            let _ = fs::rename(&replaced, &target);
            return Err(at(&target, "rename")(error));
        }
        flush_dir(output_dir).map_err(at(output_dir, "flush"))?;
        crash("checkpoint.after_rename").map_err(at(&target, "rename"))?;
        remove(&replaced)?;
        Ok(target)
    }
}

/// Removes a directory if it is there.
pub(super) fn remove(dir: &Path) -> Result<(), CheckpointError> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(at(dir, "delete")(error)),
        _ => Ok(()),
    }
}

fn json<T: serde::Serialize>(value: &T) -> Vec<u8> {
    let mut text = serde_json::to_vec_pretty(value).expect("states and manifests are plain data");
    text.push(b'\n');
    text
}

fn write_file(path: &Path, bytes: &[u8]) -> Result<(), CheckpointError> {
    let mut file = File::create(path).map_err(at(path, "create"))?;
    file.write_all(bytes).map_err(at(path, "write"))
}

/// Records every file below `dir` under its relative name.
fn record_tree(
    dir: &Path,
    prefix: &str,
    files: &mut BTreeMap<String, FileRecord>,
) -> Result<(), CheckpointError> {
    for entry in fs::read_dir(dir).map_err(at(dir, "list"))? {
        let path = entry.map_err(at(dir, "list"))?.path();
        let file_name = path.file_name().unwrap_or_default().to_string_lossy();
        if path.is_dir() {
            record_tree(&path, &format!("{prefix}{file_name}/"), files)?;
        } else {
            let record = record(&path).map_err(at(&path, "read back"))?;
            files.insert(format!("{prefix}{file_name}"), record);
        }
    }
    Ok(())
}
