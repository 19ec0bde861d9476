//! Which checkpoint `--resume` means.

use crate::console;
use crate::failure::{Failure, Outcome};
use crate::model_source::expand_home;
use foundry_engine::checkpoint::{Checkpoint, open, search, sweep_leftovers};
use std::path::Path;

/// `latest` of the output directory, or the one named. Damaged ones are passed over, and told.
pub(super) fn find(from: &str, output_dir: &Path, quiet: bool) -> Outcome<Checkpoint> {
    sweep_leftovers(output_dir).map_err(Failure::run)?;
    let path = expand_home(from);
    let dir = match from {
        "latest" => output_dir,
        // The output directory itself, as transformers allows.
        _ if path.is_dir() && !path.join("manifest.json").exists() && !is_checkpoint(&path) => &path,
        _ => return open(&path).map_err(|e| Failure::Input(format!("--resume: {e}"))),
    };
    let found = search(dir).map_err(|e| Failure::Input(format!("--resume: {e}")))?;
    for (path, damage) in &found.damaged {
        console::say(quiet, format!("warning: {} is passed over: {damage}", path.display()));
    }
    found.found.ok_or_else(|| {
        let damaged = if found.damaged.is_empty() { "" } else { " that is whole" };
        Failure::Input(format!(
            "--resume: {} holds no checkpoint{damaged}; start the run without --resume (an earlier attempt without \
             checkpoints is moved aside with --overwrite-output-dir)",
            dir.display()
        ))
    })
}

fn is_checkpoint(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("checkpoint-"))
}
