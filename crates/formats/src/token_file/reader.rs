//! Reading token files: mapped into memory, every number checked before it is used.

use std::ops::Range;
use std::path::Path;

use sha2::{Digest as _, Sha256};

use super::sums::{BLOCK, CheckedBlocks};
use super::{CONTINUED, HEADER, LONGEST, Layout, MAGIC, MASKED, VERSION};
use crate::FormatError;
use crate::mmap::MappedFile;

/// A token file, opened.
#[derive(Debug)]
pub struct TokenFile {
    file: MappedFile,
    pub(super) layout: Layout,
    /// `None`: a file of version 1, which has no sums.
    checked: Option<CheckedBlocks>,
}

/// One tokenised document.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenDocument {
    /// Token ids.
    pub tokens: Vec<u32>,
    /// Whether each token is learned; `None`: all are.
    pub learned: Option<Vec<bool>>,
}

/// A file that had its full length a moment ago: what is read through one view costs no further look at its size.
#[derive(Clone, Copy, Debug)]
pub struct TokenView<'a> {
    of: &'a TokenFile,
    bytes: &'a [u8],
}

impl TokenFile {
    /// Opens a file and checks its header and all offsets; of version 2 the sums of what they lie in too, and of
    /// everything else when it is first read. Token ids are not looked at: what is a valid one depends on the
    /// tokenizer.
    ///
    /// # Errors
    /// [`FormatError::InvalidTokenFile`], [`FormatError::Io`], [`FormatError::FileShrank`].
    pub fn open(path: &Path) -> Result<Self, FormatError> {
        let file = MappedFile::open(path)?;
        let layout = layout(file.bytes()?).map_err(|problem| invalid(path, problem))?;
        let checked = (layout.version >= 2).then(|| CheckedBlocks::new(layout.sums));
        let opened = Self { file, layout, checked };
        let view = opened.view()?;
        view.check(0..HEADER)?;
        view.check(layout.offsets..layout.sums)?;
        view.check_offsets()?;
        opened.release();
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

    /// The version of its form.
    pub fn version(&self) -> u32 {
        self.layout.version
    }

    /// Whether some tokens are not learned.
    pub fn has_mask(&self) -> bool {
        self.layout.has_mask
    }

    /// Whether some documents are of the same example as the one before them.
    pub fn has_continued(&self) -> bool {
        self.layout.has_continued
    }

    /// The file's path as it was opened.
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// SHA-256 of the table of sums, which stands for the whole content; `None` for version 1, which has no such table.
    ///
    /// # Errors
    /// [`FormatError::FileShrank`].
    pub fn sums_sha256(&self) -> Result<Option<[u8; 32]>, FormatError> {
        let table = &self.file.bytes()?[self.layout.sums..];
        Ok(self.checked.as_ref().map(|_| Sha256::digest(table).into()))
    }

    /// Reads everything and checks all sums; nothing for version 1.
    ///
    /// # Errors
    /// [`FormatError::InvalidTokenFile`], [`FormatError::FileShrank`].
    pub fn check_all(&self) -> Result<(), FormatError> {
        /// Bytes after which memory is given back.
        const STEP: usize = 16 << 20;
        for start in (0..self.layout.sums).step_by(STEP) {
            let range = start..self.layout.sums.min(start + STEP);
            self.view()?.check(range.clone())?;
            self.file.release_around(range);
        }
        Ok(())
    }

    /// A look at its content.
    ///
    /// # Errors
    /// [`FormatError::FileShrank`].
    pub fn view(&self) -> Result<TokenView<'_>, FormatError> {
        Ok(TokenView { of: self, bytes: self.file.bytes()? })
    }

    /// Gives back the memory of everything that was read: it stays in the system's cache.
    pub fn release(&self) {
        self.file.release_around(0..self.layout.size);
    }

    /// Tokens of document `index`.
    ///
    /// # Errors
    /// As [`TokenFile::document`].
    pub fn document_tokens(&self, index: u64) -> Result<usize, FormatError> {
        self.view()?.len(index)
    }

