//! The figures of a report: which numbers of a run are drawn, and how.

use super::chart::{Chart, Series};
use super::folder::Run;
use crate::history::{Line, number};

/// A curve that a page has where its runs have the numbers.
struct Curve {
    title: &'static str,
    unit: &'static str,
    key: &'static str,
    /// From the lines of evaluations rather than of steps.
    of_evaluations: bool,
    from_zero: bool,
    smooth: bool,
}

const fn curve(title: &'static str, unit: &'static str, key: &'static str) -> Curve {
    Curve { title, unit, key, of_evaluations: false, from_zero: false, smooth: false }
}

const CURVES: [Curve; 8] = [
    Curve { smooth: true, ..curve("Loss", "", "loss") },
    Curve { of_evaluations: true, ..curve("Evaluation loss", "", "eval_loss") },
    Curve { smooth: true, ..curve("Accuracy of the next token", "", "mean_token_accuracy") },
    Curve { of_evaluations: true, ..curve("Accuracy in evaluations", "", "eval_mean_token_accuracy") },
    Curve { from_zero: true, ..curve("Learning rate", "", "learning_rate") },
    Curve { smooth: true, ..curve("Gradient norm", "before clipping", "grad_norm") },
    Curve { from_zero: true, smooth: true, ..curve("Throughput", "tokens/s", "tokens_per_second") },
    Curve { from_zero: true, ..curve("Memory", "", "peak_rss_bytes") },
];

/// All figures, as HTML.
pub(super) fn figures(runs: &[Run]) -> String {
    let figures: Vec<String> = CURVES.iter().filter_map(|curve| figure(curve, runs)).collect();
    match figures.is_empty() {
        true => "<p class=\"state\">No step was logged.</p>\n".into(),
        false => format!("<div class=\"charts\">\n{}</div>\n", figures.concat()),
    }
}

fn figure(curve: &Curve, runs: &[Run]) -> Option<String> {
    let mut series: Vec<Series> = runs
        .iter()
        .enumerate()
        .map(|(colour, run)| {
            let lines = if curve.of_evaluations { &run.history.evaluations } else { &run.history.logs };
            Series { name: run.name.clone(), colour, points: points(lines, curve.key) }
        })
        .filter(|series| !series.points.is_empty())
        .collect();
    let unit = if curve.key == "peak_rss_bytes" { bytes(&mut series) } else { curve.unit };
    let Curve { title, from_zero, smooth, .. } = *curve;
    Chart { title, unit, series, from_zero, smooth }.figure()
}

fn points(lines: &[Line], key: &str) -> Vec<(u64, Option<f64>)> {
    let point = |line: &Line| Some((line.get("step")?.as_u64()?, number(line, key)));
    let points: Vec<_> = lines.iter().filter_map(point).collect();
    // A key that the run never had is not a gap.
    if points.iter().all(|point| point.1.is_none()) { Vec::new() } else { points }
}

/// Turns bytes into a unit in which they are short; returns it.
fn bytes(series: &mut [Series]) -> &'static str {
    let top = series.iter().flat_map(|s| &s.points).filter_map(|p| p.1).fold(0.0, f64::max);
    let (unit, size) = if top >= 1e9 { ("GB, the most so far", 1e9) } else { ("MB, the most so far", 1e6) };
    for point in series.iter_mut().flat_map(|series| &mut series.points) {
        point.1 = point.1.map(|bytes| bytes / size);
    }
    unit
}
