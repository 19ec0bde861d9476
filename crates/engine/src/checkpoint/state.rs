//! `trainer_state.json`: the run's state besides its tensors.

use super::Facts;
use crate::arguments::TrainingArgs;
use crate::best::EvalMetric;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// Where a run stands. Seeds of dropout and noise are functions of `arguments.seed` and the step, the learning rate one
/// of `arguments` and the step, and the data's order one of `arguments` and `data`, so nothing more is needed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainerState {
    /// Finished steps.
    pub step: u64,
    /// Steps of the whole run.
    pub total_steps: u64,
    /// Epochs seen, the present one in part.
    pub epoch: f64,
    /// Place of the next micro-batch, as [`foundry_data::Batches::state`] gave it; a value of the data crate.
    pub data: Value,
    /// Micro-batches of an epoch on each rank.
    pub batches_per_epoch: u64,
    /// Ranks.
    pub world_size: usize,
    /// Name of the optimiser.
    pub optimizer: String,
    /// The learning rate of the step before.
    pub learning_rate: f64,
    /// Sum of all step losses.
    #[serde(deserialize_with = "number_or_null")]
    pub loss_sum: f64,
    /// Tokens seen, all ranks.
    pub tokens: u64,
    /// Seconds of training.
    pub seconds: f64,
    /// Sums since the last line of the log.
    pub window: LogWindow,
    /// The evaluation of `step` is due, but a wish to stop came first: it is made when the run goes on.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub owes_evaluation: bool,
    /// The same of benchmarks and sample answers.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub owes_examination: bool,
    /// The best evaluation so far.
    pub best: Option<BestEvaluation>,
    /// What callbacks remember.
    pub callbacks: CallbackStates,
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
    #[serde(deserialize_with = "number_or_null")]
    pub loss: f64,
    /// Sum of the entropies at labelled tokens.
    #[serde(deserialize_with = "number_or_null")]
    pub entropy: f64,
    /// Labelled tokens that had the highest logit.
    pub correct: u64,
    /// Labelled tokens.
    pub labelled: u64,
    /// Seconds waited for data.
    pub data_seconds: f64,
}

/// What callbacks remember over a resume, by the callback's name.
pub type CallbackStates = BTreeMap<String, Value>;

/// The best evaluation by `metric_for_best_model`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BestEvaluation {
    /// Finished steps.
    pub step: u64,
    /// Which figure decided.
    pub metric: EvalMetric,
    /// The figure.
    #[serde(deserialize_with = "number_or_null")]
    pub value: f64,
}

/// A number; JSON knows no NaN and no infinity, and `serde_json` writes null for them.
fn number_or_null<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or(f64::NAN))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_that_are_no_numbers_stay_readable() {
        let window =
            LogWindow { steps: 2, loss: 3.5, entropy: f64::NAN, correct: 1, labelled: 4, data_seconds: 0.25 };
        let text = serde_json::to_string(&window).unwrap();
        assert!(text.contains("\"entropy\":null"), "{text}");
        let read: LogWindow = serde_json::from_str(&text).unwrap();
        assert!(read.entropy.is_nan() && (read.loss, read.labelled) == (3.5, 4));
        let best = BestEvaluation { step: 3, metric: EvalMetric::Loss, value: f64::INFINITY };
        let text = serde_json::to_string(&best).unwrap();
        assert!(serde_json::from_str::<BestEvaluation>(&text).unwrap().value.is_nan());
        let missing = text.replace(",\"value\":null", "");
        assert!(serde_json::from_str::<BestEvaluation>(&missing).is_err(), "null is not the same as missing");
    }
}
