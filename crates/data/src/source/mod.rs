//! Files to rows, one at a time: JSON, JSON Lines, CSV, TSV, text, Parquet and Arrow, plain or compressed; token files.
//!
//! Nothing is inferred about columns: each row stands for itself, so null here and text there is no problem. A reader
//! can be opened at any [`Position`] it has been at, and holds one row (of a table: one batch of rows) in memory.

#[cfg(feature = "tables")]
mod arrow_check;
#[cfg(feature = "tables")]
mod arrow_rows;
mod bytes;
mod csv;
mod json;
mod kind;
mod lines;
#[cfg(feature = "tables")]
mod parquet_rows;
#[cfg(feature = "tables")]
mod table_values;
mod text;
mod tokens;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error::{DataError, Place};
use crate::spec::SampleBy;
use crate::tokens::TokenRow;

pub(crate) use bytes::Failed;
pub use bytes::{DataFile, ReadAt};
pub(crate) use kind::Compression;
pub use kind::FileKind;

/// Longest line, element or document that is taken for an example, in bytes: beyond it the file is hardly what its
/// name says, and a reader holds as much.
pub(crate) const ROW_LIMIT: usize = 1 << 28;

/// One row of a file.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Row {
    /// An object of named values.
    Object(Map<String, Value>),
    /// A stretch of a text file.
    Text(String),
    /// What was tokenised before.
    Tokens(TokenRow),
}

impl Row {
    /// Bytes of its texts.
    pub(crate) fn size(&self) -> usize {
        fn of(value: &Value) -> usize {
            match value {
                Value::String(text) => text.len(),
                Value::Array(items) => items.iter().map(of).sum(),
                Value::Object(fields) => fields.values().map(of).sum(),
                _ => 1,
            }
        }
        match self {
            Row::Text(text) => text.len(),
            Row::Tokens(document) => document.size(),
            Row::Object(object) => object.values().map(of).sum(),
        }
    }
}

/// A place between two rows of a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Position {
    /// Bytes (after decompression) before it; of Parquet, rows; of Arrow, batches; of token files, documents.
    pub(crate) offset: u64,
    /// Lines before it.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) line: u64,
    /// Rows before it that begin at `offset` or later.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) rows: u64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// A row, and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Found {
    /// Where a reader must be opened to read it again.
    pub(crate) at: Position,
    /// For messages.
    pub(crate) place: Place,
    /// The row.
    pub(crate) row: Row,
}

/// Why there is no next row.
#[derive(Debug)]
pub(crate) struct Unreadable {
    /// What is wrong.
    pub(crate) error: DataError,
    /// The reader stands behind the bad row and can go on.
    pub(crate) goes_on: bool,
    /// Rows that are lost with it, as far as that is known (or can be said so: an error should be small).
    pub(crate) rows: u32,
}

impl Unreadable {
    /// Only this row is bad.
    fn row(error: DataError) -> Self {
        Self::rows(error, 1)
    }

    /// So many rows are bad.
    fn rows(error: DataError, rows: u64) -> Self {
        Self { error, goes_on: true, rows: u32::try_from(rows).unwrap_or(u32::MAX) }
    }

    /// Nothing after it can be read.
    fn rest(error: DataError) -> Self {
        Self { error, goes_on: false, rows: 1 }
    }
}

/// The rows of one file in their order.
pub(crate) trait RowReader: Send {
    /// The next row; `None` at the end.
    fn next(&mut self) -> Result<Option<Found>, Unreadable>;

    /// The place before the next row.
    fn position(&self) -> Position;

    /// Blank lines, paragraphs or files passed over so far.
    fn blank(&self) -> usize {
        0
    }

    /// Tells what columns are called later, by the columns' own names: where values are texts, the name says which of
    /// them hold lists.
    fn call_columns(&mut self, _names: &BTreeMap<&str, &str>) {}
}

/// Opens a file at a place where a reader of it has been.
pub(crate) fn open(file: &DataFile, by: SampleBy, at: Position) -> Result<Box<dyn RowReader>, DataError> {
    if let Some(part) = file.token_part() {
        return Ok(Box::new(tokens::TokenRows::open(file, part, at)?));
    }
    let path: Arc<Path> = Arc::clone(file.path());
    let (kind, compression) = kind::of(file)?;
    let stream = || bytes::ByteStream::open(file, compression, at.offset);
    let mut reader: Box<dyn RowReader> = match kind {
        FileKind::Tokens => return Err(DataError::LooseTokens { path: path.to_path_buf() }),
        FileKind::JsonLines => Box::new(json::JsonLines::new(stream()?, path, at)),
        FileKind::Json => json::open(stream()?, path, at)?,
        FileKind::Csv | FileKind::Tsv => {
            let delimiter = if kind == FileKind::Csv { b',' } else { b'\t' };
            Box::new(csv::CsvRows::open(file, compression, delimiter, at)?)
        }
        FileKind::Text => match by {
            SampleBy::Line => Box::new(text::TextLines::new(stream()?, path, at)),
            SampleBy::Paragraph => Box::new(text::Paragraphs::new(stream()?, path, at)),
            SampleBy::Document => Box::new(text::Document::new(stream()?, path, at)),
        },
        #[cfg(feature = "tables")]
        FileKind::Parquet => Box::new(parquet_rows::ParquetRows::open(file, at)?),
        #[cfg(feature = "tables")]
        FileKind::ArrowFile | FileKind::ArrowStream => {
            Box::new(arrow_rows::ArrowRows::open(file, at, kind == FileKind::ArrowFile)?)
        }
        #[cfg(not(feature = "tables"))]
        FileKind::Parquet | FileKind::ArrowFile | FileKind::ArrowStream => {
            return Err(DataError::NotBuilt { path: path.to_path_buf(), feature: "tables" });
        }
    };
    for _ in 0..at.rows {
        if !matches!(reader.next(), Ok(Some(_)) | Err(Unreadable { goes_on: true, .. })) {
            return Err(DataError::BadState {
                problem: format!("{} has fewer rows than before", file.name()),
            });
        }
    }
    Ok(reader)
}

/// Whether a reader of the file can be opened in its middle without reading what comes before, row by row.
pub(crate) fn can_seek(file: &DataFile) -> bool {
    let is_table = |kind| matches!(kind, FileKind::Parquet | FileKind::ArrowFile | FileKind::ArrowStream);
    matches!(kind::of(file), Ok((kind, Compression::None)) if !is_table(kind))
}

/// What a file is, told from its name and its first bytes.
///
/// # Errors
/// A file that cannot be read, or whose form cannot be told.
pub fn file_kind(file: &DataFile) -> Result<FileKind, DataError> {
    kind::of(file).map(|(kind, _)| kind)
}

#[cfg(all(test, feature = "tables"))]
mod table_tests;
#[cfg(test)]
mod tests;
