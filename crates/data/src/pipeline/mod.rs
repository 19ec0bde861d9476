//! From sources to one stream of raw rows: files in order, chosen rows, mixture, shuffle buffer. Each stage has a state
//! that is plain data, and the stream goes on from it as if it had never stopped.

mod mix;
mod shuffle;
mod source_stream;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::{Deserialize, Serialize};

use crate::error::{DataError, Place};
use crate::shape::SUPPORTED_SHAPES;
use crate::source::{Position, Row};
use crate::spec::{DataSpec, OnError, Source};
use mix::{Mixer, MixerState};
use shuffle::{ShuffleBuffer, ShuffleState};
pub(crate) use source_stream::SourceStream;

/// Problems that are told in full; the others are counted.
const PROBLEMS_TOLD: usize = 5;

/// A raw row on its way, and where it can be read again.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Item {
    pub(crate) id: RowId,
    pub(crate) place: Place,
    pub(crate) row: Row,
}

/// Where a row stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RowId {
    /// Number of the source.
    pub(crate) source: usize,
    /// Number of the file in the source.
    pub(crate) file: usize,
    /// Where a reader of the file must be opened.
    pub(crate) at: Position,
}

/// Which part of a split by row number a stream has.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) enum Part {
    /// Everything.
    #[default]
    Whole,
    /// What is not held out.
    Training(HeldOut),
    /// What is held out.
    HeldOut(HeldOut),
    /// Of `of` parts of equal size, the one that has rows `index`, `index + of`, … of each source.
    Shard { index: u64, of: u64 },
}

/// Which rows of each source are held out of training.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct HeldOut {
    /// The part of the rows.
    pub(crate) part: f64,
    /// Only of so many rows at the start of a source: an evaluation is no pass over all data, and what it leaves is
    /// trained on.
    pub(crate) within: u64,
}

/// What was left out on the way.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) on_error: OnError,
    /// Blank lines, paragraphs and files.
    pub(crate) blank: usize,
    /// Rows, or rests of files, that could not be used.
    pub(crate) skipped: usize,
    /// The first of them.
    pub(crate) problems: Vec<String>,
    /// Files of which what came after such a row was not read either.
    pub(crate) rests: usize,
    /// Set when nobody waits for rows any more.
    pub(crate) stopped: Arc<AtomicBool>,
}

impl Tally {
    /// A row cannot be used, and neither can what follows in its file.
    pub(crate) fn refuse_rest(&mut self, error: DataError) -> Result<(), DataError> {
        let told = self.problems.len();
        self.refuse(error)?;
        self.rests += 1;
        if let Some(problem) = self.problems.get_mut(told) {
            problem.push_str(" (what follows in this file was not read)");
        }
        Ok(())
    }

    /// An error once nobody waits for rows any more.
    pub(crate) fn check_wanted(&self) -> Result<(), DataError> {
        if self.stopped.load(Ordering::Relaxed) { Err(DataError::StreamEnded) } else { Ok(()) }
    }

    /// A row cannot be used: an error, or one more in the count.
    pub(crate) fn refuse(&mut self, error: DataError) -> Result<(), DataError> {
        self.refuse_rows(error, 1)
    }

    /// So many rows cannot be used.
    pub(crate) fn refuse_rows(&mut self, error: DataError, rows: u64) -> Result<(), DataError> {
        if self.on_error == OnError::Fail || !error.is_about_a_row() {
            return Err(error);
        }
        self.skipped = self.skipped.saturating_add(usize::try_from(rows).unwrap_or(usize::MAX));
        if self.problems.len() < PROBLEMS_TOLD {
            let mut problem = error.to_string();
            // Once is enough.
            if self.problems.iter().any(|told| told.contains(SUPPORTED_SHAPES)) {
                problem = problem.replace(&format!("; supported are:{SUPPORTED_SHAPES}"), "");
            }
            self.problems.push(problem);
        }
        Ok(())
    }
}

/// The stream of raw rows of one pass over the data.
pub(crate) struct Pipeline {
    mixer: Mixer,
    shuffle: Option<ShuffleBuffer>,
    /// An error that stands behind rows which have not been looked at yet.
    pub(crate) pending: Option<DataError>,
}

/// The place of a pipeline between two rows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PipelineState {
    mixer: MixerState,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    shuffle: Option<ShuffleState>,
}

/// How the rows of a pass are chosen and ordered.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Pass {
    /// Number of the pass, from 0; it changes the order and the mixture.
    pub(crate) epoch: u64,
    /// Seed of order and mixture; `None`: that of the data.
    pub(crate) order_seed: Option<u64>,
    /// Rows in the shuffle buffer; 0: no shuffling.
    pub(crate) shuffle_buffer: usize,
    /// The part of the rows.
    pub(crate) part: Part,
}

impl Pipeline {
    /// The stream at its start.
    pub(crate) fn new(spec: &DataSpec, sources: &[Source], pass: Pass) -> Self {
        let seed = pass.order_seed.unwrap_or(spec.seed).wrapping_add(pass.epoch);
        let streams = sources.iter().enumerate().map(|(index, source)| {
            SourceStream::new(index, source.clone(), spec.sample_by, spec.seed, pass.part)
        });
        let probabilities: Option<Vec<f64>> = sources.iter().map(|source| source.probability).collect();
        let mixer = Mixer::new(streams.collect(), probabilities.as_deref(), spec.stopping_strategy, seed);
        let shuffle = (pass.shuffle_buffer > 0).then(|| ShuffleBuffer::new(pass.shuffle_buffer, seed));
        Self { mixer, shuffle, pending: None }
    }

    /// The next row; `None` at the end of the pass.
    pub(crate) fn next(&mut self, tally: &mut Tally) -> Result<Option<Item>, DataError> {
        match &mut self.shuffle {
            None => self.mixer.next(tally),
            Some(buffer) => buffer.next(&mut self.mixer, tally),
        }
    }

    /// The place before the next row.
    pub(crate) fn state(&self) -> PipelineState {
        PipelineState { mixer: self.mixer.state(), shuffle: self.shuffle.as_ref().map(ShuffleBuffer::state) }
    }

    /// Goes to a place that a pipeline over the same sources was at.
    pub(crate) fn restore(&mut self, state: &PipelineState) -> Result<(), DataError> {
        self.mixer.restore(&state.mixer)?;
        match (&mut self.shuffle, &state.shuffle) {
            (None, None) => Ok(()),
            (Some(buffer), Some(state)) => buffer.restore(state, &self.mixer),
            _ => Err(DataError::BadState { problem: "only one side has a shuffle buffer".to_owned() }),
        }
    }
}

#[cfg(test)]
mod tests;
