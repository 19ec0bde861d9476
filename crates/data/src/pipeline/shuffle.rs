//! A shuffle buffer: each row leaves from a random place of a buffer that the next row then takes.
//!
//! Its state is where its rows stand in their files, not the rows: a thousand rows are a few kilobytes in a checkpoint,
//! and are read again when a run goes on.

use serde::{Deserialize, Serialize};

use super::mix::Mixer;
use super::{Item, RowId, Tally};
use crate::error::DataError;
use crate::numpy_rng::NumpyRng;

/// Mixed into the seed, so that shuffling and mixing draw different numbers.
const SHUFFLE: u64 = 0x5368_7566_666c_6521;

/// Rows that wait for their turn.
pub(super) struct ShuffleBuffer {
    capacity: usize,
    rows: Vec<Item>,
    rng: NumpyRng,
    ended: bool,
}

/// The place of a shuffle buffer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ShuffleState {
    capacity: usize,
    rng: NumpyRng,
    rows: Vec<RowId>,
    ended: bool,
}

impl ShuffleBuffer {
    pub(super) fn new(capacity: usize, seed: u64) -> Self {
        Self { capacity, rows: Vec::new(), rng: NumpyRng::seeded(seed ^ SHUFFLE), ended: false }
    }

    pub(super) fn next(&mut self, mixer: &mut Mixer, tally: &mut Tally) -> Result<Option<Item>, DataError> {
        // One row more than it holds, so that a row may leave at once.
        while !self.ended && self.rows.len() <= self.capacity {
            match mixer.next(tally)? {
                Some(item) => self.rows.push(item),
                None => self.ended = true,
            }
        }
        if self.rows.is_empty() {
            return Ok(None);
        }
        let drawn = self.rng.below(self.rows.len());
        Ok(Some(self.rows.swap_remove(drawn)))
    }

    pub(super) fn state(&self) -> ShuffleState {
        let rows = self.rows.iter().map(|item| item.id).collect();
        ShuffleState { capacity: self.capacity, rng: self.rng.clone(), rows, ended: self.ended }
    }

    pub(super) fn restore(&mut self, state: &ShuffleState, mixer: &Mixer) -> Result<(), DataError> {
        if state.capacity != self.capacity || state.rows.len() > self.capacity + 1 {
            let (was, is) = (state.capacity, self.capacity);
            return Err(DataError::BadState {
                problem: format!("its shuffle buffer held {was} rows, not {is}"),
            });
        }
        self.rows = mixer.read_again(&state.rows)?;
        self.rng = state.rng.clone();
        self.ended = state.ended;
        Ok(())
    }
}
