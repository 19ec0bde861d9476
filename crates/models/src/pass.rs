//! What every layer is told about the row it works on.

use crate::seeds::{EMBEDDING_NOISE, mix};
use crate::{Batch, DecoderConfig, ModelError};
use foundry_kernels::{Backend, Buffer, Span};

/// One pass over one packed row.
pub(crate) struct Pass<'a> {
    pub(crate) backend: &'a dyn Backend,
    pub(crate) config: &'a DecoderConfig,
    /// Rows of this pass, `T`.
    pub(crate) tokens: usize,
    /// Who attends to whom.
    pub(crate) spans: &'a [Span],
    /// Position of each token in its sequence (U32).
    pub(crate) positions: &'a Buffer,
    /// Cosines and sines by position.
    pub(crate) rope_table: &'a Buffer,
    /// Seed of dropout; `None`: no dropout.
    pub(crate) dropout_seed: Option<u64>,
}

impl Pass<'_> {
    /// Seed of the noise on the embeddings.
    pub(crate) fn noise_seed(seed: u64) -> u64 {
        mix(seed, EMBEDDING_NOISE)
    }
}

/// Label of a token that is not predicted.
pub(crate) const IGNORED: i32 = -100;

/// A packed row as the kernels want it, computed on the host and reused from row to row.
#[derive(Default)]
pub(crate) struct RowPlan {
    /// Position of each token in its sequence.
    pub(crate) positions: Vec<u32>,
    pub(crate) spans: Vec<Span>,
    /// Rows that predict a labelled token, ascending.
    pub(crate) rows: Vec<u32>,
    /// The token each of `rows` predicts.
    pub(crate) targets: Vec<u32>,
}

impl RowPlan {
    /// Checks the row and lays it out: positions restart with every sequence, and row `i` predicts `labels[i + 1]` of
    /// the same sequence.
    pub(crate) fn fill(
        &mut self,
        batch: &Batch<'_>,
        vocab: usize,
        max_tokens: usize,
    ) -> Result<(), ModelError> {
        let tokens = batch.tokens.len();
        check(batch, vocab, max_tokens)?;
        let Self { positions, spans, rows, targets } = self;
        positions.clear();
        spans.clear();
        rows.clear();
        targets.clear();
        let mut start = 0;
        for &len in batch.seq_lens {
            let len = len as usize;
            spans.push(Span { q_start: start, q_len: len, kv_start: start, kv_len: len });
            positions.extend(0..len as u32);
            for i in (start..start + len).take(if batch.labels.is_empty() { 0 } else { len - 1 }) {
                let label = batch.labels[i + 1];
                if label != IGNORED {
                    rows.push(i as u32);
                    targets.push(label as u32);
                }
            }
            start += len;
        }
        debug_assert_eq!(start, tokens);
        Ok(())
    }
}

fn check(batch: &Batch<'_>, vocab: usize, max_tokens: usize) -> Result<(), ModelError> {
    let tokens = batch.tokens.len();
    let malformed = |what: String| Err(ModelError::Row(what));
    if tokens > max_tokens {
        return Err(ModelError::RowTooLong { tokens, max_tokens });
    }
    let covered: u64 = batch.seq_lens.iter().map(|&len| u64::from(len)).sum();
    if tokens == 0 || covered != tokens as u64 {
        return malformed(format!("{tokens} tokens, but its sequences are {covered} long together"));
    }
    if batch.seq_lens.contains(&0) {
        return malformed("a sequence of length 0".into());
    }
    if !batch.labels.is_empty() && batch.labels.len() != tokens {
        return malformed(format!("{tokens} tokens, but {} labels", batch.labels.len()));
    }
    if let Some(&token) = batch.tokens.iter().find(|&&token| token as usize >= vocab) {
        return Err(ModelError::TokenOutOfRange { token, vocab_size: vocab });
    }
    match batch
        .labels
        .iter()
        .find(|&&label| label != IGNORED && !(0..vocab as i64).contains(&i64::from(label)))
    {
        Some(&label) => {
            malformed(format!("label {label} is neither {IGNORED} nor a token of a vocabulary of {vocab}"))
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_predict_the_next_token_of_their_own_sequence() {
        let batch = Batch { tokens: &[5, 6, 7, 8, 9], seq_lens: &[3, 2], labels: &[-100, 6, 7, 8, 9] };
        let mut plan = RowPlan::default();
        plan.fill(&batch, 10, 5).unwrap();
        assert_eq!(plan.positions, [0, 1, 2, 0, 1]);
        assert_eq!(
            plan.rows,
            [0, 1, 3],
            "row 2 is the last of its sequence: label 8 belongs to the next one"
        );
        assert_eq!(plan.targets, [6, 7, 9]);
        assert_eq!(plan.spans[1], Span { q_start: 3, q_len: 2, kv_start: 3, kv_len: 2 });
    }

    #[test]
    fn malformed_rows_are_typed_errors() {
        let mut plan = RowPlan::default();
        let mut fill = |tokens: &[u32], seq_lens: &[u32], labels: &[i32]| {
            plan.fill(&Batch { tokens, seq_lens, labels }, 10, 4).unwrap_err()
        };
        assert!(matches!(fill(&[1; 5], &[5], &[1; 5]), ModelError::RowTooLong { tokens: 5, max_tokens: 4 }));
        assert!(matches!(fill(&[1, 2], &[3], &[1, 2]), ModelError::Row(_)));
        assert!(matches!(fill(&[1, 2], &[2, 0], &[1, 2]), ModelError::Row(_)));
        assert!(matches!(fill(&[], &[], &[]), ModelError::Row(_)));
        assert!(matches!(fill(&[1, 2], &[2], &[1]), ModelError::Row(_)));
        assert!(matches!(fill(&[1, 2], &[2], &[1, 10]), ModelError::Row(_)));
        assert!(matches!(fill(&[1, 2], &[2], &[1, -1]), ModelError::Row(_)));
        assert!(matches!(
            fill(&[1, 10], &[2], &[1, 2]),
            ModelError::TokenOutOfRange { token: 10, vocab_size: 10 }
        ));
    }
}
