//! Token files: tokenised documents in a form that is read at the speed of the disk (docs/data.md, "Token files").
//!
//! All numbers are little-endian. A header of 64 bytes, then the parts, each padded with zeros to a multiple of 8:
//!
//! | Bytes | What |
//! |---|---|
//! | 0..8 | `LFTOKENS` |
//! | 8..12 | version, 2 |
//! | 12..16 | bytes of a token: 2 or 4 |
//! | 16..24 | documents D |
//! | 24..32 | tokens T |
//! | 32..40 | flags; bit 0: there is a mask; bit 1: some documents continue the one before |
//! | 40..64 | zeros |
//! | part 1 | T token ids |
//! | part 2, with a mask | ⌈T / 8⌉ bytes; bit i % 8 of byte i / 8: token i is learned. Without a mask all are |
//! | part 3 | D + 1 numbers of 8 bytes: document d is tokens `offsets[d]..offsets[d + 1]`; the first is 0, the last T |
//! | part 4, with flag 1 | ⌈D / 8⌉ bytes; bit d % 8 of byte d / 8: document d is of the same example as d − 1 |
//! | part 5 | SHA-256 of each 64 KiB of everything before this part, the last one of what is left: 32 bytes each |
//!
//! Version 1, which is still read, has neither flag 1 nor parts 4 and 5.

mod reader;
mod sums;
mod writer;

pub use reader::{TokenDocument, TokenFile, TokenView};
pub use writer::{TokenFileCounts, TokenFileWriter};

/// The first bytes.
const MAGIC: &[u8; 8] = b"LFTOKENS";
/// What this program writes; it reads all from 1 on.
const VERSION: u32 = 2;
/// Bytes of the header.
const HEADER: usize = 64;
/// Bit of the flags: there is a mask.
const MASKED: u64 = 1;
/// Bit of the flags: some documents continue the one before. From version 2 on.
const CONTINUED: u64 = 2;
/// Most tokens of one document.
const LONGEST: u64 = 1 << 31;

/// Where the parts of a file lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Layout {
    version: u32,
    /// Bytes of a token.
    width: usize,
    documents: usize,
    tokens: usize,
    has_mask: bool,
    has_continued: bool,
    /// First byte of the mask.
    mask: usize,
    /// First byte of the offsets.
    offsets: usize,
    /// First byte of the bits of documents that continue others.
    continued: usize,
    /// First byte of the sums, which is the end of version 1.
    sums: usize,
    /// Bytes of the file.
    size: usize,
}

impl Layout {
    /// `None`: no file has so many bytes.
    fn new(version: u32, width: usize, documents: usize, tokens: usize, flags: u64) -> Option<Self> {
        let padded = |bytes: usize| bytes.checked_next_multiple_of(8);
        let bits = |has: bool, count: usize| if has { padded(count.div_ceil(8)) } else { Some(0) };
        let (has_mask, has_continued) = (flags & MASKED != 0, flags & CONTINUED != 0);
        let mask = HEADER.checked_add(padded(tokens.checked_mul(width)?)?)?;
        let offsets = mask.checked_add(bits(has_mask, tokens)?)?;
        let continued = offsets.checked_add(documents.checked_add(1)?.checked_mul(8)?)?;
        let sums = continued.checked_add(bits(has_continued, documents)?)?;
        let table = if version >= 2 { sums::table_bytes(sums) } else { 0 };
        let size = sums.checked_add(table)?;
        Some(Self {
            version,
            width,
            documents,
            tokens,
            has_mask,
            has_continued,
            mask,
            offsets,
            continued,
            sums,
            size,
        })
    }

    fn header(&self) -> [u8; HEADER] {
        let mut header = [0; HEADER];
        header[..8].copy_from_slice(MAGIC);
        header[8..12].copy_from_slice(&self.version.to_le_bytes());
        header[12..16].copy_from_slice(&(self.width as u32).to_le_bytes());
        header[16..24].copy_from_slice(&(self.documents as u64).to_le_bytes());
        header[24..32].copy_from_slice(&(self.tokens as u64).to_le_bytes());
        let flag = |has: bool, bit: u64| if has { bit } else { 0 };
        let flags = flag(self.has_mask, MASKED) | flag(self.has_continued, CONTINUED);
        header[32..40].copy_from_slice(&flags.to_le_bytes());
        header
    }
}

#[cfg(test)]
mod tests;
