//! Reading token files: mapped into memory, every number checked before it is used.

use std::path::Path;

use super::{HEADER, LONGEST, Layout, MAGIC, MASKED, VERSION};
use crate::FormatError;
use crate::mmap::MappedFile;

/// A token file, opened.
#[derive(Debug)]
pub struct TokenFile {
    file: MappedFile,
    pub(super) layout: Layout,
}

/// One tokenised document.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenDocument {
    /// Token ids.
    pub tokens: Vec<u32>,
    /// Whether each token is learned; `None`: all are.
    pub learned: Option<Vec<bool>>,
}

impl TokenFile {
    /// Opens a file and checks its header and all offsets. Token ids are not looked at: what is a valid one depends on
    /// the tokenizer.
    ///
    /// # Errors
    /// [`FormatError::InvalidTokenFile`], [`FormatError::Io`], [`FormatError::FileShrank`].
    pub fn open(path: &Path) -> Result<Self, FormatError> {
        let file = MappedFile::open(path)?;
        let layout = layout(file.bytes()?).map_err(|problem| invalid(path, problem))?;
        let opened = Self { file, layout };
        opened.check_offsets()?;
        opened.file.release_around(0..layout.size);
        Ok(opened)
    }

    /// Documents in it.
    pub fn documents(&self) -> u64 {
        self.layout.documents as u64
    }

    /// Tokens in it.
    pub fn tokens(&self) -> u64 {
        self.layout.tokens as u64
    }

    /// Bytes of the file.
    pub fn size(&self) -> u64 {
        self.layout.size as u64
    }

    /// Whether some tokens are not learned.
    pub fn has_mask(&self) -> bool {
        self.layout.has_mask
    }

    /// The file's path as it was opened.
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// Tokens of document `index`.
    ///
    /// # Errors
    /// As [`TokenFile::document`].
    pub fn document_tokens(&self, index: u64) -> Result<usize, FormatError> {
        Ok(self.range(self.file.bytes()?, index)?.len())
    }

    /// Document `index`. What was read leaves this process's memory again, so that reading a whole file takes no more
    /// of it than one document.
    ///
    /// # Errors
    /// [`FormatError::InvalidTokenFile`] where there is no such document or the file has changed;
    /// [`FormatError::FileShrank`].
    pub fn document(&self, index: u64) -> Result<TokenDocument, FormatError> {
        let bytes = self.file.bytes()?;
        let range = self.range(bytes, index)?;
        let Layout { width, mask, has_mask, .. } = self.layout;
        let stored = HEADER + range.start * width..HEADER + range.end * width;
        let tokens = match width {
            2 => bytes[stored.clone()]
                .chunks_exact(2)
                .map(|b| u32::from(u16::from_le_bytes([b[0], b[1]])))
                .collect(),
            _ => bytes[stored.clone()]
                .chunks_exact(4)
                .map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]))
                .collect(),
        };
        let bit = |i: usize| bytes[mask + i / 8] >> (i % 8) & 1 == 1;
        let learned = has_mask.then(|| range.clone().map(bit).collect());
        self.file.release_around(stored);
        if has_mask {
            self.file.release_around(mask + range.start / 8..mask + range.end.div_ceil(8));
        }
        Ok(TokenDocument { tokens, learned })
    }

    /// The tokens of document `index`, checked once more: the file may have changed since it was opened.
    fn range(&self, bytes: &[u8], index: u64) -> Result<std::ops::Range<usize>, FormatError> {
        let Layout { documents, tokens, offsets, .. } = self.layout;
        let index = usize::try_from(index).ok().filter(|&index| index < documents).ok_or_else(|| {
            invalid(self.path(), format!("document {index} is asked for, but it has {documents}"))
        })?;
        let at = |index: usize| number(bytes, offsets + 8 * index);
        match (at(index), at(index + 1)) {
            (start, end) if start <= end && end <= tokens as u64 => Ok(start as usize..end as usize),
            (start, end) => {
                Err(invalid(self.path(), format!("document {index} is tokens {start} to {end} of {tokens}")))
            }
        }
    }

    fn check_offsets(&self) -> Result<(), FormatError> {
        let Layout { documents, tokens, offsets, size, .. } = self.layout;
        let bytes = &self.file.bytes()?[offsets..size];
        let mut before = 0;
        for index in 0..=documents {
            let offset = number(bytes, 8 * index);
            let fits = match index {
                0 => offset == 0,
                _ => before <= offset && offset <= tokens as u64 && offset - before <= LONGEST,
            };
            if !fits || (index == documents && offset != tokens as u64) {
                let what = format!(
                    "offset {index} of {documents} documents is {offset}, after {before}; the file has {tokens} tokens"
                );
                return Err(invalid(self.path(), what));
            }
            before = offset;
        }
        Ok(())
    }
}

fn invalid(path: &Path, problem: String) -> FormatError {
    FormatError::InvalidTokenFile { path: path.to_owned(), problem }
}

/// The eight bytes from `at` on, which the caller has checked to be there.
fn number(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}

/// What the header says, held against the size of the file.
fn layout(bytes: &[u8]) -> Result<Layout, String> {
    let Some(header) = bytes.get(..HEADER) else {
        return Err(format!("it has {} bytes, and the header alone needs {HEADER}", bytes.len()));
    };
    if &header[..8] != MAGIC {
        return Err("it does not begin with LFTOKENS".to_owned());
    }
    let version = number(header, 8) as u32;
    if version != VERSION {
        return Err(format!("it is of version {version}, and this program reads version {VERSION}"));
    }
    let (width, flags) = ((number(header, 8) >> 32) as usize, number(header, 32));
    if !matches!(width, 2 | 4) || flags & !MASKED != 0 || header[40..].iter().any(|&byte| byte != 0) {
        return Err("its header has values that version 1 does not have".to_owned());
    }
    let (documents, tokens) = (number(header, 16), number(header, 24));
    let counts = usize::try_from(documents).ok().zip(usize::try_from(tokens).ok());
    let layout = counts.and_then(|(d, t)| Layout::new(width, d, t, flags & MASKED != 0));
    match layout {
        Some(layout) if layout.size == bytes.len() => Ok(layout),
        Some(Layout { size, .. }) => Err(format!(
            "{documents} documents with {tokens} tokens need {size} bytes, but it has {}",
            bytes.len()
        )),
        None => Err(format!("{documents} documents with {tokens} tokens fit into no file")),
    }
}
