//! Tokens per second of training.

use super::{Callback, Flow};
use crate::error::EngineError;
use crate::report::{LogRecord, StepReport};

/// Fills in [`LogRecord::tokens_per_second`]: tokens of all ranks over the time of the steps since the last line,
/// without evaluation and checkpoints.
#[derive(Debug, Default)]
pub struct Throughput {
    tokens: u64,
    seconds: f64,
}

impl Callback for Throughput {
    fn on_step(&mut self, report: &StepReport) -> Result<Flow, EngineError> {
        self.tokens += report.tokens;
        self.seconds += report.seconds;
        Ok(Flow::Continue)
    }

    fn on_log(&mut self, record: &mut LogRecord) -> Result<(), EngineError> {
        record.tokens_per_second = (self.seconds > 0.0).then(|| self.tokens as f64 / self.seconds);
        *self = Self::default();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::callbacks::metrics_jsonl::tests::{record, step};

    #[test]
    fn counts_the_steps_since_the_last_line() {
        let mut throughput = Throughput::default();
        let mut rates = Vec::new();
        for (index, (tokens, seconds)) in [(100, 1.0), (300, 1.0), (50, 0.5)].into_iter().enumerate() {
            throughput.on_step(&StepReport { tokens, seconds, ..step(index as u64 + 1) }).unwrap();
            if index >= 1 {
                let mut line = record(index as u64 + 1);
                throughput.on_log(&mut line).unwrap();
                rates.push(line.tokens_per_second);
            }
        }
        assert_eq!(rates, [Some(200.0), Some(100.0)]);
    }
}
