//! Arrow IPC, files and streams: a batch of rows in memory at a time. A batch that cannot be decoded is passed over and
//! counted by what its header says; where the batches behind it could mean something else without it, they are too.

use std::cmp::Ordering;
use std::io::BufReader;
use std::path::Path;
use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_ipc::reader::{FileReader, StreamReader};
use arrow_schema::ArrowError;

use super::arrow_check::{self, Checked};
use super::bytes::{DataFile, Failed};
use super::table_values::{guarded, row};
use super::{Found, Position, Row, RowReader, Unreadable};
use crate::error::{DataError, Place};

type Batches = Box<dyn Iterator<Item = Result<RecordBatch, ArrowError>> + Send>;

/// Rows of an Arrow file or stream.
pub(super) struct ArrowRows {
    path: Arc<Path>,
    batches: Batches,
    /// What the headers of its messages say.
    checked: Checked,
    /// Number of the batch that is being read, or, without one, of the next.
    index: u64,
    batch: Option<RecordBatch>,
    /// Row of `batch` that comes next.
    next: usize,
    is_file: bool,
    /// The line of the position that it was opened at.
    start: Position,
}

/// Holds what an Arrow file says about lengths against its size.
fn check_lengths(file: &DataFile, is_file: bool) -> Result<Checked, DataError> {
    let mut content = file.content()?;
    let size = content.size();
    let checked = match is_file {
        true => arrow_check::check_file(&mut content, size),
        false => arrow_check::check_stream(&mut content, size),
    };
    let path = file.path();
    let broken = |problem| DataError::BrokenTable { path: path.to_path_buf(), problem };
    checked.map_err(|error| DataError::from(Failed::new(path, error)))?.map_err(broken)
}

impl ArrowRows {
    /// Opens an Arrow file or stream: `at.offset` batches are passed over, in a file without reading them.
    pub(super) fn open(file: &DataFile, at: Position, is_file: bool) -> Result<Self, DataError> {
        let path = Arc::clone(file.path());
        let checked = check_lengths(file, is_file)?;
        let content = BufReader::with_capacity(1 << 17, file.content()?);
        let passed = usize::try_from(at.offset).unwrap_or(usize::MAX);
        let opened = guarded(&path, || -> Result<Option<Batches>, ArrowError> {
            if !is_file {
                let mut reader = StreamReader::try_new(content, None)?;
                for _ in 0..passed {
                    match reader.next() {
                        None => return Ok(None),
                        Some(Err(error)) if checked.has_dictionaries => return Err(error),
                        // A batch that cannot be read was counted when it was met first.
                        Some(_) => {}
                    }
                }
                return Ok(Some(Box::new(reader)));
            }
            let mut reader = FileReader::try_new(content, None)?;
            match passed.cmp(&reader.num_batches()) {
                Ordering::Less => reader.set_index(passed)?,
                Ordering::Equal => return Ok(Some(Box::new(std::iter::empty()))),
                Ordering::Greater => return Ok(None),
            }
            Ok(Some(Box::new(reader)))
        })?;
        let Some(batches) = opened else {
            let problem = format!("{} has fewer batches than before", file.name());
            return Err(DataError::BadState { problem });
        };
        let start = Position { rows: 0, ..at };
        Ok(Self { path, batches, checked, index: at.offset, batch: None, next: 0, is_file, start })
    }

    /// The rows of the present batch cannot be read, nor those of later ones where these depend on it.
    fn lost(&mut self, problem: String) -> Unreadable {
        let place = Place::in_group(&self.path, self.index, 0);
        let all = &self.checked.rows;
        let first = usize::try_from(self.index).unwrap_or(usize::MAX).min(all.len());
        // A dictionary that was not read would leave an older one, or none, to those behind it.
        let goes_on = self.is_file || !self.checked.has_dictionaries;
        let end = if goes_on { (first + 1).min(all.len()) } else { all.len() };
        let rows = all[first..end].iter().fold(0, |sum: u64, rows| sum.saturating_add(*rows));
        self.index = end as u64;
        if !goes_on {
            self.batches = Box::new(std::iter::empty());
        }
        Unreadable::rows(DataError::DamagedRows { place, rows, problem }, rows)
    }
}

impl RowReader for ArrowRows {
    fn next(&mut self) -> Result<Option<Found>, Unreadable> {
        while self.batch.as_ref().is_none_or(|batch| self.next == batch.num_rows()) {
            if self.batch.take().is_some() {
                self.index += 1;
                self.next = 0;
            }
            let batches = &mut self.batches;
            match guarded(&self.path, || batches.next().transpose()) {
                Ok(Some(batch)) => self.batch = Some(batch),
                Ok(None) if self.index < self.checked.rows.len() as u64 => {
                    self.checked.has_dictionaries = true;
                    return Err(self.lost("it ends before this batch, which was there".to_owned()));
                }
                Ok(None) => return Ok(None),
                Err(DataError::BrokenTable { problem, .. }) => return Err(self.lost(problem)),
                Err(other) => return Err(Unreadable::rest(other)),
            }
        }
        let (at, index) = (self.position(), self.next);
        self.next += 1;
        let place = Place::in_group(&self.path, self.index, index as u64);
        let batch = self.batch.as_ref().expect("there are rows left in it");
        let object = guarded(&self.path, || Ok::<_, String>(row(batch, index))).map_err(Unreadable::row)?;
        Ok(Some(Found { at, place, row: Row::Object(object) }))
    }

    fn position(&self) -> Position {
        Position { offset: self.index, rows: self.next as u64, ..self.start }
    }
}
