//! Plain text: lines, paragraphs between blank lines, or whole documents, as datasets' text builder cuts them. Line
//! breaks are Python's universal ones: `\r\n` and `\r` become `\n` (of single lines, only the final break is taken
//! off).

use std::collections::VecDeque;
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;

use super::bytes::{ByteStream, Failed};
use super::lines::{LineReader, without_break};
use super::{Found, Position, ROW_LIMIT, Row, RowReader, Unreadable};
use crate::error::{DataError, Place};

/// Every line is an example.
pub(super) struct TextLines {
    lines: LineReader,
    blank: usize,
}

impl TextLines {
    pub(super) fn new(stream: ByteStream, path: Arc<Path>, at: Position) -> Self {
        Self { lines: LineReader::new(stream, path, at), blank: 0 }
    }
}

impl RowReader for TextLines {
    fn next(&mut self) -> Result<Option<Found>, Unreadable> {
        while let Some(line) = self.lines.next()? {
            let text = without_break(line.text);
            if !text.trim().is_empty() {
                let row = Row::Text(text.to_owned());
                return Ok(Some(Found { at: line.at, place: line.place, row }));
            }
            self.blank += 1;
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

/// Every stretch between blank lines is an example.
pub(super) struct Paragraphs {
    lines: LineReader,
    path: Arc<Path>,
    /// The paragraph so far, its line breaks included.
    piece: String,
    /// Line on which it begins, from 1.
    first_line: u64,
    /// Paragraphs that ended within the last line read (several only where lines end with `\r`).
    ready: VecDeque<(u64, String)>,
    /// The last position between two physical lines at which `piece` and `ready` were empty, and rows since.
    base: Position,
    ended: bool,
    /// The rest of a paragraph with an unreadable line, up to the next blank line, is passed over.
    drops: bool,
    blank: usize,
}

impl Paragraphs {
    pub(super) fn new(stream: ByteStream, path: Arc<Path>, at: Position) -> Self {
        let base = Position { rows: 0, ..at };
        Self {
            lines: LineReader::new(stream, Arc::clone(&path), at),
            path,
            piece: String::new(),
            first_line: at.line + 1,
            ready: VecDeque::new(),
            base,
            ended: false,
            drops: false,
            blank: 0,
        }
    }

    /// Takes one line in; paragraphs that it ends become ready.
    fn take(&mut self, text: &str) {
        let from = self.piece.len().saturating_sub(1);
        self.piece.push_str(text);
        if text.contains('\r') {
            let tail = self.piece.split_off(from);
            self.piece.push_str(&tail.replace("\r\n", "\n").replace('\r', "\n"));
        }
        let mut search = from;
        while let Some(found) = self.piece[search..].find("\n\n") {
            let rest = self.piece.split_off(search + found + 2);
            let mut paragraph = std::mem::replace(&mut self.piece, rest);
            paragraph.truncate(paragraph.len() - 2);
            self.finish(paragraph, 2);
            search = 0;
        }
    }

    /// One paragraph has ended, `breaks` line breaks before the next begins.
    fn finish(&mut self, paragraph: String, breaks: u64) {
        let line = self.first_line;
        self.first_line += paragraph.bytes().filter(|&b| b == b'\n').count() as u64 + breaks;
        if !paragraph.trim().is_empty() {
            self.ready.push_back((line, paragraph));
        } else if !paragraph.is_empty() {
            // An empty piece is an artefact of the split, as in datasets; a piece of white space is worth counting.
            self.blank += 1;
        }
    }
}

impl RowReader for Paragraphs {
    fn next(&mut self) -> Result<Option<Found>, Unreadable> {
        loop {
            if let Some((line, text)) = self.ready.pop_front() {
                let at = self.base;
                self.base.rows += 1;
                if self.ready.is_empty() && self.piece.is_empty() {
                    self.base = self.lines.position();
                }
                return Ok(Some(Found { at, place: Place::new(&self.path, line), row: Row::Text(text) }));
            }
            if self.ended {
                return Ok(None);
            }
            let line = match self.lines.next() {
                Ok(line) => line.map(|line| line.text.to_owned()),
                Err(unreadable) => {
                    // Half a paragraph is not what its author wrote.
                    self.piece.clear();
                    self.drops = true;
                    return Err(unreadable);
                }
            };
            match line {
                Some(text) if self.drops => {
                    self.drops = !text.trim_end_matches(['\n', '\r']).is_empty();
                    self.first_line = self.lines.position().line + 1;
                }
                Some(text) => self.take(&text),
                None => {
                    self.ended = true;
                    let rest = std::mem::take(&mut self.piece);
                    self.finish(rest, 0);
                }
            }
            if self.ready.is_empty() && self.piece.is_empty() && !self.drops {
                self.base = self.lines.position();
            }
            if self.piece.len() > ROW_LIMIT {
                let place = Place::new(&self.path, self.first_line);
                return Err(Unreadable::rest(DataError::LineTooLong { place, limit: ROW_LIMIT }));
            }
        }
    }

    fn position(&self) -> Position {
        self.base
    }

    fn blank(&self) -> usize {
        self.blank
    }
}

/// The whole file is one example.
pub(super) struct Document {
    stream: ByteStream,
    path: Arc<Path>,
    blank: usize,
}

impl Document {
    pub(super) fn new(stream: ByteStream, path: Arc<Path>, _: Position) -> Self {
        Self { stream, path, blank: 0 }
    }
}

impl RowReader for Document {
    fn next(&mut self) -> Result<Option<Found>, Unreadable> {
        let failed = |e| Unreadable::rest(Failed::new(&self.path, e).into());
        if self.stream.offset() > 0 {
            return Ok(None);
        }
        self.stream.skip_bom().map_err(failed)?;
        let mut bytes = Vec::new();
        self.stream.by_ref().take(ROW_LIMIT as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
        if bytes.len() > ROW_LIMIT {
            return Err(Unreadable::rest(DataError::DocumentTooLong {
                path: self.path.to_path_buf(),
                limit: ROW_LIMIT,
            }));
        }
        let text = String::from_utf8(bytes).map_err(|error| {
            let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
            let line = 1 + valid.iter().filter(|&&b| b == b'\n').count() as u64;
            Unreadable::rest(DataError::NotUtf8 { place: Place::new(&self.path, line) })
        })?;
        let text = if text.contains('\r') { text.replace("\r\n", "\n").replace('\r', "\n") } else { text };
        if text.trim().is_empty() {
            self.blank += 1;
            return Ok(None);
        }
        let place = Place::new(&self.path, 1);
        Ok(Some(Found { at: Position::default(), place, row: Row::Text(text) }))
    }

    fn position(&self) -> Position {
        Position { offset: self.stream.offset(), line: 0, rows: 0 }
    }

    fn blank(&self) -> usize {
        self.blank
    }
}
