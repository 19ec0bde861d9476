//! What there is to see of a run.

use crate::failure::Outcome;
use crate::history::{History, Line, number};
use crate::names;
use foundry_engine::callbacks::METRICS;
use std::path::Path;
use std::time::{Duration, SystemTime};

/// A run that has said nothing for so many of its usual steps is called silent.
const SILENT_LINES: f64 = 5.0;
/// But not before this time.
const SILENT_AFTER: Duration = Duration::from_secs(60);

/// How a run stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// It has begun, and nothing is logged yet.
    Starting,
    /// It goes on.
    Running,
    /// It goes on, or was killed: it has said nothing for so many seconds.
    Silent(u64),
    /// It reached its end.
    Finished,
    /// It was stopped and is to be resumed.
    Interrupted,
}

/// One curve.
#[derive(Clone, Debug)]
pub(super) struct Curve {
    pub(super) title: &'static str,
    pub(super) points: Vec<(f64, f64)>,
    /// How its values are written.
    pub(super) write: fn(f64) -> String,
}

impl Curve {
    pub(super) fn last(&self) -> Option<f64> {
        self.points.last().map(|point| point.1)
    }
}

/// A run as it stands.
#[derive(Clone, Debug)]
pub(super) struct RunView {
    pub(super) name: String,
    pub(super) state: State,
    pub(super) step: u64,
    pub(super) total: Option<u64>,
    pub(super) epoch: Option<f64>,
    /// Seconds of training so far.
    pub(super) seconds: Option<f64>,
    /// Seconds to go.
    pub(super) left: Option<f64>,
    /// The first is the loss. Curves without a point are left out.
    pub(super) curves: Vec<Curve>,
    /// The loss of evaluations.
    pub(super) evaluations: Vec<(f64, f64)>,
}

impl RunView {
    /// Reads the run in `dir`.
    pub(super) fn read(dir: &Path) -> Outcome<Self> {
        let history = History::read(dir)?;
        let changed = std::fs::metadata(dir.join(METRICS)).and_then(|metadata| metadata.modified());
        let age = changed.ok().and_then(|changed| SystemTime::now().duration_since(changed).ok());
        let name = names::last_part(dir).unwrap_or_default();
        Ok(Self::of(&history, name, age.unwrap_or_default()))
    }

    /// `age`: how long nothing has been written.
    fn of(history: &History, name: String, age: Duration) -> Self {
        let last = history.logs.last();
        let pace = seconds_per_step(&history.logs);
        let step = history.steps().unwrap_or(0);
        let total = history.total_steps();
        let state = state(history, pace, age);
        let goes_on = matches!(state, State::Running | State::Silent(_));
        let left = pace.zip(total).filter(|_| goes_on);
        Self {
            name,
            state,
            step,
            total,
            epoch: last.and_then(|line| number(line, "epoch")),
            seconds: history.seconds(),
            left: left.map(|(pace, total)| pace * total.saturating_sub(step) as f64),
            curves: curves(&history.logs),
            evaluations: points(&history.evaluations, "eval_loss", 1.0),
        }
    }

    /// Share of the steps that were taken.
    pub(super) fn progress(&self) -> f64 {
        let total = self.total.filter(|&total| total > 0);
        total.map_or(0.0, |total| (self.step as f64 / total as f64).clamp(0.0, 1.0))
    }
}

fn state(history: &History, pace: Option<f64>, age: Duration) -> State {
    match (&history.end, &history.logs[..]) {
        (Some(end), _) if end.get("stopped").is_some_and(|stopped| stopped == true) => State::Interrupted,
        (Some(_), _) => State::Finished,
        (None, []) => State::Starting,
        (None, logs) => {
            let per_line = logged_every(logs) * pace.unwrap_or(0.0) * SILENT_LINES;
            let is_silent = age > SILENT_AFTER && age.as_secs_f64() > per_line;
            if is_silent { State::Silent(age.as_secs()) } else { State::Running }
        }
    }
}

/// Steps between the last two lines.
fn logged_every(logs: &[Line]) -> f64 {
    match logs {
        [.., before, last] => number(last, "step").unwrap_or(0.0) - number(before, "step").unwrap_or(0.0),
        _ => 1.0,
    }
}

