//! Lines of bounded length.

use std::io::{self, BufRead as _, Read as _};
use std::path::Path;
use std::sync::Arc;

use super::bytes::{ByteStream, Failed};
use super::{Position, ROW_LIMIT, Unreadable};
use crate::error::{DataError, Place};

/// Reads lines, remembers where they begin.
pub(super) struct LineReader {
    stream: ByteStream,
    path: Arc<Path>,
    limit: usize,
    /// Lines read.
    number: u64,
    line: Vec<u8>,
}

/// One line with its line break, and the position before it.
pub(super) struct Line<'a> {
    pub(super) at: Position,
    pub(super) place: Place,
    pub(super) text: &'a str,
}

impl LineReader {
    /// Lines from the position at which `stream` stands.
    pub(super) fn new(stream: ByteStream, path: Arc<Path>, at: Position) -> Self {
        Self { stream, path, limit: ROW_LIMIT, number: at.line, line: Vec::new() }
    }

    #[cfg(test)]
    pub(super) fn with_limit(self, limit: usize) -> Self {
        Self { limit, ..self }
    }

    /// The place before the next line.
    pub(super) fn position(&self) -> Position {
        Position { offset: self.stream.offset(), line: self.number, rows: 0 }
    }

    /// The next line.
    pub(super) fn next(&mut self) -> Result<Option<Line<'_>>, Unreadable> {
        self.line.clear();
        let path = &self.path;
        let failed = |e| Unreadable::rest(Failed::new(path, e).into());
        self.stream.skip_bom().map_err(failed)?;
        let at = Position { offset: self.stream.offset(), line: self.number, rows: 0 };
        let mut bounded = self.stream.by_ref().take(self.limit as u64 + 1);
        if bounded.read_until(b'\n', &mut self.line).map_err(failed)? == 0 {
            return Ok(None);
        }
        self.number += 1;
        let place = Place::new(&self.path, self.number);
        if self.line.len() > self.limit {
            if self.line.last() != Some(&b'\n') {
                skip_line(&mut self.stream).map_err(failed)?;
            }
            // What was read of it is not worth its memory.
            self.line = Vec::new();
            return Err(Unreadable::row(DataError::LineTooLong { place, limit: self.limit }));
        }
        match std::str::from_utf8(&self.line) {
            Ok(text) => Ok(Some(Line { at, place, text })),
            Err(_) => Err(Unreadable::row(DataError::NotUtf8 { place })),
        }
    }
}

/// Passes over the rest of a line without holding it.
fn skip_line(stream: &mut ByteStream) -> io::Result<()> {
    loop {
        let buffer = stream.fill_buf()?;
        let (length, ended) = match buffer.iter().position(|&b| b == b'\n') {
            Some(at) => (at + 1, true),
            None => (buffer.len(), buffer.is_empty()),
        };
        stream.consume(length);
        if ended {
            return Ok(());
        }
    }
}

/// A line without its line break.
pub(super) fn without_break(line: &str) -> &str {
    line.strip_suffix('\n').map_or(line, |t| t.strip_suffix('\r').unwrap_or(t))
}
