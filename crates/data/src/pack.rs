//! Packing: tokenised sequences into rows of at most `max_length` tokens.
//!
//! The rows are exactly those of TRL 1.16 (`trl/data_utils.py`: `_pack_bfd`, `_pack_wrapped`, `pack_dataset`), which
//! packs each run of 1000 examples on its own because that is the batch size of `datasets.map`. Best fit decreasing
//! is after Ding et al., "Fewer Truncations Improve Language Modeling" (2024).

use std::collections::VecDeque;
use std::ops::Range;

use crate::dataset::{PackedRow, Sequence};
use crate::spec::PackingStrategy;

/// Examples that are packed together: the default batch size of `datasets.map`, through which TRL packs.
pub const PACKING_CHUNK: usize = 1000;

/// Packs `sequences` (in this order) into rows of at most `max_length` tokens; `max_length` ≥ 1.
///
/// Empty sequences vanish. In each row the label of the first token of each sequence is −100.
pub fn pack(sequences: &[Sequence], max_length: usize, strategy: PackingStrategy) -> Vec<PackedRow> {
    let mut rows = Vec::new();
    for chunk in sequences.chunks(PACKING_CHUNK) {
        let lengths: Vec<usize> = chunk.iter().map(|s| s.tokens.len()).collect();
        for pieces in arrange(&lengths, max_length, strategy) {
            let mut row = PackedRow::default();
            for (index, Piece { sequence, range }) in pieces.into_iter().enumerate() {
                if index == 0 || strategy != PackingStrategy::Wrapped {
                    row.begin();
                }
                let Sequence { tokens, labels } = &chunk[sequence];
                row.extend(tokens[range.clone()].iter().copied().zip(labels[range].iter().copied()));
            }
            rows.push(row);
        }
    }
    rows
}

/// One sequence per row, as it is: no packing.
pub fn one_per_row(sequences: Vec<Sequence>) -> Vec<PackedRow> {
    let mut rows = Vec::with_capacity(sequences.len());
    for sequence in sequences.into_iter().filter(|s| !s.tokens.is_empty()) {
        let mut labels = sequence.labels;
        labels[0] = crate::IGNORED;
        rows.push(PackedRow {
            seq_lens: vec![sequence.tokens.len() as u32],
            tokens: sequence.tokens,
            labels,
        });
    }
    rows
}

/// A part of one sequence: tokens `range` of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) sequence: usize,
    pub(crate) range: Range<usize>,
}

/// Which pieces of sequences of these lengths, a chunk of at most [`PACKING_CHUNK`], make up each row.
pub(crate) fn arrange(lengths: &[usize], max_length: usize, strategy: PackingStrategy) -> Vec<Vec<Piece>> {
    match strategy {
        PackingStrategy::Bfd => in_bins(&heads(lengths, max_length), max_length),
        PackingStrategy::BfdSplit => in_bins(&fragments(lengths, max_length), max_length),
        PackingStrategy::Wrapped => wrapped(lengths, max_length),
    }
}

/// `bfd`: the first `max_length` tokens of each sequence.
fn heads(lengths: &[usize], max_length: usize) -> Vec<Piece> {
    let heads = lengths.iter().map(|len| 0..max_length.min(*len)).enumerate();
    heads.filter(|(_, range)| !range.is_empty()).map(|(sequence, range)| Piece { sequence, range }).collect()
}

/// `bfd_split`: pieces of exactly `max_length` tokens, the last one of each sequence shorter.
fn fragments(lengths: &[usize], max_length: usize) -> Vec<Piece> {
    let mut pieces = Vec::new();
    for (sequence, &len) in lengths.iter().enumerate() {
        for start in (0..len).step_by(max_length) {
            pieces.push(Piece { sequence, range: start..len.min(start.saturating_add(max_length)) });
        }
    }
    pieces
}

/// Pieces into bins, by best fit decreasing.
fn in_bins(pieces: &[Piece], max_length: usize) -> Vec<Vec<Piece>> {
    let lengths: Vec<usize> = pieces.iter().map(|p| p.range.len()).collect();
    let bins = best_fit_decreasing(&lengths, max_length);
    bins.into_iter().map(|bin| bin.into_iter().map(|id| pieces[id].clone()).collect()).collect()
}

/// `wrapped`: all tokens of the chunk end to end, cut every `max_length`; boundaries of sequences are forgotten.
fn wrapped(lengths: &[usize], max_length: usize) -> Vec<Vec<Piece>> {
    let mut rows: Vec<Vec<Piece>> = Vec::new();
    let mut room = 0;
    for (sequence, &len) in lengths.iter().enumerate() {
        let mut start = 0;
        while start < len {
            if room == 0 {
                rows.push(Vec::new());
                room = max_length;
            }
            let range = start..len.min(start.saturating_add(room));
            (start, room) = (range.end, room - range.len());
            rows.last_mut().expect("one was begun").push(Piece { sequence, range });
        }
    }
    rows
}

/// Best fit decreasing: which item goes to which bin of `capacity`. All lengths are in 1..=capacity.
///
/// Items are taken by falling length (equal lengths in their order); each goes to the bin with the least space that
/// still holds it, the bin that has had this space for the longest time first; a new bin is opened when none fits.
fn best_fit_decreasing(lengths: &[usize], capacity: usize) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    order.sort_by_key(|&id| std::cmp::Reverse(lengths[id]));
    let mut bins: Vec<Vec<usize>> = Vec::new();
    // Free space → bins that have exactly this much of it. No bin is ever empty, so `capacity` means a new bin.
    let mut by_space: std::collections::BTreeMap<usize, VecDeque<usize>> = std::collections::BTreeMap::new();
    for id in order {
        let length = lengths[id];
        let (space, bin) = match by_space.range_mut(length..).next() {
            Some((&space, queue)) => {
                let bin = queue.pop_front().expect("queues without bins are removed");
                if queue.is_empty() {
                    by_space.remove(&space);
                }
                (space, bin)
            }
            None => {
                bins.push(Vec::new());
                (capacity, bins.len() - 1)
            }
        };
        bins[bin].push(id);
        if space > length {
            by_space.entry(space - length).or_default().push_back(bin);
        }
    }
    bins
}

#[cfg(test)]
#[path = "pack_tests.rs"]
mod tests;
