//! Several sources as one stream: one after the other, or drawn by probabilities exactly as datasets 5.2 does
//! (`interleave_datasets`: `RandomlyCyclingMultiSourcesExamplesIterable`).

use serde::{Deserialize, Serialize};

use super::source_stream::{SourceState, SourceStream};
use super::{Item, RowId, Tally};
use crate::error::DataError;
use crate::numpy_rng::{NumpyRng, cumulative};
use crate::spec::StoppingStrategy;

/// The sources, and which of them is next.
pub(super) struct Mixer {
    sources: Vec<SourceStream>,
    turn: Turn,
    stopping: StoppingStrategy,
    /// Probabilities; empty: the sources follow each other.
    probabilities: Vec<f64>,
    /// Their sums up to each.
    cdf: Vec<f64>,
}

/// Draws of used-up sources in a row after which only those that are left are drawn from: datasets goes on drawing,
/// which comes to the same in the end, but may take for ever where what is left is rare.
const VAIN_DRAWS: usize = 1000;

/// Whose turn it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Turn {
    /// One source after the other: the number of the present one.
    InOrder(usize),
    /// By chance.
    Drawn { rng: NumpyRng, exhausted: Vec<bool> },
}

/// The place of a mixer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct MixerState {
    sources: Vec<SourceState>,
    turn: Turn,
}

impl Mixer {
    pub(super) fn new(
        sources: Vec<SourceStream>,
        probabilities: Option<&[f64]>,
        stopping: StoppingStrategy,
        seed: u64,
    ) -> Self {
        let turn = match probabilities {
            None => Turn::InOrder(0),
            Some(_) => Turn::Drawn { rng: NumpyRng::seeded(seed), exhausted: vec![false; sources.len()] },
        };
        let cdf = probabilities.map(cumulative).unwrap_or_default();
        Self { turn, probabilities: probabilities.unwrap_or_default().to_vec(), cdf, sources, stopping }
    }

    pub(super) fn next(&mut self, tally: &mut Tally) -> Result<Option<Item>, DataError> {
        match &mut self.turn {
            Turn::InOrder(current) => {
                while let Some(source) = self.sources.get_mut(*current) {
                    if let Some(item) = source.next(tally)? {
                        return Ok(Some(item));
                    }
                    *current += 1;
                }
                Ok(None)
            }
            Turn::Drawn { rng, exhausted } => loop {
                let again = self.stopping != StoppingStrategy::AllExhaustedWithoutReplacement;
                let stops = match self.stopping {
                    StoppingStrategy::FirstExhausted => exhausted.contains(&true),
                    _ => !exhausted.contains(&false),
                };
                if stops {
                    return Ok(None);
                }
                let drawn = match again {
                    true => rng.choice(&self.cdf),
                    false => one_left(rng, &self.probabilities, &self.cdf, exhausted),
                };
                let source = &mut self.sources[drawn];
                let item = source.next(tally)?;
                // That a source is used up is known with its last row, not one row later.
                if !source.has_next(tally)? {
                    exhausted[drawn] = true;
                    if again {
                        source.restart();
                    }
                }
                if item.is_some() {
                    return Ok(item);
                }
            },
        }
    }

    pub(super) fn state(&self) -> MixerState {
        MixerState {
            sources: self.sources.iter().map(SourceStream::state).collect(),
            turn: self.turn.clone(),
        }
    }

    pub(super) fn restore(&mut self, state: &MixerState) -> Result<(), DataError> {
        let same_kind = match (&self.turn, &state.turn) {
            (Turn::InOrder(_), Turn::InOrder(current)) => *current <= self.sources.len(),
            (Turn::Drawn { .. }, Turn::Drawn { exhausted, .. }) => exhausted.len() == self.sources.len(),
            _ => false,
        };
        if !same_kind || state.sources.len() != self.sources.len() {
            return Err(DataError::BadState { problem: "it is of another mixture of sources".to_owned() });
        }
        for (source, state) in self.sources.iter_mut().zip(&state.sources) {
            source.restore(state)?;
        }
        self.turn = state.turn.clone();
        Ok(())
    }

    /// Reads rows again by their places, in their order.
    pub(super) fn read_again(&self, wanted: &[RowId]) -> Result<Vec<Item>, DataError> {
        let mut found = std::collections::BTreeMap::new();
        for (index, source) in self.sources.iter().enumerate() {
            let own: Vec<RowId> = wanted.iter().filter(|id| id.source == index).copied().collect();
            found.extend(source.read_again(&own)?);
        }
        let gone = || DataError::BadState { problem: "a row of the shuffle buffer is gone".to_owned() };
        wanted.iter().map(|id| found.get(id).cloned().ok_or_else(gone)).collect()
    }
}

/// A source that is not used up; there is one.
fn one_left(rng: &mut NumpyRng, probabilities: &[f64], cdf: &[f64], exhausted: &[bool]) -> usize {
    let left: Vec<usize> = (0..exhausted.len()).filter(|&source| !exhausted[source]).collect();
    if left.len() == 1 {
        // Nothing is left to be drawn.
        return left[0];
    }
    if let Some(drawn) = (0..VAIN_DRAWS).map(|_| rng.choice(cdf)).find(|&drawn| !exhausted[drawn]) {
        return drawn;
    }
    let among: Vec<f64> = left.iter().map(|&source| probabilities[source]).collect();
    left[rng.choice(&cumulative(&among)).min(left.len() - 1)]
}
