//! The order in which rows reach the model: Hugging Face Trainer's.
//!
//! accelerate 1.15 (`data_loader.py`): `SeedableRandomSampler` draws epoch e's order as `torch.randperm(n)` seeded with
//! seed + e; `BatchSamplerShard` deals whole batches out to the ranks in turn and, with `even_batches`, goes on from
//! the start of the epoch's order until every rank has the same number of full batches.

use std::sync::Arc;

use foundry_formats::torch_rng::Mt19937;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::batches::{Batches, MicroBatch, Rows};
use crate::dataset::PackedRow;
use crate::error::DataError;

/// A place in the stream of batches: the next rows to be dealt are those from `row` on of epoch `epoch`'s order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cursor {
    /// Epoch, from 0.
    pub epoch: u64,
    /// Rows of the epoch that all ranks together have been dealt.
    pub row: u64,
}

/// An endless stream of micro-batches over rows that can be had in any order.
///
/// With one rank an epoch ends with a short batch when `batch_size` does not divide the rows. With several ranks all
/// batches are full and all ranks have equally many, so up to `world_size · batch_size − 1` rows of the start of the
/// epoch's order are seen twice (`even_batches`).
#[derive(Clone, Debug)]
pub struct Loader {
    rows: Arc<dyn Rows>,
    batch_size: usize,
    seed: u64,
    shuffle: bool,
    rank: usize,
    world_size: usize,
    cursor: Cursor,
    /// The epoch's order, extended by wrapping; made when the epoch is entered.
    order: Vec<usize>,
    order_epoch: Option<u64>,
}

impl Loader {
    /// A loader at the first batch of epoch 0.
    ///
    /// `seed`: Hugging Face's `data_seed`, or `seed` where that is not set. `shuffle`: false for the rows' own order.
    ///
    /// # Panics
    /// When there are no rows, `batch_size` is 0 or `rank` ≥ `world_size`: the callers have checked their settings, and
    /// [`crate::load`] never returns an empty data set.
    pub fn new(
        rows: Arc<dyn Rows>,
        batch_size: usize,
        seed: u64,
        shuffle: bool,
        rank: usize,
        world_size: usize,
    ) -> Self {
        assert!(!rows.is_empty() && batch_size > 0, "{} rows in batches of {batch_size}", rows.len());
        assert!(rank < world_size, "rank {rank} of {world_size}");
        let cursor = Cursor::default();
        Self {
            rows,
            batch_size,
            seed,
            shuffle,
            rank,
            world_size,
            cursor,
            order: Vec::new(),
            order_epoch: None,
        }
    }

    /// The place of the next batch.
    pub fn cursor(&self) -> Cursor {
        self.cursor
    }

    /// Goes to a place that [`Loader::cursor`] of a loader over the same rows returned, whatever the number of ranks
    /// there. `false`: the rows have no such place.
    pub fn seek(&mut self, cursor: &Cursor) -> bool {
        let fits = cursor.row < self.rows.len() as u64;
        if fits {
            self.cursor = *cursor;
            self.order_epoch = None;
        }
        fits
    }

    /// The indices of the rows of the next micro-batch, and a step forward.
    pub fn next_indices(&mut self) -> Vec<usize> {
        self.enter_epoch();
        let dealt = self.cursor.row as usize;
        let start = dealt + self.rank * self.batch_size;
        let end = self.order.len().min(start + self.batch_size);
        let indices = self.order[start..end].to_vec();
        let next = dealt + self.world_size * self.batch_size;
        self.cursor = if next < self.rows.len() {
            Cursor { row: next as u64, ..self.cursor }
        } else {
            Cursor { epoch: self.cursor.epoch + 1, row: 0 }
        };
        indices
    }

    /// Makes the order of the cursor's epoch if it is not at hand.
    fn enter_epoch(&mut self) {
        let epoch = self.cursor.epoch;
        if self.order_epoch == Some(epoch) {
            return;
        }
        let n = self.rows.len();
        self.order = if self.shuffle {
            Mt19937::seeded(self.seed.wrapping_add(epoch)).randperm(n)
        } else {
            (0..n).collect()
        };
        if self.world_size > 1 {
            self.fill_batches(n - self.cursor.row as usize);
        }
        self.order_epoch = Some(epoch);
    }

    /// `even_batches`: the order goes on with the rows of the first `world_size` batches until those batches that are
    /// made of the `left` rows of the epoch are full.
    fn fill_batches(&mut self, left: usize) {
        let all = self.world_size * self.batch_size;
        let start: Vec<usize> = self.order[..self.order.len().min(all)].to_vec();
        let missing = left.next_multiple_of(all) - left;
        self.order.extend(start.iter().cycle().take(missing));
    }
}

impl Batches for Loader {
    fn batches_per_epoch(&self) -> Option<usize> {
        Some(self.rows.len().div_ceil(self.batch_size).div_ceil(self.world_size))
    }

    fn next_batch(&mut self) -> Result<MicroBatch, DataError> {
        let indices = self.next_indices();
        let mut row = PackedRow::default();
        for &index in &indices {
            self.rows.append(index, &mut row)?;
        }
        Ok(MicroBatch { row, numbers: indices.into_iter().map(|index| index as u64).collect() })
    }

    fn state(&self) -> Value {
        serde_json::to_value(self.cursor).expect("two numbers are plain data")
    }

    fn restore(&mut self, state: &Value) -> Result<(), DataError> {
        let cursor: Cursor = serde_json::from_value(state.clone())
            .map_err(|error| DataError::BadState { problem: error.to_string() })?;
        if self.seek(&cursor) {
            return Ok(());
        }
        let (row, rows) = (cursor.row, self.rows.len());
        Err(DataError::BadState {
            problem: format!("it is at row {row} of an epoch, but the data has {rows} row(s)"),
        })
    }
}

#[cfg(test)]
#[path = "loader_tests.rs"]
mod tests;
