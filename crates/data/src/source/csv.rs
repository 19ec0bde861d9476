//! CSV and TSV: a header line, then records whose values are texts. Quoted values may hold delimiters and line breaks.

use std::io::{self, BufRead as _, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use csv::{ErrorKind, Reader, ReaderBuilder, StringRecord};
use serde_json::{Map, Value};

use super::bytes::{ByteStream, DataFile, Failed};
use super::kind::Compression;
use super::{Found, Position, ROW_LIMIT, Row, RowReader, Unreadable};
use crate::error::{DataError, Place};

/// Columns whose values are JSON when they look like it: a table of texts has no other way to hold lists.
const JSON_COLUMNS: [&str; 7] =
    ["messages", "conversations", "prompt", "completion", "tools", "history", "chat_template_kwargs"];

/// Records of a file.
pub(super) struct CsvRows {
    reader: Reader<Bounded>,
    path: Arc<Path>,
    header: StringRecord,
    /// Position at which `reader` was made.
    base: Position,
    /// 1 where lines end with `\r\n`: the parser counts a line when it meets the `\n` in front of the next record.
    lag: u64,
    taken: Arc<AtomicU64>,
    record: StringRecord,
}

/// Stops a record (a quote that is never closed) from growing without end.
struct Bounded {
    stream: ByteStream,
    /// Bytes read since the last record began.
    taken: Arc<AtomicU64>,
}

impl Read for Bounded {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.stream.read(buffer)?;
        if self.taken.fetch_add(read as u64, Ordering::Relaxed) > ROW_LIMIT as u64 {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "record too long"));
        }
        Ok(read)
    }
}

fn reader(stream: ByteStream, delimiter: u8) -> (Reader<Bounded>, Arc<AtomicU64>) {
    let taken = Arc::new(AtomicU64::new(0));
    let bounded = Bounded { stream, taken: Arc::clone(&taken) };
    let mut builder = ReaderBuilder::new();
    (builder.delimiter(delimiter).has_headers(false).from_reader(bounded), taken)
}

impl CsvRows {
    /// Reads the header, and goes to `at`.
    pub(super) fn open(
        file: &DataFile,
        compression: Compression,
        delimiter: u8,
        at: Position,
    ) -> Result<Self, DataError> {
        let path = Arc::clone(file.path());
        let mut stream = ByteStream::open(file, compression, 0)?;
        stream.skip_bom().map_err(|e| Failed::new(&path, e))?;
        let start = Position { offset: stream.offset(), line: 0, rows: 0 };
        let head = stream.fill_buf().map_err(|e| Failed::new(&path, e))?;
        let line_end = head.iter().position(|&b| b == b'\n').unwrap_or(0);
        let lag = u64::from(line_end > 0 && head[line_end - 1] == b'\r');
        let (reader_at_start, taken) = reader(stream, delimiter);
        let header = StringRecord::new();
        let mut rows = Self {
            reader: reader_at_start,
            path,
            header,
            base: start,
            lag,
            taken,
            record: StringRecord::new(),
        };
        match rows.record() {
            Ok(true) => rows.header = rows.record.clone(),
            Ok(false) => {}
            Err(Unreadable { error, .. }) => return Err(error),
        }
        rows.check_header()?;
        if at.offset > 0 {
            let (reader, taken) = reader(ByteStream::open(file, compression, at.offset)?, delimiter);
            rows = Self { reader, taken, base: Position { rows: 0, ..at }, ..rows };
        }
        Ok(rows)
    }

    fn check_header(&self) -> Result<(), DataError> {
        let mut seen = std::collections::HashSet::new();
        match self.header.iter().find(|name| !seen.insert(*name)) {
            None => Ok(()),
            Some(name) => Err(DataError::BadTable {
                place: Place::new(&self.path, 1),
                problem: format!("two columns are called `{name}`; the first line must name the columns"),
            }),
        }
    }

    /// Reads the next record into `record`.
    fn record(&mut self) -> Result<bool, Unreadable> {
        self.taken.store(0, Ordering::Relaxed);
        let first = self.reader.position().byte() == 0 && self.base.offset == 0;
        let line = self.base.line + self.reader.position().line() + if first { 0 } else { self.lag };
        let place = Place::new(&self.path, line);
        self.reader.read_record(&mut self.record).map_err(|error| self.unreadable(error, place))
    }

    fn unreadable(&self, error: csv::Error, place: Place) -> Unreadable {
        match error.into_kind() {
            ErrorKind::Io(e)
                if e.kind() == io::ErrorKind::InvalidData && e.to_string() == "record too long" =>
            {
                Unreadable::rest(DataError::LineTooLong { place, limit: ROW_LIMIT })
            }
            ErrorKind::Io(e) => Unreadable::rest(Failed::new(&self.path, e).into()),
            ErrorKind::Utf8 { .. } => Unreadable::row(DataError::NotUtf8 { place }),
            ErrorKind::UnequalLengths { expected_len, len, .. } => {
                let problem = format!(
                    "{len} value(s), but the header has {expected_len} column(s); quote values that hold the delimiter"
                );
                Unreadable::row(DataError::BadTable { place, problem })
            }
            other => Unreadable::rest(DataError::BadTable { place, problem: format!("{other:?}") }),
        }
    }

    fn object(&self, place: &Place) -> Result<Map<String, Value>, Unreadable> {
        let (values, columns) = (self.record.len(), self.header.len());
        if values != columns {
            // The first record after a jump sets no example for the reader to hold it to.
            let problem = format!(
                "{values} value(s), but the header has {columns} column(s); quote values that hold the delimiter"
            );
            return Err(Unreadable::row(DataError::BadTable { place: place.clone(), problem }));
        }
        let mut object = Map::new();
        for (name, value) in self.header.iter().zip(&self.record) {
            let looks_like_json = JSON_COLUMNS.contains(&name) && value.trim_start().starts_with(['[', '{']);
            let parsed = if looks_like_json { serde_json::from_str(value).ok() } else { None };
            object.insert(name.to_owned(), parsed.unwrap_or_else(|| Value::String(value.to_owned())));
        }
        Ok(object)
    }
}

impl RowReader for CsvRows {
    fn next(&mut self) -> Result<Option<Found>, Unreadable> {
        let at = self.position();
        if !self.record()? {
            return Ok(None);
        }
        let line = self.record.position().map_or(at.line + 1, |p| self.base.line + p.line() + self.lag);
        let place = Place::new(&self.path, line);
        let row = Row::Object(self.object(&place)?);
        Ok(Some(Found { at, place, row }))
    }

    fn position(&self) -> Position {
        let position = self.reader.position();
        let line = self.base.line + position.line().saturating_sub(1);
        Position { offset: self.base.offset + position.byte(), line, rows: 0 }
    }
}
