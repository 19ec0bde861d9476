//! The parts of a page, from top to bottom.

use super::chart::{COLOURS, short};
use super::curves::figures;
use super::folder::{Run, Sample, Setting};
use super::html::{escaped, table};
use crate::console::{bytes, duration, thousands};
use crate::history::{Line, number};
use serde_json::Value;
use std::fmt::Write;

/// Evaluations that are shown without being asked.
const EVALUATIONS: usize = 12;

/// One run in detail.
pub(super) fn of_one(run: &Run) -> String {
    let mut html = format!(
        "<header><h1>{}</h1>\n<p class=\"state\">{}</p>\n{}</header>\n",
        escaped(&run.name),
        state(run),
        tiles(run)
    );
    section(&mut html, "Curves", figures(std::slice::from_ref(run)));
    section(&mut html, "Benchmarks", benchmarks(std::slice::from_ref(run)));
    section(&mut html, "Evaluations", evaluations(run));
    section(&mut html, "Samples", samples(&run.samples));
    section(&mut html, "Data", data(run));
    section(&mut html, "Configuration", configuration(run));
    html
}

/// Several runs against each other: all of them in a table, and the first ones `drawn`. `note` says why not all are.
pub(super) fn of_several(runs: &[Run], drawn: &[Run], note: &str) -> String {
    let mut html = format!("<header><h1>{} runs</h1></header>\n", runs.len());
    let note = if note.is_empty() { String::new() } else { format!("<p class=\"state\">{note}</p>\n") };
    section(&mut html, "Runs", note + &comparison(runs, drawn.len()));
    let runs = drawn;
    section(&mut html, "What differs", differences(runs));
    let names: Vec<String> =
        runs.iter().enumerate().map(|(i, run)| format!("<span>{}</span>", named(i, run))).collect();
    section(&mut html, "Curves", format!("<p class=\"legend\">{}</p>\n{}", names.join("\n"), figures(runs)));
    section(&mut html, "Benchmarks", benchmarks(runs));
    let mut configurations = String::new();
    for run in runs.iter().filter(|run| !run.config.is_empty()) {
        let _ = write!(
            configurations,
            "<details><summary>{}</summary>\n{}</details>\n",
            escaped(&run.name),
            configuration(run)
        );
    }
    section(&mut html, "Configurations", configurations);
    html
}

fn section(html: &mut String, title: &str, content: String) {
    if !content.is_empty() {
        let _ = write!(html, "<section><h2>{title}</h2>\n{content}</section>\n");
    }
}

fn state(run: &Run) -> String {
    let class = if run.is_done() { "" } else { " class=\"open\"" };
    let told =
        |key: &str| run.history.start.as_ref().and_then(|start| Some(escaped(start.get(key)?.as_str()?)));
    let backend = told("backend").map_or_else(String::new, |backend| format!(" · {backend}"));
    let model = run.setting("model.name_or_path").filter(|model| model.value != "null");
    let model =
        model.map_or_else(String::new, |model| format!(" · {}", escaped(model.value.trim_matches('"'))));
    format!("<b{class}>{}</b>{model}{backend}", escaped(&run.state()))
}

/// The numbers that people ask for first.
fn tiles(run: &Run) -> String {
    let history = &run.history;
    let of_end = |key: &str| number(history.end.as_ref().or_else(|| history.logs.last())?, key);
    let count = |key: &str| history.start.as_ref().and_then(|start| start.get(key)?.as_u64());
    let tiles = [
        ("loss at the end", history.final_loss().map(short)),
        ("evaluation loss", history.eval_loss().map(short)),
        (
            "perplexity",
            history.evaluations.last().and_then(|line| number(line, "eval_perplexity")).map(short),
        ),
        ("tokens", of_end("tokens").map(|tokens| thousands(tokens as u64))),
        ("epochs", of_end("epoch").map(|epochs| format!("{epochs:.2}"))),
        ("time of training", history.seconds().map(duration)),
        ("tokens per second", history.tokens_per_second().map(|speed| format!("{speed:.0}"))),
        ("memory at most", history.peak_memory().map(bytes)),
        ("trained parameters", count("trainable_parameters").map(thousands)),
    ];
    let tiles: Vec<String> = tiles
        .into_iter()
        .filter_map(|(name, value)| {
            Some(format!("<li><span>{name}</span><strong>{}</strong></li>\n", value?))
        })
        .collect();
    if tiles.is_empty() { String::new() } else { format!("<ul class=\"tiles\">\n{}</ul>\n", tiles.concat()) }
}

