//! The loss on a held-out split, weighted by tokens: no split into batches changes it.
//!
//! (transformers 5.23 averages the means of batches, which depends on the batch size; this does not.)

use crate::error::EngineError;
use crate::report::EvalReport;
use crate::step::reduce_sums;
use crate::trainer::Run;
use foundry_data::PackedRow;
use foundry_kernels::LossSums;
use foundry_models::Batch;
use std::iter::Peekable;
use std::time::Instant;

/// A held-out split.
#[derive(Clone, Copy, Debug)]
pub struct Evaluation<'a> {
    /// Its rows; with several ranks each evaluates its share.
    pub rows: &'a [PackedRow],
    /// The most tokens of one forward: what the model was allocated for.
    pub max_tokens: usize,
}

/// How an evaluation ended.
pub(crate) enum Evaluated {
    /// There is no held-out split.
    Nothing,
    /// A callback broke it off.
    Interrupted,
    /// It is complete.
    Done(EvalReport),
}

/// Evaluates if there is a held-out split. Whether that is the best so far, another decides.
pub(crate) fn evaluate(run: &mut Run<'_>, step: u64, epoch: f64) -> Result<Evaluated, EngineError> {
    let Some(evaluation) = run.evaluation else { return Ok(Evaluated::Nothing) };
    let began = Instant::now();
    let share = evaluation.rows.iter().skip(run.comm.rank()).step_by(run.comm.world_size());
    let mut sums = LossSums::default();
    let mut batches = Joined::new(share, run.args.per_device_eval_batch_size, evaluation.max_tokens);
    while let Some(row) = batches.next() {
        // Ranks have different numbers of batches, so that they could not agree between them.
        if run.comm.world_size() == 1 && run.callbacks.iter_mut().any(|callback| callback.interrupts()) {
            return Ok(Evaluated::Interrupted);
        }
        let batch = Batch { tokens: &row.tokens, seq_lens: &row.seq_lens, labels: &row.labels };
        sums += run
            .model
            .forward_loss(run.backend, &batch)
            .map_err(|source| EngineError::Model { step, source })?;
    }
    let sums = reduce_sums(run, sums)?;
    let tokens = (sums.count as f64).max(1.0);
    let eval_loss = sums.loss / tokens;
    Ok(Evaluated::Done(EvalReport {
        step,
        epoch,
        eval_loss,
        eval_perplexity: eval_loss.exp(),
        eval_mean_token_accuracy: sums.correct as f64 / tokens,
        eval_entropy: sums.entropy / tokens,
        eval_tokens: sums.count,
        eval_seconds: began.elapsed().as_secs_f64(),
        is_best: false,
    }))
}

/// Rows laid end to end, at most `batch_size` of them and `max_tokens` tokens together (a longer row stays alone). One
/// batch is in memory at a time.
struct Joined<'a, I: Iterator<Item = &'a PackedRow>> {
    rows: Peekable<I>,
    batch_size: usize,
    max_tokens: usize,
    batch: PackedRow,
}

impl<'a, I: Iterator<Item = &'a PackedRow>> Joined<'a, I> {
    fn new(rows: I, batch_size: usize, max_tokens: usize) -> Self {
        Self { rows: rows.peekable(), batch_size, max_tokens, batch: PackedRow::default() }
    }

    /// The next batch.
    fn next(&mut self) -> Option<&PackedRow> {
        let batch = &mut self.batch;
        batch.tokens.clear();
        batch.seq_lens.clear();
        batch.labels.clear();
        let mut count = 0;
        let (batch_size, max_tokens) = (self.batch_size, self.max_tokens);
        while let Some(row) = self.rows.next_if(|row| {
            count == 0 || (count < batch_size && batch.tokens.len() + row.tokens.len() <= max_tokens)
        }) {
            batch.tokens.extend_from_slice(&row.tokens);
            batch.seq_lens.extend_from_slice(&row.seq_lens);
            batch.labels.extend_from_slice(&row.labels);
            count += 1;
        }
        (count > 0).then_some(&self.batch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_joined_within_both_limits() {
        let row = |len: u32| PackedRow {
            tokens: vec![len; len as usize],
            seq_lens: vec![len],
            labels: vec![-100; len as usize],
        };
        let rows = [row(3), row(4), row(4), row(2), row(2), row(2), row(20)];
        let mut batches = Joined::new(rows.iter(), 2, 8);
        let mut lens: Vec<Vec<u32>> = Vec::new();
        while let Some(batch) = batches.next() {
            assert_eq!(batch.tokens.len(), batch.labels.len());
            lens.push(batch.seq_lens.clone());
        }
        assert_eq!(lens, [vec![3, 4], vec![4, 2], vec![2, 2], vec![20]]);
        // The whole split has 37 tokens; memory was for a batch.
        assert!(batches.batch.tokens.capacity() < 37, "{}", batches.batch.tokens.capacity());
    }
}
