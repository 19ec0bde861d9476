//! Token files: tokenised documents in a form that is read at the speed of the disk (docs/data.md, "Token files").
//!
//! All numbers are little-endian. A header of 64 bytes, then three parts, each padded with zeros to a multiple of 8:
//!
//! | Bytes | What |
//! |---|---|
//! | 0..8 | `LFTOKENS` |
//! | 8..12 | version, 1 |
//! | 12..16 | bytes of a token: 2 or 4 |
//! | 16..24 | documents D |
//! | 24..32 | tokens T |
//! | 32..40 | flags; bit 0: there is a mask |
//! | 40..64 | zeros |
//! | part 1 | T token ids |
//! | part 2, with a mask | ⌈T / 8⌉ bytes; bit i % 8 of byte i / 8: token i is learned. Without a mask all are |
//! | part 3 | D + 1 numbers of 8 bytes: document d is tokens `offsets[d]..offsets[d + 1]`; the first is 0, the last T |

mod reader;
mod writer;

pub use reader::{TokenDocument, TokenFile};
pub use writer::{TokenFileCounts, TokenFileWriter};

/// The first bytes.
const MAGIC: &[u8; 8] = b"LFTOKENS";
/// What this program writes and reads.
const VERSION: u32 = 1;
/// Bytes of the header.
const HEADER: usize = 64;
/// Bit of the flags: there is a mask.
const MASKED: u64 = 1;
/// Most tokens of one document.
const LONGEST: u64 = 1 << 31;

/// Where the parts of a file lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Layout {
    /// Bytes of a token.
    width: usize,
    documents: usize,
    tokens: usize,
    has_mask: bool,
    /// First byte of the mask.
    mask: usize,
    /// First byte of the offsets.
    offsets: usize,
    /// Bytes of the file.
    size: usize,
}

impl Layout {
    /// `None`: no file has so many bytes.
    fn new(width: usize, documents: usize, tokens: usize, has_mask: bool) -> Option<Self> {
        let padded = |bytes: usize| bytes.checked_next_multiple_of(8);
        let mask = HEADER.checked_add(padded(tokens.checked_mul(width)?)?)?;
        let mask_bytes = if has_mask { padded(tokens.div_ceil(8))? } else { 0 };
        let offsets = mask.checked_add(mask_bytes)?;
        let size = offsets.checked_add(documents.checked_add(1)?.checked_mul(8)?)?;
        Some(Self { width, documents, tokens, has_mask, mask, offsets, size })
    }

    fn header(&self) -> [u8; HEADER] {
        let mut header = [0; HEADER];
        header[..8].copy_from_slice(MAGIC);
        header[8..12].copy_from_slice(&VERSION.to_le_bytes());
        header[12..16].copy_from_slice(&(self.width as u32).to_le_bytes());
        header[16..24].copy_from_slice(&(self.documents as u64).to_le_bytes());
        header[24..32].copy_from_slice(&(self.tokens as u64).to_le_bytes());
        let flags = if self.has_mask { MASKED } else { 0 };
        header[32..40].copy_from_slice(&flags.to_le_bytes());
        header
    }
}

#[cfg(test)]
mod tests;
