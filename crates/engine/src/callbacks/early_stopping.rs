//! Ending a run whose evaluations no longer improve: transformers' `EarlyStoppingCallback` (5.23).

use super::{Callback, Flow};
use crate::best::Comparison;
use crate::checkpoint::CallbackStates;
use crate::error::EngineError;
use crate::report::Judgement;
use serde_json::{Value, json};

/// Ends the run when `patience` evaluations in a row were not better than the best before them by more than
/// `threshold`.
#[derive(Debug)]
pub struct EarlyStopping {
    patience: u64,
    threshold: f64,
    comparison: Comparison,
    /// Evaluations in a row that did not improve.
    waited: u64,
}

/// Its name in a checkpoint.
const NAME: &str = "early_stopping";

impl EarlyStopping {
    /// `early_stopping_patience` (1 or more) and `early_stopping_threshold`.
    pub fn new(patience: u64, threshold: f64, comparison: Comparison) -> Self {
        Self { patience, threshold, comparison, waited: 0 }
    }

    fn answer(&self) -> Flow {
        if self.waited >= self.patience { Flow::Finish } else { Flow::Continue }
    }
}

impl Callback for EarlyStopping {
    fn state(&self) -> Option<(String, Value)> {
        Some((NAME.into(), json!({ "waited": self.waited })))
    }

    fn restore(&mut self, states: &CallbackStates) -> Result<Flow, EngineError> {
        // A run that had no early stopping before has waited for nothing yet.
        self.waited = states.get(NAME).and_then(|state| state["waited"].as_u64()).unwrap_or(0);
        Ok(self.answer())
    }

    fn on_judged(&mut self, judgement: &Judgement) -> Result<Flow, EngineError> {
        let improves = match judgement.best_before {
            None => true,
            Some(best) => {
                self.comparison.improves(judgement.value, Some(best))
                    && (judgement.value - best).abs() > self.threshold
            }
        };
        self.waited = if improves { 0 } else { self.waited.saturating_add(1) };
        Ok(self.answer())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::best::EvalMetric;

    const LOSS: Comparison = Comparison { metric: EvalMetric::Loss, greater_is_better: false };

    /// Feeds losses as a run would; the evaluations after which it ended, or `None`.
    fn ends_after(stopping: &mut EarlyStopping, losses: &[f64], best: &mut Option<f64>) -> Option<usize> {
        losses.iter().position(|&value| {
            let is_best = LOSS.improves(value, *best);
            let judgement = Judgement { step: 1, value, best_before: *best, is_best };
            if is_best {
                *best = Some(value);
            }
            stopping.on_judged(&judgement).unwrap() == Flow::Finish
        })
    }

    #[test]
    fn patience_counts_evaluations_in_a_row() {
        let run = |patience, threshold, losses: &[f64]| {
            ends_after(&mut EarlyStopping::new(patience, threshold, LOSS), losses, &mut None)
        };
        assert_eq!(run(1, 0.0, &[3.0, 2.0, 2.5]), Some(2));
        assert_eq!(run(2, 0.0, &[3.0, 3.1, 2.0, 2.1, 1.9, 2.0]), None, "each pause is one long");
        assert_eq!(run(2, 0.0, &[3.0, 3.1, 3.0, 1.0]), Some(2), "as good is not better");
        assert_eq!(run(2, 0.0, &[3.0, f64::NAN, f64::NAN]), Some(2));
        // transformers measures against the best so far, which moves by less than the threshold as well.
        assert_eq!(run(2, 0.5, &[3.0, 2.8, 2.6, 2.0]), Some(2));
        assert_eq!(run(2, 0.5, &[3.0, 2.8, 2.2, 2.1]), None);
    }

    #[test]
    fn the_count_survives_a_resume() {
        let mut first = EarlyStopping::new(3, 0.0, LOSS);
        let mut best = None;
        assert_eq!(ends_after(&mut first, &[1.0, 2.0, 2.0], &mut best), None);
        let states = CallbackStates::from_iter(first.state());
        let mut second = EarlyStopping::new(3, 0.0, LOSS);
        assert_eq!(second.restore(&states).unwrap(), Flow::Continue);
        assert_eq!(ends_after(&mut second, &[2.0], &mut best), Some(0));
        let ended = CallbackStates::from_iter(second.state());
        assert_eq!(second.restore(&ended).unwrap(), Flow::Finish, "it had ended");
        assert_eq!(
            EarlyStopping::new(4, 0.0, LOSS).restore(&ended).unwrap(),
            Flow::Continue,
            "more patience"
        );
        second.restore(&CallbackStates::new()).unwrap();
        assert_eq!(ends_after(&mut second, &[2.0], &mut best), None);
    }
}
