//! Stopping in time: a job that will be ended at some moment saves and stops before it.

use super::{Callback, Flow};
use crate::error::EngineError;
use crate::report::{SaveReport, StepReport};
use std::time::{Duration, Instant};

/// Interrupts the run when another step and a checkpoint might not fit into the limit any more. What they take
/// is what the longest step and the longest checkpoint so far took.
#[derive(Debug)]
pub struct TimeLimit {
    began: Instant,
    limit: Duration,
    longest_step: Duration,
    longest_save: Duration,
    last: Instant,
}

impl TimeLimit {
    /// `limit` after `began`: the start of the process, so that loading counts.
    pub fn new(began: Instant, limit: Duration) -> Self {
        Self {
            began,
            limit,
            longest_step: Duration::ZERO,
            longest_save: Duration::ZERO,
            last: Instant::now(),
        }
    }

    fn is_due(&self, now: Instant) -> bool {
        let spent = now.duration_since(self.began);
        spent + self.longest_step + self.longest_save >= self.limit
    }
}

impl Callback for TimeLimit {
    fn on_start(&mut self, _: &crate::report::StartReport) -> Result<(), EngineError> {
        self.last = Instant::now();
        Ok(())
    }

    fn on_step(&mut self, _: &StepReport) -> Result<Flow, EngineError> {
        // From step to step, so that logs, evaluations and waiting count.
        let now = Instant::now();
        self.longest_step = self.longest_step.max(now.duration_since(self.last));
        self.last = now;
        Ok(if self.is_due(now) { Flow::Stop } else { Flow::Continue })
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
        assert!(!limit.is_due(began + seconds(99)), "nothing is known of steps yet");
        limit.longest_step = seconds(10);
        assert!(!limit.is_due(began + seconds(89)) && limit.is_due(began + seconds(90)));
        let path = "checkpoint-1".into();
        limit.on_save(&SaveReport { step: 1, path, seconds: 5.0, blocked_seconds: 0.1 }).unwrap();
        assert!(!limit.is_due(began + seconds(84)) && limit.is_due(began + seconds(85)));
    }
}
