//! The directory of a run: never half-made, never overwritten.

use crate::console;
use crate::failure::{Failure, Outcome};
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

/// Files whose presence says that a run is or was here.
const MARKS: &[&str] = &[
    "metrics.jsonl",
    "config.resolved.yaml",
    "adapter_config.json",
    "adapter_model.safetensors",
    "model.safetensors",
    "model.safetensors.index.json",
    "sweep.json",
];

/// Files of a result that may be somebody else's: a project has a README.md too.
const RESULTS: &[&str] = &[
    "README.md",
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
];

/// What to do about a run that is already there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Existing {
    /// Refuse: the default.
    Refuse,
    /// Go on with it.
    Continue,
    /// Move it aside.
    MoveAside,
}

/// Checks, before anything is computed, that the directory may be used. Writes nothing.
pub(crate) fn check(dir: &Path, existing: Existing) -> Outcome {
    if dir.exists() && !dir.is_dir() {
        return Err(Failure::Input(format!("output_dir: {} is a file; name a directory", dir.display())));
    }
    if dir.canonicalize().is_ok_and(|d| std::env::current_dir().is_ok_and(|cwd| cwd.starts_with(&d)))
        && existing == Existing::MoveAside
    {
        let message = format!(
            "output_dir: {} contains the working directory, so it cannot be moved aside",
            dir.display()
        );
        return Err(Failure::Input(message));
    }
    if existing == Existing::Refuse && has_run(dir) {
        return Err(occupied(dir));
    }
    if existing != Existing::Continue
        && !has_run(dir)
        && let Some(name) = RESULTS.iter().find(|name| dir.join(name).exists())
    {
        return Err(Failure::Input(format!(
            "output_dir: {} holds {name}, which is of no run and which the result would replace; choose another directory \
             with output_dir=…",
            dir.display()
        )));
    }
    check_writable("output_dir", dir)
}

fn occupied(dir: &Path) -> Failure {
    Failure::Input(format!(
        "output_dir: {} holds an earlier run; continue it with --resume, choose another directory with output_dir=…, or \
         start anew with --overwrite-output-dir (the earlier run is moved aside, not deleted)",
        dir.display()
    ))
}

/// The nearest directory that exists takes new files, and so what is to be made below it. `key` is where the user named
/// `dir`.
pub(crate) fn check_writable(key: &str, dir: &Path) -> Outcome {
    let absolute = std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned());
    let Some(ancestor) = absolute.ancestors().find(|path| path.exists()) else { return Ok(()) };
    // Asked by doing: permissions, read-only file systems and special ones all show. The file has no name.
    let why = match tempfile::tempfile_in(ancestor) {
        Ok(_) => return Ok(()),
        Err(_) if !ancestor.is_dir() => "it is a file".to_owned(),
        Err(error) => error.to_string(),
    };
    Err(Failure::Input(format!(
        "{key}: cannot write in {} ({why}), so {} cannot be used; choose another directory with {key}=…, or correct the \
         permissions",
        ancestor.display(),
        dir.display()
    )))
}

/// The name of the lock in a run's directory.
const LOCK: &str = ".lock";

/// Holds a directory for this process, by a lock on a file in it that the system releases whatever ends the process.
pub(crate) struct Claim {
    file: File,
    path: PathBuf,
}

impl Claim {
    /// Holds a directory that exists; where that fails for want of rights, nothing is held yet.
    ///
    /// # Errors
    /// Another process holds it.
    pub(crate) fn of(dir: &Path) -> Outcome<Option<Self>> {
        if !dir.is_dir() {
            return Ok(None);
        }
        match Self::take(dir) {
            Ok(claim) => Ok(Some(claim)),
            Err(TryLockError::WouldBlock) => Err(held_elsewhere(dir)),
            // What is wrong with the directory is said by those who look closer.
            Err(TryLockError::Error(_)) => Ok(None),
        }
    }

    /// Goes on holding the directory, or begins to, now that it has been made. A run that has come into it meanwhile is
    /// refused.
    pub(crate) fn or_new(
        claim: Option<Self>,
        dir: &Path,
        existing: Existing,
        quiet: bool,
    ) -> Outcome<Option<Self>> {
        let is_here = |claim: &Self| claim.path == dir.join(LOCK) && claim.is_in_place();
        if let Some(claim) = claim.filter(is_here) {
            return Ok(Some(claim));
        }
        let claim = match Self::take(dir) {
            Ok(claim) => Some(claim),
            Err(TryLockError::WouldBlock) => return Err(held_elsewhere(dir)),
            Err(TryLockError::Error(error)) => {
                let what = format!("warning: {} cannot be locked ({error})", dir.display());
                console::say(quiet, format!("{what}; let no other process write there"));
                None
            }
        };
        if existing != Existing::Continue && has_run(dir) {
            return Err(occupied(dir));
        }
        Ok(claim)
    }

