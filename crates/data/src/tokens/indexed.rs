//! Rows of token files in any order, without holding them: what is in memory is which document comes where, 4 to 8
//! bytes each; tokens are read through the memory map when a row is used.
//!
//! Which pieces of which documents make up a row depends on lengths alone, so that rows are arranged without reading a
//! token: the same rows, in the same order, as [`crate::load`] makes of the raw files.

use std::collections::BinaryHeap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use foundry_formats::{FormatError, TokenFile, TokenView};
use sha2::{Digest as _, Sha256};

use super::row::read;
use super::settings::hex;
use crate::batches::Rows;
use crate::dataset::{PackedRow, Sequence};
use crate::error::DataError;
use crate::numpy_rng::NumpyRng;
use crate::pack::{PACKING_CHUNK, arrange};
use crate::spec::{DataSpec, PackingStrategy, Source};

/// Documents between two times that memory is given back while all are looked at.
const RELEASE: usize = 1 << 16;

/// One file of a source.
#[derive(Debug)]
struct File {
    file: Arc<TokenFile>,
    path: Arc<Path>,
    /// The number of its source.
    source: usize,
    /// Ids must be below it.
    ids: u32,
    /// What its manifest says of its content.
    sha256: String,
    /// Documents of all files before it.
    first: u32,
}

/// The files of all sources, and their documents as one row of numbers.
#[derive(Debug)]
pub(super) struct Files {
    files: Vec<File>,
    /// Number of the first file of each source.
    of_source: Vec<usize>,
}

/// A document, by its file and its number there.
#[derive(Clone, Copy)]
struct Document {
    file: usize,
    index: u64,
}

impl Files {
    /// Opens them; all sources must be token files.
    pub(super) fn open(sources: &[Source]) -> Result<Self, DataError> {
        let (mut files, mut of_source, mut first) = (Vec::new(), Vec::new(), 0_u32);
        for (number, source) in sources.iter().enumerate() {
            of_source.push(files.len());
            for data in &source.files {
                let path = data.path();
                let part =
                    data.token_part().ok_or_else(|| DataError::LooseTokens { path: path.to_path_buf() })?;
                let file = part.open(path)?;
                let next = u32::try_from(u64::from(first) + file.documents());
                let (ids, sha256) = (part.ids(), part.sha256().to_owned());
                files.push(File { file, path: Arc::clone(path), source: number, ids, sha256, first });
                first = next.map_err(|_| DataError::TooManyDocuments { path: path.to_path_buf() })?;
            }
        }
        Ok(Self { files, of_source })
    }

    /// The number of a document of a file of a source.
    pub(super) fn number(&self, source: usize, file: usize, index: u64) -> u32 {
        // Both were counted in u32 when the files were opened.
        self.files[self.of_source[source] + file].first + index as u32
    }

    /// The number of a document's file among all, and that of its source.
    pub(super) fn place(&self, document: u32) -> (usize, usize) {
        let file = self.find(document).file;
        (file, self.files[file].source)
    }

    /// A whole document, and the path of its file.
    pub(super) fn whole(&self, document: u32) -> Result<(Sequence, Arc<Path>), DataError> {
        let Document { file, index } = self.find(document);
        let File { file, path, ids, .. } = &self.files[file];
        let (mut tokens, mut labels) = (Vec::new(), Vec::new());
        read(file, *ids, index, 0..usize::MAX, |token, label| {
            tokens.push(token);
            labels.push(label);
        })?;
        Ok((Sequence { tokens, labels }, Arc::clone(path)))
    }

    /// Whether files know that some documents are of one example.
    pub(super) fn have_continued(&self) -> bool {
        self.files.iter().any(|file| file.file.has_continued())
    }

    fn find(&self, document: u32) -> Document {
        let file = self.files.partition_point(|file| file.first <= document) - 1;
        // A file without documents begins where the next one does.
        Document { file, index: u64::from(document - self.files[file].first) }
    }

    /// A look at all of them.
    pub(super) fn look(&self) -> Result<Look<'_>, DataError> {
        let views = self.files.iter().map(|file| file.file.view()).collect::<Result<_, _>>();
        Ok(Look { files: self, views: views.map_err(failed)?, seen: 0 })
    }

    /// Appends tokens and labels of a part of a document.
    fn append(&self, document: u32, part: Range<usize>, row: &mut PackedRow) -> Result<(), DataError> {
        let Document { file, index } = self.find(document);
        let File { file, ids, .. } = &self.files[file];
        read(file, *ids, index, part, |token, label| row.extend(std::iter::once((token, label))))
    }
}

