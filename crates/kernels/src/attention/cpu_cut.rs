//! Cutting the work: by shapes alone, never by the number of threads.

use crate::lanes::LANES;
use crate::simd::matrix::BlockMut;
use crate::{Attention, Span};
use std::ops::Range;

/// Rows of a query tile, counted over all heads of a group: what one packed key tile serves.
const QUERY_ROWS: usize = 192;

/// Keys of a tile; a multiple of every kernel's rows.
pub(super) const KEYS: usize = 96;

/// At least the rows that a kernel may touch beyond the last one of a tile: it works on whole blocks of up to so many.
pub(super) const SPARE_ROWS: usize = 32;

/// The backward is cut into about this many tasks.
const BACKWARD_TASKS: usize = 12;

/// A run of queries of one span, with all heads of a group.
#[derive(Clone, Copy)]
pub(super) struct QueryTile {
    pub(super) span: Span,
    /// First query, counted inside the span.
    pub(super) first: usize,
    /// Number of queries.
    pub(super) len: usize,
}

impl QueryTile {
    /// Rows of the packed row.
    pub(super) fn rows(&self) -> Range<usize> {
        let start = self.span.q_start + self.first;
        start..start + self.len
    }

    /// First and one past the last key that query `i` of the tile sees.
    #[inline(always)]
    pub(super) fn visible(&self, op: &Attention, i: usize) -> (usize, usize) {
        visible(op, &self.span, self.first + i)
    }
}

/// First and one past the last key that query `i` of the span sees.
#[inline(always)]
pub(super) fn visible(op: &Attention, span: &Span, i: usize) -> (usize, usize) {
    let end = span.kv_len - span.q_len + i + 1;
    (op.window.map_or(0, |window| end.saturating_sub(window)), end)
}

/// Which columns of a block of `n` scores, whose keys start at `start`, a query with these visible keys sees; `used` of
/// the columns are keys.
#[inline(always)]
pub(super) fn seen((first, end): (usize, usize), start: usize, n: usize, used: usize) -> Range<usize> {
    first.saturating_sub(start).min(n)..end.saturating_sub(start).min(used)
}

/// Queries per tile.
pub(super) fn tile_queries(op: &Attention) -> usize {
    (QUERY_ROWS * op.kv_heads / op.heads).max(1)
}

/// All query tiles, in order.
pub(super) fn query_tiles(op: &Attention, spans: &[Span]) -> Vec<QueryTile> {
    let len = tile_queries(op);
    spans
        .iter()
        .flat_map(|&span| {
            (0..span.q_len).step_by(len).map(move |first| QueryTile {
                span,
                first,
                len: len.min(span.q_len - first),
            })
        })
        .collect()
}

/// A run of keys of one span.
#[derive(Clone, Copy)]
pub(super) struct KeyTile {
    pub(super) span: Span,
    /// First key, counted inside the span.
    pub(super) first: usize,
    /// Number of keys.
    pub(super) len: usize,
}

impl KeyTile {
    /// Rows of the packed row.
    pub(super) fn rows(&self) -> Range<usize> {
        let start = self.span.kv_start + self.first;
        start..start + self.len
    }

    /// Queries of the span that see at least one of the keys.
    pub(super) fn queries(&self, op: &Attention) -> Range<usize> {
        let offset = self.span.kv_len - self.span.q_len;
        let first = self.first.saturating_sub(offset);
        let end = match op.window {
            None => self.span.q_len,
            // Query i sees keys from offset + i + 1 - window on.
            Some(window) => {
                let end = (self.first + self.len - 1).saturating_add(window);
                end.saturating_sub(offset).min(self.span.q_len)
            }
        };
        first..end.max(first)
    }
}

/// All key tiles, in order.
pub(super) fn key_tiles(_op: &Attention, spans: &[Span]) -> Vec<KeyTile> {
    spans
        .iter()
        .flat_map(|&span| {
            (0..span.kv_len).step_by(KEYS).map(move |first| KeyTile {
                span,
                first,
                len: KEYS.min(span.kv_len - first),
            })
        })
        .collect()
}

/// Consecutive key tiles of about equal work. A part has its own sums of `dq`, which are added up in order at the end.
pub(super) struct KeyPart {
    /// Which of the key tiles.
    pub(super) tiles: Range<usize>,
    /// Rows of the packed row whose queries see any of them.
    pub(super) queries: Range<usize>,
}

impl KeyPart {
    /// Numbers of the part's sums of `dq` for one key/value head: rows of the group's query heads.
    pub(super) fn sums_len(&self, op: &Attention) -> usize {
        (self.queries.len() * (op.heads / op.kv_heads) + SPARE_ROWS) * op.head_dim.next_multiple_of(LANES)
    }
}

/// Cuts the key tiles into parts such that parts × key/value heads make enough tasks.
pub(super) fn key_parts(op: &Attention, tiles: &[KeyTile]) -> Vec<KeyPart> {
    let work = |tile: &KeyTile| tile.queries(op).len() + 1;
    let total: usize = tiles.iter().map(work).sum();
    let wanted = BACKWARD_TASKS.div_ceil(op.kv_heads).min(tiles.len());
    let mut parts: Vec<KeyPart> = Vec::new();
    let (mut done, mut last) = (0, usize::MAX);
    for (i, tile) in tiles.iter().enumerate() {
        // The middle of the tile decides to which part it belongs.
        let part = (2 * done + work(tile)) * wanted / (2 * total);
        done += work(tile);
        let queries = tile.queries(op);
        let queries = tile.span.q_start + queries.start..tile.span.q_start + queries.end;
        match parts.last_mut() {
            Some(open) if part == last => {
                open.tiles.end = i + 1;
                open.queries = open.queries.start.min(queries.start)..open.queries.end.max(queries.end);
            }
            _ => parts.push(KeyPart { tiles: i..i + 1, queries }),
        }
        last = part;
    }
    parts
}

/// `count` neighbouring ranges of `len` each.
pub(super) fn even(count: usize, len: usize) -> Vec<Range<usize>> {
    (0..count).map(|i| i * len..(i + 1) * len).collect()
}

/// The rectangles `bands × strips` of a matrix, band by band; ranges are ascending and may leave gaps.
pub(super) fn grid<'a, T>(
    x: BlockMut<'a, T>,
    bands: &[Range<usize>],
    strips: &[Range<usize>],
) -> Vec<BlockMut<'a, T>> {
    let (mut cells, mut below, mut row) = (Vec::with_capacity(bands.len() * strips.len()), x, 0);
    for band in bands {
        let (_, from_band) = below.split_rows(band.start - row);
        let (mut right, rest) = from_band.split_rows(band.len());
        (below, row) = (rest, band.end);
        let mut column = 0;
        for strip in strips {
            let (_, from_strip) = right.split_columns(strip.start - column);
            let (cell, rest) = from_strip.split_columns(strip.len());
            (right, column) = (rest, strip.end);
            cells.push(cell);
        }
    }
    cells
}
