//! JSON Lines, and JSON arrays taken apart one element at a time: the whole array is never in memory.

use std::io::{self, BufRead as _};
use std::path::Path;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::bytes::{ByteStream, Failed};
use super::lines::{LineReader, without_break};
use super::{Found, Position, ROW_LIMIT, Row, RowReader, Unreadable};
use crate::error::{DataError, Place};
use crate::example::kind;

/// A `.json` file: an array, or JSON Lines.
pub(super) fn open(
    mut stream: ByteStream,
    path: Arc<Path>,
    at: Position,
) -> Result<Box<dyn RowReader>, DataError> {
    let failed = |e| DataError::from(Failed::new(&path, e));
    let first = match at.offset {
        0 => {
            stream.skip_bom().map_err(failed)?;
            stream.fill_buf().map_err(failed)?.iter().find(|b| !b.is_ascii_whitespace()).copied()
        }
        // Only a reader of an array keeps places within lines, and marks them.
        _ if at.line & ARRAY != 0 => Some(b'['),
        _ => None,
    };
    Ok(match first {
        Some(b'[') => Box::new(JsonArray::new(stream, path, at)),
        _ => Box::new(JsonLines::new(stream, path, at)),
    })
}

/// An object on each line.
pub(super) struct JsonLines {
    lines: LineReader,
    blank: usize,
}

impl JsonLines {
    pub(super) fn new(stream: ByteStream, path: Arc<Path>, at: Position) -> Self {
        Self { lines: LineReader::new(stream, path, at), blank: 0 }
    }
}

impl RowReader for JsonLines {
    fn next(&mut self) -> Result<Option<Found>, Unreadable> {
        while let Some(line) = self.lines.next()? {
            let text = without_break(line.text);
            if text.trim().is_empty() {
                self.blank += 1;
                continue;
            }
            let object = parse_object(text.as_bytes(), &line.place, 0).map_err(Unreadable::row)?;
            return Ok(Some(Found { at: line.at, place: line.place, row: Row::Object(object) }));
        }
        Ok(None)
    }

    fn position(&self) -> Position {
        self.lines.position()
    }

    fn blank(&self) -> usize {
        self.blank
    }
}

/// One object. serde_json counts lines and columns from the start of `text`, which stands behind `columns` bytes of the
/// line of `place`.
fn parse_object(text: &[u8], place: &Place, columns: usize) -> Result<Map<String, Value>, DataError> {
    match serde_json::from_slice::<Value>(text) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(other) => Err(DataError::NotAnObject { place: place.clone(), found: kind(&other) }),
        Err(error) => {
            let text = error.to_string();
            let what = text.rsplit_once(" at line ").map_or(text.as_str(), |(what, _)| what);
            let column = if error.line() <= 1 { columns + error.column() } else { error.column() };
            let message = format!("{what} (column {column})");
            let further = (error.line() as u64).saturating_sub(1);
            let line = place.line + further;
            Err(DataError::BrokenJson { place: Place { line, ..place.clone() }, message })
        }
    }
}

/// Marks line numbers of places inside an array.
const ARRAY: u64 = 1 << 63;

/// The elements of an array.
pub(super) struct JsonArray {
    stream: ByteStream,
    path: Arc<Path>,
    limit: usize,
    /// The line of the next byte, from 1, and the bytes of it that have been passed.
    line: u64,
    column: usize,
    /// Behind the last element that was read.
    after: Position,
    state: State,
    element: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Before `[`.
    Start,
    /// Before the first element or `]`.
    First,
    /// Opened in the middle: before an element, or before the comma in front of it.
    Reopened,
    /// Behind an element.
    Comma,
    End,
}

/// The bytes of the next token's neighbourhood.
enum Next {
    Element { line: u64, column: usize, offset: u64 },
    End,
}

impl JsonArray {
    pub(super) fn new(stream: ByteStream, path: Arc<Path>, at: Position) -> Self {
        let state = if at.offset == 0 { State::Start } else { State::Reopened };
        let line = (at.line & !ARRAY) + 1;
        let after = Position { rows: 0, ..at };
        Self { stream, path, limit: ROW_LIMIT, line, column: 0, after, state, element: Vec::new() }
    }

    #[cfg(test)]
    pub(super) fn with_limit(self, limit: usize) -> Self {
        Self { limit, ..self }
    }

    fn io(&self, error: io::Error) -> Unreadable {
        Unreadable::rest(Failed::new(&self.path, error).into())
    }

    fn broken(&self, what: &str) -> Unreadable {
        let message = format!("{what} (column {})", self.column);
        let place = Place::new(&self.path, self.line);
        Unreadable::rest(DataError::BrokenJson { place, message })
    }

    /// The next byte that is no white space, not consumed.
    fn peek(&mut self) -> io::Result<Option<u8>> {
        loop {
            let Some(&byte) = self.stream.fill_buf()?.first() else { return Ok(None) };
            if !byte.is_ascii_whitespace() {
                return Ok(Some(byte));
            }
            self.pass(byte);
        }
    }