fn failed(error: FormatError) -> DataError {
    DataError::TokenFile(Box::new(error))
}

/// Lengths and masks of documents, all files being looked at once.
pub(super) struct Look<'a> {
    files: &'a Files,
    views: Vec<TokenView<'a>>,
    seen: usize,
}

impl Look<'_> {
    /// Tokens of a document.
    pub(super) fn len(&mut self, document: u32) -> Result<usize, DataError> {
        let Document { file, index } = self.document(document);
        self.views[file].len(index).map_err(failed)
    }

    /// How many tokens of a part of a document are learned.
    pub(super) fn learned(&mut self, document: u32, part: Range<usize>) -> Result<usize, DataError> {
        let Document { file, index } = self.document(document);
        self.views[file].learned(index, part).map_err(failed)
    }

    /// The first document of the example that a document is of.
    pub(super) fn example(&mut self, document: u32) -> Result<u32, DataError> {
        let Document { file, index } = self.document(document);
        let first = self.views[file].example(index).map_err(failed)?;
        Ok(document - (index - first) as u32)
    }

    fn document(&mut self, document: u32) -> Document {
        self.seen += 1;
        if self.seen.is_multiple_of(RELEASE) {
            self.files.files.iter().for_each(|file| file.file.release());
        }
        self.files.find(document)
    }
}

impl Drop for Look<'_> {
    fn drop(&mut self) {
        self.files.files.iter().for_each(|file| file.file.release());
    }
}

/// Rows of token files, read when they are used.
#[derive(Debug)]
pub struct IndexedTokens {
    files: Arc<Files>,
    /// Documents, in the order of their pieces in rows.
    documents: Vec<u32>,
    /// First token of each piece; `None`: always 0.
    starts: Option<Vec<u32>>,
    /// First piece of each row; `None`: a row is one piece.
    rows: Option<Vec<u32>>,
    /// Which of the rows comes where; `None`: they are in their order.
    order: Option<Vec<u32>>,
    /// Most tokens of a row.
    max_length: usize,
    /// The pieces of a row are one sequence.
    is_wrapped: bool,
}

/// A piece of a document: tokens `part` of it.
pub(super) struct PieceOf {
    pub(super) document: u32,
    pub(super) part: Range<usize>,
}

impl IndexedTokens {
    /// Arranges documents, which come in this order, in rows.
    pub(super) fn arrange(
        files: &Arc<Files>,
        mut documents: Vec<u32>,
        spec: &DataSpec,
    ) -> Result<Self, DataError> {
        let shuffled = |items: Vec<u32>| {
            let order = NumpyRng::seeded(spec.seed).permutation(items.len());
            order.into_iter().map(|index| items[index]).collect::<Vec<u32>>()
        };
        let max_length = spec.max_length.unwrap_or(usize::MAX);
        let mut look = files.look()?;
        if !spec.packing {
            let mut kept = Vec::with_capacity(documents.len());
            for document in documents {
                if look.learned(document, 0..max_length)? > 0 {
                    kept.push(document);
                }
            }
            let documents = if spec.shuffle_dataset { shuffled(kept) } else { kept };
            let (files, starts, rows, order) = (Arc::clone(files), None, None, None);
            return Ok(Self { files, documents, starts, rows, order, max_length, is_wrapped: false });
        }
        if spec.shuffle_dataset {
            documents = shuffled(documents);
        }
        let has_starts = spec.packing_strategy != PackingStrategy::Bfd;
        let (mut pieces, mut starts, mut rows) =
            (Vec::with_capacity(documents.len()), Vec::new(), Vec::new());
        for chunk in documents.chunks(PACKING_CHUNK) {
            let lengths = chunk.iter().map(|&document| look.len(document)).collect::<Result<Vec<_>, _>>()?;
            for row in arrange(&lengths, max_length, spec.packing_strategy) {
                rows.push(pieces.len() as u32);
                pieces.extend(row.iter().map(|piece| chunk[piece.sequence]));
                if has_starts {
                    // A document has at most 2³¹ tokens.
                    starts.extend(row.iter().map(|piece| piece.range.start as u32));
                }
            }
            if u32::try_from(pieces.len()).is_err() {
                let path = files.files[0].file.path().to_owned();
                return Err(DataError::TooManyDocuments { path });
            }
        }
        pieces.shrink_to_fit();
        drop(look);
        let order = spec.shuffle_dataset.then(|| shuffled((0..rows.len() as u32).collect()));
        Ok(Self {
            files: Arc::clone(files),
            documents: pieces,
            starts: has_starts.then_some(starts),
            rows: Some(rows),
            order,
            max_length,
            is_wrapped: spec.packing_strategy == PackingStrategy::Wrapped,
        })
    }

