//! A result that appears whole or not at all: made beside its place, checked there, and moved in at the end.

use crate::crash;
use crate::failure::{Failure, Outcome};
use foundry_formats::{flush_dir, flush_tree};
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// Ending of the names of directories in which results are made.
const SUFFIX: &str = ".incomplete";
/// One of these is in every directory that a merge or an export writes.
const RESULTS: [&str; 3] = ["config.json", "adapter_config.json", "Modelfile"];

/// What the result is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// One file.
    File,
    /// A directory of files.
    Directory,
}

/// A directory that is being filled beside the final place of a file or directory.
#[derive(Debug)]
pub(crate) struct Staged {
    /// Removed on drop, with what is in it by then.
    room: TempDir,
    /// Locked for as long as the room is in use, so that others know that of a killed process.
    _lock: Option<File>,
    target: PathBuf,
    kind: Kind,
}

impl Staged {
    /// That [`Staged::new`] would succeed: said before a download or a long computation, with nothing left behind
    /// however that ends.
    pub(crate) fn check(target: &Path, kind: Kind, force: bool, inputs: &[&Path]) -> Outcome {
        Self::new(target, kind, force, inputs).map(drop)
    }

    /// Checks that `target` may be written and makes a directory next to it. What is there is replaced with `force`
    /// only, and only if it is an earlier result without one of the `inputs` in it.
    pub(crate) fn new(target: &Path, kind: Kind, force: bool, inputs: &[&Path]) -> Outcome<Self> {
        if is_taken(target) && !force {
            return Err(Failure::Input(format!(
                "{} exists already; name another place with -o, or replace it with --force",
                target.display()
            )));
        }
        let target = std::path::absolute(target).map_err(|e| Failure::io("use", target, &e))?;
        // What a symbolic link points to is replaced, not the link; and it is made on that file system.
        let target = fs::canonicalize(&target).unwrap_or(target);
        let Some(parent) = target.parent().filter(|_| target.file_name().is_some()) else {
            return Err(refused(&target, "cannot be written; name a place inside a directory"));
        };
        check_replaced(&target, kind, inputs)?;
        if let Some(file) = parent.ancestors().find(|path| path.exists()).filter(|path| !path.is_dir()) {
            let what = format!(
                "cannot be written, because {} is a file; name a place inside a directory",
                file.display()
            );
            return Err(refused(&target, &what));
        }
        fs::create_dir_all(parent).map_err(|e| Failure::io("create", parent, &e))?;
        let name = target.file_name().unwrap_or_default().to_string_lossy().into_owned();
        sweep(parent, &name);
        let (room, lock) = make_room(parent, &name).map_err(|e| Failure::io("write in", parent, &e))?;
        Ok(Self { room, _lock: lock, target, kind })
    }

    /// Where the result is made: a directory.
    pub(crate) fn dir(&self) -> &Path {
        self.room.path()
    }

    /// Makes the whole directory the result.
    pub(crate) fn publish_dir(self) -> Outcome {
        debug_assert_eq!(self.kind, Kind::Directory);
        flush_tree(self.room.path()).map_err(Failure::of_format)?;
        open_to_all(self.room.path());
        // What was there is in the room then, and goes with it.
        self.replace(self.room.path())
    }

    /// Makes one file of it the result.
    pub(crate) fn publish_file(self, name: &str) -> Outcome {
        debug_assert_eq!(self.kind, Kind::File);
        flush_tree(self.room.path()).map_err(Failure::of_format)?;
        self.replace(&self.room.path().join(name))
    }

    /// At no moment is there nothing under the name: one rename for what may be replaced by one (a file, an empty
    /// directory), else an exchange. The new name is on disk before the old contents are gone.
    fn replace(&self, made: &Path) -> Outcome {
        let target = &self.target;
        crash::reach("result.before_publish", target)?;
        let moved = match fs::rename(made, target) {
            Err(_) if target.is_dir() => exchange(made, target),
            moved => moved,
        };
        moved.map_err(|e| Failure::io("write", target, &e))?;
        let parent = target.parent().unwrap_or(Path::new("/"));
        flush_dir(parent).map_err(|e| Failure::io("flush", parent, &e))
    }
}

fn refused(target: &Path, why: &str) -> Failure {
    Failure::Input(format!("{} {why}", target.display()))
}

fn is_taken(path: &Path) -> bool {
    match fs::read_dir(path) {
        Ok(mut entries) => entries.next().is_some(),
        Err(_) => path.symlink_metadata().is_ok(),
    }
}

