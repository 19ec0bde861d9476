//! Parquet and Arrow IPC: columns to rows, a batch of rows in memory at a time.
//!
//! The readers of other people's crates may panic on files made to harm; a panic here is an error of the file.

use std::cmp::Ordering;
use std::io::{BufReader, Read};
use std::path::Path;
use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_ipc::reader::{FileReader, StreamReader};
use arrow_schema::ArrowError;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::errors::ParquetError;
use parquet::file::reader::{ChunkReader, Length};

use super::arrow_check;
use super::bytes::{Content, DataFile, Failed};
use super::table_values::{is_readable, row};
use super::{Found, Position, Row, RowReader, Unreadable};
use crate::error::{DataError, Place};

/// Rows decoded at once: few, because a single row of a text column may hold a book.
const BATCH_ROWS: usize = 256;

type Batches = Box<dyn Iterator<Item = Result<RecordBatch, ArrowError>> + Send>;

/// Rows of a table.
pub(super) struct TableRows {
    path: Arc<Path>,
    batches: Batches,
    batch: Option<RecordBatch>,
    /// Row of `batch` that comes next.
    next: usize,
    /// Place of the first row of `batch`, or, without one, of the next batch.
    start: Position,
    /// Rows before `batch` (Parquet only).
    before: u64,
    /// First row of each row group, and the number of rows at the end (Parquet only).
    groups: Vec<u64>,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Parquet,
    Arrow,
}

