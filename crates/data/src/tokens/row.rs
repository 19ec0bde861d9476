//! A document of a token file on its way through the pipeline: where it is, not what it is, so that a shuffle buffer
//! of a million of them takes little memory.

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

    /// Its tokens and labels.
    pub(crate) fn sequence(&self) -> Result<Sequence, DataError> {
        let document = self.file.document(self.index).map_err(|e| DataError::TokenFile(Box::new(e)))?;
        let largest = document.tokens.iter().copied().max().unwrap_or(0);
        if largest >= self.ids {
            return Err(DataError::TokenManifest {
                path: self.file.path().to_owned(),
                problem: format!(
                    "document {} has the token id {largest}, but the tokenizer has ids below {}",
                    self.index, self.ids
                ),
            });
        }
        let labels = match &document.learned {
            None => document.tokens.iter().map(|&token| token as i32).collect(),
            Some(learned) => {
                let labels = document.tokens.iter().zip(learned);
                labels.map(|(&token, &learned)| if learned { token as i32 } else { IGNORED }).collect()
            }
        };
        Ok(Sequence { tokens: document.tokens, labels })
    }
}

impl PartialEq for TokenRow {
    fn eq(&self, other: &Self) -> bool {
        self.index == other.index && self.file.path() == other.file.path()
    }
}
