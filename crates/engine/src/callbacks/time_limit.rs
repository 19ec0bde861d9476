//! Stopping in time: a job that will be ended at some moment saves and stops before it.

use super::{Callback, Flow};
use crate::error::EngineError;
use crate::report::{EvalReport, SaveReport, StepReport};
use std::time::{Duration, Instant};

/// Interrupts the run when another step, or an evaluation that is due, and a checkpoint might not fit into the limit
/// any more. What they take is what the longest step, evaluation and checkpoint so far took. An evaluation that takes
/// longer than that is broken off.
#[derive(Debug)]
pub struct TimeLimit {
    began: Instant,
    limit: Duration,
    longest_step: Duration,
    longest_evaluation: Duration,
    longest_save: Duration,
    last: Instant,
    /// Evaluations and examinations since `last`.
    evaluated: Duration,
}

impl TimeLimit {
    /// `limit` after `began`: the start of the process, so that loading counts.
    pub fn new(began: Instant, limit: Duration) -> Self {
        Self {
            began,
            limit,
            longest_step: Duration::ZERO,
            longest_evaluation: Duration::ZERO,
            longest_save: Duration::ZERO,
            last: Instant::now(),
            evaluated: Duration::ZERO,
        }
    }

    /// Whether something that takes `next` does not fit in front of a checkpoint.
    fn is_due(&self, now: Instant, next: Duration) -> bool {
        let spent = now.duration_since(self.began);
        spent + next + self.longest_save >= self.limit
    }

    fn answer(&self, now: Instant, next: Duration) -> Flow {
        if self.is_due(now, next) { Flow::Stop } else { Flow::Continue }
    }
}

impl Callback for TimeLimit {
    fn on_start(&mut self, _: &crate::report::StartReport) -> Result<(), EngineError> {
        self.last = Instant::now();
        Ok(())
    }

    fn on_step(&mut self, report: &StepReport) -> Result<Flow, EngineError> {
        // From step to step, so that logs and waiting count.
        let now = Instant::now();
        let taken = now.duration_since(self.last).saturating_sub(self.evaluated);
        self.longest_step = self.longest_step.max(taken);
        (self.last, self.evaluated) = (now, Duration::ZERO);
        // After the last step there is no other.
        let is_last = report.step >= report.total_steps;
        Ok(if is_last { Flow::Continue } else { self.answer(now, self.longest_step) })
    }

    fn before_evaluate(&mut self) -> Result<Flow, EngineError> {
        Ok(self.answer(Instant::now(), self.longest_evaluation))
    }

    fn interrupts(&mut self) -> bool {
        self.is_due(Instant::now(), Duration::ZERO)
    }

    fn on_evaluate(&mut self, report: &EvalReport) -> Result<Flow, EngineError> {
        let taken = Duration::try_from_secs_f64(report.eval_seconds).unwrap_or_default();
        self.longest_evaluation = self.longest_evaluation.max(taken);
        self.evaluated += taken;
        Ok(self.answer(Instant::now(), self.longest_step))
    }

    fn on_examined(&mut self, seconds: f64) -> Result<(), EngineError> {
        self.evaluated += Duration::try_from_secs_f64(seconds).unwrap_or_default();
        Ok(())
    }

    fn on_save(&mut self, report: &SaveReport) -> Result<(), EngineError> {
        self.longest_save = self.longest_save.max(Duration::from_secs_f64(report.seconds.max(0.0)));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_step_and_a_checkpoint_must_fit() {
        let began = Instant::now();
        let seconds = Duration::from_secs;
        let mut limit = TimeLimit::new(began, seconds(100));
        let due = |limit: &TimeLimit, after: u64| limit.is_due(began + seconds(after), limit.longest_step);
        assert!(!due(&limit, 99), "nothing is known of steps yet");
        limit.longest_step = seconds(10);
        assert!(!due(&limit, 89) && due(&limit, 90));
        let path = "checkpoint-1".into();
        limit.on_save(&SaveReport { step: 1, path, seconds: 5.0, blocked_seconds: 0.1 }).unwrap();
        assert!(!due(&limit, 84) && due(&limit, 85));
    }

    #[test]
    fn evaluations_count_apart_from_steps() {
        let began = Instant::now();
        let mut limit = TimeLimit::new(began, Duration::from_secs(100));
        let report = |eval_seconds| EvalReport {
            step: 1,
            epoch: 0.0,
            eval_loss: 1.0,
            eval_perplexity: 1.0,
            eval_mean_token_accuracy: 0.0,
            eval_entropy: 0.0,
            eval_tokens: 1,
            eval_seconds,
            is_best: false,
        };
        assert_eq!(limit.before_evaluate().unwrap(), Flow::Continue, "nothing is known of evaluations yet");
        assert_eq!(limit.on_evaluate(&report(99.5)).unwrap(), Flow::Continue);
        limit.on_step(&super::super::metrics_jsonl::tests::step(2)).unwrap();
        assert!(limit.longest_step < Duration::from_secs(1), "an evaluation is no step");
        limit.on_examined(3600.0).unwrap();
        limit.on_step(&super::super::metrics_jsonl::tests::step(3)).unwrap();
        assert!(limit.longest_step < Duration::from_secs(1), "an examination is none either");
        assert!(!limit.interrupts());
        limit.longest_save = Duration::from_secs(1);
        assert_eq!(limit.before_evaluate().unwrap(), Flow::Stop, "the next one would not fit");
        limit.limit = Duration::from_secs(1);
        assert!(limit.interrupts());
        let last = StepReport { total_steps: 2, ..super::super::metrics_jsonl::tests::step(2) };
        assert_eq!(limit.on_step(&last).unwrap(), Flow::Continue, "there is no other step");
    }
}
