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
use std::time::Instant;

/// A held-out split.
#[derive(Clone, Copy, Debug)]
pub struct Evaluation<'a> {
    /// Its rows; with several ranks each evaluates its share.
    pub rows: &'a [PackedRow],
    /// The most tokens of one forward: what the model was allocated for.
    pub max_tokens: usize,
}

/// Evaluates if there is a held-out split. `best` is the best figure so far, by `metric_for_best_model`.
pub(crate) fn evaluate(
    run: &mut Run<'_>,
    step: u64,
    epoch: f64,
    best: Option<f64>,
) -> Result<Option<EvalReport>, EngineError> {
    let Some(evaluation) = run.evaluation else { return Ok(None) };
    let began = Instant::now();
    let share = evaluation.rows.iter().skip(run.comm.rank()).step_by(run.comm.world_size());
    let mut sums = LossSums::default();
    for row in joined(share, run.args.per_device_eval_batch_size, evaluation.max_tokens) {
        let batch = Batch { tokens: &row.tokens, seq_lens: &row.seq_lens, labels: &row.labels };
        sums += run
            .model
            .forward_loss(run.backend, &batch)
            .map_err(|source| EngineError::Model { step, source })?;
    }
    let sums = reduce_sums(run, sums)?;
    let tokens = (sums.count as f64).max(1.0);
    let eval_loss = sums.loss / tokens;
    let mut report = EvalReport {
        step,
        epoch,
        eval_loss,
        eval_perplexity: eval_loss.exp(),
        eval_mean_token_accuracy: sums.correct as f64 / tokens,
        eval_entropy: sums.entropy / tokens,
        eval_tokens: sums.count,
        eval_seconds: began.elapsed().as_secs_f64(),
        is_best: false,
        best_before: best,
    };
    // No tokens say nothing; and of the model before the first step there is no checkpoint.
    let comparison = run.args.comparison();
    let value = comparison.metric.of(&report);
    report.is_best = sums.count > 0 && step > 0 && comparison.improves(value, best);
    Ok(Some(report))
}

/// Rows laid end to end, at most `batch_size` of them and `max_tokens` tokens together (a longer row stays alone).
fn joined<'a>(
    rows: impl Iterator<Item = &'a PackedRow>,
    batch_size: usize,
    max_tokens: usize,
) -> Vec<PackedRow> {
    let mut batches: Vec<(PackedRow, usize)> = Vec::new();
    for row in rows {
        match batches.last_mut() {
            Some((batch, count))
                if *count < batch_size && batch.tokens.len() + row.tokens.len() <= max_tokens =>
            {
                batch.tokens.extend_from_slice(&row.tokens);
                batch.seq_lens.extend_from_slice(&row.seq_lens);
                batch.labels.extend_from_slice(&row.labels);
                *count += 1;
            }
            _ => batches.push((row.clone(), 1)),
        }
    }
    batches.into_iter().map(|(batch, _)| batch).collect()
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
        let batches = joined(rows.iter(), 2, 8);
        let lens: Vec<Vec<u32>> = batches.iter().map(|batch| batch.seq_lens.clone()).collect();
        assert_eq!(lens, [vec![3, 4], vec![4, 2], vec![2, 2], vec![20]]);
        assert!(batches.iter().all(|b| b.tokens.len() == b.labels.len()));
    }
}