/// Over the last ten lines.
fn seconds_per_step(logs: &[Line]) -> Option<f64> {
    let last = logs.last()?;
    let (step, seconds) = (number(last, "step")?, number(last, "seconds")?);
    let earlier = logs
        .len()
        .checked_sub(11)
        .or(logs.len().checked_sub(2))
        .map(|index| &logs[index.min(logs.len() - 2)]);
    let earlier = earlier.and_then(|line| Some((number(line, "step")?, number(line, "seconds")?)));
    let (from, before) = earlier.unwrap_or((0.0, 0.0));
    (step > from && seconds >= before).then(|| (seconds - before) / (step - from))
}

fn points(lines: &[Line], key: &str, scale: f64) -> Vec<(f64, f64)> {
    lines.iter().filter_map(|line| Some((number(line, "step")?, number(line, key)? * scale))).collect()
}

fn curves(logs: &[Line]) -> Vec<Curve> {
    let plain: fn(f64) -> String = |value| format!("{value:.4}");
    let small: fn(f64) -> String = |value| format!("{value:.2e}");
    let whole: fn(f64) -> String = |value| format!("{value:.0}");
    let memory: fn(f64) -> String = |value| crate::console::bytes(value.max(0.0) as u64);
    let kinds = [
        ("loss", "loss", plain),
        ("learning rate", "learning_rate", small),
        ("gradient norm", "grad_norm", plain),
        ("tokens/s", "tokens_per_second", whole),
        ("memory", "peak_rss_bytes", memory),
        ("accuracy", "mean_token_accuracy", plain),
    ];
    let all = kinds.map(|(title, key, write)| Curve { title, points: points(logs, key, 1.0), write });
    all.into_iter().filter(|curve| !curve.points.is_empty()).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use serde_json::json;

    /// A run of `lines` logged steps of 100, two seconds each.
    pub(crate) fn view(lines: u64, end: Option<bool>, age: u64) -> RunView {
        let line = |value: serde_json::Value| value.as_object().expect("an object").clone();
        let log = |step: u64| {
            line(json!({
                "step": step, "epoch": step as f64 / 50.0, "loss": 3.0 - step as f64 / 100.0,
                "learning_rate": 1e-4, "grad_norm": 0.5, "tokens_per_second": 512.0,
                "peak_rss_bytes": 2_000_000_000u64, "seconds": 2.0 * step as f64, "mean_token_accuracy": 0.5,
            }))
        };
        let history = History {
            start: Some(line(json!({ "step": 0, "total_steps": 100 }))),
            logs: (1..=lines).map(log).collect(),
            evaluations: (lines > 0)
                .then(|| line(json!({ "step": lines, "eval_loss": 2.25 })))
                .into_iter()
                .collect(),
            end: end.map(|stopped| line(json!({ "step": lines, "total_steps": 100, "stopped": stopped }))),
            ..History::default()
        };
        RunView::of(&history, "mine".into(), Duration::from_secs(age))
    }

    #[test]
    fn states_are_told_apart() {
        assert_eq!(view(0, None, 0).state, State::Starting);
        assert_eq!(view(20, None, 50).state, State::Running);
        assert_eq!(view(20, None, 100).state, State::Silent(100));
        assert_eq!(view(20, Some(true), 9999).state, State::Interrupted);
        assert_eq!(view(100, Some(false), 9999).state, State::Finished);
    }

    #[test]
    fn the_time_left_follows_the_last_steps() {
        let running = view(20, None, 0);
        assert_eq!((running.step, running.total, running.left), (20, Some(100), Some(160.0)));
        assert_eq!(running.progress(), 0.2);
        assert_eq!(view(1, None, 0).left, Some(198.0));
        assert_eq!(view(100, Some(false), 0).left, None);
        let titles: Vec<&str> = running.curves.iter().map(|curve| curve.title).collect();
        assert_eq!(titles, ["loss", "learning rate", "gradient norm", "tokens/s", "memory", "accuracy"]);
        assert_eq!(running.curves[4].last().map(running.curves[4].write), Some("2.00 GB".into()));
        assert_eq!(running.evaluations, [(20.0, 2.25)]);
    }
}
