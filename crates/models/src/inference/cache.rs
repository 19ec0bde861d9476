//! Keys and values of all sequences, in blocks of a fixed number of tokens.

use crate::DecoderConfig;
use foundry_kernels::{Allocator, Backend, Buffer, Dtype, MemoryClass, Pages};

/// The buffers of a cache; who owns which block is not known here.
pub(crate) struct PagedCache {
    /// Keys and values of each layer, `[blocks · block_tokens, K·H]`, operands.
    layers: Vec<(Buffer, Buffer)>,
    /// Rotation of every position.
    pub(crate) rope_table: Buffer,
    is_rope_ready: bool,
    block_tokens: usize,
    positions: usize,
}

/// Rows of a pass that are stored in the cache, side by side on both ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Write {
    /// First row of the pass.
    pub(crate) row: usize,
    /// First row of the cache.
    pub(crate) slot: usize,
    /// How many.
    pub(crate) count: usize,
}

/// One layer's part of a cache, and what a pass does with it.
pub(crate) struct LayerCache<'a> {
    pub(crate) k: &'a mut Buffer,
    pub(crate) v: &'a mut Buffer,
    pub(crate) writes: &'a [Write],
    pub(crate) pages: Pages<'a>,
}

impl PagedCache {
    /// Room for `blocks` blocks of `block_tokens` tokens, at positions below `positions`.
    pub(super) fn allocate(
        alloc: &dyn Allocator,
        config: &DecoderConfig,
        compute: Dtype,
        [blocks, block_tokens]: [usize; 2],
        positions: usize,
    ) -> Self {
        let part =
            || alloc.alloc(MemoryClass::KvCache, compute, blocks * block_tokens * config.key_value_width());
        Self {
            layers: (0..config.num_hidden_layers).map(|_| (part(), part())).collect(),
            rope_table: alloc.alloc(MemoryClass::KvCache, Dtype::F32, positions * config.head_dim),
            is_rope_ready: false,
            block_tokens,
            positions,
        }
    }

    /// Computes the rotation of every position, once.
    pub(crate) fn prepare(&mut self, backend: &dyn Backend, config: &DecoderConfig) {
        if !self.is_rope_ready {
            backend.upload(&config.rope.table(config.head_dim, self.positions), &mut self.rope_table, 0);
            self.is_rope_ready = true;
        }
    }

    /// The rotation and one layer's part, side by side.
    pub(crate) fn table_and_layer<'a>(
        &'a mut self,
        layer: usize,
        row: &'a PagedRow,
    ) -> (&'a Buffer, LayerCache<'a>) {
        let (k, v) = &mut self.layers[layer];
        let pages = Pages { tokens: self.block_tokens, table: &row.table };
        (&self.rope_table, LayerCache { k, v, writes: &row.writes, pages })
    }
}

/// One packed row whose sequences have their earlier keys and values in the cache.
#[derive(Debug, Default)]
pub(crate) struct PagedRow {
    pub(crate) tokens: Vec<u32>,
    pub(crate) positions: Vec<u32>,
    pub(crate) spans: Vec<foundry_kernels::Span>,
    pub(crate) writes: Vec<Write>,
    /// Blocks of each span's sequence, one span after another.
    pub(crate) table: Vec<u32>,
}

impl PagedRow {
    pub(super) fn clear(&mut self) {
        let Self { tokens, positions, spans, writes, table } = self;
        tokens.clear();
        positions.clear();
        spans.clear();
        writes.clear();
        table.clear();
    }

    /// Appends tokens of one sequence that follow `before` tokens in `blocks`, which have room for these too. Returns
    /// the row of the first.
    pub(super) fn push(
        &mut self,
        tokens: &[u32],
        before: usize,
        blocks: &[u32],
        block_tokens: usize,
    ) -> usize {
        let (row, len) = (self.tokens.len(), before + tokens.len());
        let blocks = &blocks[..len.div_ceil(block_tokens)];
        self.tokens.extend_from_slice(tokens);
        self.positions.extend(before as u32..len as u32);
        self.spans.push(foundry_kernels::Span {
            q_start: row,
            q_len: tokens.len(),
            kv_start: self.table.len() * block_tokens,
            kv_len: len,
        });
        self.table.extend_from_slice(blocks);
        self.store(row, before..len, blocks, block_tokens);
        row
    }

    /// Stores the rows from `row` on as those at `positions` of a sequence in `blocks`.
    pub(super) fn store(
        &mut self,
        row: usize,
        positions: std::ops::Range<usize>,
        blocks: &[u32],
        block_tokens: usize,
    ) {
        let mut at = positions.start;
        while at < positions.end {
            let end = positions.end.min((at / block_tokens + 1) * block_tokens);
            let slot = blocks[at / block_tokens] as usize * block_tokens + at % block_tokens;
            let write = Write { row: row + at - positions.start, slot, count: end - at };
            match self.writes.last_mut() {
                Some(last) if last.row + last.count == write.row && last.slot + last.count == write.slot => {
                    last.count += write.count;
                }
                _ => self.writes.push(write),
            }
            at = end;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_go_to_the_blocks_of_their_sequence() {
        let mut row = PagedRow::default();
        row.push(&[1, 2, 3, 4, 5], 3, &[7, 8, 2], 4);
        let first = row.push(&[6], 0, &[5], 4);
        assert_eq!((first, row.positions.as_slice()), (5, [3, 4, 5, 6, 7, 0].as_slice()));
        // Position 3 is the last of block 7, and block 8 comes right after it.
        let expected = [Write { row: 0, slot: 31, count: 5 }, Write { row: 5, slot: 20, count: 1 }];
        assert_eq!(row.writes, expected);
        assert_eq!(row.table, [7, 8, 5]);
        assert_eq!((row.spans[1].kv_start, row.spans[1].kv_len), (8, 1));
    }
}
