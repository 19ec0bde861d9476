//! Writing a checkpoint so that a kill, a crash or a full disk at any moment leaves the earlier ones as they were.

use super::manifest::{FORMAT, record};
use super::search::{ABANDONED, PARTIAL, REPLACED, name, sync_dir};
use super::{CheckpointError, MANIFEST, Manifest, STATE, TrainerState, list, tensors};
use crate::model::Trainable;
use crate::optim::Optimizer;
use foundry_kernels::Backend;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

/// Called at named moments of a write, for tests of what a crash there leaves behind: it may end the process, or return
/// an error as the system would.
pub type CrashHook<'a> = Box<dyn Fn(&'static str) -> io::Result<()> + 'a>;

/// Every moment a [`CrashHook`] is called at, in this order.
pub const CRASH_POINTS: [&str; 6] = [
    "checkpoint.after_model",
    "checkpoint.after_optimizer",
    "checkpoint.before_manifest",
    "checkpoint.before_rename",
    "checkpoint.after_rename",
    "checkpoint.during_rotation",
];

/// The hook of an ordinary run.
pub fn no_crash() -> CrashHook<'static> {
    Box::new(|_| Ok(()))
}

/// Attaches path and action to an error of the system.
fn at<'a>(path: &'a Path, action: &'static str) -> impl FnOnce(io::Error) -> CheckpointError + 'a {
    move |source| CheckpointError::Write { path: path.to_path_buf(), action, source }
}

/// Writes `output_dir/checkpoint-N` (`N` is the state's step) and returns its path. On an error nothing of it is left.
pub(crate) fn write(
    output_dir: &Path,
    state: &TrainerState,
    backend: &dyn Backend,
    model: &dyn Trainable,
    optimizer: &dyn Optimizer,
    crash: &CrashHook<'_>,
) -> Result<PathBuf, CheckpointError> {
    fs::create_dir_all(output_dir).map_err(at(output_dir, "create this directory"))?;
    let partial = output_dir.join(format!("{PARTIAL}{}", state.step));
    remove(&partial)?;
    let result = fill(&partial, state, backend, model, optimizer, crash)
        .and_then(|()| publish(output_dir, &partial, state.step, crash));
    if result.is_err() {
        // The error at hand says more than one of the clean-up would.
        let _ = fs::remove_dir_all(&partial);
    }
    result
}

/// Builds the checkpoint in `dir`, every file and directory flushed to disk, the manifest last.
fn fill(
    dir: &Path,
    state: &TrainerState,
    backend: &dyn Backend,
    model: &dyn Trainable,
    optimizer: &dyn Optimizer,
    crash: &CrashHook<'_>,
) -> Result<(), CheckpointError> {
    fs::create_dir(dir).map_err(at(dir, "create this directory"))?;
    model.save(backend, dir).map_err(|source| CheckpointError::Model { path: dir.to_path_buf(), source })?;
    crash(CRASH_POINTS[0]).map_err(at(dir, "write"))?;
    tensors::write(dir, backend, model, optimizer)?;
    crash(CRASH_POINTS[1]).map_err(at(dir, "write"))?;
    write_file(&dir.join(STATE), &json(state))?;

    let mut files = BTreeMap::new();
    sync_tree(dir, "", &mut files)?;
    crash(CRASH_POINTS[2]).map_err(at(dir, "write"))?;
    let manifest = Manifest { format: FORMAT, step: state.step, files };
    write_file(&dir.join(MANIFEST), &json(&manifest))?;
    sync_dir(dir).map_err(at(dir, "flush"))
}

/// Gives the finished directory its name. A checkpoint of the same step (of before a resume from an earlier one) is
/// moved aside first and deleted afterwards.
fn publish(
    output_dir: &Path,
    partial: &Path,
    step: u64,
    crash: &CrashHook<'_>,
) -> Result<PathBuf, CheckpointError> {
    let target = output_dir.join(name(step));
    let replaced = output_dir.join(format!("{REPLACED}{step}"));
    remove(&replaced)?;
    crash(CRASH_POINTS[3]).map_err(at(&target, "rename"))?;
    if target.exists() {
        fs::rename(&target, &replaced).map_err(at(&target, "move aside"))?;
    }
    if let Err(error) = fs::rename(partial, &target) {
        // Back to where it was; if even that fails, `sweep_leftovers` does it at the next start.
        let _ = fs::rename(&replaced, &target);
        return Err(at(&target, "rename")(error));
    }
    sync_dir(output_dir).map_err(at(output_dir, "flush"))?;
    crash(CRASH_POINTS[4]).map_err(at(&target, "rename"))?;
    remove(&replaced)?;
    Ok(target)
}

