//! Parquet: a batch of rows in memory at a time, one reader for each row group, so that what is damaged in one costs
//! none of another. Rows before the damage are handed out, those lost are counted.

use std::io::{BufReader, Read};
use std::path::Path;
use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_schema::ArrowError;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder,
};
use parquet::errors::ParquetError;
use parquet::file::reader::{ChunkReader, Length};

use super::bytes::{Content, DataFile};
use super::table_values::{guarded, is_readable, row};
use super::{Found, Position, Row, RowReader, Unreadable};
use crate::error::{DataError, Place};

/// Rows decoded at once: few, because a single row of a text column may hold a book.
const BATCH_ROWS: usize = 256;

/// Rows of a Parquet file.
pub(super) struct ParquetRows {
    path: Arc<Path>,
    source: Source,
    metadata: ArrowReaderMetadata,
    mask: ProjectionMask,
    /// First row of each row group, and the number of rows at the end.
    firsts: Vec<u64>,
    /// The group that is being read.
    group: usize,
    reader: Option<ParquetRecordBatchReader>,
    /// A batch of this group has failed: a row at a time, to have all before the damage.
    is_careful: bool,
    batch: Option<RecordBatch>,
    /// Row of `batch` that comes next.
    next: usize,
    /// Row of the file that is the first of `batch`, or, without one, of the next batch.
    row: u64,
}

impl ParquetRows {
    /// Opens a file: `at.offset` rows are passed over, whole row groups without reading them.
    pub(super) fn open(file: &DataFile, at: Position) -> Result<Self, DataError> {
        let path = Arc::clone(file.path());
        let source = Source { file: file.clone(), size: file.content()?.size() };
        let (metadata, mask, firsts) = guarded(&path, || {
            let metadata = ArrowReaderMetadata::load(&source, ArrowReaderOptions::default())?;
            let mut firsts = vec![0u64];
            for (index, group) in metadata.metadata().row_groups().iter().enumerate() {
                let rows = u64::try_from(group.num_rows()).map_err(|_| {
                    let rows = group.num_rows();
                    ParquetError::General(format!("its footer promises {rows} rows in row group {index}"))
                })?;
                firsts.push(firsts.last().copied().unwrap_or(0).saturating_add(rows));
            }
            let fields = metadata.schema().fields();
            let roots = (0..fields.len()).filter(|&i| is_readable(fields[i].data_type()));
            let mask = ProjectionMask::roots(metadata.parquet_schema(), roots);
            Ok::<_, ParquetError>((metadata, mask, firsts))
        })?;
        let all = firsts.last().copied().unwrap_or(0);
        if at.offset > all {
            let problem = format!("{} has {all} rows, fewer than before", file.name());
            return Err(DataError::BadState { problem });
        }
        let group = firsts.partition_point(|&first| first <= at.offset).saturating_sub(1);
        Ok(Self {
            path,
            source,
            metadata,
            mask,
            firsts,
            group,
            reader: None,
            is_careful: false,
            batch: None,
            next: 0,
            row: at.offset,
        })
    }

    /// A reader of the present group from row `row` of the file on.
    fn reader(&self, row: u64, batch_rows: usize) -> Result<ParquetRecordBatchReader, ParquetError> {
        let inside = usize::try_from(row - self.firsts[self.group]).unwrap_or(usize::MAX);
        ParquetRecordBatchReaderBuilder::new_with_metadata(self.source.clone(), self.metadata.clone())
            .with_row_groups(vec![self.group])
            .with_offset(inside)
            .with_projection(self.mask.clone())
            .with_batch_size(batch_rows)
            .build()
    }

    /// The next batch of the present group; `None` where its pages end.
    fn load(&mut self) -> Result<Option<RecordBatch>, DataError> {
        let mut reader = self.reader.take();
        let path = Arc::clone(&self.path);
        let batch = guarded(&path, || {
            if reader.is_none() {
                let rows = if self.is_careful { 1 } else { BATCH_ROWS };
                reader = Some(self.reader(self.row, rows).map_err(ArrowError::from)?);
            }
            reader.as_mut().and_then(Iterator::next).transpose()
        })?;
        self.reader = reader;
        Ok(batch.filter(|batch| batch.num_rows() > 0))
    }

    /// The row after the next can be read, so that only one is bad (its text is no UTF-8, for example).
    fn only_one_is_bad(&self) -> bool {
        let after = self.row + 1;
        let read =
            guarded(&self.path, || self.reader(after, 1).map_err(ArrowError::from)?.next().transpose());
        after < self.firsts[self.group + 1] && read.is_ok_and(|batch| batch.is_some())
    }

    /// The next batch is there. `false` at the end of the file.
    fn find_batch(&mut self) -> Result<bool, Unreadable> {
        if let Some(batch) = self.batch.take() {
            self.row += batch.num_rows() as u64;
            self.next = 0;
        }
        while let Some(&end) = self.firsts.get(self.group + 1) {
            if self.row >= end {
                self.leave_group();
                continue;
            }
            match self.load() {
                Ok(Some(batch)) if batch.num_rows() as u64 <= end - self.row => {
                    self.batch = Some(batch);
                    return Ok(true);
                }
                Ok(read) => {
                    let more = read.map_or(0, |batch| batch.num_rows() as u64);
                    let promised = end - self.firsts[self.group];
                    let there = promised - (end - self.row) + more;
                    let group = self.group;
                    let problem = format!(
                        "row group {group}: its footer promises {promised} rows, but there are {there}"
                    );
                    self.row = end;
                    self.leave_group();
                    // How many are lost is not known: one of the two numbers is wrong.
                    let path = self.path.to_path_buf();
                    return Err(Unreadable::row(DataError::BrokenTable { path, problem }));
                }
                Err(DataError::BrokenTable { .. }) if !self.is_careful => self.is_careful = true,
                Err(DataError::BrokenTable { problem, .. }) => {
                    let until = if self.only_one_is_bad() { self.row + 1 } else { end };
                    return Err(self.lost(until, problem));
                }
                Err(other) => return Err(Unreadable::rest(other)),
            }
        }
        Ok(false)
    }

    fn leave_group(&mut self) {
        self.group += 1;
        (self.reader, self.is_careful) = (None, false);
    }

    /// The next rows, until row `until`, which is none beyond the group, cannot be read.
    fn lost(&mut self, until: u64, problem: String) -> Unreadable {
        let place = self.place(self.row);
        let rows = until - self.row;
        (self.row, self.reader, self.is_careful) = (until, None, false);
        Unreadable::rows(DataError::DamagedRows { place, rows, problem }, rows)
    }

    /// Row `number` (from 0) of the file, for messages.
    fn place(&self, number: u64) -> Place {
        Place::in_group(&self.path, self.group as u64, number - self.firsts[self.group])
    }
}

impl RowReader for ParquetRows {
    fn next(&mut self) -> Result<Option<Found>, Unreadable> {
        let is_used = self.batch.as_ref().is_none_or(|batch| self.next == batch.num_rows());
        if is_used && !self.find_batch()? {
            return Ok(None);
        }
        let (at, index) = (self.position(), self.next);
        let place = self.place(at.offset);
        self.next += 1;
        let batch = self.batch.as_ref().expect("there are rows left in it");
        let object = guarded(&self.path, || Ok::<_, String>(row(batch, index))).map_err(Unreadable::row)?;
        Ok(Some(Found { at, place, row: Row::Object(object) }))
    }

    fn position(&self) -> Position {
        Position { offset: self.row + self.next as u64, line: 0, rows: 0 }
    }
}

/// A file as the Parquet crate wants it: any range at any time.
#[derive(Clone)]
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
