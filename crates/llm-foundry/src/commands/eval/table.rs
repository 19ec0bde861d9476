//! Results for people: lm_eval's table, or before and after side by side.

use super::files::Earlier;
use foundry_eval::{Metric, Results, Row};
use serde_json::{Map, Value, json};

/// The two-sided 95 and 99 % points of the normal distribution.
const POINTS: [(f64, &str); 2] = [(2.576, "**"), (1.96, "*")];

/// A table; with earlier numbers their difference, marked where chance does not explain it.
pub(super) fn text(results: &Results, before: Option<&Earlier>) -> String {
    let mut lines: Vec<Vec<String>> = Vec::new();
    let header: &[&str] = match before {
        None => &["Tasks", "Version", "Filter", "n-shot", "Metric", "", "Value", "", "Stderr"],
        Some(_) => &["Tasks", "Filter", "n-shot", "Metric", "", "Before", "", "After", "", "Difference", ""],
    };
    lines.push(header.iter().map(|text| text.to_string()).collect());
    let mut last = None;
    for row in results.rows() {
        let is_first = last.as_deref() != Some(row.name.as_str());
        lines.push(match before {
            None => plain(&row, is_first),
            Some(before) => compared(&row, is_first, before),
        });
        last = Some(row.name);
    }
    let mut out = rendered(&lines);
    if let Some(before) = before {
        out.push_str(&format!(
            "\nBefore: {}. * and **: the difference is beyond 1.96 and 2.58 of its standard errors.\n",
            before.name
        ));
    }
    out
}

fn title(row: &Row, is_first: bool) -> String {
    match (is_first, row.depth) {
        (false, _) => String::new(),
        (true, 0) => row.alias.clone(),
        (true, depth) => format!("{}- {}", " ".repeat(depth), row.alias),
    }
}

fn shots(row: &Row) -> String {
    row.num_fewshot.map_or_else(String::new, |count| count.to_string())
}

fn arrow(metric: &Metric) -> String {
    if metric.higher_is_better { "↑" } else { "↓" }.into()
}

fn error(stderr: Option<f64>) -> [String; 2] {
    ["±".into(), stderr.map_or_else(|| "N/A".into(), |stderr| format!("{stderr:.4}"))]
}

fn plain(row: &Row, is_first: bool) -> Vec<String> {
    let version = if is_first { row.version.clone() } else { String::new() };
    let mut cells = vec![title(row, is_first), version];
    match &row.metric {
        None => cells.extend(["", &shots(row), "", "", "", "", ""].map(str::to_owned)),
        Some(metric) => {
            cells.extend([metric.filter.clone(), shots(row), metric.name.clone(), arrow(metric)]);
            cells.push(format!("{:.4}", metric.value));
            cells.extend(error(metric.stderr));
        }
    }
    cells
}

fn compared(row: &Row, is_first: bool, before: &Earlier) -> Vec<String> {
    let mut cells = vec![title(row, is_first)];
    let Some(metric) = &row.metric else {
        cells.extend(["", &shots(row), "", "", "", "", "", "", "", ""].map(str::to_owned));
        return cells;
    };
    cells.extend([metric.filter.clone(), shots(row), metric.name.clone(), arrow(metric)]);
    let shown = |value: f64, stderr: Option<f64>| {
        [format!("{value:.4}"), stderr.map_or_else(String::new, |stderr| format!("±{stderr:.4}"))]
    };
    match before.number(&row.name, &metric.name, &metric.filter) {
        Some((value, stderr)) => {
            cells.extend(shown(value, stderr));
            cells.extend(shown(metric.value, metric.stderr));
            cells.push(format!("{:+.4}", metric.value - value));
            cells.push(mark(distance(metric, value, stderr)).into());
        }
        None => {
            cells.extend([String::new(), String::new()]);
            cells.extend(shown(metric.value, metric.stderr));
            cells.extend([String::new(), String::new()]);
        }
    }
    cells
}

/// The difference in its standard errors, the two evaluations taken for independent.
fn distance(metric: &Metric, before: f64, stderr: Option<f64>) -> Option<f64> {
    let error = (metric.stderr?.powi(2) + stderr?.powi(2)).sqrt();
    (error > 0.0).then(|| (metric.value - before) / error)
}

fn mark(distance: Option<f64>) -> &'static str {
    let beyond = |point: f64| distance.is_some_and(|distance| distance.abs() > point);
    POINTS.iter().find(|(point, _)| beyond(*point)).map_or("", |(_, mark)| mark)
}

/// Columns as wide as their widest cell, between bars.
fn rendered(lines: &[Vec<String>]) -> String {
    let columns = lines.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        lines.iter().filter_map(|l| l.get(column)).map(|c| c.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut out = String::new();
    for (at, line) in lines.iter().enumerate() {
        for (column, width) in widths.iter().enumerate() {
            let cell = line.get(column).map_or("", String::as_str);
            let space = " ".repeat(width - cell.chars().count());
            let is_number =
                at > 0 && cell.starts_with(|c: char| c.is_ascii_digit() || "+-±".contains(c)) && column > 0;
            let cell = if is_number { format!("{space}{cell}") } else { format!("{cell}{space}") };
            out.push_str(&format!("|{cell}"));
        }
        out.push_str("|\n");
        if at == 0 {
            out.push_str(&widths.iter().map(|width| format!("|{}", "-".repeat(*width))).collect::<String>());
            out.push_str("|\n");
        }
    }
    out
}

/// The comparison for programs: `{task: {"acc,none": {before, after, difference, standard_errors}}}`.
pub(super) fn comparison_json(results: &Results, before: &Earlier) -> Value {
    let mut top = Map::new();
    for row in results.rows() {
        let Some(metric) = &row.metric else { continue };
        let Some((value, stderr)) = before.number(&row.name, &metric.name, &metric.filter) else { continue };
        let entry = json!({
            "before": value,
            "after": metric.value,
            "difference": metric.value - value,
            "standard_errors": distance(metric, value, stderr),
        });
        let task = top.entry(row.name.clone()).or_insert_with(|| json!({}));
        task[format!("{},{}", metric.name, metric.filter)] = entry;
    }
    top.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_marked_by_their_size() {
        let metric = |value| Metric {
            name: "acc".into(),
            filter: "none".into(),
            value,
            stderr: Some(0.03),
            higher_is_better: true,
        };
        // √(0.03² + 0.04²) = 0.05
        assert_eq!(mark(distance(&metric(0.5), 0.45, Some(0.04))), "");
        assert_eq!(mark(distance(&metric(0.5), 0.39, Some(0.04))), "*");
        assert_eq!(mark(distance(&metric(0.5), 0.65, Some(0.04))), "**");
        assert_eq!(mark(distance(&metric(0.5), 0.0, None)), "");
    }

    #[test]
    fn cells_stand_in_columns() {
        let lines = [["Tasks", "Value"], ["a", "0.5"], ["- bc", "12.25"]];
        let lines: Vec<Vec<String>> =
            lines.iter().map(|l| l.iter().map(|c| c.to_string()).collect()).collect();
        assert_eq!(rendered(&lines), "|Tasks|Value|\n|-----|-----|\n|a    |  0.5|\n|- bc |12.25|\n");
    }
}
