//! A streaming safetensors writer: 8 bytes of header length, a JSON header padded with spaces to a multiple of 8, data.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{BufWriter, ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use crate::{FormatError, StoredDtype, plain};

/// Bytes collected for one call of the system.
const BUFFER: usize = 1 << 20;

/// One tensor to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// How its elements are stored: a plain type.
    pub dtype: StoredDtype,
    /// Its row-major shape.
    pub shape: Vec<usize>,
}

impl Entry {
    /// An entry from its parts.
    pub fn new(name: impl Into<String>, dtype: StoredDtype, shape: &[usize]) -> Self {
        Self { name: name.into(), dtype, shape: shape.to_vec() }
    }

    /// Number of elements.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// Number of bytes.
    pub fn bytes(&self) -> usize {
        self.elements() * self.dtype.block().1
    }
}

/// Writes one safetensors file from front to back. The data goes to a temporary file in the same directory, which
/// [`Writer::finish`] flushes to disk and renames: under the final name there is never a partial file. Dropping an
/// unfinished writer removes the temporary file.
#[derive(Debug)]
pub struct Writer {
    temporary: TemporaryFile,
    out: BufWriter<File>,
    entries: Vec<Entry>,
    /// The tensor being written, and its bytes still to come.
    position: usize,
    left: usize,
    scratch: Vec<u8>,
}

impl Writer {
    /// Begins a file with these tensors, written in this order. `metadata` is stored in the header; transformers
    /// insists on `("format", "pt")`.
    ///
    /// # Errors
    /// [`FormatError::Io`].
    ///
    /// # Panics
    /// If two entries share a name or an entry has a quantised type: the caller's mistake.
    pub fn create(
        path: &Path,
        entries: &[Entry],
        metadata: &[(String, String)],
    ) -> Result<Self, FormatError> {
        let header = header(entries, metadata);
        let (temporary, file) = TemporaryFile::create(path)?;
        let mut out = BufWriter::with_capacity(BUFFER, file);
        out.write_all(&(header.len() as u64).to_le_bytes())
            .and_then(|()| out.write_all(header.as_bytes()))
            .map_err(FormatError::io(path, "write"))?;
        let mut writer =
            Self { temporary, out, entries: entries.to_vec(), position: 0, left: 0, scratch: Vec::new() };
        writer.left = writer.entries.first().map_or(0, Entry::bytes);
        writer.skip_empty();
        Ok(writer)
    }

    /// Appends `values` to the tensor `name`, rounding to its type (to nearest, ties to even).
    ///
    /// # Errors
    /// [`FormatError::Io`].
    ///
    /// # Panics
    /// If `name` is not the tensor whose turn it is, if it is not of a float type, or if more elements come than it
    /// has: the caller's mistake.
    pub fn write_f32(&mut self, name: &str, values: &[f32]) -> Result<(), FormatError> {
        if values.is_empty() {
            return Ok(());
        }
        let dtype = self.turn_of(name);
        // Pieces bound the scratch memory, whatever the tensor's size. Those of f32 are as large as the buffer of
        // `out`, which hands them on without a copy of its own.
        for piece in values.chunks(BUFFER / 4) {
            let mut bytes = std::mem::take(&mut self.scratch);
            bytes.clear();
            assert!(
                plain::f32_to_floats(dtype, piece, &mut bytes),
                "tensor `{name}` is {dtype}, not a float type"
            );
            let result = self.append(name, &bytes);
            self.scratch = bytes;
            result?;
        }
        self.skip_empty();
        Ok(())
    }

    /// Appends little-endian bytes in the stored type to the tensor `name`.
    ///
    /// # Errors
    /// [`FormatError::Io`].
    ///
    /// # Panics
    /// As [`Writer::write_f32`], without the condition on the type.
    pub fn write_bytes(&mut self, name: &str, bytes: &[u8]) -> Result<(), FormatError> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.turn_of(name);
        self.append(name, bytes)?;
        self.skip_empty();
        Ok(())
    }

    /// True when every declared tensor has all its elements.
    pub fn is_complete(&self) -> bool {
        self.position == self.entries.len()
    }

    /// Flushes the file to disk and gives it its name.
    ///
    /// # Errors
    /// [`FormatError::Io`].
    ///
    /// # Panics
    /// If a declared tensor was not written completely.
    pub fn finish(self) -> Result<(), FormatError> {
        let (temporary, file) = self.complete()?;
        temporary.persist(&file)
    }

    /// As [`Writer::finish`], but the contents may still be in the system's memory only: for files of a directory
    /// that is flushed as a whole before anybody relies on it ([`crate::flush_tree`]).
    ///
    /// # Errors
    /// As [`Writer::finish`].
    ///
    /// # Panics
    /// As [`Writer::finish`].
    pub fn finish_unflushed(self) -> Result<(), FormatError> {
        let (temporary, _) = self.complete()?;
        temporary.rename()
    }

    fn complete(self) -> Result<(TemporaryFile, File), FormatError> {
        if let Some(entry) = self.entries.get(self.position) {
            panic!("{}: tensor `{}` lacks {} bytes", self.temporary.target.display(), entry.name, self.left);
        }
        let target = &self.temporary.target;
        let file = self.out.into_inner().map_err(|e| FormatError::io(target, "write")(e.into_error()))?;
        Ok((self.temporary, file))
    }

    fn turn_of(&self, name: &str) -> StoredDtype {
        let expected = self.entries.get(self.position);
        assert!(
            expected.is_some_and(|e| e.name == name),
            "tensor `{name}` was written where `{}` was declared",
            expected.map_or("the end", |e| &e.name)
        );
        self.entries[self.position].dtype
    }

    fn append(&mut self, name: &str, bytes: &[u8]) -> Result<(), FormatError> {
        assert!(
            bytes.len() <= self.left,
            "tensor `{name}` has {} bytes left, not {}",
            self.left,
            bytes.len()
        );
        self.out.write_all(bytes).map_err(FormatError::io(&self.temporary.target, "write"))?;
        self.left -= bytes.len();
        Ok(())
    }

    /// Moves past completed tensors, also those without any element.
    fn skip_empty(&mut self) {
        while self.left == 0 && self.position < self.entries.len() {
            self.position += 1;
            self.left = self.entries.get(self.position).map_or(0, Entry::bytes);
        }
    }
}

