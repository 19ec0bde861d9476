//! One optimiser step: micro-batches → sum over ranks → clip → update.
//!
//! The loss is the mean over all labelled tokens of all micro-batches of all ranks (transformers 5.23
//! `get_batch_samples`), so that any split of the same rows gives the same update.

use crate::error::EngineError;
use crate::optim::Update;
use crate::seeds::micro_batch_seed;
use crate::trainer::Run;
use foundry_data::{IGNORED, MicroBatch, PackedRow};
use foundry_kernels::LossSums;
use foundry_models::{Batch, Objective};
use std::time::Instant;

/// What a step is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StepPlan {
    /// The step, from 1.
    pub(crate) step: u64,
    /// Epochs before it.
    pub(crate) epoch: f64,
    /// Micro-batches on each rank.
    pub(crate) micro_batches: u64,
    /// Its learning rate.
    pub(crate) learning_rate: f64,
}

/// What a step found, over all ranks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Taken {
    pub(crate) sums: LossSums,
    /// Mean loss over the labelled tokens.
    pub(crate) loss: f64,
    pub(crate) grad_norm: f64,
    pub(crate) tokens: u64,
    /// Seconds that this rank waited for its micro-batches.
    pub(crate) data_seconds: f64,
    /// Seconds that the update waited for callbacks, which are not the step's.
    pub(crate) blocked_seconds: f64,
}

/// Labelled tokens of a row; the first token of a sequence is never predicted, whatever its label says.
pub(crate) fn labelled_tokens(row: &PackedRow) -> u64 {
    let mut start = 0;
    let mut count = 0;
    for &len in &row.seq_lens {
        let end = start + len as usize;
        count += row.labels[start..end].iter().skip(1).filter(|&&label| label != IGNORED).count();
        start = end;
    }
    count as u64
}

/// Takes one step. On an error nothing has been updated.
pub(crate) fn take(run: &mut Run<'_>, objective: &Objective, plan: &StepPlan) -> Result<Taken, EngineError> {
    let began = Instant::now();
    let batches = micro_batches(run, plan)?;
    let data_seconds = began.elapsed().as_secs_f64();

    let mut counts = [0.0, 0.0];
    for MicroBatch { row, .. } in &batches {
        counts[0] += labelled_tokens(row) as f64;
        counts[1] += row.tokens.len() as f64;
    }
    run.comm.all_reduce_sum(&mut counts)?;
    // No labelled token at all gives a loss and gradients of 0, not NaN (TRL 1.16 clamps alike).
    let normaliser = counts[0].max(1.0);

    run.model.zero_grad(run.backend);
    let mut sums = LossSums::default();
    let mut not_finite = Vec::new();
    for (index, MicroBatch { row, .. }) in batches.iter().enumerate() {
        let batch = Batch { tokens: &row.tokens, seq_lens: &row.seq_lens, labels: &row.labels };
        let seed = micro_batch_seed(run.args.seed, plan.step, index as u64, run.comm.rank() as u64);
        let found = run
            .model
            .forward_backward(run.backend, &batch, objective, (1.0 / normaliser) as f32, seed)
            .map_err(|source| EngineError::Model { step: plan.step, source })?;
        if !found.loss.is_finite() {
            not_finite.push(index);
        }
        sums += found;
    }
    let sums = reduce_sums(run, sums)?;
    assert_eq!(sums.count as f64, counts[0], "the model predicted other tokens than those that have a label");
    let loss = sums.loss / normaliser;
    let grad_norm = reduce_gradients(run)?;
    for (quantity, value) in [("loss", loss), ("gradient norm", grad_norm)] {
        if !value.is_finite() {
            return Err(non_finite(plan, &batches, quantity, value, &not_finite));
        }
    }

    let began = Instant::now();
    for callback in &mut run.callbacks {
        callback.before_update()?;
    }
    let blocked_seconds = began.elapsed().as_secs_f64();
    let grad_scale = clip_coefficient(run.args.max_grad_norm, grad_norm);
    let update =
        Update { step: plan.step, learning_rate: plan.learning_rate, grad_scale, seed: run.args.seed };
    let (optimizer, parameters) = (&mut run.optimizer, run.model.parameters_mut());
    run.backend.row_of_operations(&mut || optimizer.update(run.backend, &update, parameters));
    run.model.after_update(run.backend);
    Ok(Taken { sums, loss, grad_norm, tokens: counts[1] as u64, data_seconds, blocked_seconds })
}

/// `min(1, max_norm/(norm + 1e-6))` (torch 2.15 `clip_grad_norm_`); a `max_norm` of 0 turns clipping off.
pub(crate) fn clip_coefficient(max_norm: f64, norm: f64) -> f32 {
    if max_norm == 0.0 { 1.0 } else { (max_norm / (norm + 1e-6)).min(1.0) as f32 }
}

/// The sums of all ranks.
pub(crate) fn reduce_sums(run: &Run<'_>, sums: LossSums) -> Result<LossSums, EngineError> {
    // Counts below 2⁵³ are exact in f64.
    let mut values = [sums.loss, sums.entropy, sums.correct as f64, sums.count as f64];
    run.comm.all_reduce_sum(&mut values)?;
    let [loss, entropy, correct, count] = values;
    Ok(LossSums { loss, entropy, correct: correct as u64, count: count as u64 })
}

/// Sums the gradients of all ranks and returns their common L2 norm.
fn reduce_gradients(run: &mut Run<'_>) -> Result<f64, EngineError> {
    let mut squares = 0.0;
    for parameter in run.model.parameters_mut() {
        run.comm.all_reduce_buffer(run.backend, &mut parameter.grad)?;
        squares += run.backend.sum_of_squares(parameter.elements(), &parameter.grad);
    }
    Ok(squares.sqrt())
}

/// The micro-batches of the step.
fn micro_batches(run: &mut Run<'_>, plan: &StepPlan) -> Result<Vec<MicroBatch>, EngineError> {
    let failed = |source| EngineError::Data { step: plan.step, source: Box::new(source) };
    (0..plan.micro_batches).map(|_| run.loader.next_batch().map_err(failed)).collect()
}

/// The error that names the rows of the step.
fn non_finite(
    plan: &StepPlan,
    batches: &[MicroBatch],
    quantity: &'static str,
    value: f64,
    micro_batches: &[usize],
) -> EngineError {
    let rows = batches.iter().flat_map(|batch| batch.numbers.clone()).collect();
    let suspects = micro_batches.iter().flat_map(|&index| batches[index].numbers.clone()).collect();
    let (step, epoch) = (plan.step, plan.epoch);
    EngineError::NonFinite { step, epoch, quantity, value, rows, suspects }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_token_of_a_sequence_never_counts() {
        let row = PackedRow {
            tokens: vec![1, 2, 3, 4, 5, 6],
            seq_lens: vec![3, 1, 2],
            labels: vec![1, 2, -100, 4, 5, 6],
        };
        assert_eq!(labelled_tokens(&row), 2, "the tokens at 1 and 5; those at 0, 3 and 4 begin sequences");
    }

    #[test]
    fn clipping_scales_down_only() {
        assert_eq!(clip_coefficient(1.0, 0.5), 1.0);
        assert_eq!(clip_coefficient(1.0, 4.0), (1.0f64 / (4.0 + 1e-6)) as f32);
        assert_eq!(clip_coefficient(0.0, 1e9), 1.0);
    }
}