/// Holds what an Arrow file says about lengths against its size.
fn check_lengths(file: &DataFile, is_file: bool) -> Result<(), DataError> {
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

/// Runs code of the table crates; panics become errors.
fn guarded<T, E: std::fmt::Display>(path: &Path, run: impl FnOnce() -> Result<T, E>) -> Result<T, DataError> {
    foundry_formats::guarded(run).map_err(|problem| DataError::BrokenTable { path: path.to_owned(), problem })
}

impl TableRows {
    /// Opens a Parquet file: `at.offset` rows are passed over, whole row groups without reading them.
    pub(super) fn parquet(file: &DataFile, at: Position) -> Result<Self, DataError> {
        let path = Arc::clone(file.path());
        let source = Source { file: file.clone(), size: file.content()?.size() };
        let (groups, batches) = guarded(&path, || -> Result<(Vec<u64>, Batches), ParquetError> {
            let builder = ParquetRecordBatchReaderBuilder::try_new(source)?;
            let mut groups = vec![0u64];
            for group in builder.metadata().row_groups() {
                let rows = u64::try_from(group.num_rows()).unwrap_or(0);
                groups.push(groups.last().copied().unwrap_or(0).saturating_add(rows));
            }
            let fields = builder.schema().fields();
            let roots = (0..fields.len()).filter(|&i| is_readable(fields[i].data_type()));
            let mask = ProjectionMask::roots(builder.parquet_schema(), roots);
            // Of row groups before it not even the headers of their pages are read.
            let passed = groups.partition_point(|&first| first <= at.offset).saturating_sub(1);
            let passed = passed.min(groups.len() - 1);
            let inside = usize::try_from(at.offset - groups[passed]).unwrap_or(usize::MAX);
            let left = (passed..groups.len() - 1).collect();
            let builder = builder.with_row_groups(left).with_offset(inside);
            let builder = builder.with_projection(mask).with_batch_size(BATCH_ROWS);
            Ok((groups, Box::new(builder.build()?)))
        })?;
        let start = Position { rows: 0, ..at };
        let (batch, next, before) = (None, 0, at.offset);
        Ok(Self { path, batches, batch, next, start, before, groups, kind: Kind::Parquet })
    }

    /// Opens an Arrow file or stream: `at.offset` batches are passed over, in a file without reading them.
    pub(super) fn arrow(file: &DataFile, at: Position, is_file: bool) -> Result<Self, DataError> {
        let path = Arc::clone(file.path());
        check_lengths(file, is_file)?;
        let content = BufReader::with_capacity(1 << 17, file.content()?);
        let passed = usize::try_from(at.offset).unwrap_or(usize::MAX);
        let opened = guarded(&path, || -> Result<Option<Batches>, ArrowError> {
            if !is_file {
                let mut reader = StreamReader::try_new(content, None)?;
                for _ in 0..passed {
                    if reader.next().transpose()?.is_none() {
                        return Ok(None);
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
        let (groups, kind) = (Vec::new(), Kind::Arrow);
        Ok(Self { path, batches, batch: None, next: 0, start, before: 0, groups, kind })
    }

    /// Row `number` (from 0) of the file, for messages.
    fn place(&self, number: u64) -> Place {
        let group = self.groups.partition_point(|&first| first <= number).saturating_sub(1);
        match self.groups.get(group) {
            Some(first) => Place::in_group(&self.path, group as u64, number - first),
            None => Place::in_group(&self.path, self.start.offset, self.next as u64),
        }
    }

    fn load(&mut self) -> Result<bool, Unreadable> {
        if let Some(batch) = self.batch.take() {
            let rows = batch.num_rows() as u64;
            self.before += rows;
            self.start.offset += if self.kind == Kind::Parquet { rows } else { 1 };
            self.next = 0;
        }
        let batches = &mut self.batches;
        self.batch = guarded(&self.path, || batches.next().transpose()).map_err(Unreadable::rest)?;
        let promised = self.groups.last().copied().unwrap_or(0);
        if self.batch.is_none() && self.kind == Kind::Parquet && self.before < promised {
            let problem = format!("its footer promises {promised} rows, but there are {}", self.before);
            return Err(Unreadable::rest(DataError::BrokenTable { path: self.path.to_path_buf(), problem }));
        }
        Ok(self.batch.is_some())
    }
}

impl RowReader for TableRows {
    fn next(&mut self) -> Result<Option<Found>, Unreadable> {
        loop {
            let left = self.batch.as_ref().map_or(0, |batch| batch.num_rows() - self.next);
            if left > 0 {
                break;
            }
            if !self.load()? {
                return Ok(None);
            }
        }
        let at = self.position();
        let place = self.place(self.before + self.next as u64);
        let index = self.next;
        self.next += 1;
        let batch = self.batch.as_ref().expect("there are rows left in it");
        let object = guarded(&self.path, || Ok::<_, String>(row(batch, index))).map_err(Unreadable::row)?;
        Ok(Some(Found { at, place, row: Row::Object(object) }))
    }

    fn position(&self) -> Position {
        match self.kind {
            Kind::Parquet => Position { offset: self.start.offset + self.next as u64, line: 0, rows: 0 },
            Kind::Arrow => Position { rows: self.next as u64, ..self.start },
        }
    }
}

/// A file as the Parquet crate wants it: any range at any time.
struct Source {
    file: DataFile,
    size: u64,
}

impl Length for Source {
    fn len(&self) -> u64 {
        self.size
    }
}

impl ChunkReader for Source {
    type T = BufReader<Content>;

    fn get_read(&self, start: u64) -> Result<Self::T, ParquetError> {
        let external = |e: Box<dyn std::error::Error + Send + Sync>| ParquetError::External(e);
        let mut content = self.file.content().map_err(|e| external(Box::new(e)))?;
        std::io::Seek::seek(&mut content, std::io::SeekFrom::Start(start))
            .map_err(|e| external(Box::new(e)))?;
        Ok(BufReader::with_capacity(1 << 16, content))
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<::bytes::Bytes, ParquetError> {
        // A lying footer must not decide how much is allocated.
        if start.checked_add(length as u64).is_none_or(|end| end > self.size) {
            return Err(ParquetError::EOF(format!("bytes {start} to {start} + {length} of {}", self.size)));
        }
        let mut bytes = Vec::with_capacity(length);
        let read = self.get_read(start)?.take(length as u64).read_to_end(&mut bytes);
        match read {
            Ok(read) if read == length => Ok(bytes.into()),
            Ok(read) => Err(ParquetError::EOF(format!("{length} bytes wanted at {start}, {read} found"))),
            Err(error) => Err(ParquetError::External(Box::new(error))),
        }
    }
}
