//! SHA-256 of each block of a token file: made while it is written, checked when a block is first read, so that a file
//! of any size is trusted piece by piece without being read in whole.

use std::sync::atomic::{AtomicU64, Ordering};

use sha2::{Digest as _, Sha256};

use super::HEADER;

/// Bytes of a block: what the system maps at once when one page of a file is touched, so that checking a block brings
/// in little more than reading from it does.
pub(super) const BLOCK: usize = 64 << 10;
/// Bytes of a sum.
const SUM: usize = 32;

/// Bytes of the sums of `bytes` bytes.
pub(super) fn table_bytes(bytes: usize) -> usize {
    bytes.div_ceil(BLOCK) * SUM
}

/// The sums of a file in the making, of the bytes that were given to be written.
#[derive(Debug, Default)]
pub(super) struct BlockSums {
    /// The first block: its header is known last.
    first: Vec<u8>,
    /// The block in the making, after the first.
    hash: Sha256,
    position: usize,
    /// Sums of the whole blocks after the first.
    sums: Vec<u8>,
}

impl BlockSums {
    pub(super) fn add(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let (part, rest) = bytes.split_at(bytes.len().min(BLOCK - self.position % BLOCK));
            match self.position < BLOCK {
                true => self.first.extend_from_slice(part),
                false => self.hash.update(part),
            }
            self.position += part.len();
            if self.position.is_multiple_of(BLOCK) && self.position > BLOCK {
                self.sums.extend(self.hash.finalize_reset());
            }
            bytes = rest;
        }
    }

    /// The table; `header` takes the place of the bytes that were written in its place.
    pub(super) fn finish(mut self, header: &[u8; HEADER]) -> Vec<u8> {
        self.first[..HEADER].copy_from_slice(header);
        let mut table = Sha256::digest(&self.first).to_vec();
        table.extend(self.sums);
        if self.position > BLOCK && !self.position.is_multiple_of(BLOCK) {
            table.extend(self.hash.finalize());
        }
        table
    }
}

/// Which blocks of a file have been checked.
#[derive(Debug)]
pub(super) struct CheckedBlocks {
    /// A bit a block.
    done: Vec<AtomicU64>,
}

impl CheckedBlocks {
    /// None yet, of `bytes` bytes.
    pub(super) fn new(bytes: usize) -> Self {
        let words = bytes.div_ceil(BLOCK).div_ceil(64);
        Self { done: (0..words).map(|_| AtomicU64::new(0)).collect() }
    }

    /// Checks the blocks of a range that have not been; `content` is followed by its sums, `table`. The number of the
    /// first that differs is the error.
    pub(super) fn check(
        &self,
        content: &[u8],
        table: &[u8],
        range: std::ops::Range<usize>,
    ) -> Result<(), usize> {
        if range.is_empty() {
            return Ok(());
        }
        for block in range.start / BLOCK..range.end.div_ceil(BLOCK) {
            let (word, bit) = (&self.done[block / 64], 1 << (block % 64));
            // Two threads may check one block at the same time; both find the same.
            if word.load(Ordering::Relaxed) & bit != 0 {
                continue;
            }
            let bytes = &content[block * BLOCK..content.len().min((block + 1) * BLOCK)];
            if Sha256::digest(bytes)[..] != table[block * SUM..(block + 1) * SUM] {
                return Err(block);
            }
            word.fetch_or(bit, Ordering::Relaxed);
        }
        Ok(())
    }
}
