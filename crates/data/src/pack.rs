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
        match strategy {
            PackingStrategy::Bfd => pack_pieces(chunk, &heads(chunk, max_length), max_length, &mut rows),
            PackingStrategy::BfdSplit => {
                pack_pieces(chunk, &fragments(chunk, max_length), max_length, &mut rows)
            }
            PackingStrategy::Wrapped => wrap(chunk, max_length, &mut rows),
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

/// A part of one sequence: `chunk[sequence].tokens[range]`.
struct Piece {
    sequence: usize,
    range: Range<usize>,
}

/// `bfd`: the first `max_length` tokens of each sequence.
fn heads(chunk: &[Sequence], max_length: usize) -> Vec<Piece> {
    let lengths = chunk.iter().map(|s| s.tokens.len().min(max_length));
    lengths
        .enumerate()
        .filter(|(_, len)| *len > 0)
        .map(|(sequence, len)| Piece { sequence, range: 0..len })
        .collect()
}

/// `bfd_split`: pieces of exactly `max_length` tokens, the last one of each sequence shorter.
fn fragments(chunk: &[Sequence], max_length: usize) -> Vec<Piece> {
    let mut pieces = Vec::new();
    for (sequence, s) in chunk.iter().enumerate() {
        let len = s.tokens.len();
        for start in (0..len).step_by(max_length) {
            pieces.push(Piece { sequence, range: start..len.min(start.saturating_add(max_length)) });
        }
    }
    pieces
}

fn pack_pieces(chunk: &[Sequence], pieces: &[Piece], max_length: usize, rows: &mut Vec<PackedRow>) {
    let lengths: Vec<usize> = pieces.iter().map(|p| p.range.len()).collect();
    for bin in best_fit_decreasing(&lengths, max_length) {
        let mut row = PackedRow::default();
        for id in bin {
            let piece = &pieces[id];
            let sequence = &chunk[piece.sequence];
            row.push(&sequence.tokens[piece.range.clone()], &sequence.labels[piece.range.clone()]);
        }
        rows.push(row);
    }
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

/// `wrapped`: all tokens of the chunk end to end, cut every `max_length`; boundaries of sequences are forgotten.
fn wrap(chunk: &[Sequence], max_length: usize, rows: &mut Vec<PackedRow>) {
    let tokens: Vec<u32> = chunk.iter().flat_map(|s| s.tokens.iter().copied()).collect();
    let labels: Vec<i32> = chunk.iter().flat_map(|s| s.labels.iter().copied()).collect();
    for (tokens, labels) in tokens.chunks(max_length).zip(labels.chunks(max_length)) {
        let mut row = PackedRow::default();
        row.push(tokens, labels);
        rows.push(row);
    }
}

#[cfg(test)]
#[path = "pack_tests.rs"]
mod tests;