    /// The pieces of a row; lengths come from `len`.
    pub(super) fn pieces<E>(
        &self,
        row: usize,
        mut len: impl FnMut(u32) -> Result<usize, E>,
    ) -> Result<Vec<PieceOf>, E> {
        let row = self.order.as_ref().map_or(row, |order| order[row] as usize);
        let range = match &self.rows {
            None => row..row + 1,
            Some(rows) => {
                rows[row] as usize..rows.get(row + 1).map_or(self.documents.len(), |&next| next as usize)
            }
        };
        let (mut room, mut pieces) = (self.max_length, Vec::with_capacity(range.len()));
        for index in range {
            let (document, start) =
                (self.documents[index], self.starts.as_ref().map_or(0, |starts| starts[index] as usize));
            // Of what a piece begins with, it has as much as there is room for.
            let part = start..len(document)?.min(start.saturating_add(room)).max(start);
            room -= part.len();
            pieces.push(PieceOf { document, part });
        }
        Ok(pieces)
    }

    /// Whether the pieces of a row are one sequence.
    pub(super) fn is_wrapped(&self) -> bool {
        self.is_wrapped
    }

    /// The most tokens that `count` rows can have together.
    ///
    /// # Errors
    /// A file that has changed.
    pub fn longest(&self, count: usize) -> Result<usize, DataError> {
        let mut look = self.files.look()?;
        let mut longest = BinaryHeap::new();
        for row in 0..self.len() {
            let tokens =
                self.pieces(row, |document| look.len(document))?.iter().map(|p| p.part.len()).sum::<usize>();
            longest.push(std::cmp::Reverse(tokens));
            if longest.len() > count {
                longest.pop();
            }
        }
        Ok(longest.into_iter().map(|std::cmp::Reverse(tokens)| tokens).sum())
    }

    /// Bytes of memory that the order of the documents takes.
    pub fn bytes(&self) -> u64 {
        let parts = [Some(&self.documents), self.starts.as_ref(), self.rows.as_ref(), self.order.as_ref()];
        parts.into_iter().flatten().map(|part| 4 * part.len() as u64).sum()
    }

    /// What decides over every token of every row: the content of the files, and the order.
    pub fn sha256(&self) -> String {
        let mut hash = Sha256::new();
        for file in &self.files.files {
            hash.update(&file.sha256);
            hash.update(file.file.documents().to_le_bytes());
        }
        hash.update(format!("{} {}", self.max_length, self.is_wrapped));
        for part in [Some(&self.documents), self.starts.as_ref(), self.rows.as_ref(), self.order.as_ref()] {
            hash.update(part.map_or(u64::MAX, |part| part.len() as u64).to_le_bytes());
            for numbers in part.map_or(&[][..], |part| part).chunks(4096) {
                hash.update(numbers.iter().flat_map(|number| number.to_le_bytes()).collect::<Vec<u8>>());
            }
        }
        hex(&hash.finalize())
    }

    fn append_row(&self, row: usize, batch: &mut PackedRow) -> Result<(), DataError> {
        let length = |document: u32| {
            let Document { file, index } = self.files.find(document);
            self.files.files[file].file.document_tokens(index).map_err(failed)
        };
        for (index, PieceOf { document, part }) in self.pieces(row, length)?.into_iter().enumerate() {
            if index == 0 || !self.is_wrapped {
                batch.begin();
            }
            self.files.append(document, part, batch)?;
        }
        Ok(())
    }
}

impl Rows for IndexedTokens {
    fn len(&self) -> usize {
        self.rows.as_ref().map_or(self.documents.len(), Vec::len)
    }

    fn tokens(&self, index: usize) -> usize {
        let length = |document: u32| {
            let Document { file, index } = self.files.find(document);
            self.files.files[file].file.document_tokens(index)
        };
        self.pieces(index, length).map_or(0, |pieces| pieces.iter().map(|piece| piece.part.len()).sum())
    }

    fn append(&self, index: usize, batch: &mut PackedRow) -> Result<(), DataError> {
        self.append_row(index, batch)
    }
}
