//! Which evaluation is the best: by `metric_for_best_model` and `greater_is_better`.

use crate::report::{EvalReport, TaskReport};
use serde::{Deserialize, Serialize};

/// A figure that can decide which evaluation is the best. As in transformers, `eval_` may stand before those of the
/// held-out split.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EvalMetric {
    /// `eval_loss`.
    #[default]
    #[serde(alias = "eval_loss")]
    Loss,
    /// `eval_perplexity`.
    #[serde(alias = "eval_perplexity")]
    Perplexity,
    /// `eval_mean_token_accuracy`.
    #[serde(alias = "eval_mean_token_accuracy")]
    MeanTokenAccuracy,
    /// `eval_entropy`.
    #[serde(alias = "eval_entropy")]
    Entropy,
    /// A number of a benchmark.
    #[serde(untagged)]
    Task(TaskMetric),
}

/// `TASK/METRIC`: a number that an examination finds, as [`TaskReport`] names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TaskMetric {
    /// The task or group.
    pub task: String,
    /// Its metric.
    pub metric: String,
}

impl TryFrom<String> for TaskMetric {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.split_once('/') {
            Some((task, metric)) if !task.is_empty() && !metric.is_empty() => {
                Ok(Self { task: task.into(), metric: metric.into() })
            }
            _ => Err(format!("`{text}` is not TASK/METRIC")),
        }
    }
}

impl From<TaskMetric> for String {
    fn from(metric: TaskMetric) -> Self {
        format!("{}/{}", metric.task, metric.metric)
    }
}

impl TaskMetric {
    /// Whether a report is of this number.
    pub fn is_of(&self, report: &TaskReport) -> bool {
        self.task == report.task && self.metric == report.metric
    }
}

impl EvalMetric {
    /// The figure in a report of the held-out split; a benchmark's is not there. NaN where nothing was evaluated.
    pub fn of(&self, report: &EvalReport) -> Option<f64> {
        let figure = match self {
            EvalMetric::Loss => report.eval_loss,
            EvalMetric::Perplexity => report.eval_perplexity,
            EvalMetric::MeanTokenAccuracy => report.eval_mean_token_accuracy,
            EvalMetric::Entropy => report.eval_entropy,
            EvalMetric::Task(_) => return None,
        };
        // No tokens say nothing.
        Some(if report.eval_tokens > 0 { figure } else { f64::NAN })
    }

    /// Where `greater_is_better` is not given: true for the accuracy and for benchmarks. (transformers 5.23 takes
    /// everything whose name does not end in `loss` for a score, the perplexity included.)
    pub fn greater_is_better(&self) -> bool {
        matches!(self, EvalMetric::MeanTokenAccuracy | EvalMetric::Task(_))
    }
}

/// How two evaluations are compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Comparison {
    /// The figure.
    pub metric: EvalMetric,
    /// More is better.
    pub greater_is_better: bool,
}

impl Comparison {
    /// `value` is better than `best`. What is no finite number never is; anything finite is better than
    /// nothing and than NaN.
    pub fn improves(&self, value: f64, best: Option<f64>) -> bool {
        let better = |best: f64| if self.greater_is_better { value > best } else { value < best };
        value.is_finite() && best.is_none_or(|best| best.is_nan() || better(best))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_finite_figure_can_be_the_best() {
        let loss = Comparison { metric: EvalMetric::Loss, greater_is_better: false };
        assert!(loss.improves(2.0, None) && loss.improves(2.0, Some(2.5)));
        assert!(loss.improves(2.0, Some(f64::NAN)), "a state of before this check");
        assert!(!loss.improves(2.0, Some(2.0)), "as good is not better");
        let score = Comparison { greater_is_better: true, ..loss.clone() };
        assert!(score.improves(0.5, Some(0.4)) && !score.improves(0.3, Some(0.4)));
        for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert!(!loss.improves(value, None) && !score.improves(value, Some(1.0)), "{value}");
        }
    }

    #[test]
    fn names_are_transformers() {
        let read = |name: &str| serde_json::from_str::<EvalMetric>(&format!("\"{name}\""));
        assert_eq!(read("loss").unwrap(), EvalMetric::Loss);
        assert_eq!(read("eval_mean_token_accuracy").unwrap(), EvalMetric::MeanTokenAccuracy);
        let task = TaskMetric { task: "gsm8k".into(), metric: "exact_match,strict-match".into() };
        let name = "gsm8k/exact_match,strict-match";
        assert_eq!(read(name).unwrap(), EvalMetric::Task(task));
        assert_eq!(serde_json::to_string(&read(name).unwrap()).unwrap(), format!("\"{name}\""));
        for wrong in ["accuracy", "/acc", "arc_easy/"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
        assert!(
            !EvalMetric::Perplexity.greater_is_better() && EvalMetric::MeanTokenAccuracy.greater_is_better()
        );
    }
}
