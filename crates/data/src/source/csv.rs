//! CSV and TSV: a header line, then records whose values are texts. Quoted values may hold delimiters and line breaks.

use std::collections::BTreeMap;
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

/// Columns whose values are JSON when they look like it: a table of texts has no other way to hold lists. An empty
/// value is null.
const JSON_COLUMNS: [&str; 5] = ["messages", "conversations", "tools", "history", "chat_template_kwargs"];
/// Columns whose values are JSON only where that is a list of messages: they may as well be texts that begin with `[`.
const MESSAGE_COLUMNS: [&str; 2] = ["prompt", "completion"];

/// Records of a file.
pub(super) struct CsvRows {
    reader: Reader<Bounded>,
    path: Arc<Path>,
    header: StringRecord,
    /// What each column is called later.
    meant: Vec<String>,
    /// Position at which `reader` was made.
    base: Position,
    /// 1 where lines end with `\r\n`: the parser counts a line when it meets the `\n` in front of the next record.
    lag: u64,
    taken: Arc<AtomicU64>,
    record: StringRecord,
}

/// Stops a record (a quote that is never closed) from growing without end, and knows whether one is open at the end of
/// the file, which the parser takes for its closing.
struct Bounded {
    stream: ByteStream,
    /// Bytes read since the last record began.
    taken: Arc<AtomicU64>,
    delimiter: u8,
    quoting: Quoting,
    /// The end of the file was reached.
    ended: bool,
}

/// Where in a value the bytes read so far end, by the parser's rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Quoting {
    /// Before the first byte of a value.
    Start,
    /// In a value without quotes, or behind its closing quote.
    Plain,
    /// Inside quotes.
    Quoted,
    /// Behind a quote inside quotes: the closing one, or the first of two.
    Quote,
}

impl Quoting {
    fn after(self, byte: u8, delimiter: u8) -> Self {
        let ends = byte == delimiter || byte == b'\n' || byte == b'\r';
        match (self, byte) {
            (Self::Start | Self::Quote, b'"') => Self::Quoted,
            (Self::Quoted, b'"') => Self::Quote,
            (Self::Quoted, _) => Self::Quoted,
            _ if ends => Self::Start,
            _ => Self::Plain,
        }
    }
}

impl Read for Bounded {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.stream.read(buffer)?;
        self.ended |= read == 0 && !buffer.is_empty();
        let bytes = buffer[..read].iter();
        self.quoting = bytes.fold(self.quoting, |quoting, &byte| quoting.after(byte, self.delimiter));
        if self.taken.fetch_add(read as u64, Ordering::Relaxed) > ROW_LIMIT as u64 {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "record too long"));
        }
        Ok(read)
    }
}

fn reader(stream: ByteStream, delimiter: u8) -> (Reader<Bounded>, Arc<AtomicU64>) {
    let taken = Arc::new(AtomicU64::new(0));
    let bounded =
        Bounded { stream, taken: Arc::clone(&taken), delimiter, quoting: Quoting::Start, ended: false };
    let mut builder = ReaderBuilder::new();
    // The header is what records are held to, not the first record that this reader happens to meet.
    (builder.delimiter(delimiter).has_headers(false).flexible(true).from_reader(bounded), taken)
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
            meant: Vec::new(),
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
        rows.meant = rows.header.iter().map(str::to_owned).collect();
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
        let found = self.reader.read_record(&mut self.record);
        let found = found.map_err(|error| self.unreadable(error, place.clone()))?;
        // A record that ends where its line does is returned before the end of the file is seen.
        let input = self.reader.get_ref();
        if found && input.ended && input.quoting == Quoting::Quoted {
            let problem = "a quote is opened in this record and never closed: the rest of the file would be one value; \
                           close it, or double quotes that belong to the text"
                .to_owned();
            return Err(Unreadable::rest(DataError::BadTable { place, problem }));
        }
        Ok(found)
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
            other => Unreadable::rest(DataError::BadTable { place, problem: format!("{other:?}") }),
        }
    }

    fn object(&self, place: &Place) -> Result<Map<String, Value>, Unreadable> {
        let (values, columns) = (self.record.len(), self.header.len());
        if values != columns {
            let problem = format!(
                "{values} value(s), but the header has {columns} column(s); quote values that hold the delimiter"
            );
            return Err(Unreadable::row(DataError::BadTable { place: place.clone(), problem }));
        }
        let mut object = Map::new();
        for ((name, meant), value) in self.header.iter().zip(&self.meant).zip(&self.record) {
            object.insert(name.to_owned(), cell(meant, value));
        }
        Ok(object)
    }
}

/// A value of a column.
fn cell(column: &str, value: &str) -> Value {
    let text = || Value::String(value.to_owned());
    let looks_like_json = value.trim_start().starts_with(['[', '{']);
    let parsed = || serde_json::from_str(value).ok().filter(|_| looks_like_json);
    let is_message = |item: &Value| item.get("role").is_some();
    if JSON_COLUMNS.contains(&column) {
        return if value.trim().is_empty() { Value::Null } else { parsed().unwrap_or_else(text) };
    }
    if MESSAGE_COLUMNS.contains(&column) {
        let messages = parsed().filter(|value: &Value| {
            value.as_array().is_some_and(|list| !list.is_empty() && list.iter().all(is_message))
        });
        return messages.unwrap_or_else(text);
    }
    text()
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

    fn call_columns(&mut self, names: &BTreeMap<&str, &str>) {
        let later = |name: &str| names.get(name).copied().unwrap_or(name).to_owned();
        self.meant = self.header.iter().map(later).collect();
    }
}

#[cfg(test)]
#[path = "csv_tests.rs"]
mod tests;
