//! A checkpoint that is used as a model or an adapter: what it was when it was written.

use crate::failure::{Failure, Outcome};
use foundry_engine::checkpoint::{Damage, MANIFEST, STATE, list, verify_model};
use std::path::{Path, PathBuf};

/// Refuses a directory whose manifest tells that a model's or an adapter's file is no longer the one that was written;
/// the latest sound checkpoint before it is offered. Directories that are no checkpoints of this program pass.
pub(crate) fn check(dir: &Path) -> Outcome {
    if !dir.join(MANIFEST).is_file() {
        return Ok(());
    }
    let Err(damage) = verify_model(dir) else { return Ok(()) };
    if !is_ours(dir, &damage) {
        return Ok(());
    }
    let offer = before(dir, |dir| verify_model(dir).is_ok());
    let offer = offer.map_or_else(String::new, |path| format!("\n  sound before it: {}", path.display()));
    let own = match damage {
        Damage::Size { .. } | Damage::Contents { .. } => {
            format!("\n  if the change is yours, remove {MANIFEST}: no run goes on from there then")
        }
        _ => String::new(),
    };
    Err(Failure::Input(format!("{} is damaged: {damage}{offer}{own}", dir.display())))
}

/// Others call files `manifest.json`, too: ours lies beside a trainer's state, in a directory with our name, or reads
/// like one.
fn is_ours(dir: &Path, damage: &Damage) -> bool {
    let named = dir.file_name().is_some_and(|name| name.to_string_lossy().starts_with("checkpoint-"));
    named
        || dir.join(STATE).is_file()
        || !matches!(damage, Damage::Unreadable { file, .. } if file == MANIFEST)
}

/// The latest checkpoint before the one in `path` that is `sound`.
pub(crate) fn before(path: &Path, sound: impl Fn(&Path) -> bool) -> Option<PathBuf> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let checkpoints = list(dir).ok()?;
    let this = checkpoints.iter().position(|(_, other)| other.file_name() == path.file_name());
    let earlier = &checkpoints[..this.unwrap_or(checkpoints.len())];
    earlier.iter().rev().find(|(_, other)| sound(other)).map(|(_, other)| other.clone())
}
