//! Memory-mapped files: the one place of this crate with `unsafe`.
//!
//! A mapped file that another program shortens turns reads past its new end into SIGBUS. The length is therefore
//! checked when the file is opened and again before every read ([`MappedFile::bytes`]), which turns the realistic
//! case (a checkpoint that is being overwritten) into an error.
#![allow(unsafe_code)]

use std::fs::File;
use std::path::{Path, PathBuf};

use memmap2::Mmap;

use crate::FormatError;

/// Largest page of the usual systems: ranges are cut to whole ones.
const PAGE: usize = 16 << 10;
/// The most that Linux maps at once when one page of a file is touched: `fault_around_bytes` is 64 KiB by default, and
/// never reaches beyond a table of pages.
const AROUND: usize = 2 << 20;

/// A regular file mapped read-only into memory.
#[derive(Debug)]
pub(crate) struct MappedFile {
    path: PathBuf,
    file: File,
    /// `None` for an empty file, which cannot be mapped.
    map: Option<Mmap>,
    len: usize,
}

impl MappedFile {
    /// Maps a regular file; anything else (directory, pipe, device) is refused before it is opened.
    pub(crate) fn open(path: &Path) -> Result<Self, FormatError> {
        let kind = std::fs::metadata(path).map_err(FormatError::io(path, "open"))?;
        if !kind.is_file() {
            let source = std::io::Error::other("not a regular file");
            return Err(FormatError::Io { path: path.to_owned(), action: "open", source });
        }
        let file = File::open(path).map_err(FormatError::io(path, "open"))?;
        let len = file.metadata().map_err(FormatError::io(path, "read the size of"))?.len();
        let len = usize::try_from(len).map_err(|_| FormatError::Io {
            path: path.to_owned(),
            action: "map",
            source: std::io::Error::other("the file is larger than the address space"),
        })?;
        if len == 0 {
            return Ok(Self { path: path.to_owned(), file, map: None, len });
        }
        // SAFETY: the mapping is private to this struct, read-only, and lives as long as the slices borrowed from
        // it. Bytes that another process changes can at worst become other bytes, and every reader of them checks
        // values before use; a file that shrinks is caught by `bytes` before each read.
        let map = unsafe { Mmap::map(&file) }.map_err(FormatError::io(path, "map"))?;
        if map.len() != len {
            return Err(FormatError::FileShrank {
                path: path.to_owned(),
                was: len as u64,
                now: map.len() as u64,
            });
        }
        Ok(Self { path: path.to_owned(), file, map: Some(map), len })
    }

    /// Gives back the memory of a range that will hardly be read again: its whole pages leave this process's
    /// resident set
    /// (they stay in the system's cache, and a later read brings them back). Weights are read once, so that loading
    /// does not hold a second copy of the model.
    pub(crate) fn release(&self, range: std::ops::Range<usize>) {
        let Some(map) = &self.map else { return };
        let start = range.start.next_multiple_of(PAGE);
        // The file's last page may be a part of one.
        let end = if range.end >= self.len { self.len } else { range.end / PAGE * PAGE };
        if start < end {
            // SAFETY: the mapping is shared with a file and never written to, so dropping its pages loses nothing: a
            // later read takes the same bytes from the file.
            #[cfg(unix)]
            let _ =
                unsafe { map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, start, end - start) };
            #[cfg(not(unix))]
            let _ = map;
        }
    }

    /// As [`MappedFile::release`], with the pages around the range that the system brings along: for ranges that are
    /// smaller than a page, whose neighbours can be read again.
    pub(crate) fn release_around(&self, range: std::ops::Range<usize>) {
        let Some(map) = &self.map else { return };
        // What is mapped together is told by addresses, not by places in the file.
        let base = map.as_ptr() as usize;
        let start = ((base + range.start) / AROUND * AROUND).saturating_sub(base);
        let end = (base + range.end).next_multiple_of(AROUND) - base;
        self.release(start..end.min(self.len));
    }

    /// The file's path as it was opened.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// All bytes of the file, after making sure that it still has the length it was opened with.
    pub(crate) fn bytes(&self) -> Result<&[u8], FormatError> {
        let now = self.file.metadata().map_err(FormatError::io(&self.path, "read the size of"))?.len();
        if now < self.len as u64 {
            return Err(FormatError::FileShrank { path: self.path.clone(), was: self.len as u64, now });
        }
        Ok(self.map.as_deref().unwrap_or(&[]))
    }
}
