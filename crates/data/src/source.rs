//! Files to rows: JSON arrays and JSON Lines streamed one row at a time, plain text by document, paragraph or line.
//!
//! Nothing is inferred about columns: each row stands for itself, so null here and text there is no problem.

use std::cell::Cell;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::sync::Arc;

use serde::de::{DeserializeSeed, Deserializer, SeqAccess, Visitor};
use serde_json::{Map, Value};

use crate::error::{DataError, Place};
use crate::example::kind;
use crate::spec::SampleBy;

/// Longest line that is taken for an example, in bytes: beyond it the file is hardly what its name says.
const LINE_LIMIT: usize = 1 << 30;
const UTF8_BOM: [u8; 3] = [0xEF, 0xBB, 0xBF];

/// One row of a file.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Row {
    /// A JSON object.
    Object(Map<String, Value>),
    /// A stretch of a `.txt` file.
    Text(String),
}

/// Receives rows in the order of the file.
pub(crate) type Sink<'a> = dyn FnMut(Place, Row) -> Result<(), DataError> + 'a;

/// Reads one file, by its extension; returns how many blank lines, paragraphs or files were passed over.
pub(crate) fn read_file(path: &Path, sample_by: SampleBy, sink: &mut Sink<'_>) -> Result<usize, DataError> {
    let shared: Arc<Path> = path.into();
    let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default().to_ascii_lowercase();
    if !["json", "jsonl", "ndjson", "txt"].contains(&extension.as_str()) {
        return Err(DataError::UnknownExtension { path: path.to_owned() });
    }
    let io = |source| DataError::Io { path: path.to_owned(), source };
    let mut reader = BufReader::with_capacity(1 << 18, File::open(path).map_err(io)?);
    skip_bom(&mut reader).map_err(io)?;
    match extension.as_str() {
        "txt" => read_text(reader, &shared, sample_by, sink),
        "json" if starts_with_array(&mut reader).map_err(io)? => read_array(reader, &shared, sink),
        _ => read_lines(reader, &shared, LINE_LIMIT, &mut |place, line| {
            let object = parse_object(&place, line)?;
            sink(place, Row::Object(object))
        }),
    }
}

fn skip_bom(reader: &mut impl BufRead) -> std::io::Result<()> {
    if reader.fill_buf()?.starts_with(&UTF8_BOM) {
        reader.consume(UTF8_BOM.len());
    }
    Ok(())
}

/// Whether the first byte that is no white space (of the first buffer) opens an array.
fn starts_with_array(reader: &mut impl BufRead) -> std::io::Result<bool> {
    Ok(reader.fill_buf()?.iter().find(|b| !b.is_ascii_whitespace()) == Some(&b'['))
}

/// One line of JSON Lines. serde_json's "at line 1" would mislead, so only its column is kept.
fn parse_object(place: &Place, line: &str) -> Result<Map<String, Value>, DataError> {
    match serde_json::from_str::<Value>(line) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(other) => Err(DataError::NotAnObject { place: place.clone(), found: kind(&other) }),
        Err(error) => Err(DataError::BrokenJson { place: place.clone(), message: without_line(&error) }),
    }
}

fn without_line(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let what = text.rsplit_once(" at line ").map_or(text.as_str(), |(what, _)| what);
    format!("{what} (column {})", error.column())
}

/// Hands every line that is not blank to `sink`, without its line break; returns the number of blank ones.
fn read_lines(
    mut reader: impl BufRead,
    path: &Arc<Path>,
    limit: usize,
    sink: &mut dyn FnMut(Place, &str) -> Result<(), DataError>,
) -> Result<usize, DataError> {
    let (mut line, mut number, mut blank) = (Vec::new(), 0u64, 0usize);
    loop {
        line.clear();
        let mut bounded = reader.by_ref().take(limit as u64 + 1);
        let read = bounded.read_until(b'\n', &mut line);
        if read.map_err(|source| DataError::Io { path: path.to_path_buf(), source })? == 0 {
            return Ok(blank);
        }
        number += 1;
        let place = Place::new(path, number);
        if line.len() > limit {
            return Err(DataError::LineTooLong { place, limit });
        }
        let Ok(text) = std::str::from_utf8(&line) else { return Err(DataError::NotUtf8 { place }) };
        let text = text.strip_suffix('\n').map_or(text, |t| t.strip_suffix('\r').unwrap_or(t));
        if text.trim().is_empty() {
            blank += 1;
        } else {
            sink(place, text)?;
        }
    }
}

