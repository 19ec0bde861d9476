//! Which checkpoints stay: old ones are deleted, those of a course that was left are moved aside.

use super::search::{ABANDONED, PARTIAL};
use super::writer::{at, remove};
use super::{CheckpointError, CrashHook, list};
use foundry_formats::flush_dir;
use std::fs;
use std::path::Path;

/// Deletes the oldest checkpoints until `limit` are left (0: all stay); the one of step `newest` and the one of step
/// `best` always stay (transformers 5.23 `rotate_checkpoints`).
pub(crate) fn rotate(
    output_dir: &Path,
    limit: usize,
    newest: u64,
    best: Option<u64>,
    crash: &CrashHook,
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
        crash("checkpoint.during_rotation").map_err(at(path, "delete"))?;
        remove(&doomed)?;
    }
    flush_dir(output_dir).map_err(at(output_dir, "flush"))
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
    flush_dir(output_dir).map_err(at(output_dir, "flush"))
}