fn texts<const N: usize>(texts: [&str; N]) -> Vec<String> {
    texts.map(str::to_owned).to_vec()
}

fn known(value: Option<f64>) -> String {
    value.map_or_else(|| "–".into(), short)
}

/// The held-out split, over and over.
fn evaluations(run: &Run) -> String {
    let is_best = |line: &Line| line.get("is_best").and_then(Value::as_bool) == Some(true);
    // Each was the best when it was made; the last of them still is.
    let best = run.history.evaluations.iter().rposition(is_best);
    let row = |(index, line): (usize, &Line)| {
        let step = line.get("step").and_then(Value::as_u64).unwrap_or(0);
        let note = if best == Some(index) { "<span class=\"best\">best</span>" } else { "" };
        let keys = ["eval_loss", "eval_perplexity", "eval_mean_token_accuracy"];
        let figures = keys.map(|key| known(number(line, key)));
        let epoch = number(line, "epoch").map_or_else(|| "–".into(), |epoch| format!("{epoch:.2}"));
        [&[step.to_string(), epoch][..], &figures, &[note.to_owned()]].concat()
    };
    let rows: Vec<Vec<String>> = run.history.evaluations.iter().enumerate().map(row).collect();
    if rows.is_empty() {
        return String::new();
    }
    let heads = texts(["step", "epoch", "loss", "perplexity", "accuracy", ""]);
    let (earlier, last) = rows.split_at(rows.len().saturating_sub(EVALUATIONS));
    let mut html = table("figures", &heads, last);
    if !earlier.is_empty() {
        let _ = write!(
            html,
            "<details><summary>{} earlier ones</summary>\n{}</details>\n",
            earlier.len(),
            table("figures", &heads, earlier)
        );
    }
    html
}

/// Scores of tasks: of one run at its steps, of several runs at their last.
fn benchmarks(runs: &[Run]) -> String {
    let text = |line: &Line, key: &str| line.get(key).and_then(Value::as_str).unwrap_or("").to_owned();
    let step = |line: &Line| line.get("step").and_then(Value::as_u64).unwrap_or(0);
    let mut rows: Vec<(String, String)> = Vec::new();
    let mut columns: Vec<(usize, u64)> = Vec::new();
    for (index, run) in runs.iter().enumerate() {
        for line in &run.history.tasks {
            let (row, column) = ((text(line, "task"), text(line, "metric")), (index, step(line)));
            if !rows.contains(&row) {
                rows.push(row);
            }
            if !columns.contains(&column) {
                columns.push(column);
            }
        }
    }
    if runs.len() > 1 {
        let last = columns.clone();
        columns.retain(|(run, step)| !last.iter().any(|(other, later)| other == run && later > step));
    }
    columns.sort_unstable();
    if rows.is_empty() {
        return String::new();
    }
    let head = |&(run, step): &(usize, u64)| match runs.len() {
        1 => format!("step {step}"),
        _ => escaped(&runs[run].name),
    };
    let heads: Vec<String> = texts(["task", "metric"]).into_iter().chain(columns.iter().map(head)).collect();
    let cell = |row: &(String, String), &(run, at): &(usize, u64)| {
        let is_it =
            |line: &&Line| text(line, "task") == row.0 && text(line, "metric") == row.1 && step(line) == at;
        let line = runs[run].history.tasks.iter().rev().find(is_it);
        let value = line.and_then(|line| number(line, "value"));
        let error = line.and_then(|line| number(line, "stderr"));
        let error = error.map_or_else(String::new, |error| format!(" ± {error:.4}"));
        format!("{}{error}", known(value))
    };
    let rows: Vec<Vec<String>> = rows
        .iter()
        .map(|row| {
            let names = [escaped(&row.0), escaped(&row.1)];
            names.into_iter().chain(columns.iter().map(|column| cell(row, column))).collect()
        })
        .collect();
    table("figures scores", &heads, &rows)
}

