//! What the training loop tells callbacks.

use crate::checkpoint::{BestEvaluation, Difference};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// The run begins.
#[derive(Clone, Debug, PartialEq)]
pub struct StartReport {
    /// Finished steps: 0, or those of the checkpoint.
    pub step: u64,
    /// Steps of the whole run.
    pub total_steps: u64,
    /// Steps of an epoch.
    pub steps_per_epoch: u64,
    /// Ranks.
    pub world_size: usize,
    /// Trained numbers.
    pub trainable_parameters: u64,
    /// Device and path, as the backend names itself.
    pub backend: String,
    /// The checkpoint that the run goes on from.
    pub resumed_from: Option<PathBuf>,
    /// The evaluation of that step is still to be made.
    pub owes_evaluation: bool,
    /// The examination of that step is still to be made.
    pub owes_examination: bool,
    /// Settings that differ from the checkpoint's and may: the run goes on with the new ones.
    pub changed: Vec<Difference>,
}

/// A step was taken.
#[derive(Clone, Debug, PartialEq)]
pub struct StepReport {
    /// The step, from 1.
    pub step: u64,
    /// Steps of the whole run.
    pub total_steps: u64,
    /// Epochs seen, the present one in part.
    pub epoch: f64,
    /// Mean loss over the step's labelled tokens.
    pub loss: f64,
    /// L2 norm of all gradients before clipping.
    pub grad_norm: f64,
    /// Learning rate of the step.
    pub learning_rate: f64,
    /// Tokens of the step, all ranks.
    pub tokens: u64,
    /// Labelled tokens of the step, all ranks.
    pub labelled_tokens: u64,
    /// Wall time of the step.
    pub seconds: f64,
    /// The part of it that this rank waited for its data.
    pub data_seconds: f64,
}

/// A line of the log: means since the last line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LogRecord {
    /// The step, from 1.
    pub step: u64,
    /// Epochs seen, the present one in part.
    pub epoch: f64,
    /// Mean of the step losses since the last line (transformers' logged loss).
    pub loss: f64,
    /// L2 norm of all gradients of the last step before clipping.
    pub grad_norm: f64,
    /// Learning rate of the last step.
    pub learning_rate: f64,
    /// Tokens seen since the start of the run, all ranks (TRL's `num_tokens`).
    pub tokens: u64,
    /// Tokens per second of training since the last line; filled in by [`Throughput`](crate::callbacks::Throughput).
    pub tokens_per_second: Option<f64>,
    /// Share of the labelled tokens since the last line that had the highest logit.
    pub mean_token_accuracy: f64,
    /// Mean entropy of the predictions at labelled tokens since the last line, in nats.
    pub entropy: f64,
    /// Most memory so far; filled in by [`Memory`](crate::callbacks::Memory).
    pub peak_rss_bytes: Option<u64>,
    /// Seconds of training since the start of the run, without evaluation and checkpoints.
    pub seconds: f64,
    /// Seconds since the last line in which training waited for data.
    #[serde(default)]
    pub data_seconds: f64,
    /// Where the time since the last line went, where that is measured: `mfu` (share of the floor that matrix products
    /// set) and seconds of a step by phase; filled in by whoever measures.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub profile: BTreeMap<String, f64>,
}

/// A held-out split was evaluated. All means are over labelled tokens, whatever the batches.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EvalReport {
    /// Finished steps.
    pub step: u64,
    /// Epochs seen, the present one in part.
    pub epoch: f64,
    /// Mean cross-entropy.
    pub eval_loss: f64,
    /// `exp(eval_loss)`.
    pub eval_perplexity: f64,
    /// Share of the labelled tokens that had the highest logit.
    pub eval_mean_token_accuracy: f64,
    /// Mean entropy of the predictions, in nats.
    pub eval_entropy: f64,
    /// Labelled tokens, all ranks.
    pub eval_tokens: u64,
    /// Seconds it took.
    pub eval_seconds: f64,
    /// The best so far by `metric_for_best_model`.
    pub is_best: bool,
}

/// The figure of `metric_for_best_model` was found, in an evaluation or an examination.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Judgement {
    /// Finished steps.
    pub step: u64,
    /// The figure.
    pub value: f64,
    /// The best before, if there was one.
    pub best_before: Option<f64>,
    /// It is the best so far.
    pub is_best: bool,
}

/// A number that a benchmark found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TaskReport {
    /// Steps taken.
    pub step: u64,
    /// The task or group.
    pub task: String,
    /// lm_eval's name of the metric, with its filter where that is not `none`: `exact_match,strict-match`.
    pub metric: String,
    /// The number.
    pub value: f64,
    /// Its standard error, where there is one.
    pub stderr: Option<f64>,
}

/// A checkpoint was written.
#[derive(Clone, Debug, PartialEq)]
pub struct SaveReport {
    /// Finished steps.
    pub step: u64,
    /// The checkpoint's directory.
    pub path: PathBuf,
    /// Seconds until it was complete, in the background as well.
    pub seconds: f64,
    /// Seconds that training waited for it: for the one before, and with the next update for its numbers to be written.
    pub blocked_seconds: f64,
}

/// The run is over.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Finished steps.
    pub step: u64,
    /// Steps the run would have had.
    pub total_steps: u64,
    /// Epochs seen, the last one in part.
    pub epoch: f64,
    /// Mean of all step losses since the start of the run.
    pub train_loss: f64,
    /// Tokens seen since the start of the run, all ranks.
    pub tokens: u64,
    /// Seconds of training since the start of the run, without evaluation and checkpoints.
    pub seconds: f64,
    /// A callback interrupted the run before its last step: it is to be resumed.
    pub stopped: bool,
    /// A callback ended the run before its last step: it is done.
    #[serde(default)]
    pub finished_early: bool,
    /// The best evaluation.
    #[serde(default)]
    pub best: Option<BestEvaluation>,
    /// The last evaluation.
    pub eval: Option<EvalReport>,
}