/// Deletes the oldest checkpoints until `limit` are left (0: all stay); the one of step `newest` and the one of step
/// `best` always stay (transformers 5.23 `rotate_checkpoints`).
pub(crate) fn rotate(
    output_dir: &Path,
    limit: usize,
    newest: u64,
    best: Option<u64>,
    crash: &CrashHook<'_>,
) -> Result<(), CheckpointError> {
    let checkpoints = list(output_dir)?;
    let protected = |step: u64| step == newest || Some(step) == best;
    let keep = limit.max(checkpoints.iter().filter(|(step, _)| protected(*step)).count());
    if limit == 0 || checkpoints.len() <= keep {
        return Ok(());
    }
    let surplus = checkpoints.len() - keep;
    for (step, path) in checkpoints.iter().filter(|(step, _)| !protected(*step)).take(surplus) {
        // Under its own name a half-deleted checkpoint would look damaged rather than deleted.
        let doomed = output_dir.join(format!("{PARTIAL}{step}"));
        remove(&doomed)?;
        fs::rename(path, &doomed).map_err(at(path, "move aside"))?;
        crash(CRASH_POINTS[5]).map_err(at(path, "delete"))?;
        remove(&doomed)?;
    }
    sync_dir(output_dir).map_err(at(output_dir, "flush"))
}

/// Moves every checkpoint after `step` aside, to a name that neither a search nor a rotation looks at: they are of the
/// course that a run resumed at `step` leaves, and would be taken for its own. Nothing is deleted.
pub(crate) fn abandon_after(output_dir: &Path, step: u64) -> Result<(), CheckpointError> {
    let later: Vec<_> = list(output_dir)?.into_iter().filter(|(number, _)| *number > step).collect();
    if later.is_empty() {
        return Ok(());
    }
    for (number, path) in later {
        // The same step may have been abandoned before.
        let again = (2u32..).map(|time| format!("{ABANDONED}{number}.{time}"));
        let mut names = std::iter::once(format!("{ABANDONED}{number}")).chain(again);
        let aside = names.find_map(|name| Some(output_dir.join(name)).filter(|path| !path.exists()));
        fs::rename(&path, aside.expect("some number is free")).map_err(at(&path, "move aside"))?;
    }
    sync_dir(output_dir).map_err(at(output_dir, "flush"))
}

/// Removes a directory if it is there.
fn remove(dir: &Path) -> Result<(), CheckpointError> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(at(dir, "delete")(error)),
        _ => Ok(()),
    }
}

fn json(value: &impl serde::Serialize) -> Vec<u8> {
    let mut text = serde_json::to_vec_pretty(value).expect("states and manifests are plain data");
    text.push(b'\n');
    text
}

/// Writes a file and flushes it to disk.
fn write_file(path: &Path, bytes: &[u8]) -> Result<(), CheckpointError> {
    let mut file = File::create(path).map_err(at(path, "create"))?;
    file.write_all(bytes).map_err(at(path, "write"))?;
    file.sync_all().map_err(at(path, "flush"))
}

/// Flushes every file below `dir` and the directories, and records the files under their relative names.
fn sync_tree(
    dir: &Path,
    prefix: &str,
    files: &mut BTreeMap<String, super::FileRecord>,
) -> Result<(), CheckpointError> {
    for entry in fs::read_dir(dir).map_err(at(dir, "list"))? {
        let path = entry.map_err(at(dir, "list"))?.path();
        let file_name = path.file_name().unwrap_or_default().to_string_lossy();
        if path.is_dir() {
            sync_tree(&path, &format!("{prefix}{file_name}/"), files)?;
        } else {
            File::open(&path).and_then(|file| file.sync_all()).map_err(at(&path, "flush"))?;
            let record = record(&path).map_err(at(&path, "read back"))?;
            files.insert(format!("{prefix}{file_name}"), record);
        }
    }
    sync_dir(dir).map_err(at(dir, "flush"))
}
