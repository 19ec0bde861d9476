//! Documents of token files.

use std::path::Path;
use std::sync::Arc;

use foundry_formats::TokenFile;

use super::{DataFile, Found, Position, Row, RowReader, Unreadable};
use crate::error::{DataError, Place};
use crate::tokens::{TokenPart, TokenRow};

/// The documents of one token file.
pub(super) struct TokenRows {
    file: Arc<TokenFile>,
    path: Arc<Path>,
    ids: u32,
    next: u64,
}

impl TokenRows {
    pub(super) fn open(file: &DataFile, part: &TokenPart, at: Position) -> Result<Self, DataError> {
        let path = Arc::clone(file.path());
        let opened = part.open(&path)?;
        if at.offset > opened.documents() {
            let (name, documents) = (file.name(), opened.documents());
            let problem = format!("it is at document {} of {name}, which has {documents}", at.offset);
            return Err(DataError::BadState { problem });
        }
        Ok(Self { file: opened, path, ids: part.ids(), next: at.offset })
    }
}

impl RowReader for TokenRows {
    fn next(&mut self) -> Result<Option<Found>, Unreadable> {
        if self.next >= self.file.documents() {
            return Ok(None);
        }
        let at = self.position();
        self.next += 1;
        let place = Place::new(&self.path, self.next);
        let row = Row::Tokens(TokenRow::new(Arc::clone(&self.file), at.offset, self.ids));
        Ok(Some(Found { at, place, row }))
    }

    fn position(&self) -> Position {
        Position { offset: self.next, ..Position::default() }
    }
}
