//! The rows of one source: its files one after the other, and the rows of them that were asked for.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{HeldOut, Item, Part, RowId, Tally};
use crate::error::DataError;
use crate::source::{self, DataFile, Position, Row, RowReader};
use crate::spec::{SampleBy, Source};

/// The rows of one source.
pub(crate) struct SourceStream {
    index: usize,
    source: Source,
    by: SampleBy,
    seed: u64,
    part: Part,
    reader: Option<Box<dyn RowReader>>,
    /// Blank pieces that the reader has told.
    blank: usize,
    state: SourceState,
    /// The row after the present one, and the state before it.
    peeked: Option<(SourceState, Option<Item>)>,
}

/// The place of a source between two rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SourceState {
    /// The file that is being read.
    file: usize,
    /// Where in it.
    at: Position,
    /// Rows of the source read so far, those left out included.
    row: u64,
    /// Rows of the source used so far.
    used: u64,
}

/// Mixed into the seed, so that a fraction and a held-out part are independent choices.
const HOLDOUT: u64 = 0x486f_6c64_6f75_7421;

impl SourceStream {
    pub(crate) fn new(index: usize, source: Source, by: SampleBy, seed: u64, part: Part) -> Self {
        let state = SourceState::default();
        Self { index, source, by, seed, part, reader: None, blank: 0, state, peeked: None }
    }

    /// The next row; `None` at the end of the source.
    pub(crate) fn next(&mut self, tally: &mut Tally) -> Result<Option<Item>, DataError> {
        match self.peeked.take() {
            Some((_, item)) => Ok(item),
            None => self.read(tally),
        }
    }

    /// Whether there is a next row.
    pub(super) fn has_next(&mut self, tally: &mut Tally) -> Result<bool, DataError> {
        if self.peeked.is_none() {
            let before = self.state;
            let item = self.read(tally)?;
            self.peeked = Some((before, item));
        }
        Ok(self.peeked.as_ref().is_some_and(|(_, item)| item.is_some()))
    }

    /// Begins again.
    pub(super) fn restart(&mut self) {
        (self.state, self.reader, self.peeked) = (SourceState::default(), None, None);
    }

    /// The place before the next row.
    pub(super) fn state(&self) -> SourceState {
        self.peeked.as_ref().map_or(self.state, |(before, _)| *before)
    }

    /// Goes to a place at which it has been.
    pub(super) fn restore(&mut self, state: &SourceState) -> Result<(), DataError> {
        if state.file > self.source.files.len() {
            let problem = format!("it is in file {} of a source of {}", state.file, self.source.files.len());
            return Err(DataError::BadState { problem });
        }
        self.restart();
        self.state = *state;
        Ok(())
    }

    /// The next row that was asked for.
    fn read(&mut self, tally: &mut Tally) -> Result<Option<Item>, DataError> {
        let end = match self.part {
            Part::HeldOut(held_out) => held_out.within,
            _ => u64::MAX,
        };
        while self.source.take.is_none_or(|most| self.state.used < most) && self.state.row < end {
            tally.check_wanted()?;
            let Some(item) = self.read_any(tally)? else { return Ok(None) };
            let number = self.state.row;
            self.state.row += 1;
            let example = Self::example(number, &item.row);
            if number >= self.source.skip && self.is_chosen(example) {
                // The rows of the source are chosen first, then divided: `take` means both sides together.
                let used = self.state.used;
                self.state.used += 1;
                if self.is_own(example, used) {
                    return Ok(Some(item));
                }
            }
        }
        Ok(None)
    }

    /// The number that stands for the whole example of row `number`: all documents that a conversation was split into
    /// have the number of the first.
    fn example(number: u64, row: &Row) -> u64 {
        match row {
            Row::Tokens(document) => number.saturating_sub(document.since_example()),
            _ => number,
        }
    }

    /// Whether `fraction` has an example.
    fn is_chosen(&self, example: u64) -> bool {
        self.source.fraction.is_none_or(|part| unit(self.seed, self.index as u64, example) < part)
    }

