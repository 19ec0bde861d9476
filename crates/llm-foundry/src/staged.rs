//! A result that appears whole or not at all: made beside its place, checked there, and moved in at the end.

use crate::failure::{Failure, Outcome};
use foundry_formats::{flush_dir, flush_tree};
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// A directory that is being filled beside its final place.
pub(crate) struct Staged {
    /// Removed on drop unless it was published.
    room: TempDir,
    target: PathBuf,
}

impl Staged {
    /// Checks that `target` may be written (nothing is there, or `force`) and makes a directory next to it.
    pub(crate) fn new(target: &Path, force: bool) -> Outcome<Self> {
        if is_taken(target) && !force {
            return Err(Failure::Input(format!(
                "{} exists already; name another place with -o, or replace it with --force",
                target.display()
            )));
        }
        let target = std::path::absolute(target).map_err(|e| Failure::io("use", target, &e))?;
        let Some(parent) = target.parent().filter(|_| target.file_name().is_some()) else {
            return Err(Failure::Input(format!(
                "{} cannot be written; name a place inside a directory",
                target.display()
            )));
        };
        if force && std::env::current_dir().is_ok_and(|cwd| cwd.starts_with(&target)) {
            return Err(Failure::Input(format!(
                "{} holds the working directory, so it cannot be replaced; go elsewhere first",
                target.display()
            )));
        }
        if let Some(file) = parent.ancestors().find(|path| path.exists()).filter(|path| !path.is_dir()) {
            return Err(Failure::Input(format!(
                "{} cannot be written, because {} is a file; name a place inside a directory",
                target.display(),
                file.display()
            )));
        }
        fs::create_dir_all(parent).map_err(|e| Failure::io("create", parent, &e))?;
        let name = target.file_name().unwrap_or_default().to_string_lossy();
        let room = tempfile::Builder::new()
            .prefix(&format!(".{name}."))
            .suffix(".incomplete")
            .tempdir_in(parent)
            .map_err(|e| Failure::io("write in", parent, &e))?;
        Ok(Self { room, target })
    }

    /// Where the result is made: a directory.
    pub(crate) fn dir(&self) -> &Path {
        self.room.path()
    }

    /// Makes the whole directory the result.
    pub(crate) fn publish_dir(self) -> Outcome {
        flush_tree(self.room.path()).map_err(Failure::of_format)?;
        let made = self.room.keep();
        open_to_all(&made);
        replace(&made, &self.target)
    }

    /// Makes one file of it the result.
    pub(crate) fn publish_file(self, name: &str) -> Outcome {
        flush_tree(self.room.path()).map_err(Failure::of_format)?;
        replace(&self.room.path().join(name), &self.target)
    }
}

fn is_taken(path: &Path) -> bool {
    match fs::read_dir(path) {
        Ok(mut entries) => entries.next().is_some(),
        Err(_) => path.symlink_metadata().is_ok(),
    }
}

/// Temporary directories are for their owner alone; results are as private as the user's other directories.
fn open_to_all(dir: &Path) {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let like = dir.parent().and_then(|parent| parent.metadata().ok());
        if let Some(mode) = like.map(|metadata| metadata.permissions().mode() & 0o755) {
            let _ = fs::set_permissions(dir, fs::Permissions::from_mode(mode | 0o700));
        }
    }
    #[cfg(not(unix))]
    let _ = dir;
}

/// What was there is moved aside first and removed last: at no moment is there nothing.
fn replace(made: &Path, target: &Path) -> Outcome {
    let old = target.symlink_metadata().is_ok().then(|| {
        let name = target.file_name().unwrap_or_default().to_string_lossy().into_owned();
        target.with_file_name(format!(".{name}.{}.replaced", std::process::id()))
    });
    if let Some(old) = &old {
        fs::rename(target, old).map_err(|e| Failure::io("replace", target, &e))?;
    }
    if let Err(error) = fs::rename(made, target) {
        if let Some(old) = &old {
            let _ = fs::rename(old, target);
        }
        return Err(Failure::io("write", target, &error));
    }
    // The new name is on disk before the old contents are gone.
    let parent = target.parent().unwrap_or(Path::new("/"));
    flush_dir(parent).map_err(|e| Failure::io("flush", parent, &e))?;
    if let Some(old) = old {
        let _ = if old.is_dir() { fs::remove_dir_all(&old) } else { fs::remove_file(&old) };
    }
    Ok(())
}
