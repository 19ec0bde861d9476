//! What loading yields: packed rows of tokens with labels, and the report.

use crate::IGNORED;
use crate::report::DataReport;

/// A packed row: one or more sequences end to end, without padding.
///
/// `labels[i]` belongs to the token at `i` (the shift by one is the model's business); −100 is ignored, and the first
/// label of every sequence is −100. `seq_lens` sums to `tokens.len()`; no sequence is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PackedRow {
    /// Token ids.
    pub tokens: Vec<u32>,
    /// Lengths of the sequences, in order.
    pub seq_lens: Vec<u32>,
    /// Labels, one per token.
    pub labels: Vec<i32>,
}

impl PackedRow {
    /// Begins a sequence, whose tokens follow.
    pub(crate) fn begin(&mut self) {
        self.seq_lens.push(0);
    }

    /// Adds tokens and labels to the sequence that was begun; its first label is ignored.
    pub(crate) fn extend(&mut self, tokens: impl Iterator<Item = (u32, i32)>) {
        let sequence = self.seq_lens.last_mut().expect("a sequence was begun");
        for (token, label) in tokens {
            self.tokens.push(token);
            self.labels.push(if *sequence == 0 { IGNORED } else { label });
            *sequence += 1;
        }
    }

    /// Adds all sequences of another row.
    pub(crate) fn append(&mut self, other: &PackedRow) {
        self.tokens.extend_from_slice(&other.tokens);
        self.labels.extend_from_slice(&other.labels);
        self.seq_lens.extend_from_slice(&other.seq_lens);
    }

    /// Number of labels that count in the loss.
    pub fn labelled(&self) -> usize {
        self.labels.iter().filter(|&&label| label != IGNORED).count()
    }

    /// Position of each token within its sequence (Hugging Face's `position_ids`).
    pub fn position_ids(&self) -> Vec<u32> {
        self.seq_lens.iter().flat_map(|&len| 0..len).collect()
    }
}

/// One tokenised example before packing; `labels.len() == tokens.len()`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sequence {
    /// Token ids.
    pub tokens: Vec<u32>,
    /// Labels, −100 where the mask hides the token.
    pub labels: Vec<i32>,
}

/// A loaded data set: at least one row, at least one label.
#[derive(Clone, Debug, PartialEq)]
pub struct Dataset {
    /// Rows in the order of the data set (the [`crate::Loader`] shuffles).
    pub rows: Vec<PackedRow>,
    /// What happened on the way.
    pub report: DataReport,
}
