//! Bytes of a file from any offset, decompressed; local, or wherever the caller can read ranges from.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use super::kind::Compression;
use crate::error::DataError;
use crate::tokens::TokenPart;

/// Bytes of a file that is not local: an object of a store, a file behind HTTP.
pub trait ReadAt: std::fmt::Debug + Send + Sync {
    /// Its size in bytes.
    fn size(&self) -> u64;

    /// Fills the start of `buffer` with the bytes from `offset` on, and says how many; 0 only at the end.
    ///
    /// # Errors
    /// Whatever the network says.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;
}

/// A data file: its name, and where its bytes are.
#[derive(Clone, Debug)]
pub struct DataFile {
    path: Arc<Path>,
    remote: Option<Arc<dyn ReadAt>>,
    tokens: Option<Arc<TokenPart>>,
}

impl DataFile {
    /// A file of this machine.
    pub fn local(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into().into(), remote: None, tokens: None }
    }

    /// A file of another machine; `name` is its address, whose end tells the format.
    pub fn remote(name: &str, content: Arc<dyn ReadAt>) -> Self {
        Self { path: Path::new(name).into(), remote: Some(content), tokens: None }
    }

    /// A file of a directory of token files.
    pub(crate) fn tokens(path: PathBuf, part: Arc<TokenPart>) -> Self {
        Self { path: path.into(), remote: None, tokens: Some(part) }
    }

    /// What is known of a token file; `None` for any other file.
    pub(crate) fn token_part(&self) -> Option<&Arc<TokenPart>> {
        self.tokens.as_ref()
    }

    /// Its path or address.
    pub fn path(&self) -> &Arc<Path> {
        &self.path
    }

    /// Its path or address as text; of an address without what follows `?`.
    pub fn name(&self) -> String {
        let name = self.path.to_string_lossy();
        match self.remote {
            Some(_) => name.split('?').next().unwrap_or_default().to_owned(),
            None => name.into_owned(),
        }
    }

    /// Its size in bytes.
    ///
    /// # Errors
    /// [`DataError::Io`].
    pub fn size(&self) -> Result<u64, DataError> {
        match &self.remote {
            Some(remote) => Ok(remote.size()),
            None => Ok(std::fs::metadata(&self.path).map_err(|e| Failed::new(&self.path, e))?.len()),
        }
    }

    /// What tells it from other files without reading all of it: its size, and SHA-256 of its first and last 64 KiB.
    ///
    /// # Errors
    /// [`DataError::Io`].
    pub fn fingerprint(&self) -> Result<Vec<u8>, DataError> {
        const END: u64 = 1 << 16;
        let failed = |e| DataError::from(Failed::new(&self.path, e));
        let mut content = self.content()?;
        let size = content.size();
        let mut hash = Sha256::new();
        hash.update(size.to_le_bytes());
        for start in [0, size.saturating_sub(END)] {
            let mut bytes = Vec::new();
            content.seek(SeekFrom::Start(start)).map_err(failed)?;
            content.by_ref().take(END).read_to_end(&mut bytes).map_err(failed)?;
            hash.update(bytes);
        }
        Ok(hash.finalize().to_vec())
    }

    /// Its bytes, with any number of cursors over them.
    pub(super) fn content(&self) -> Result<Content, DataError> {
        match &self.remote {
            Some(remote) => Ok(Content::Remote { file: Arc::clone(remote), offset: 0 }),
            None => {
                // A pipe or a directory has no size to hold a reader to.
                let failed = |e| Failed::new(&self.path, e);
                let kind = std::fs::metadata(&self.path).map_err(failed)?;
                if !kind.is_file() {
                    return Err(failed(io::Error::other("not a regular file")).into());
                }
                let file = File::open(&self.path).map_err(failed)?;
                let size = file.metadata().map_err(failed)?.len();
                Ok(Content::Local { file, size, offset: 0 })
            }
        }
    }
}

impl PartialEq for DataFile {
    fn eq(&self, other: &Self) -> bool {
        self.path == other.path
    }
}

/// An error of the system while reading `path`.
#[derive(Debug)]
pub(crate) struct Failed {
    path: PathBuf,
    source: io::Error,
}

impl Failed {
    pub(crate) fn new(path: &Path, source: io::Error) -> Self {
        Self { path: path.to_owned(), source }
    }
}

impl From<Failed> for DataError {
    fn from(Failed { path, source }: Failed) -> Self {
        match source.downcast::<Special>() {
            Ok(Special::Shrank { was, now }) => DataError::FileShrank { path, was, now },
            Ok(Special::Compressed(problem)) => DataError::Compressed { path, problem },
            Err(source) => DataError::Io { path, source },
        }
    }
}

/// What an [`io::Error`] carries through readers that know only those.
#[derive(Debug, thiserror::Error)]
enum Special {
    #[error("the file has shrunk")]
    Shrank { was: u64, now: u64 },
    #[error("{0}")]
    Compressed(String),
}

