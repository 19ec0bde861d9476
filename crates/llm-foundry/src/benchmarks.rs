//! Benchmarks as a configuration names them: tasks of section `eval`, and the numbers by which models are compared.

use crate::config::{Config, EvalSection};
use crate::failure::{Failure, Outcome};
use crate::model_source::expand_home;
use foundry_engine::{EvalMetric, TaskMetric, TaskReport};
use foundry_eval::{EvalError, Library, Metric, Row, Selection};

/// Numbers that are offered in place of an unknown one.
const NEAR: usize = 3;

/// The tasks of the section.
pub(crate) fn selection(section: &EvalSection) -> Outcome<Selection> {
    let wrong = |error: EvalError| Failure::Input(format!("eval.tasks: {error}"));
    let mut library = Library::builtin().map_err(wrong)?;
    for path in &section.include_path {
        library.add_path(&expand_home(path)).map_err(wrong)?;
    }
    library.select(&section.tasks).map_err(wrong)
}

/// A number's name in reports: the metric, with its filter where that is not `none`.
fn metric_name(metric: &Metric) -> String {
    match metric.filter.as_str() {
        "none" => metric.name.clone(),
        filter => format!("{},{filter}", metric.name),
    }
}

/// A row of results for the callbacks; groups without numbers have none.
pub(crate) fn report(step: u64, row: Row) -> Option<TaskReport> {
    let metric = row.metric?;
    let name = metric_name(&metric);
    Some(TaskReport { step, task: row.name, metric: name, value: metric.value, stderr: metric.stderr })
}

/// Whether more is better of the benchmark that `training.metric_for_best_model` names. `None`: it names none.
pub(crate) fn direction(config: &Config, metric: &EvalMetric) -> Outcome<Option<bool>> {
    let EvalMetric::Task(wanted) = metric else { return Ok(None) };
    direction_in(&selection(&config.eval)?, wanted).map(Some)
}

fn direction_in(selection: &Selection, wanted: &TaskMetric) -> Outcome<bool> {
    let rows = selection.rows();
    let figures: Vec<(String, String, bool)> = rows
        .into_iter()
        .filter_map(|row| {
            let metric = row.metric?;
            Some((row.name, metric_name(&metric), metric.higher_is_better))
        })
        .collect();
    let found = figures.iter().find(|(task, metric, _)| (task, metric) == (&wanted.task, &wanted.metric));
    if let Some((_, _, higher_is_better)) = found {
        return Ok(*higher_is_better);
    }
    let of_task: Vec<&str> = figures
        .iter()
        .filter(|(task, ..)| *task == wanted.task)
        .map(|(_, metric, _)| metric.as_str())
        .collect();
    let name = String::from(wanted.clone());
    let help = if of_task.is_empty() {
        let names = figures.iter().map(|(task, metric, _)| format!("{task}/{metric}"));
        let mut near: Vec<(f64, String)> =
            names.map(|own| (strsim::jaro_winkler(&name, &own), own)).collect();
        near.sort_by(|a, b| b.0.total_cmp(&a.0));
        let near: Vec<String> = near.into_iter().take(NEAR).map(|(_, name)| name).collect();
        format!("`eval.tasks` has no task or group `{}`; did you mean {}?", wanted.task, near.join(" or "))
    } else {
        format!("`{}` has {}", wanted.task, of_task.join(", "))
    };
    Err(Failure::Input(format!(
        "training.metric_for_best_model: there is no number `{name}`\n  {help}\n  write TASK/METRIC, as the table of \
         `llm-foundry eval` names them, with the filter where there are several: gsm8k/exact_match,strict-match"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn direction_of(tasks: &[&str], metric: &str) -> Outcome<bool> {
        let section = EvalSection {
            tasks: tasks.iter().map(|task| (*task).to_owned()).collect(),
            ..EvalSection::default()
        };
        let metric = TaskMetric::try_from(metric.to_owned()).expect("TASK/METRIC");
        direction_in(&selection(&section).expect("built in"), &metric)
    }

    #[test]
    fn a_number_of_a_task_or_group_says_which_way_is_up() {
        assert!(direction_of(&["arc_easy"], "arc_easy/acc_norm").expect("a metric"));
        assert!(direction_of(&["mmlu"], "mmlu/acc").expect("of a group"));
        assert!(direction_of(&["mmlu"], "mmlu_anatomy/acc").expect("of its task"));
        assert!(direction_of(&["gsm8k"], "gsm8k/exact_match,strict-match").expect("with a filter"));
        assert!(!direction_of(&["wikitext"], "wikitext/word_perplexity").expect("a perplexity"));
    }

    #[test]
    fn unknown_numbers_are_refused_with_those_that_there_are() {
        let refused = |tasks: &[&str], metric: &str| match direction_of(tasks, metric) {
            Err(Failure::Input(text)) => text,
            other => panic!("{other:?}"),
        };
        let text = refused(&["gsm8k"], "gsm8k/exact_match");
        assert!(text.contains("exact_match,flexible-extract, exact_match,strict-match"), "{text}");
        let text = refused(&["arc_easy", "piqa"], "arc_esay/acc");
        assert!(text.contains("did you mean arc_easy/acc"), "{text}");
    }
}
