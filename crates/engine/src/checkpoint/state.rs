//! `trainer_state.json`: the run's state besides its tensors.

use super::Facts;
use crate::arguments::TrainingArgs;
use foundry_data::Cursor;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Where a run stands. Seeds of dropout and noise are functions of `arguments.seed` and the step, the learning rate one
/// of `arguments` and the step, and the data's order one of `arguments` and `cursor`, so nothing more is needed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainerState {
    /// Finished steps.
    pub step: u64,
    /// Steps of the whole run.
    pub total_steps: u64,
    /// Epochs seen, the present one in part.
    pub epoch: f64,
    /// Place of the next micro-batch on each rank.
    pub cursor: Cursor,
    /// Micro-batches of an epoch on each rank.
    pub batches_per_epoch: u64,
    /// Ranks.
    pub world_size: usize,
    /// Name of the optimiser.
    pub optimizer: String,
    /// The learning rate of the step before.
    pub learning_rate: f64,
    /// Sum of all step losses.
    pub loss_sum: f64,
    /// Tokens seen, all ranks.
    pub tokens: u64,
    /// Seconds of training.
    pub seconds: f64,
    /// Sums since the last line of the log.
    pub window: LogWindow,
    /// The best evaluation so far.
    pub best: Option<BestEvaluation>,
    /// The arguments of the run.
    pub arguments: TrainingArgs,
    /// What else the run is bound to.
    pub facts: Facts,
    /// The last lines of the log and evaluations.
    pub log_history: Vec<Value>,
}

/// Sums since the last line of the log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogWindow {
    /// Steps.
    pub steps: u64,
    /// Sum of the step losses.
    pub loss: f64,
    /// Sum of the entropies at labelled tokens.
    pub entropy: f64,
    /// Labelled tokens that had the highest logit.
    pub correct: u64,
    /// Labelled tokens.
    pub labelled: u64,
}

/// The evaluation with the lowest loss.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BestEvaluation {
    /// Finished steps.
    pub step: u64,
    /// Its loss.
    pub eval_loss: f64,
}

/// Lines of history kept.
const HISTORY: usize = 100;

impl TrainerState {
    /// Adds a line to the history, and forgets the oldest beyond a hundred.
    pub(crate) fn remember(history: &mut Vec<Value>, line: &impl Serialize) {
        history.push(serde_json::to_value(line).expect("reports are plain data"));
        let surplus = history.len().saturating_sub(HISTORY);
        history.drain(..surplus);
    }
}
