//! What a training loop needs of data: micro-batches, and a place in their stream that a checkpoint keeps.

use serde_json::Value;

use crate::dataset::PackedRow;
use crate::error::DataError;

/// One micro-batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MicroBatch {
    /// Its rows end to end.
    pub row: PackedRow,
    /// Which rows these are, counted from 0: in the data set, or, for a stream, in the present pass over it.
    pub numbers: Vec<u64>,
}

/// An endless stream of micro-batches on one rank.
///
/// The stream of all ranks together depends on the data and the seed only; a rank takes every `world_size`-th batch of
/// it. So a place in it ([`Batches::state`]) is the same on every rank, and another number of ranks can go on from it.
pub trait Batches {
    /// Micro-batches of one pass over the data, the same number on every rank; `None` where it is not known.
    fn batches_per_epoch(&self) -> Option<usize>;

    /// The next micro-batch; after the last one of a pass the next pass begins.
    ///
    /// # Errors
    /// A file that cannot be read, or a row that cannot be used, where the whole data was not read before.
    fn next_batch(&mut self) -> Result<MicroBatch, DataError>;

    /// The place of the next batch, as plain JSON. Only this trait's implementation knows what it means.
    fn state(&self) -> Value;

    /// Goes to a place that [`Batches::state`] of an equally made stream gave.
    ///
    /// # Errors
    /// [`DataError::BadState`] when it is no such place.
    fn restore(&mut self, state: &Value) -> Result<(), DataError>;
}

/// Rows that can be had in any order.
pub trait Rows: std::fmt::Debug + Send + Sync {
    /// How many.
    fn len(&self) -> usize;

    /// None at all.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Tokens of row `index`, which must be below [`Rows::len`].
    fn tokens(&self, index: usize) -> usize;

    /// Appends row `index`, which must be below [`Rows::len`].
    ///
    /// # Errors
    /// A file behind the rows that can no longer be read.
    fn append(&self, index: usize, batch: &mut PackedRow) -> Result<(), DataError>;
}

impl Rows for Vec<PackedRow> {
    fn len(&self) -> usize {
        Vec::len(self)
    }

    fn tokens(&self, index: usize) -> usize {
        self[index].tokens.len()
    }

    fn append(&self, index: usize, batch: &mut PackedRow) -> Result<(), DataError> {
        batch.append(&self[index]);
        Ok(())
    }
}