/// The header as the safetensors crate writes it: `__metadata__` first, offsets from the end of the header.
fn header(entries: &[Entry], metadata: &[(String, String)]) -> String {
    let mut object = Map::new();
    if !metadata.is_empty() {
        let pairs = metadata.iter().map(|(k, v)| (k.clone(), Value::from(v.as_str()))).collect::<Map<_, _>>();
        object.insert("__metadata__".to_owned(), Value::Object(pairs));
    }
    let mut names = HashSet::new();
    let mut offset = 0usize;
    for entry in entries {
        assert!(!entry.dtype.is_quantised(), "tensor `{}`: safetensors has no {}", entry.name, entry.dtype);
        assert!(names.insert(entry.name.as_str()), "tensor `{}` is declared twice", entry.name);
        let end = offset + entry.bytes();
        let value =
            json!({ "dtype": entry.dtype.name(), "shape": entry.shape, "data_offsets": [offset, end] });
        object.insert(entry.name.clone(), value);
        offset = end;
    }
    let mut text = Value::Object(object).to_string();
    while !text.len().is_multiple_of(8) {
        text.push(' ');
    }
    text
}

/// Writes a small file so that it is complete or absent: temporary name, fsync, rename.
pub(crate) fn write_atomically(path: &Path, bytes: &[u8]) -> Result<(), FormatError> {
    let (temporary, mut file) = TemporaryFile::create(path)?;
    file.write_all(bytes).map_err(FormatError::io(path, "write"))?;
    temporary.persist(&file)
}

/// As [`write_atomically`], without the fsync: see [`Writer::finish_unflushed`].
pub(crate) fn write_unflushed(path: &Path, bytes: &[u8]) -> Result<(), FormatError> {
    let (temporary, mut file) = TemporaryFile::create(path)?;
    file.write_all(bytes).map_err(FormatError::io(path, "write"))?;
    temporary.rename()
}

/// A file under a temporary name next to its target; removed on drop unless it was persisted.
#[derive(Debug)]
pub(crate) struct TemporaryFile {
    temporary: PathBuf,
    pub(crate) target: PathBuf,
    persisted: bool,
}

impl TemporaryFile {
    pub(crate) fn create(target: &Path) -> Result<(Self, File), FormatError> {
        let name = target.file_name().unwrap_or_default().to_string_lossy();
        let mut serial = 0_u32;
        loop {
            let temporary = target.with_file_name(format!(".{name}.{serial}.incomplete"));
            match File::create_new(&temporary) {
                Ok(file) => {
                    return Ok((Self { temporary, target: target.to_owned(), persisted: false }, file));
                }
                // Another writer's, or what a killed one left.
                Err(error) if error.kind() == ErrorKind::AlreadyExists && serial < u32::MAX => serial += 1,
                Err(error) => return Err(FormatError::io(target, "create")(error)),
            }
        }
    }

    fn rename(mut self) -> Result<(), FormatError> {
        fs::rename(&self.temporary, &self.target).map_err(FormatError::io(&self.target, "rename"))?;
        self.persisted = true;
        Ok(())
    }

    pub(crate) fn persist(self, file: &File) -> Result<(), FormatError> {
        file.sync_all().map_err(FormatError::io(&self.target, "flush"))?;
        let target = self.target.clone();
        self.rename()?;
        // The rename itself must survive a power cut; not every file system can flush a directory.
        if let Some(dir) = target.parent()
            && let Ok(dir) = File::open(if dir.as_os_str().is_empty() { Path::new(".") } else { dir })
        {
            let _ = dir.sync_all();
        }
        Ok(())
    }
}

impl Drop for TemporaryFile {
    fn drop(&mut self) {
        if !self.persisted {
            let _ = fs::remove_file(&self.temporary);
        }
    }
}
