//! From a document's answers to the values of its metrics (lm_eval 0.4.13 `api/task.py::process_results`).

use crate::document::{Reading, Score, Scores};
use crate::filter::Pipeline;
use crate::native::wikitext_words;
use crate::prompt::whole;
use crate::python::text::str_of;
use crate::run::Asked;
use crate::statistics::argmax;
use crate::task::{OutputType, TaskSpec};
use crate::{EvalError, LogLikelihood};
use serde_json::{Value, json};

/// The model's answers, by document.
#[derive(Debug)]
pub(crate) enum Answers {
    /// One for each continuation, and how often lm_eval would have asked.
    Scored(Vec<Vec<LogLikelihood>>, usize),
    /// The sum of each text.
    Rolled(Vec<Vec<LogLikelihood>>, usize),
    /// As many texts as the task repeats.
    Generated(Vec<Vec<String>>),
}

/// The answers to one document, filtered.
pub(crate) enum Answer<'a> {
    Scored(&'a [LogLikelihood]),
    Text(&'a Value),
}

impl Answers {
    /// What the filters make of each document's texts.
    pub(crate) fn filtered(&self, pipeline: &Pipeline, asked: &[Asked<'_>]) -> Result<Vec<Value>, String> {
        let Self::Generated(texts) = self else { return Ok(Vec::new()) };
        let documents: Vec<&Value> = asked.iter().map(|asked| asked.document).collect();
        pipeline.apply(texts, &documents)
    }

    pub(crate) fn of<'a>(&'a self, at: usize, filtered: &'a [Value]) -> Answer<'a> {
        match self {
            Self::Scored(answers, _) | Self::Rolled(answers, _) => Answer::Scored(&answers[at]),
            Self::Generated(_) => Answer::Text(&filtered[at]),
        }
    }

    /// `resps` and `filtered_resps` of a file of samples.
    pub(crate) fn json(&self, at: usize, filtered: &[Value]) -> (Value, Value) {
        let pair = |answer: &LogLikelihood| {
            json!([str_of(&json!(answer.log_prob)), if answer.is_greedy { "True" } else { "False" }])
        };
        let number = |answer: &LogLikelihood| json!(str_of(&json!(answer.log_prob)));
        let listed = |answers: &[LogLikelihood], repeats: usize, show: &dyn Fn(&LogLikelihood) -> Value| {
            let all: Vec<Value> = answers.iter().map(|answer| vec![show(answer); repeats].into()).collect();
            (all.into(), answers.iter().map(show).collect())
        };
        match self {
            Self::Scored(answers, repeats) => listed(&answers[at], *repeats, &pair),
            Self::Rolled(answers, repeats) => listed(&answers[at], *repeats, &number),
            Self::Generated(texts) => (json!([texts[at]]), json!([as_texts(&filtered[at])])),
        }
    }
}

/// Every value as a text.
fn as_texts(value: &Value) -> Value {
    match value {
        Value::Array(items) => items.iter().map(as_texts).collect(),
        other => str_of(other).into(),
    }
}

/// Values of the task's metrics for one document.
pub(crate) fn scores(
    reading: &Reading<'_>,
    asked: &Asked<'_>,
    answer: &Answer<'_>,
    has_several_targets: bool,
) -> Result<Scores, EvalError> {
    let failed = |(key, problem): (&str, String)| reading.failed(asked.index, asked.document, key, problem);
    let spec = reading.spec;
    if let Some(native) = spec.process_results {
        let scores = match answer {
            Answer::Scored(answers) => {
                let values: Vec<f64> = answers.iter().map(|answer| answer.log_prob).collect();
                native.scores(asked.document, &values)
            }
            Answer::Text(text) => native.text_scores(asked.document, &str_of(text)),
        };
        return scores.map_err(|problem| failed(("process_results", problem)));
    }
    match (spec.output_type, answer) {
        (OutputType::LogLikelihood, Answer::Scored(answers)) => Ok(one_continuation(spec, &answers[0])),
        (OutputType::Rolling, Answer::Scored(answers)) => {
            let text = asked.requests.first().map_or("", |request| request.first_argument());
            Ok(whole_text(spec, text, &answers[0]))
        }
        (OutputType::MultipleChoice, Answer::Scored(answers)) => {
            choice(reading, asked, answers).map_err(failed)
        }
        (_, Answer::Text(text)) => generation(reading, asked, text, has_several_targets).map_err(failed),
        (OutputType::GenerateUntil, Answer::Scored(_)) => unreachable!("texts were asked for"),
    }
}

fn wants(spec: &TaskSpec, metric: &str) -> bool {
    spec.metrics.iter().any(|wanted| wanted.name == metric)
}

/// Metrics of multiple choice in the order in which lm_eval tells them, whatever the task's is.
const CHOICE_METRICS: [&str; 9] =
    ["acc", "f1", "mcc", "acc_norm", "acc_bytes", "exact_match", "brier_score", "acc_mutual_info", "bypass"];

fn one_continuation(spec: &TaskSpec, answer: &LogLikelihood) -> Scores {
    let all = [
        ("perplexity", Score::Number(answer.log_prob)),
        ("acc", Score::Whole(answer.is_greedy.into())),
        ("bypass", Score::Whole(999)),
    ];
    all.into_iter().filter(|(name, _)| wants(spec, name)).map(|(name, score)| (name.into(), score)).collect()
}

fn whole_text(spec: &TaskSpec, text: &str, answer: &LogLikelihood) -> Scores {
    let weighted = |weight: usize| Score::Weighted(answer.log_prob, weight as f64);
    let all = [
        ("word_perplexity", weighted(wikitext_words(text))),
        ("byte_perplexity", weighted(text.len())),
        ("bits_per_byte", weighted(text.len())),
    ];
    all.into_iter().filter(|(name, _)| wants(spec, name)).map(|(name, score)| (name.into(), score)).collect()
}

/// The right choices, by index; those that are none are left out.
fn gold(value: &Value, choices: &[String]) -> Value {
    let one = |value: &Value| match value {
        Value::String(text) => choices.iter().position(|choice| choice == text).map(|at| at as i64),
        other => whole(other).filter(|&at| at < choices.len() as i64),
    };
    match value {
        Value::Array(items) => items.iter().map(|item| Value::from(one(item).unwrap_or(-100))).collect(),
        other => one(other).unwrap_or(-100).into(),
    }
}

/// Errors name the key of the task.
type Keyed<T> = Result<T, (&'static str, String)>;

/// The choices, and the right ones among them by index; -100: it is none of them.
pub(crate) fn right_choice(reading: &Reading<'_>, document: &Value) -> Keyed<(Vec<String>, Value)> {
    let spec = reading.spec;
    let field = spec.doc_to_choice.as_ref().expect("a multiple_choice task is read with its choices");
    let choices = reading.choices(field, document).map_err(|problem| ("doc_to_choice", problem))?;
    let text = reading.text(&spec.doc_to_text, document).map_err(|problem| ("doc_to_text", problem))?;
    let right = match text.is_i64() {
        true => text,
        false => {
            reading.target(&spec.doc_to_target, document).map_err(|problem| ("doc_to_target", problem))?
        }
    };
    let right = gold(&right, &choices);
    Ok((choices, right))
}

fn choice(reading: &Reading<'_>, asked: &Asked<'_>, answers: &[LogLikelihood]) -> Keyed<Scores> {
    let spec = reading.spec;
    let (choices, right) = right_choice(reading, asked.document)?;
    let (own, unconditional) = answers.split_at(choices.len().min(answers.len()));
    let values: Vec<f64> = own.iter().map(|answer| answer.log_prob).collect();
    let by = |length: &dyn Fn(&str) -> f64| {
        let scaled: Vec<f64> =
            values.iter().zip(&choices).map(|(value, choice)| value / length(choice)).collect();
        argmax(&scaled)
    };
    let is_right = |chosen: usize| {
        let equal = |gold: &Value| gold.as_i64() == Some(chosen as i64);
        let is_right = match &right {
            Value::Array(all) => all.iter().any(equal),
            one => equal(one),
        };
        Score::Number(if is_right { 1.0 } else { 0.0 })
    };
    let is_greedy = |gold: &Value| {
        let at = gold.as_u64().and_then(|at| own.get(at as usize));
        at.is_some_and(|answer| answer.is_greedy)
    };
    let chosen = argmax(&values);
    let mut scores = Scores::new();
    for name in CHOICE_METRICS.into_iter().filter(|name| wants(spec, name)) {
        let score = match name {
            "acc" => is_right(chosen),
            "acc_norm" => is_right(by(&|choice| choice.chars().count() as f64)),
            "acc_bytes" => is_right(by(&|choice| choice.len() as f64)),
            "f1" | "mcc" => Score::Classes(right.clone(), chosen),
            "exact_match" => Score::Whole(i64::from(match &right {
                Value::Array(all) => all.iter().any(is_greedy),
                one => is_greedy(one),
            })),
            "brier_score" => Score::Probabilities(right.clone(), softmax(&values)),
            "acc_mutual_info" => {
                let gains: Vec<f64> =
                    values.iter().zip(unconditional).map(|(value, other)| value - other.log_prob).collect();
                is_right(argmax(&gains))
            }
            _ => Score::Whole(999),
        };
        scores.push((name.to_owned(), score));
    }
    Ok(scores)
}

fn softmax(values: &[f64]) -> Vec<f64> {
    let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let exps: Vec<f64> = values.iter().map(|value| (value - most).exp()).collect();
    let total: f64 = exps.iter().sum();
    exps.into_iter().map(|x| x / total).collect()
}

fn generation(
    reading: &Reading<'_>,
    asked: &Asked<'_>,
    answer: &Value,
    has_several_targets: bool,
) -> Keyed<Scores> {
    let spec = reading.spec;
    let target =
        reading.target(&spec.doc_to_target, asked.document).map_err(|problem| ("doc_to_target", problem))?;
    let references: Vec<String> = match (&spec.doc_to_choice, &target) {
        (Some(field), index) => {
            let choices =
                reading.choices(field, asked.document).map_err(|problem| ("doc_to_choice", problem))?;
            let at = whole(index).and_then(|at| usize::try_from(at).ok()).and_then(|at| choices.get(at));
            vec![
                at.cloned()
                    .ok_or_else(|| ("doc_to_target", format!("{index} is no index of the choices")))?,
            ]
        }
        (None, Value::Array(items)) if has_several_targets => items.iter().map(str_of).collect(),
        (None, other) => vec![str_of(other)],
    };
    let predictions: Vec<String> = match answer {
        Value::Array(items) => items.iter().map(str_of).collect(),
        other => vec![str_of(other)],
    };
    let mut scores = Scores::new();
    for metric in &spec.metrics {
        let score = match metric.name.as_str() {
            "exact_match" => {
                let mut right = Vec::new();
                for prediction in &predictions {
                    for reference in &references {
                        let is_match = metric.exact_match.is_match(prediction, reference);
                        right.push(is_match.map_err(|problem| ("metric_list", problem))?);
                    }
                }
                let share = right.iter().filter(|&&r| r).count() as f64 / right.len().max(1) as f64;
                // With several right answers one is enough.
                Score::Number(if has_several_targets && share > 0.0 { 1.0 } else { share })
            }
            "bypass" => Score::Whole(999),
            _ => Score::Texts(references.clone(), predictions.first().cloned().unwrap_or_default()),
        };
        scores.push((metric.name.clone(), score));
    }
    Ok(scores)
}
