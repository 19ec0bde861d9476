//! `sweep.json`: which runs a sweep has, how each ended, and what it came to.

use crate::failure::{Failure, Outcome};
use crate::history::{Figure, History};
use crate::output_dir::write_whole;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Name of the file.
pub(super) const SWEEP: &str = "sweep.json";

/// A sweep.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Record {
    /// The configuration file, as it was named.
    pub(super) config: String,
    /// Swept keys, in the order of the command line.
    pub(super) keys: Vec<String>,
    /// What the best run is best by: `eval_loss`, or `loss` where not every finished run was evaluated.
    pub(super) compared_by: Option<String>,
    /// Name of the best run.
    pub(super) best: Option<String>,
    pub(super) runs: Vec<Run>,
}

/// One run of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Run {
    /// Its directory, below that of the sweep.
    pub(super) name: String,
    /// Values of the swept keys.
    pub(super) values: Vec<String>,
    /// What is put on the command line, without `output_dir`.
    pub(super) overrides: Vec<String>,
    pub(super) state: State,
    /// Of the process; `None` while there is none, and after a kill.
    pub(super) exit_code: Option<i32>,
    pub(super) results: Option<Results>,
}

/// How far a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum State {
    Waiting,
    /// Or killed together with the sweep.
    Running,
    Done,
    Failed,
    /// By a signal or its time limit.
    Interrupted,
}

/// What a run came to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Results {
    pub(super) steps: Option<u64>,
    pub(super) total_steps: Option<u64>,
    /// Of the last logged line.
    pub(super) loss: Option<f64>,
    /// Of the last evaluation.
    pub(super) eval_loss: Option<f64>,
    pub(super) tokens_per_second: Option<f64>,
    pub(super) peak_memory_bytes: Option<u64>,
    /// Of training.
    pub(super) seconds: Option<f64>,
}

impl Run {
    /// Its number, as its directory begins with it.
    pub(super) fn number(&self) -> String {
        self.name.split('_').next().unwrap_or("").to_owned()
    }
}

impl Results {
    /// From the metrics of the run in `dir`, if there are any.
    pub(super) fn read(dir: &Path) -> Option<Self> {
        let history = History::read(dir).ok()?;
        Some(Self {
            steps: history.steps(),
            total_steps: history.total_steps(),
            loss: history.final_loss(),
            eval_loss: history.eval_loss(),
            tokens_per_second: history.tokens_per_second(),
            peak_memory_bytes: history.peak_memory(),
            seconds: history.seconds(),
        })
    }
}

impl Record {
    /// Reads the record of the sweep in `dir`.
    pub(super) fn read(dir: &Path) -> Outcome<Self> {
        let path = dir.join(SWEEP);
        let text = std::fs::read_to_string(&path).map_err(|e| Failure::io("read", &path, &e))?;
        serde_json::from_str(&text).map_err(|e| {
            Failure::Input(format!("{}: this is not the record of a sweep: {e}", path.display()))
        })
    }

    pub(super) fn write(&self, dir: &Path) -> Outcome {
        let text = serde_json::to_string_pretty(self).expect("a record is JSON");
        write_whole(&dir.join(SWEEP), &format!("{text}\n"))
    }

    /// Finds the best of the finished runs: by evaluation where all have one, else by training loss.
    pub(super) fn judge(&mut self) {
        let done = || self.runs.iter().filter(|run| run.state == State::Done);
        let by = Figure::of(done().map(|run| run.results.as_ref()?.eval_loss));
        // Runs without any number (all NaN) do not keep the others from being compared.
        let figures = done().filter_map(|run| {
            let results = run.results.as_ref()?;
            Some((by.pick(results.eval_loss, results.loss)?, run))
        });
        self.best = figures.min_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, run)| run.name.clone());
        let name = if by == Figure::EvalLoss { "eval_loss" } else { "loss" };
        self.compared_by = self.best.as_ref().map(|_| name.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(name: &str, state: State, loss: Option<f64>, eval_loss: Option<f64>) -> Run {
        let results = Results {
            steps: Some(1),
            total_steps: Some(1),
            loss,
            eval_loss,
            tokens_per_second: None,
            peak_memory_bytes: None,
            seconds: None,
        };
        Run {
            name: name.into(),
            values: Vec::new(),
            overrides: Vec::new(),
            state,
            exit_code: Some(0),
            results: Some(results),
        }
    }

    fn judged(runs: Vec<Run>) -> (Option<String>, Option<String>) {
        let mut record = Record { config: "c".into(), keys: Vec::new(), compared_by: None, best: None, runs };
        record.judge();
        (record.compared_by, record.best)
    }

    #[test]
    fn the_best_has_the_lowest_evaluation_or_loss_of_those_that_finished() {
        use State::{Done, Failed};
        let text = |by: &str, best: &str| (Some(by.to_owned()), Some(best.to_owned()));
        let all = vec![
            run("a", Done, Some(1.0), Some(3.0)),
            run("b", Done, Some(2.0), Some(2.5)),
            run("c", Failed, Some(0.1), Some(0.1)),
        ];
        assert_eq!(judged(all), text("eval_loss", "b"));
        let some = vec![
            run("a", Done, Some(1.0), None),
            run("b", Done, Some(2.0), Some(0.5)),
            run("c", Done, None, None),
        ];
        assert_eq!(judged(some), text("loss", "a"));
        assert_eq!(judged(vec![run("a", Failed, Some(1.0), None)]), (None, None));
    }
}
