//! Flushing what was written to disk, so that it survives a power cut.

use crate::FormatError;
use std::fs::{self, File};
use std::io;
use std::path::Path;

/// Flushes every file below `dir`, and the directories: their contents and their names are on disk when this returns.
///
/// # Errors
/// [`FormatError::Io`], for example when a delayed write finds the disk full.
pub fn flush_tree(dir: &Path) -> Result<(), FormatError> {
    for entry in fs::read_dir(dir).map_err(FormatError::io(dir, "list"))? {
        let path = entry.map_err(FormatError::io(dir, "list"))?.path();
        if path.is_dir() {
            flush_tree(&path)?;
        } else {
            File::open(&path).and_then(|file| file.sync_all()).map_err(FormatError::io(&path, "flush"))?;
        }
    }
    flush_dir(dir).map_err(FormatError::io(dir, "flush"))
}

/// Flushes a directory itself: the names of its entries, after a rename.
///
/// # Errors
/// What the system says.
pub fn flush_dir(dir: &Path) -> io::Result<()> {
    // Windows cannot open a directory as a file, and keeps names without being asked.
    if cfg!(unix) { File::open(dir)?.sync_all() } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_is_flushed_and_what_is_missing_is_named() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("a/b")).unwrap();
        fs::write(dir.path().join("a/b/file"), "x").unwrap();
        flush_tree(dir.path()).unwrap();
        let error = flush_tree(&dir.path().join("absent")).unwrap_err().to_string();
        assert!(error.contains("absent"), "{error}");
    }
}
