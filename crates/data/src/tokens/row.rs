//! A document of a token file on its way through the pipeline: where it is, not what it is, so that a shuffle buffer
//! of a million of them takes little memory.

use std::ops::Range;
use std::sync::Arc;

use foundry_formats::TokenFile;

use crate::IGNORED;
use crate::dataset::Sequence;
use crate::error::DataError;

/// A document of a token file.
#[derive(Clone, Debug)]
pub(crate) struct TokenRow {
    file: Arc<TokenFile>,
    index: u64,
    /// Ids must be below it.
    ids: u32,
}

impl TokenRow {
    pub(crate) fn new(file: Arc<TokenFile>, index: u64, ids: u32) -> Self {
        Self { file, index, ids }
    }

    /// Bytes of its tokens, as they are counted for the length of a chunk.
    pub(crate) fn size(&self) -> usize {
        self.file.document_tokens(self.index).map_or(0, |tokens| 4 * tokens)
    }

    /// How many documents before it its example began.
    pub(crate) fn since_example(&self) -> u64 {
        if !self.file.has_continued() {
            return 0;
        }
        let first = self.file.view().and_then(|view| view.example(self.index));
        first.map_or(0, |first| self.index - first)
    }

    /// Its tokens and labels.
    pub(crate) fn sequence(&self) -> Result<Sequence, DataError> {
        let (mut tokens, mut labels) = (Vec::new(), Vec::new());
        read(&self.file, self.ids, self.index, 0..usize::MAX, |token, label| {
            tokens.push(token);
            labels.push(label);
        })?;
        Ok(Sequence { tokens, labels })
    }
}

/// Calls `take` with tokens and labels of a part of a document, all ids being below `ids`.
pub(super) fn read(
    file: &TokenFile,
    ids: u32,
    index: u64,
    part: Range<usize>,
    mut take: impl FnMut(u32, i32),
) -> Result<(), DataError> {
    let mut largest = 0;
    let view = file.view();
    let done = view.and_then(|view| {
        view.read(index, part, |token, is_learned| {
            largest = token.max(largest);
            take(token, if is_learned { token as i32 } else { IGNORED });
        })
    });
    done.map_err(|e| DataError::TokenFile(Box::new(e)))?;
    if largest >= ids.max(1) {
        let problem =
            format!("document {index} has the token id {largest}, but the tokenizer has ids below {ids}");
        return Err(DataError::TokenManifest { path: file.path().to_owned(), problem });
    }
    Ok(())
}

impl PartialEq for TokenRow {
    fn eq(&self, other: &Self) -> bool {
        self.index == other.index && self.file.path() == other.file.path()
    }
}
