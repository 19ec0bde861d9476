//! One process at a time writes a shard: a lock on a file that the system releases whatever ends the process.
//!
//! Schedulers start a task twice (speculation, requeueing after a lost connection). Both would write the same bytes,
//! but neither may sweep up what the other is writing.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

use super::manifest::stem;
use super::write::Shard;
use crate::error::DataError;

/// A shard that is held.
#[derive(Debug)]
pub(super) struct ShardLock {
    file: File,
    path: PathBuf,
}

impl ShardLock {
    /// Holds a shard in a directory that exists; `None` where files cannot be locked: then every file that is written
    /// has a name of its own until it is whole, and what another process leaves is not touched.
    ///
    /// # Errors
    /// [`DataError::ShardInUse`].
    pub(super) fn take(dir: &Path, shard: Shard) -> Result<Option<Self>, DataError> {
        let path = dir.join(format!(".{}.lock", stem(shard.index, shard.of)));
        loop {
            let opened = File::options().create(true).truncate(false).write(true).open(&path);
            let Ok(file) = opened else { return Ok(None) };
            match file.try_lock() {
                Err(TryLockError::WouldBlock) => {
                    return Err(DataError::ShardInUse { dir: dir.to_owned(), shard: shard.to_string() });
                }
                Err(TryLockError::Error(_)) => return Ok(None),
                Ok(()) => {}
            }
            let lock = Self { file, path: path.clone() };
            // The one who held it may have removed the file between opening and locking.
            if lock.is_in_place() {
                return Ok(Some(lock));
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

impl Drop for ShardLock {
    fn drop(&mut self) {
        if self.is_in_place() {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}
