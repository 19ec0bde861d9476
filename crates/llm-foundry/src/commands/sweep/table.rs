//! The comparison at the end of a sweep.

use super::record::{Record, Results, Run, State};
use crate::console::{bytes, duration};

/// One line for each run, the best one marked.
pub(super) fn table(record: &Record) -> String {
    let mut rows = vec![head(record)];
    rows.extend(record.runs.iter().map(|run| row(record, run)));
    // Keys and their values to the left, figures to the right.
    laid_out(&rows, 1 + record.keys.len())
}

/// Columns side by side: the first `texts` and the last to the left, figures to the right.
pub(super) fn laid_out(rows: &[Vec<String>], texts: usize) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, &width))| match column {
            column if column < texts || column + 1 == columns => format!("{cell:<width$}"),
            _ => format!("{cell:>width$}"),
        });
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

fn head(record: &Record) -> Vec<String> {
    let figures = ["steps", "loss", "eval loss", "tokens/s", "memory", "time", ""];
    let keys = record.keys.iter().map(|key| super::short(key, &record.keys).to_owned());
    std::iter::once("run".to_owned()).chain(keys).chain(figures.map(str::to_owned)).collect()
}

fn row(record: &Record, run: &Run) -> Vec<String> {
    let figures = match &run.results {
        Some(results) => figures(results),
        None => std::array::from_fn(|_| "-".into()),
    };
    let note = match (run.state, &record.compared_by) {
        (State::Done, Some(by)) if record.best.as_ref() == Some(&run.name) => {
            format!("best by {}", by.replace('_', " "))
        }
        (State::Done, _) => String::new(),
        (State::Failed, _) => match run.exit_code {
            Some(code) => format!("failed (exit code {code})"),
            None => "failed (killed)".into(),
        },
        (State::Interrupted | State::Running, _) => "interrupted".into(),
        (State::Waiting, _) => "not begun".into(),
    };
    std::iter::once(run.number()).chain(run.values.iter().cloned()).chain(figures).chain([note]).collect()
}

fn figures(results: &Results) -> [String; 6] {
    let known = |figure: Option<String>| figure.unwrap_or_else(|| "-".into());
    let steps = results.steps.zip(results.total_steps).map(|(steps, total)| format!("{steps}/{total}"));
    [
        known(steps),
        known(results.loss.map(|loss| format!("{loss:.4}"))),
        known(results.eval_loss.map(|loss| format!("{loss:.4}"))),
        known(results.tokens_per_second.map(|speed| format!("{speed:.0}"))),
        known(results.peak_memory_bytes.map(bytes)),
        known(results.seconds.map(duration)),
    ]
}
