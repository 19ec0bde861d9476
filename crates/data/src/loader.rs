//! The order in which rows reach the model: Hugging Face Trainer's.
//!
//! accelerate 1.15 (`data_loader.py`): `SeedableRandomSampler` draws epoch e's order as `torch.randperm(n)` seeded with
//! seed + e; `BatchSamplerShard` deals whole batches out to the ranks in turn and, with `even_batches`, goes on from
//! the start of the epoch's order until every rank has the same number of full batches.

use std::sync::Arc;

use foundry_formats::torch_rng::Mt19937;
use serde::{Deserialize, Serialize};

use crate::dataset::PackedRow;

/// A place in the stream of batches: the next batch is number `batch` (of this rank) of epoch `epoch`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    /// Epoch, from 0.
    pub epoch: u64,
    /// Batch within the epoch, from 0.
    pub batch: u64,
}

/// An endless stream of micro-batches over packed rows.
///
/// With one rank an epoch ends with a short batch when `batch_size` does not divide the rows. With several ranks all
/// batches are full and all ranks have equally many, so up to `world_size · batch_size − 1` rows of the start of the
/// epoch's order are seen twice (`even_batches`).
#[derive(Clone, Debug)]
pub struct Loader {
    rows: Arc<Vec<PackedRow>>,
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
        rows: Arc<Vec<PackedRow>>,
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

    /// Micro-batches of one epoch on this rank; the same number on every rank.
    pub fn batches_per_epoch(&self) -> usize {
        self.rows.len().div_ceil(self.batch_size).div_ceil(self.world_size)
    }

    /// The place of the next batch.
    pub fn cursor(&self) -> Cursor {
        self.cursor
    }

    /// Goes to a place that [`Loader::cursor`] of an equally made loader returned. A batch beyond the epoch's last one
    /// (a checkpoint of other data or another batch size) counts on into the following epochs.
    pub fn seek(&mut self, cursor: &Cursor) {
        let per_epoch = self.batches_per_epoch() as u64;
        self.cursor =
            Cursor { epoch: cursor.epoch + cursor.batch / per_epoch, batch: cursor.batch % per_epoch };
    }

    /// The rows of the next micro-batch as one packed row; after the last batch of an epoch the next epoch begins.
    pub fn next_batch(&mut self) -> PackedRow {
        let indices = self.next_indices();
        let mut batch = PackedRow::default();
        for index in indices {
            batch.append(&self.rows[index]);
        }
        batch
    }

    /// The indices of the rows of the next micro-batch, and a step forward.
    pub fn next_indices(&mut self) -> Vec<usize> {
        self.enter_epoch();
        let start = (self.cursor.batch as usize * self.world_size + self.rank) * self.batch_size;
        let end = self.order.len().min(start + self.batch_size);
        self.cursor.batch += 1;
        let indices = self.order[start..end].to_vec();
        if self.cursor.batch as usize == self.batches_per_epoch() {
            self.cursor = Cursor { epoch: self.cursor.epoch + 1, batch: 0 };
        }
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
            self.fill_batches(n);
        }
        self.order_epoch = Some(epoch);
    }

    /// `even_batches`: the order goes on with the rows of the first `world_size` batches until all batches are full.
    fn fill_batches(&mut self, n: usize) {
        let start: Vec<usize> = self.order[..n.min(self.world_size * self.batch_size)].to_vec();
        let full = self.batches_per_epoch() * self.world_size * self.batch_size;
        let missing = full - n;
        self.order.extend(start.iter().cycle().take(missing));
    }
}

#[cfg(test)]
#[path = "loader_tests.rs"]
mod tests;