    /// The directory has been moved, and the lock with it.
    pub(crate) fn follow(&mut self, dir: &Path) {
        self.path = dir.join(LOCK);
    }

    fn take(dir: &Path) -> Result<Self, TryLockError> {
        let path = dir.join(LOCK);
        loop {
            let opened = File::options().create(true).truncate(false).write(true).open(&path);
            let file = opened.map_err(TryLockError::Error)?;
            file.try_lock()?;
            let claim = Self { file, path: path.clone() };
            // The one who held it may have removed the file between opening and locking.
            if claim.is_in_place() {
                return Ok(claim);
            }
        }
    }

    /// The file that is locked is the one that others would find.
    fn is_in_place(&self) -> bool {
        #[cfg(unix)]
        {
            use std::os::unix::fs::MetadataExt;
            let id = |metadata: std::fs::Metadata| (metadata.dev(), metadata.ino());
            let found = std::fs::metadata(&self.path).map(id);
            found.is_ok_and(|found| self.file.metadata().map(id).is_ok_and(|held| held == found))
        }
        // Elsewhere a file that is open is neither moved nor removed.
        #[cfg(not(unix))]
        self.path.exists()
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if self.is_in_place() {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn held_elsewhere(dir: &Path) -> Failure {
    Failure::Input(format!(
        "output_dir: another process is at work in {}; wait for it, or choose another directory with output_dir=…",
        dir.display()
    ))
}

/// Makes the directory. Returns where an earlier run was moved to.
pub(crate) fn prepare(dir: &Path, existing: Existing) -> Outcome<Option<PathBuf>> {
    let mut moved = None;
    if existing == Existing::MoveAside && has_run(dir) {
        let to = free_name(dir);
        std::fs::rename(dir, &to).map_err(|e| Failure::io("move aside", dir, &e))?;
        moved = Some(to);
    }
    std::fs::create_dir_all(dir).map_err(|e| Failure::io("create", dir, &e))?;
    Ok(moved)
}

/// A run is or was here.
pub(crate) fn has_run(dir: &Path) -> bool {
    let checkpoint = |name: std::ffi::OsString| name.to_string_lossy().starts_with("checkpoint-");
    MARKS.iter().any(|mark| dir.join(mark).exists())
        || std::fs::read_dir(dir).into_iter().flatten().flatten().any(|entry| checkpoint(entry.file_name()))
}

fn free_name(dir: &Path) -> PathBuf {
    let name = dir.file_name().map_or_else(|| "run".into(), |n| n.to_string_lossy().into_owned());
    let candidate = |n: u32| dir.with_file_name(format!("{name}.previous-{n}"));
    (1..).map(candidate).find(|path| !path.exists()).expect("some number is free")
}

/// Writes a small file so that it is there whole or not at all.
pub(crate) fn write_whole(path: &Path, text: &str) -> Outcome {
    let dir = path.parent().unwrap_or(Path::new("."));
    // One name, so that what a killed run leaves is replaced by the next.
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let partial = dir.join(format!(".{name}.partial"));
    let write = || -> std::io::Result<()> {
        let mut file = std::fs::File::create(&partial)?;
        std::io::Write::write_all(&mut file, text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&partial, path)
    };
    let written = write();
    if written.is_err() {
        let _ = std::fs::remove_file(&partial);
    }
    written.map_err(|e| Failure::io("write", path, &e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_earlier_run_is_refused_or_moved_and_never_lost() {
        let root = tempfile::tempdir().expect("a temporary directory");
        let dir = root.path().join("run");
        check(&dir, Existing::Refuse).expect("nothing is there");
        assert!(!dir.exists(), "a check writes nothing");
        prepare(&dir, Existing::Refuse).expect("made");
        check(&dir, Existing::Refuse).expect("an empty directory is no run");
        write_whole(&dir.join("README.md"), "# A project\n").expect("written");
        let Err(Failure::Input(message)) = check(&dir, Existing::Refuse) else { panic!("accepted") };
        assert!(message.contains("holds README.md"), "{message}");
        std::fs::remove_file(dir.join("README.md")).expect("removed");
        write_whole(&dir.join("metrics.jsonl"), "{}\n").expect("written");
        let Err(Failure::Input(message)) = check(&dir, Existing::Refuse) else { panic!("accepted") };
        assert!(message.contains("--resume") && message.contains("--overwrite-output-dir"), "{message}");
        for n in 1..3 {
            write_whole(&dir.join("metrics.jsonl"), &n.to_string()).expect("written");
            let moved = prepare(&dir, Existing::MoveAside).expect("moved").expect("there was a run");
            assert_eq!(std::fs::read_to_string(moved.join("metrics.jsonl")).expect("kept"), n.to_string());
        }
    }
}