/// What the model said to the same prompts before and after.
fn samples(samples: &[Sample]) -> String {
    let mut prompts: Vec<&str> = Vec::new();
    for sample in samples {
        if !prompts.contains(&sample.prompt.as_str()) {
            prompts.push(&sample.prompt);
        }
    }
    let mut html = String::new();
    for prompt in prompts {
        let mut said: Vec<&Sample> = samples.iter().filter(|sample| sample.prompt == prompt).collect();
        said.sort_by_key(|sample| sample.step);
        let (Some(first), Some(last)) = (said.first(), said.last()) else { continue };
        let answer = |title: &str, sample: &Sample| {
            format!(
                "<div><span>{title} (step {})</span><pre>{}</pre></div>",
                sample.step,
                escaped(&sample.text)
            )
        };
        let after = if first.step == last.step { String::new() } else { answer("after", last) };
        let before = if first.step == 0 { "before" } else { "first" };
        let _ = writeln!(
            html,
            "<div class=\"sample\"><div class=\"prompt\"><span>prompt</span><pre>{}</pre></div>{}{after}</div>",
            escaped(prompt),
            answer(before, first)
        );
    }
    if html.is_empty() { html } else { format!("<div class=\"samples\">\n{html}</div>\n") }
}

fn data(run: &Run) -> String {
    let Some(report) = &run.data else { return String::new() };
    let mut html = String::from("<div class=\"sets\">\n");
    for (title, set) in [("Training", &report["train"]), ("Evaluation", &report["eval"])] {
        if set.is_object() {
            let _ = write!(html, "<div><h3>{title}</h3>\n{}</div>\n", data_set(set));
        }
    }
    html + "</div>\n"
}

/// Counts of one set: always what it is, and of losses those that there are.
fn data_set(set: &Value) -> String {
    let count = |key: &str| set[key].as_u64().unwrap_or(0);
    let files = set["files"].as_array().map(Vec::as_slice).unwrap_or_default();
    let file = |file: &Value| {
        let name = file["file"].as_str().or_else(|| file["path"].as_str()).unwrap_or("?");
        let examples = file["examples"].as_u64().map_or_else(String::new, |n| format!(" ({})", thousands(n)));
        format!("{}{examples}", escaped(name))
    };
    let share = 100.0 * count("labelled_tokens") as f64 / count("tokens").max(1) as f64;
    let lengths = ["p50", "p90", "p99", "max"]
        .map(|p| set["length_percentiles"][p].as_u64().map_or_else(|| "–".into(), thousands));
    let mut rows = vec![
        vec!["files".into(), files.iter().map(file).collect::<Vec<_>>().join("<br>")],
        vec!["format".into(), escaped(set["format"].as_str().unwrap_or("–"))],
        vec!["examples".into(), thousands(count("examples"))],
        vec![
            "rows".into(),
            format!("{} of at most {} tokens", thousands(count("rows")), thousands(count("longest_row"))),
        ],
        vec!["tokens".into(), format!("{}, {share:.0} % of them learnt", thousands(count("tokens")))],
        vec![
            "length of an example".into(),
            format!(
                "half ≤ {}, 90 % ≤ {}, 99 % ≤ {}, longest {}",
                lengths[0], lengths[1], lengths[2], lengths[3]
            ),
        ],
    ];
    let losses = [
        ("cut at max_length", "truncated"),
        ("tokens lost by that", "truncated_tokens"),
        ("left out, empty", "dropped_empty"),
        ("left out, no label", "dropped_unlabelled"),
        ("left out, unusable", "skipped"),
        ("left out by length or characters", "filtered"),
        ("left out, equal to an earlier one", "deduplicated"),
        ("equal to an earlier one", "duplicates"),
        ("shared with the evaluation data", "contaminated"),
    ];
    for (name, key) in losses.into_iter().filter(|(_, key)| count(key) > 0) {
        rows.push(vec![name.into(), thousands(count(key))]);
    }
    let mut html = table("", &[], &rows);
    let notes = set["warnings"].as_array().map(Vec::as_slice).unwrap_or_default();
    let notes: Vec<String> =
        notes.iter().filter_map(|note| Some(format!("<li>{}</li>", escaped(note.as_str()?)))).collect();
    if !notes.is_empty() {
        let _ = writeln!(html, "<ul class=\"notes\">{}</ul>", notes.concat());
    }
    html
}

