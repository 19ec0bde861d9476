//! Which evaluation is the best: by `metric_for_best_model` and `greater_is_better`.

use crate::report::EvalReport;
use serde::{Deserialize, Serialize};

/// A figure of an evaluation that can decide which one is the best. As in transformers, `eval_` may stand before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
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
}

impl EvalMetric {
    /// The figure in a report.
    pub fn of(self, report: &EvalReport) -> f64 {
        match self {
            EvalMetric::Loss => report.eval_loss,
            EvalMetric::Perplexity => report.eval_perplexity,
            EvalMetric::MeanTokenAccuracy => report.eval_mean_token_accuracy,
            EvalMetric::Entropy => report.eval_entropy,
        }
    }

    /// Where `greater_is_better` is not given: true for the accuracy only. (transformers 5.23 takes everything
    /// whose name does not end in `loss` for a score, the perplexity included.)
    pub fn greater_is_better(self) -> bool {
        self == EvalMetric::MeanTokenAccuracy
    }
}

/// How two evaluations are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Comparison {
    /// The figure.
    pub metric: EvalMetric,
    /// More is better.
    pub greater_is_better: bool,
}

impl Comparison {
    /// `value` is better than `best`. What is no finite number never is; anything finite is better than
    /// nothing and than NaN.
    pub fn improves(self, value: f64, best: Option<f64>) -> bool {
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
        let score = Comparison { greater_is_better: true, ..loss };
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
        assert!(read("accuracy").is_err());
        assert!(
            !EvalMetric::Perplexity.greater_is_better() && EvalMetric::MeanTokenAccuracy.greater_is_better()
        );
    }
}