/// What `--force` must not take away.
fn check_replaced(target: &Path, kind: Kind, inputs: &[&Path]) -> Outcome {
    let Ok(metadata) = target.symlink_metadata() else { return Ok(()) };
    match (kind, metadata.is_dir()) {
        (Kind::File, true) => {
            return Err(refused(target, "is a directory, and the result is a file; name a file with -o"));
        }
        (Kind::Directory, false) => {
            return Err(refused(
                target,
                "is a file, and the result is a directory; name another place with -o",
            ));
        }
        _ => {}
    }
    let holds = |path: &Path| path.canonicalize().is_ok_and(|path| path.starts_with(target));
    if let Some(input) = inputs.iter().find(|input| holds(input)) {
        let what = format!(
            "cannot be replaced, because {} is read from there; name another place with -o",
            input.display()
        );
        return Err(refused(target, &what));
    }
    if kind == Kind::File {
        return Ok(());
    }
    if std::env::current_dir().is_ok_and(|cwd| holds(&cwd)) {
        return Err(refused(
            target,
            "holds the working directory, so it cannot be replaced; go elsewhere first",
        ));
    }
    if is_mount_point(target) {
        let what = "is a mount point, which cannot be replaced; name a directory inside it with -o";
        return Err(refused(target, what));
    }
    let entries: Vec<_> =
        fs::read_dir(target).map_err(|e| Failure::io("list", target, &e))?.flatten().collect();
    let is_result = entries.iter().all(|entry| entry.file_type().is_ok_and(|t| !t.is_dir()))
        && RESULTS.iter().any(|name| target.join(name).is_file())
        // That is a run.
        && !target.join("metrics.jsonl").exists();
    if !entries.is_empty() && !is_result {
        let what = "is no result of merge or export (it may be a run, or hold other things), so --force does not delete \
                    it; name another place with -o, or remove it yourself";
        return Err(refused(target, what));
    }
    Ok(())
}

#[cfg(unix)]
fn is_mount_point(dir: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let device = |path: &Path| path.metadata().map(|metadata| metadata.dev()).ok();
    dir.parent().is_some_and(|parent| device(parent) != device(dir))
}

#[cfg(not(unix))]
fn is_mount_point(_: &Path) -> bool {
    false
}

/// A new directory and the lock on it. Another process may sweep it away between making and locking: then once more.
fn make_room(parent: &Path, name: &str) -> std::io::Result<(TempDir, Option<File>)> {
    loop {
        let room = tempfile::Builder::new().prefix(&format!(".{name}.")).suffix(SUFFIX).tempdir_in(parent)?;
        // Where directories cannot be locked nobody sweeps.
        let lock = File::open(room.path()).ok().filter(|dir| dir.lock().is_ok());
        if room.path().is_dir() {
            return Ok((room, lock));
        }
    }
}