    /// Document `index`. What was read leaves this process's memory again, so that reading a whole file takes no more
    /// of it than one document.
    ///
    /// # Errors
    /// [`FormatError::InvalidTokenFile`] where there is no such document, its content is not what was written, or the
    /// file has changed; [`FormatError::FileShrank`].
    pub fn document(&self, index: u64) -> Result<TokenDocument, FormatError> {
        let view = self.view()?;
        let len = view.len(index)?;
        let mut tokens = Vec::with_capacity(len);
        let mut learned = self.has_mask().then(|| Vec::with_capacity(len));
        view.read(index, 0..len, |token, is_learned| {
            tokens.push(token);
            learned.iter_mut().for_each(|learned| learned.push(is_learned));
        })?;
        Ok(TokenDocument { tokens, learned })
    }
}

impl TokenView<'_> {
    /// Tokens of document `index`.
    ///
    /// # Errors
    /// As [`TokenFile::document`].
    pub fn len(&self, index: u64) -> Result<usize, FormatError> {
        Ok(self.range(index)?.len())
    }

    /// Whether document `index` is of the same example as the one before it; never in version 1, which does not know.
    ///
    /// # Errors
    /// As [`TokenFile::document`].
    pub fn continues(&self, index: u64) -> Result<bool, FormatError> {
        let Layout { has_continued, continued, .. } = self.of.layout;
        self.range(index)?;
        Ok(has_continued && self.bit(continued, index as usize))
    }

    /// The first document of the example that document `index` is of.
    ///
    /// # Errors
    /// As [`TokenFile::document`].
    pub fn example(&self, index: u64) -> Result<u64, FormatError> {
        self.range(index)?;
        let Layout { has_continued, continued, .. } = self.of.layout;
        let mut first = index as usize;
        while has_continued && first > 0 && self.bit(continued, first) {
            // A whole byte at once: how long an example can be is the file's choice.
            let is_full = first >= 8 && self.bytes[continued + first / 8 - 1] == u8::MAX;
            first -= if is_full && first.is_multiple_of(8) { 8 } else { 1 };
        }
        Ok(first as u64)
    }

    /// How many tokens of a part of document `index` are learned. `part` is cut to the document.
    ///
    /// # Errors
    /// As [`TokenFile::document`].
    pub fn learned(&self, index: u64, part: Range<usize>) -> Result<usize, FormatError> {
        let range = self.part(index, part)?;
        let Layout { mask, has_mask, .. } = self.of.layout;
        if !has_mask || range.is_empty() {
            return Ok(range.len());
        }
        let (first, last) = (range.start / 8, (range.end - 1) / 8);
        self.check(mask + first..mask + last + 1)?;
        let bytes = &self.bytes[mask + first..=mask + last];
        let all: u32 = bytes.iter().map(|byte| byte.count_ones()).sum();
        // Bits of the outer bytes that are other documents'.
        let before = bytes[0] & !(u8::MAX << (range.start % 8));
        let after = (u16::from(bytes[bytes.len() - 1]) >> ((range.end - 1) % 8 + 1)) as u8;
        Ok((all - before.count_ones() - after.count_ones()) as usize)
    }

    /// Calls `take` with each token of a part of document `index` and whether it is learned. `part` is cut to the
    /// document. What was read leaves this process's memory again.
    ///
    /// # Errors
    /// As [`TokenFile::document`], before the first call.
    pub fn read(
        &self,
        index: u64,
        part: Range<usize>,
        mut take: impl FnMut(u32, bool),
    ) -> Result<(), FormatError> {
        let range = self.part(index, part)?;
        if range.is_empty() {
            return Ok(());
        }
        let Layout { width, mask, has_mask, .. } = self.of.layout;
        let stored = HEADER + range.start * width..HEADER + range.end * width;
        let bits = mask + range.start / 8..mask + range.end.div_ceil(8);
        self.check(stored.clone())?;
        if has_mask {
            self.check(bits.clone())?;
        }
        let is_learned = |token: usize| !has_mask || self.bit(mask, token);
        let bytes = &self.bytes[stored.clone()];
        match width {
            2 => bytes.chunks_exact(2).zip(range).for_each(|(b, token)| {
                take(u32::from(u16::from_le_bytes([b[0], b[1]])), is_learned(token));
            }),
            _ => bytes.chunks_exact(4).zip(range).for_each(|(b, token)| {
                take(u32::from_le_bytes([b[0], b[1], b[2], b[3]]), is_learned(token));
            }),
        }
        self.of.file.release_around(stored);
        if has_mask {
            self.of.file.release_around(bits);
        }
        let offset = self.of.layout.offsets + 8 * index as usize;
        self.of.file.release_around(offset..offset + 16);
        Ok(())
    }

    /// Checks the sums of the blocks that a range of the file lies in, each once.
    fn check(&self, range: Range<usize>) -> Result<(), FormatError> {
        let Some(checked) = &self.of.checked else { return Ok(()) };
        let (content, table) = self.bytes.split_at(self.of.layout.sums);
        checked.check(content, table, range).map_err(|block| {
            let (start, end) = (block * BLOCK, content.len().min((block + 1) * BLOCK));
            let what = format!("bytes {start} to {end} are not what was written: their SHA-256 is another");
            invalid(self.of.path(), what)
        })
    }

    /// A bit of the part that begins at `start`.
    fn bit(&self, start: usize, index: usize) -> bool {
        self.bytes[start + index / 8] >> (index % 8) & 1 == 1
    }

    /// Some tokens of document `index`.
    fn part(&self, index: u64, part: Range<usize>) -> Result<Range<usize>, FormatError> {
        let range = self.range(index)?;
        let at = |offset: usize| range.start + offset.min(range.len());
        Ok(at(part.start)..at(part.end.max(part.start)))
    }

    /// The tokens of document `index`, checked once more: the file may have changed since it was opened.
    fn range(&self, index: u64) -> Result<Range<usize>, FormatError> {
        let Layout { documents, tokens, offsets, .. } = self.of.layout;
        let index = usize::try_from(index).ok().filter(|&index| index < documents).ok_or_else(|| {
            invalid(self.of.path(), format!("document {index} is asked for, but it has {documents}"))
        })?;
        let at = |index: usize| number(self.bytes, offsets + 8 * index);
        match (at(index), at(index + 1)) {
            (start, end) if start <= end && end <= tokens as u64 => Ok(start as usize..end as usize),
            (start, end) => Err(invalid(
                self.of.path(),
                format!("document {index} is tokens {start} to {end} of {tokens}"),
            )),
        }
    }

    fn check_offsets(&self) -> Result<(), FormatError> {
        let Layout { documents, tokens, offsets, has_continued, continued, .. } = self.of.layout;
        let bytes = &self.bytes[offsets..continued];
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
                return Err(invalid(self.of.path(), what));
            }
            before = offset;
        }
        if has_continued && (documents == 0 || self.bit(continued, 0)) {
            return Err(invalid(self.of.path(), "its first document continues another".to_owned()));
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
    if !(1..=VERSION).contains(&version) {
        return Err(format!("it is of version {version}, and this program reads versions 1 to {VERSION}"));
    }
    let known = if version == 1 { MASKED } else { MASKED | CONTINUED };
    let (width, flags) = ((number(header, 8) >> 32) as usize, number(header, 32));
    if !matches!(width, 2 | 4) || flags & !known != 0 || header[40..].iter().any(|&byte| byte != 0) {
        return Err(format!("its header has values that version {version} does not have"));
    }
    let (documents, tokens) = (number(header, 16), number(header, 24));
    let counts = usize::try_from(documents).ok().zip(usize::try_from(tokens).ok());
    let layout = counts.and_then(|(d, t)| Layout::new(version, width, d, t, flags));
    match layout {
        Some(layout) if layout.size == bytes.len() => Ok(layout),
        Some(Layout { size, .. }) => Err(format!(
            "{documents} documents with {tokens} tokens need {size} bytes, but it has {}",
            bytes.len()
        )),
        None => Err(format!("{documents} documents with {tokens} tokens fit into no file")),
    }
}
