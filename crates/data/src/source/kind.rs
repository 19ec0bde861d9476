//! What a file is: by its name, and where that says nothing, by its first bytes.

use std::io::Read as _;

use serde::Serialize;

use super::bytes::{ByteStream, DataFile};
use crate::error::DataError;

/// The forms of files that are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FileKind {
    /// An object on each line.
    JsonLines,
    /// An array of objects (or, when it does not begin with `[`, JSON Lines).
    Json,
    /// Comma-separated values with a header line.
    Csv,
    /// Tab-separated values with a header line.
    Tsv,
    /// Plain text.
    Text,
    /// Apache Parquet.
    Parquet,
    /// Arrow IPC, the file form.
    ArrowFile,
    /// Arrow IPC, the stream form (what datasets keeps in its cache).
    ArrowStream,
    /// Documents that were tokenised before.
    Tokens,
}

/// How a file is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Compression {
    /// Not at all.
    None,
    /// gzip, of one or several members.
    Gzip,
    /// Zstandard.
    Zstd,
}

/// The form and the compression of a file.
pub(super) fn of(file: &DataFile) -> Result<(FileKind, Compression), DataError> {
    if file.token_part().is_some() {
        return Ok((FileKind::Tokens, Compression::None));
    }
    let name = file.name().to_ascii_lowercase();
    let (stem, compression) = match name.rsplit_once('.') {
        Some((stem, "gz" | "gzip")) => (stem, Compression::Gzip),
        Some((stem, "zst" | "zstd")) => (stem, Compression::Zstd),
        _ => (name.as_str(), Compression::None),
    };
    let extension = stem.rsplit('/').next().and_then(|last| last.rsplit_once('.')).map(|(_, end)| end);
    let kind = match extension {
        Some("jsonl" | "ndjson") => FileKind::JsonLines,
        Some("json") => FileKind::Json,
        Some("csv") => FileKind::Csv,
        Some("tsv") => FileKind::Tsv,
        Some("txt" | "text" | "md") => FileKind::Text,
        Some("tokens") => FileKind::Tokens,
        Some("parquet") => FileKind::Parquet,
        Some("arrow" | "feather") => arrow_kind(file)?,
        _ => return sniffed(file),
    };
    let is_table = matches!(kind, FileKind::Parquet | FileKind::ArrowFile | FileKind::ArrowStream);
    if is_table && compression != Compression::None {
        return Err(DataError::CompressedTable { path: file.path().to_path_buf() });
    }
    Ok((kind, compression))
}

fn arrow_kind(file: &DataFile) -> Result<FileKind, DataError> {
    let is_file = head(file, Compression::None)?.starts_with(b"ARROW1");
    Ok(if is_file { FileKind::ArrowFile } else { FileKind::ArrowStream })
}

/// The first bytes, after decompression.
fn head(file: &DataFile, compression: Compression) -> Result<Vec<u8>, DataError> {
    let mut head = Vec::new();
    let stream = ByteStream::open(file, compression, 0)?;
    match stream.take(256).read_to_end(&mut head) {
        Ok(_) => Ok(head),
        Err(error) => Err(super::Failed::new(file.path(), error).into()),
    }
}

/// A name that says nothing: the content must.
fn sniffed(file: &DataFile) -> Result<(FileKind, Compression), DataError> {
    let unknown = || DataError::UnknownExtension { path: file.path().to_path_buf() };
    let raw = head(file, Compression::None)?;
    let compression = match raw.as_slice() {
        [0x1f, 0x8b, ..] => Compression::Gzip,
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Compression::Zstd,
        _ => Compression::None,
    };
    let head = if compression == Compression::None { raw } else { head(file, compression)? };
    let first = head.iter().find(|b| !b.is_ascii_whitespace());
    let kind = match (head.as_slice(), first) {
        ([b'P', b'A', b'R', b'1', ..], _) => FileKind::Parquet,
        ([b'A', b'R', b'R', b'O', b'W', b'1', ..], _) => FileKind::ArrowFile,
        (_, Some(b'{' | b'[')) => FileKind::Json,
        _ => return Err(unknown()),
    };
    Ok((kind, compression))
}