/// Removes what killed processes left of the same result.
fn sweep(parent: &Path, name: &str) {
    let prefix = format!(".{name}.");
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let file = entry.file_name().to_string_lossy().into_owned();
        let is_room = file.strip_prefix(&prefix).and_then(|rest| rest.strip_suffix(SUFFIX));
        // Without dots, or else it is that of another name.
        if is_room.is_none_or(|random| random.contains('.')) || entry.file_type().is_ok_and(|t| !t.is_dir()) {
            continue;
        }
        let Ok(dir) = File::open(entry.path()) else { continue };
        match dir.try_lock() {
            Ok(()) => drop(fs::remove_dir_all(entry.path())),
            Err(TryLockError::WouldBlock | TryLockError::Error(_)) => {}
        }
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

/// Two directories change names, in one step where the file system can.
fn exchange(made: &Path, target: &Path) -> std::io::Result<()> {
    #[cfg(target_os = "linux")]
    {
        use rustix::fs::{CWD, RenameFlags, renameat_with};
        if renameat_with(CWD, made, CWD, target, RenameFlags::EXCHANGE).is_ok() {
            return Ok(());
        }
    }
    exchange_by_three(made, target)
}

/// A kill in the middle leaves the old result in a directory that says so.
fn exchange_by_three(made: &Path, target: &Path) -> std::io::Result<()> {
    let aside = made.with_extension("replaced");
    fs::rename(target, &aside)?;
    if let Err(error) = fs::rename(made, target) {
        let _ = fs::rename(&aside, target);
        return Err(error);
    }
    fs::rename(&aside, made)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(dir: &Path, text: &str) {
        fs::create_dir_all(dir).expect("made");
        fs::write(dir.join("config.json"), text).expect("written");
    }

    fn refusal(target: &Path, kind: Kind, inputs: &[&Path]) -> String {
        match Staged::new(target, kind, true, inputs) {
            Err(Failure::Input(message)) => message,
            other => panic!("{other:?}"),
        }
    }

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(dir)
            .expect("listed")
            .flatten()
            .map(|e| e.file_name().to_string_lossy().into())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn an_earlier_result_is_replaced_and_nothing_is_left_beside_it() {
        let root = tempfile::tempdir().expect("a temporary directory");
        let target = root.path().join("merged");
        for text in ["first", "second", "third"] {
            let staged = Staged::new(&target, Kind::Directory, true, &[]).expect("allowed");
            fs::write(staged.dir().join("config.json"), text).expect("written");
            staged.publish_dir().expect("published");
            assert_eq!(fs::read_to_string(target.join("config.json")).expect("read"), text);
            assert_eq!(names(root.path()), ["merged"]);
        }
        let (made, old) = (root.path().join("made"), root.path().join("old"));
        model(&made, "made");
        model(&old, "old");
        exchange_by_three(&made, &old).expect("exchanged");
        assert_eq!(fs::read_to_string(old.join("config.json")).expect("read"), "made");
        assert_eq!(fs::read_to_string(made.join("config.json")).expect("read"), "old");
    }

    #[test]
    fn force_takes_nothing_but_results() {
        let root = tempfile::tempdir().expect("a temporary directory");
        let here = |name: &str| root.path().join(name);
        model(&here("runs/mine"), "{}");
        let message = refusal(&here("runs"), Kind::Directory, &[]);
        assert!(message.contains("no result of merge or export"), "{message}");
        let message = refusal(&here("runs/mine"), Kind::Directory, &[&here("runs/mine")]);
        assert!(message.contains("is read from there"), "{message}");
        fs::write(here("runs/mine/metrics.jsonl"), "").expect("written");
        assert!(refusal(&here("runs/mine"), Kind::Directory, &[]).contains("may be a run"));
        fs::create_dir(here("empty")).expect("made");
        assert!(refusal(&here("empty"), Kind::File, &[]).contains("is a directory"));
        fs::write(here("file.gguf"), "x").expect("written");
        assert!(refusal(&here("file.gguf"), Kind::Directory, &[]).contains("is a file"));
        assert!(
            refusal(&here("file.gguf"), Kind::File, &[&here("file.gguf")]).contains("is read from there")
        );
        assert!(refusal(&here("file.gguf/x"), Kind::File, &[]).contains("is a file"));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_mount_point_is_refused_before_anything_is_made() {
        assert!(is_mount_point(Path::new("/proc")) && !is_mount_point(Path::new("/proc/self")));
        assert!(refusal(Path::new("/proc"), Kind::Directory, &[]).contains("mount point"));
    }

    #[cfg(unix)]
    #[test]
    fn a_link_stays_and_what_it_names_is_replaced() {
        let root = tempfile::tempdir().expect("a temporary directory");
        let (real, link) = (root.path().join("real"), root.path().join("link"));
        model(&real, "old");
        std::os::unix::fs::symlink(&real, &link).expect("linked");
        let staged = Staged::new(&link, Kind::Directory, true, &[]).expect("allowed");
        fs::write(staged.dir().join("config.json"), "new").expect("written");
        staged.publish_dir().expect("published");
        assert_eq!(fs::read_to_string(real.join("config.json")).expect("read"), "new");
        assert!(link.symlink_metadata().expect("there").is_symlink());
    }

    #[cfg(unix)]
    #[test]
    fn what_a_killed_process_left_is_swept_and_what_a_living_one_fills_is_not() {
        let root = tempfile::tempdir().expect("a temporary directory");
        let target = root.path().join("out");
        let (dead, other) =
            (root.path().join(".out.dead.incomplete"), root.path().join(".out.x.y.incomplete"));
        model(&dead, "half");
        model(&other, "of `out.x`");
        let living = Staged::new(&target, Kind::Directory, false, &[]).expect("allowed");
        assert!(!dead.exists() && other.exists());
        let second = Staged::new(&target, Kind::Directory, false, &[]).expect("allowed");
        assert!(living.dir().is_dir() && second.dir().is_dir());
        drop((living, second));
        assert_eq!(names(root.path()), [".out.x.y.incomplete"]);
    }
}