/// Raw bytes with a cursor. Local files are read up to the size they had when they were opened: what is appended
/// meanwhile is left to the next run, what is cut off is an error.
#[derive(Debug)]
pub(super) enum Content {
    Local { file: File, size: u64, offset: u64 },
    Remote { file: Arc<dyn ReadAt>, offset: u64 },
}

impl Content {
    /// Size in bytes.
    pub(super) fn size(&self) -> u64 {
        match self {
            Content::Local { size, .. } => *size,
            Content::Remote { file, .. } => file.size(),
        }
    }

    fn offset(&mut self) -> &mut u64 {
        match self {
            Content::Local { offset, .. } | Content::Remote { offset, .. } => offset,
        }
    }
}

impl Read for Content {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.size().saturating_sub(*self.offset());
        let wanted = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        if wanted == 0 {
            return Ok(0);
        }
        let read = match self {
            Content::Local { file, .. } => file.read(&mut buffer[..wanted])?,
            Content::Remote { file, offset } => file.read_at(*offset, &mut buffer[..wanted])?,
        };
        if read == 0 {
            let (was, now) = (self.size(), *self.offset());
            return Err(io::Error::other(Special::Shrank { was, now }));
        }
        *self.offset() += read as u64;
        Ok(read)
    }
}

impl Seek for Content {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let (base, step) = match to {
            SeekFrom::Start(offset) => (offset, 0),
            SeekFrom::End(step) => (self.size(), step),
            SeekFrom::Current(step) => (*self.offset(), step),
        };
        let target = base
            .checked_add_signed(step)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "a place before the file"))?;
        if let Content::Local { file, .. } = self {
            file.seek(SeekFrom::Start(target))?;
        }
        *self.offset() = target;
        Ok(target)
    }
}

/// Marks errors of a decompressor, which are about the content and not about the system.
struct Decompressed<R>(R);

impl<R: Read> Read for Decompressed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer).map_err(|error| {
            if error.get_ref().is_some_and(|inner| inner.is::<Special>()) {
                return error;
            }
            let problem = match error.kind() {
                io::ErrorKind::UnexpectedEof => "it ends in the middle of the compressed data".to_owned(),
                _ => error.to_string(),
            };
            io::Error::other(Special::Compressed(problem))
        })
    }
}

/// A file's bytes from an offset on, after decompression.
pub(super) struct ByteStream {
    reader: BufReader<Box<dyn Read + Send>>,
    offset: u64,
}

impl ByteStream {
    /// Opens at `offset` of the decompressed bytes: compressed files are decompressed up to there, others are not read.
    pub(super) fn open(file: &DataFile, compression: Compression, offset: u64) -> Result<Self, DataError> {
        let mut content = file.content()?;
        let failed = |e| DataError::from(Failed::new(file.path(), e));
        let mut reader: Box<dyn Read + Send> = match compression {
            Compression::None => {
                if offset > content.size() {
                    let (was, now) = (offset, content.size());
                    return Err(DataError::FileShrank { path: file.path().to_path_buf(), was, now });
                }
                content.seek(SeekFrom::Start(offset)).map_err(failed)?;
                Box::new(content)
            }
            Compression::Gzip => {
                Box::new(Decompressed(flate2::bufread::MultiGzDecoder::new(BufReader::new(content))))
            }
            Compression::Zstd => Box::new(Decompressed(zstd_reader(file, content)?)),
        };
        if compression != Compression::None {
            let skipped = io::copy(&mut reader.by_ref().take(offset), &mut io::sink()).map_err(failed)?;
            if skipped < offset {
                let (was, now) = (offset, skipped);
                return Err(DataError::FileShrank { path: file.path().to_path_buf(), was, now });
            }
        }
        Ok(Self { reader: BufReader::with_capacity(1 << 17, reader), offset })
    }

    /// Bytes before the next one.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// Passes over a byte order mark at the start of the file.
    pub(super) fn skip_bom(&mut self) -> io::Result<()> {
        if self.offset == 0 && self.fill_buf()?.starts_with(&[0xEF, 0xBB, 0xBF]) {
            self.consume(3);
        }
        Ok(())
    }
}

impl Read for ByteStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.reader.read(buffer)?;
        self.offset += read as u64;
        Ok(read)
    }
}

impl BufRead for ByteStream {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.reader.fill_buf()
    }

    fn consume(&mut self, amount: usize) {
        self.reader.consume(amount);
        self.offset += amount as u64;
    }
}

#[cfg(feature = "zstd")]
fn zstd_reader(file: &DataFile, content: Content) -> Result<impl Read + Send + use<>, DataError> {
    let made = zstd::stream::read::Decoder::new(content).and_then(|mut decoder| {
        // Files made with `--long=31` are read as well; the window is the most memory a file can ask for.
        decoder.window_log_max(31)?;
        Ok(decoder)
    });
    made.map_err(|e| Failed::new(file.path(), e).into())
}

#[cfg(not(feature = "zstd"))]
fn zstd_reader(file: &DataFile, _: Content) -> Result<Box<dyn Read + Send>, DataError> {
    Err(DataError::NotBuilt { path: file.path().to_path_buf(), feature: "zstd" })
}
