//! Writing token files: tokens go to the disk as they come; the mask, the offsets and the sums, a few bytes a document
//! and a bit a token, wait in memory for the end.

use std::fs::File;
use std::io::{BufWriter, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::sums::BlockSums;
use super::{CONTINUED, HEADER, LONGEST, Layout, MASKED, VERSION};
use crate::FormatError;

/// What was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenFileCounts {
    /// Documents.
    pub documents: u64,
    /// Tokens.
    pub tokens: u64,
    /// Tokens that are learned.
    pub learned: u64,
    /// Bytes of the file.
    pub bytes: u64,
    /// SHA-256 of the table of sums ([`super::TokenFile::sums_sha256`]): of what was given to be written, not of what
    /// the disk holds.
    pub sums_sha256: [u8; 32],
}

/// A token file in the making.
#[derive(Debug)]
pub struct TokenFileWriter {
    path: PathBuf,
    file: BufWriter<File>,
    sums: BlockSums,
    width: usize,
    tokens: usize,
    learned: usize,
    mask: Vec<u8>,
    offsets: Vec<u64>,
    /// Documents that continue the one before.
    continued: Vec<usize>,
}

impl TokenFileWriter {
    /// Begins a file, which must not be there, for token ids up to `largest_id`.
    ///
    /// # Errors
    /// [`FormatError::Io`].
    pub fn create(path: &Path, largest_id: u32) -> Result<Self, FormatError> {
        let file = File::options().write(true).create_new(true).open(path);
        let file = file.map_err(FormatError::io(path, "create"))?;
        let mut writer = Self {
            path: path.to_owned(),
            file: BufWriter::with_capacity(1 << 20, file),
            sums: BlockSums::default(),
            width: if largest_id <= u32::from(u16::MAX) { 2 } else { 4 },
            tokens: 0,
            learned: 0,
            mask: Vec::new(),
            offsets: vec![0],
            continued: Vec::new(),
        };
        writer.put(&[0; HEADER])?;
        Ok(writer)
    }

    /// The file in the making.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Tokens so far.
    pub fn tokens(&self) -> u64 {
        self.tokens as u64
    }

    /// Documents so far.
    pub fn documents(&self) -> u64 {
        self.offsets.len() as u64 - 1
    }

    /// Adds a document; `continues`: it is of the same example as the one before; `is_learned` tells whether the token
    /// of an index is learned.
    ///
    /// # Errors
    /// [`FormatError::Io`]; [`FormatError::InvalidTokenFile`] for an id above the largest, 2³¹ tokens, or a first
    /// document that continues another.
    pub fn push(
        &mut self,
        tokens: &[u32],
        continues: bool,
        is_learned: impl Fn(usize) -> bool,
    ) -> Result<(), FormatError> {
        let most = if self.width == 2 { u32::from(u16::MAX) } else { u32::MAX };
        if let Some(wrong) = tokens.iter().find(|&&token| token > most) {
            return Err(self.invalid(format!("token id {wrong} is larger than the tokenizer's ids")));
        }
        if tokens.len() as u64 > LONGEST {
            return Err(self.invalid(format!("a document has {} tokens, at most {LONGEST}", tokens.len())));
        }
        if continues {
            if self.documents() == 0 {
                return Err(self.invalid("its first document continues another".to_owned()));
            }
            self.continued.push(self.offsets.len() - 1);
        }
        let bytes: Vec<u8> = match self.width {
            2 => tokens.iter().flat_map(|&token| (token as u16).to_le_bytes()).collect(),
            _ => tokens.iter().flat_map(|token| token.to_le_bytes()).collect(),
        };
        self.put(&bytes)?;
        self.mask.resize((self.tokens + tokens.len()).div_ceil(8), 0);
        for index in 0..tokens.len() {
            if is_learned(index) {
                let at = self.tokens + index;
                self.mask[at / 8] |= 1 << (at % 8);
                self.learned += 1;
            }
        }
        self.tokens += tokens.len();
        self.offsets.push(self.tokens as u64);
        Ok(())
    }

    /// Writes the rest and flushes the file to disk.
    ///
    /// # Errors
    /// [`FormatError::Io`].
    pub fn finish(mut self) -> Result<TokenFileCounts, FormatError> {
        let has_mask = self.learned < self.tokens;
        let documents = self.offsets.len() - 1;
        let flags = u64::from(has_mask) * MASKED + u64::from(!self.continued.is_empty()) * CONTINUED;
        let layout = Layout::new(VERSION, self.width, documents, self.tokens, flags)
            .ok_or_else(|| self.invalid("it is too large".to_owned()))?;
        self.pad(self.tokens * self.width)?;
        if has_mask {
            let mask = std::mem::take(&mut self.mask);
            self.put(&mask)?;
            self.pad(mask.len())?;
        }
        for offset in std::mem::take(&mut self.offsets) {
            self.put(&offset.to_le_bytes())?;
        }
        if !self.continued.is_empty() {
            let mut bits = vec![0; documents.div_ceil(8).next_multiple_of(8)];
            self.continued.iter().for_each(|&document| bits[document / 8] |= 1 << (document % 8));
            self.put(&bits)?;
        }
        let header = layout.header();
        let table = std::mem::take(&mut self.sums).finish(&header);
        let io = FormatError::io(&self.path, "write");
        let flushed = self.file.write_all(&table).and_then(|()| self.file.flush()).and_then(|()| {
            let file = self.file.get_mut();
            file.seek(SeekFrom::Start(0))?;
            file.write_all(&header)?;
            file.sync_all()
        });
        flushed.map_err(io)?;
        Ok(TokenFileCounts {
            documents: documents as u64,
            tokens: self.tokens as u64,
            learned: self.learned as u64,
            bytes: layout.size as u64,
            sums_sha256: Sha256::digest(&table).into(),
        })
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), FormatError> {
        self.sums.add(bytes);
        self.file.write_all(bytes).map_err(FormatError::io(&self.path, "write"))
    }

    /// Zeros to a multiple of 8 after `bytes` bytes.
    fn pad(&mut self, bytes: usize) -> Result<(), FormatError> {
        self.put(&[0; 8][..bytes.next_multiple_of(8) - bytes])
    }

    fn invalid(&self, problem: String) -> FormatError {
        FormatError::InvalidTokenFile { path: self.path.clone(), problem }
    }
}
