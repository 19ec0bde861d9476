//! What a run has left in its `metrics.jsonl`, read back: for sweeps and reports.
//!
//! A run may be going on while it is read, and may have been killed: a torn last line is no error. Keys that are not
//! known here stay in the lines; events that are not known here are passed over.

use crate::failure::{Failure, Outcome};
use foundry_engine::callbacks::METRICS;
use serde_json::{Map, Value};
use std::path::Path;

/// A line of the file.
pub(crate) type Line = Map<String, Value>;

/// The lines of a run, by kind.
#[derive(Clone, Debug, Default)]
pub(crate) struct History {
    /// `run_start`.
    pub(crate) start: Option<Line>,
    /// Logged steps.
    pub(crate) logs: Vec<Line>,
    /// `eval`.
    pub(crate) evaluations: Vec<Line>,
    /// `task`: scores of benchmarks.
    pub(crate) tasks: Vec<Line>,
    /// `run_end`.
    pub(crate) end: Option<Line>,
}

impl History {
    /// Reads the metrics of the run in `dir`.
    pub(crate) fn read(dir: &Path) -> Outcome<Self> {
        let path = dir.join(METRICS);
        let bytes = std::fs::read(&path).map_err(|e| Failure::io("read", &path, &e))?;
        Ok(Self::of(&String::from_utf8_lossy(&bytes)))
    }

    fn of(text: &str) -> Self {
        let mut history = Self::default();
        for line in text.lines() {
            let Ok(Value::Object(line)) = serde_json::from_str(line) else { continue };
            let event = line.get("event").map(|event| event.as_str().unwrap_or("").to_owned());
            match event.as_deref() {
                None => history.logs.push(line),
                Some("run_start") => history.start = Some(line),
                // The run goes on: what an earlier part said of its end and of the number of steps no longer holds.
                Some("resume") => {
                    history.end = None;
                    if line.contains_key("total_steps") {
                        history.start = Some(line);
                    }
                }
                Some("eval") => history.evaluations.push(line),
                Some("task") => history.tasks.push(line),
                Some("run_end") => history.end = Some(line),
                Some(_) => {}
            }
        }
        history
    }

    /// Steps that were taken, as far as the file knows.
    pub(crate) fn steps(&self) -> Option<u64> {
        let last = self.end.as_ref().or_else(|| self.logs.last());
        last.and_then(|line| line.get("step")?.as_u64())
    }

    /// Steps that the run was to have.
    pub(crate) fn total_steps(&self) -> Option<u64> {
        let told = self.end.as_ref().or(self.start.as_ref());
        told.and_then(|line| line.get("total_steps")?.as_u64())
    }

    /// The loss at the end: that of the last logged line, or the mean of all where none was logged.
    pub(crate) fn final_loss(&self) -> Option<f64> {
        let logged = self.logs.last().and_then(|line| number(line, "loss"));
        logged.or_else(|| number(self.end.as_ref()?, "train_loss"))
    }

    /// The loss of the last evaluation.
    pub(crate) fn eval_loss(&self) -> Option<f64> {
        number(self.evaluations.last()?, "eval_loss")
    }

    /// Over the whole run where it ended, else the last logged.
    pub(crate) fn tokens_per_second(&self) -> Option<f64> {
        let whole = self.end.as_ref().and_then(|end| {
            let seconds = number(end, "seconds").filter(|&seconds| seconds > 0.0)?;
            Some(number(end, "tokens")? / seconds)
        });
        whole.or_else(|| number(self.logs.last()?, "tokens_per_second"))
    }

    /// Seconds of training.
    pub(crate) fn seconds(&self) -> Option<f64> {
        number(self.end.as_ref().or_else(|| self.logs.last())?, "seconds")
    }

    /// The most memory, in bytes.
    pub(crate) fn peak_memory(&self) -> Option<u64> {
        self.logs.iter().filter_map(|line| line.get("peak_rss_bytes")?.as_u64()).max()
    }
}

/// What runs are compared by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Figure {
    EvalLoss,
    Loss,
}

impl Figure {
    /// The evaluation loss where every finished run has one, else the loss; from the evaluation losses of the finished.
    pub(crate) fn of(finished: impl IntoIterator<Item = Option<f64>>) -> Self {
        let mut finished = finished.into_iter().peekable();
        let is_evaluated = finished.peek().is_some() && finished.all(|eval_loss| eval_loss.is_some());
        if is_evaluated { Figure::EvalLoss } else { Figure::Loss }
    }

    /// This one of a run's two.
    pub(crate) fn pick(self, eval_loss: Option<f64>, loss: Option<f64>) -> Option<f64> {
        match self {
            Figure::EvalLoss => eval_loss,
            Figure::Loss => loss,
        }
    }
}

/// A finite number of a line. (JSON has no NaN: what was none is `null` in the file.)
pub(crate) fn number(line: &Line, key: &str) -> Option<f64> {
    line.get(key)?.as_f64().filter(|number| number.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_a_killed_and_resumed_run_is_read() {
        let text = "{\"event\":\"run_start\",\"step\":0,\"total_steps\":4}\n\
            {\"step\":1,\"loss\":null,\"tokens_per_second\":5.0,\"peak_rss_bytes\":7}\n\
            {\"event\":\"run_end\",\"step\":1,\"total_steps\":4}\n\
            {\"event\":\"resume\",\"step\":1}\n{\"event\":\"of tomorrow\",\"step\":1}\n\
            {\"step\":2,\"loss\":1.5,\"peak_rss_bytes\":6}\n{\"event\":\"eval\",\"step\":2,\"eval_loss\":1.25}\n{\"step\":3,\"lo";
        let history = History::of(text);
        assert!(history.end.is_none(), "it goes on");
        assert_eq!((history.logs.len(), history.steps(), history.total_steps()), (2, Some(2), Some(4)));
        assert_eq!((history.final_loss(), history.eval_loss()), (Some(1.5), Some(1.25)));
        assert_eq!((number(&history.logs[0], "loss"), history.peak_memory()), (None, Some(7)));
        let ended = History::of(
            "{\"event\":\"run_end\",\"step\":3,\"tokens\":90,\"seconds\":30.0,\"train_loss\":2.0}\n",
        );
        assert_eq!((ended.tokens_per_second(), ended.final_loss()), (Some(3.0), Some(2.0)));
    }
}