    /// Whether an example, whose row is number `used` of the chosen ones, is in this stream's part.
    fn is_own(&self, example: u64, used: u64) -> bool {
        let draw = || unit(self.seed ^ HOLDOUT, self.index as u64, example);
        let is_held_out = |of: HeldOut| example < of.within && draw() < of.part;
        match self.part {
            Part::Whole => true,
            Part::Shard { index, of } => used % of == index,
            Part::Training(of) => !is_held_out(of),
            Part::HeldOut(of) => is_held_out(of),
        }
    }

    /// The next row that can be read.
    fn read_any(&mut self, tally: &mut Tally) -> Result<Option<Item>, DataError> {
        loop {
            let Some(file) = self.source.files.get(self.state.file) else { return Ok(None) };
            let reader = match &mut self.reader {
                Some(reader) => reader,
                none => match opened(&self.source, file, self.by, self.state.at) {
                    Ok(reader) => {
                        self.blank = 0;
                        none.insert(reader)
                    }
                    Err(error) => {
                        tally.refuse_rest(error)?;
                        self.next_file();
                        continue;
                    }
                },
            };
            let found = reader.next();
            self.state.at = reader.position();
            let blank = reader.blank();
            tally.blank += blank - std::mem::replace(&mut self.blank, blank);
            match found {
                Ok(Some(found)) => {
                    let id = RowId { source: self.index, file: self.state.file, at: found.at };
                    return Ok(Some(Item { id, place: found.place, row: found.row }));
                }
                Ok(None) => self.next_file(),
                Err(unreadable) if unreadable.goes_on => {
                    tally.refuse_rows(unreadable.error, u64::from(unreadable.rows))?;
                }
                Err(unreadable) => {
                    tally.refuse_rest(unreadable.error)?;
                    self.next_file();
                }
            }
        }
    }

    fn next_file(&mut self) {
        self.state.file += 1;
        self.state.at = Position::default();
        self.reader = None;
    }

    /// Reads rows again by their places, each file once from front to back; `wanted` is of this source.
    pub(super) fn read_again(&self, wanted: &[RowId]) -> Result<BTreeMap<RowId, Item>, DataError> {
        let mut sorted = wanted.to_vec();
        sorted.sort_unstable();
        sorted.dedup();
        let mut items = BTreeMap::new();
        let mut open: Option<(usize, Box<dyn RowReader>)> = None;
        // Whether a reader of the present file may be opened anew for each row.
        let mut seeks = (usize::MAX, false);
        for id in sorted {
            let gone = || DataError::BadState { problem: "a row of the shuffle buffer is gone".to_owned() };
            let file = self.source.files.get(id.file).ok_or_else(gone)?;
            if seeks.0 != id.file {
                seeks = (id.file, source::can_seek(file));
            }
            let stands_there = |at: Position| at == id.at || (at < id.at && !seeks.1);
            let mut reader = match open.take() {
                Some((number, reader)) if number == id.file && stands_there(reader.position()) => reader,
                // Whatever the file, a reader opened at the row decodes less than one at its start.
                _ => opened(&self.source, file, self.by, id.at)?,
            };
            let item = loop {
                match reader.next() {
                    Ok(Some(found)) if found.at == id.at => {
                        break Item { id, place: found.place, row: found.row };
                    }
                    Ok(Some(found)) if found.at < id.at => {}
                    Err(unreadable) if unreadable.goes_on => {}
                    Ok(_) => return Err(gone()),
                    Err(unreadable) => return Err(unreadable.error),
                }
            };
            open = Some((id.file, reader));
            items.insert(id, item);
        }
        Ok(items)
    }
}

/// A reader of a file of the source.
fn opened(
    source: &Source,
    file: &DataFile,
    by: SampleBy,
    at: Position,
) -> Result<Box<dyn RowReader>, DataError> {
    let mut reader = source::open(file, by, at)?;
    if !source.columns.is_empty() {
        let names = source.columns.iter().map(|(name, column)| (column.as_str(), name.as_str()));
        reader.call_columns(&names.collect());
    }
    Ok(reader)
}

/// A number in `0..1` that seed, source and row decide: Steele, Lea and Flood's splitmix64 finaliser (2014) over each.
fn unit(seed: u64, source: u64, row: u64) -> f64 {
    let mut word = 0u64;
    for part in [seed, source, row] {
        word = (word ^ part).wrapping_add(0x9e37_79b9_7f4a_7c15);
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^= word >> 31;
    }
    (word >> 11) as f64 / (1u64 << 53) as f64
}
