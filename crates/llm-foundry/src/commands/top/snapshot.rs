//! How a run stands, as a few lines of text.

use super::view::{RunView, State};
use crate::console::{duration, sparkline};
use std::fmt::Write as _;

/// Width of the curves.
const WIDTH: usize = 40;

/// In words.
pub(super) fn state(view: &RunView) -> String {
    match view.state {
        State::Starting => "starting".into(),
        State::Running => "running".into(),
        State::Silent(seconds) => format!("no news for {}", duration(seconds as f64)),
        State::Finished => "finished".into(),
        State::Interrupted => "interrupted".into(),
    }
}

/// Step, epoch and time.
pub(super) fn position(view: &RunView) -> String {
    let share = 100.0 * view.progress();
    let total = view.total.map_or_else(String::new, |total| format!(" of {total} ({share:.0} %)"));
    let epoch = view.epoch.map_or_else(String::new, |epoch| format!(", epoch {epoch:.2}"));
    let seconds = view.seconds.map_or_else(String::new, |seconds| format!(", {}", duration(seconds)));
    let left = view.left.map_or_else(String::new, |left| format!(", {} left", duration(left)));
    format!("step {}{total}{epoch}{seconds}{left}", view.step)
}

/// The whole text.
pub(super) fn text(view: &RunView) -> String {
    let mut text = format!("{}: {}, {}\n", view.name, state(view), position(view));
    let mut row = |title: &str, last: String, values: &[f64]| {
        let _ = writeln!(text, "  {title:<14} {last:>10}  {}", sparkline(values, WIDTH));
    };
    let values = |points: &[(f64, f64)]| points.iter().map(|point| point.1).collect::<Vec<_>>();
    for (index, curve) in view.curves.iter().enumerate() {
        row(curve.title, curve.last().map(curve.write).unwrap_or_default(), &values(&curve.points));
        if let Some((_, last)) = view.evaluations.last().filter(|_| index == 0) {
            row("eval loss", format!("{last:.4}"), &values(&view.evaluations));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::view::tests::view;
    use super::*;

    #[test]
    fn a_run_in_a_few_lines() {
        let text = text(&view(20, None, 0));
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "mine: running, step 20 of 100 (20 %), epoch 0.40, 40 s, 2 min 40 s left");
        assert_eq!(lines[1], "  loss               2.8000  ██▇▇▇▆▆▅▅▅▄▄▄▃▃▂▂▂▁▁");
        assert_eq!(lines[2], "  eval loss          2.2500  ▄");
        assert_eq!(lines.len(), 8);
        assert_eq!(super::text(&view(0, None, 0)), "mine: starting, step 0 of 100 (0 %)\n");
        assert!(super::text(&view(5, None, 600)).starts_with("mine: no news for 10 min 00 s, step 5"));
    }
}