    fn pass(&mut self, byte: u8) {
        self.stream.consume(1);
        if byte == b'\n' {
            (self.line, self.column) = (self.line + 1, 0);
        } else {
            self.column += 1;
        }
    }

    /// Goes to the next element or behind the array's end.
    fn approach(&mut self) -> Result<Next, Unreadable> {
        loop {
            let byte = self.peek().map_err(|e| self.io(e))?;
            match (self.state, byte) {
                (State::End, None) => return Ok(Next::End),
                (State::End, Some(_)) => {
                    self.column += 1;
                    return Err(self.broken("trailing characters"));
                }
                (_, None) => return Err(self.broken("EOF while parsing a list")),
                (State::Start, Some(b'[')) => {
                    self.pass(b'[');
                    self.state = State::First;
                }
                (State::First | State::Comma | State::Reopened, Some(b']')) => {
                    self.pass(b']');
                    self.state = State::End;
                }
                (State::Comma | State::Reopened, Some(b',')) => {
                    self.pass(b',');
                    if self.peek().map_err(|e| self.io(e))? == Some(b']') {
                        self.column += 1;
                        return Err(self.broken("trailing comma"));
                    }
                    self.state = State::First;
                }
                (State::First | State::Reopened, Some(_)) => {
                    let (line, column, offset) = (self.line, self.column, self.stream.offset());
                    return Ok(Next::Element { line, column, offset });
                }
                (State::Start | State::Comma, Some(_)) => {
                    self.column += 1;
                    return Err(self.broken("expected `,` or `]`"));
                }
            }
        }
    }

    /// Copies the element at which the stream stands into `element`: up to its closing bracket, or, for a scalar, up to
    /// what cannot belong to it. Whether it is well formed is for the parser to say. One that is too long is passed
    /// over without holding it.
    fn copy_element(&mut self) -> Result<(), Unreadable> {
        self.element.clear();
        let mut scan = Scan::default();
        let (mut total, first_line) = (0, self.line);
        loop {
            let buffer =
                self.stream.fill_buf().map_err(|e| Unreadable::rest(Failed::new(&self.path, e).into()))?;
            if buffer.is_empty() {
                let whole = scan.depth == 0 && total <= self.limit;
                return if whole { Ok(()) } else { Err(self.broken("EOF while parsing a list")) };
            }
            let (length, ended) = scan.run(buffer);
            let part = &buffer[..length];
            let breaks = part.iter().filter(|&&b| b == b'\n').count() as u64;
            let tail = part.iter().rposition(|&b| b == b'\n').map_or(length, |at| length - at - 1);
            self.column = if breaks > 0 { tail } else { self.column + tail };
            self.line += breaks;
            total += length;
            if total <= self.limit {
                self.element.extend_from_slice(part);
            } else {
                self.element = Vec::new();
            }
            self.stream.consume(length);
            if ended && total <= self.limit {
                return Ok(());
            }
            if ended {
                let place = Place::new(&self.path, first_line);
                return Err(Unreadable::row(DataError::LineTooLong { place, limit: self.limit }));
            }
        }
    }
}

impl RowReader for JsonArray {
    fn next(&mut self) -> Result<Option<Found>, Unreadable> {
        let Next::Element { line, column, offset } = self.approach()? else { return Ok(None) };
        let copied = self.copy_element();
        self.state = State::Comma;
        let at = Position { offset, line: (line - 1) | ARRAY, rows: 0 };
        self.after = Position { offset: self.stream.offset(), line: (self.line - 1) | ARRAY, rows: 0 };
        copied?;
        let place = Place::new(&self.path, line);
        let object = parse_object(&self.element, &place, column).map_err(Unreadable::row)?;
        Ok(Some(Found { at, place, row: Row::Object(object) }))
    }

    fn position(&self) -> Position {
        self.after
    }
}

/// Finds the end of a JSON value.
#[derive(Default)]
struct Scan {
    depth: usize,
    in_string: bool,
    escaped: bool,
}

impl Scan {
    /// Scans on; how many bytes belong to the value, and whether it has ended.
    fn run(&mut self, bytes: &[u8]) -> (usize, bool) {
        for (index, &byte) in bytes.iter().enumerate() {
            if self.in_string {
                match byte {
                    _ if self.escaped => self.escaped = false,
                    b'\\' => self.escaped = true,
                    b'"' => {
                        self.in_string = false;
                        if self.depth == 0 {
                            return (index + 1, true);
                        }
                    }
                    _ => {}
                }
                continue;
            }
            match byte {
                b'"' => self.in_string = true,
                b'{' | b'[' => self.depth += 1,
                b'}' | b']' if self.depth > 1 => self.depth -= 1,
                b'}' | b']' if self.depth == 1 => return (index + 1, true),
                // The end of a scalar; the byte itself belongs to the array.
                b',' | b']' | b'}' if self.depth == 0 => return (index.max(usize::from(byte == b'}')), true),
                _ if self.depth == 0 && byte.is_ascii_whitespace() => return (index, true),
                _ => {}
            }
        }
        (bytes.len(), false)
    }
}