/// What was written first, with its origin; defaults on demand.
fn configuration(run: &Run) -> String {
    if run.config.is_empty() {
        return String::new();
    }
    let list = |settings: &[&Setting]| {
        let rows = settings.iter().map(|setting| {
            let origin = setting.origin.as_deref().map_or_else(|| "default".into(), escaped);
            let (path, value) = (escaped(&setting.path), escaped(&setting.value));
            format!("<div><dt>{path}</dt><dd>{value}</dd><dd>{origin}</dd></div>\n")
        });
        format!("<dl class=\"settings\">\n{}</dl>\n", rows.collect::<String>())
    };
    let (written, defaults): (Vec<&Setting>, Vec<&Setting>) =
        run.config.iter().partition(|s| s.origin.is_some());
    let mut html = list(&written);
    if !defaults.is_empty() {
        let _ = write!(
            html,
            "<details><summary>{} defaults</summary>\n{}</details>\n",
            defaults.len(),
            list(&defaults)
        );
    }
    html
}

/// A mark in a run's colour, and its name.
fn named(index: usize, run: &Run) -> String {
    format!("<span class=\"key c{}\"></span>{}", index % COLOURS, escaped(&run.name))
}

/// All runs; the first `drawn` have a colour.
fn comparison(runs: &[Run], drawn: usize) -> String {
    let best = |figure: fn(&Run) -> Option<f64>| {
        runs.iter().filter(|run| run.is_done()).filter_map(figure).min_by(f64::total_cmp)
    };
    let loss = |run: &Run| run.history.final_loss();
    let eval = |run: &Run| run.history.eval_loss();
    let (best_loss, best_eval) = (best(loss), best(eval));
    let marked = |run: &Run, value: Option<f64>, best| match run.is_done() && value.is_some() && value == best
    {
        true => format!("<span class=\"best\">{}</span>", known(value)),
        false => known(value),
    };
    let row = |(index, run): (usize, &Run)| {
        let history = &run.history;
        vec![
            if index < drawn { named(index, run) } else { escaped(&run.name) },
            marked(run, loss(run), best_loss),
            marked(run, eval(run), best_eval),
            history.tokens_per_second().map_or_else(|| "–".into(), |speed| format!("{speed:.0}")),
            history.peak_memory().map_or_else(|| "–".into(), bytes),
            history.seconds().map_or_else(|| "–".into(), duration),
            escaped(&run.state()),
        ]
    };
    let rows: Vec<Vec<String>> = runs.iter().enumerate().map(row).collect();
    table("figures", &texts(["run", "loss", "eval loss", "tokens/s", "memory", "time", "state"]), &rows)
}

/// Keys that do not have the same value in all runs.
fn differences(runs: &[Run]) -> String {
    let mut paths: Vec<&str> = Vec::new();
    for setting in runs.iter().flat_map(|run| &run.config) {
        if !paths.contains(&setting.path.as_str()) {
            paths.push(&setting.path);
        }
    }
    let value = |run: &Run, path: &str| run.setting(path).map(|setting| setting.value.clone());
    // Where a run lies is no setting of it.
    let differs = |path: &&str| {
        *path != "output_dir" && runs.iter().any(|run| value(run, path) != value(&runs[0], path))
    };
    let rows: Vec<Vec<String>> = paths
        .into_iter()
        .filter(differs)
        .map(|path| {
            let values =
                runs.iter().map(|run| value(run, path).map_or_else(|| "–".into(), |value| escaped(&value)));
            std::iter::once(escaped(path)).chain(values).collect()
        })
        .collect();
    if rows.is_empty() {
        return String::new();
    }
    let names = runs.iter().enumerate().map(|(index, run)| named(index, run));
    let heads: Vec<String> = std::iter::once("key".to_owned()).chain(names).collect();
    table("figures", &heads, &rows)
}