/// Reads `.txt`. Line breaks are Python's universal ones: `\r\n` and `\r` become `\n`, as in datasets' text builder.
fn read_text(
    mut reader: impl BufRead,
    path: &Arc<Path>,
    by: SampleBy,
    sink: &mut Sink<'_>,
) -> Result<usize, DataError> {
    if by == SampleBy::Line {
        return read_lines(reader, path, LINE_LIMIT, &mut |place, line| {
            sink(place, Row::Text(line.to_owned()))
        });
    }
    let mut bytes = Vec::new();
    reader.read_to_end(&mut bytes).map_err(|source| DataError::Io { path: path.to_path_buf(), source })?;
    let text = String::from_utf8(bytes).map_err(|error| {
        let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        DataError::NotUtf8 { place: Place::new(path, 1 + newlines(valid)) }
    })?;
    let text = if text.contains('\r') { text.replace("\r\n", "\n").replace('\r', "\n") } else { text };
    if by == SampleBy::Document {
        if text.trim().is_empty() {
            return Ok(1);
        }
        sink(Place::new(path, 1), Row::Text(text))?;
        return Ok(0);
    }
    let (mut line, mut blank) = (1, 0);
    for paragraph in text.split("\n\n") {
        if paragraph.trim().is_empty() {
            // An empty piece is an artefact of the split, as in datasets; a piece of white space is worth counting.
            blank += usize::from(!paragraph.is_empty());
        } else {
            sink(Place::new(path, line), Row::Text(paragraph.to_owned()))?;
        }
        line += 2 + newlines(paragraph.as_bytes());
    }
    Ok(blank)
}

fn newlines(bytes: &[u8]) -> u64 {
    bytes.iter().filter(|&&b| b == b'\n').count() as u64
}

/// Streams the elements of a JSON array, each with the line on which it begins.
fn read_array(reader: impl BufRead, path: &Arc<Path>, sink: &mut Sink<'_>) -> Result<usize, DataError> {
    let line = Cell::new(1);
    let counting = CountingReader { inner: reader, line: &line };
    let mut deserializer = serde_json::Deserializer::from_reader(counting);
    let mut refused = None;
    let elements = Elements { path, line: &line, sink, refused: &mut refused };
    let parsed = deserializer.deserialize_seq(elements).and_then(|()| deserializer.end());
    if let Some(error) = refused {
        return Err(error);
    }
    parsed.map(|()| 0).map_err(|error| {
        let place = Place::new(path, error.line() as u64);
        let message = without_line(&error);
        if error.is_io() {
            return DataError::Io { path: path.to_path_buf(), source: error.into() };
        }
        DataError::BrokenJson { place, message }
    })
}

/// Counts the line on which the next byte stands. serde_json asks for one byte at a time, so it never runs ahead.
struct CountingReader<'a, R> {
    inner: R,
    line: &'a Cell<u64>,
}

impl<R: Read> Read for CountingReader<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.line.set(self.line.get() + newlines(&buffer[..n]));
        Ok(n)
    }
}

/// Visits the array; an error of the sink stops it and is kept in `refused`.
struct Elements<'a, 's> {
    path: &'a Arc<Path>,
    line: &'a Cell<u64>,
    sink: &'a mut Sink<'s>,
    refused: &'a mut Option<DataError>,
}

impl<'de> Visitor<'de> for Elements<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an array of objects")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        while let Some((line, value)) = elements.next_element_seed(Numbered(self.line))? {
            let place = Place::new(self.path, line);
            let taken = match value {
                Value::Object(object) => (self.sink)(place, Row::Object(object)),
                other => Err(DataError::NotAnObject { place, found: kind(&other) }),
            };
            if let Err(error) = taken {
                *self.refused = Some(error);
                return Err(serde::de::Error::custom("refused"));
            }
        }
        Ok(())
    }
}

/// One value and the line on which its first character stands (the parser has just peeked at it).
struct Numbered<'a>(&'a Cell<u64>);

impl<'de> DeserializeSeed<'de> for Numbered<'_> {
    type Value = (u64, Value);

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        let line = self.0.get();
        serde::Deserialize::deserialize(deserializer).map(|value| (line, value))
    }
}

#[cfg(test)]
#[path = "source_tests.rs"]
mod tests;
