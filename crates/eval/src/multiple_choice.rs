//! Multiple choice by log-likelihood (lm_eval 0.4.13, `output_type: multiple_choice`).
//!
//! Each choice is scored as the continuation of the question. `acc`: the most likely choice is the right one;
//! `acc_norm`: the same after division by the choice's length in characters; `acc_bytes`: in UTF-8 bytes. The length
//! is that of the choice alone, without the delimiter before it.

use crate::model::ask;
use crate::rows::read_rows;
use crate::statistics::{argmax, mean, mean_stderr};
use crate::{Conventions, EvalError, LanguageModel, Metric, TaskResult, encode_continuation};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// One question, under the field names of lm_eval's multiple-choice documents.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MultipleChoiceRow {
    /// The context, complete with instructions and examples.
    pub query: String,
    /// The possible continuations, without the delimiter.
    pub choices: Vec<String>,
    /// Index of the right choice.
    pub gold: usize,
}

const EXPECTED: &str = r#"{"query": "text", "choices": ["a", "b"], "gold": 0}"#;

/// Questions from a JSONL file.
pub fn read_multiple_choice(path: &Path) -> Result<Vec<MultipleChoiceRow>, EvalError> {
    read_rows(path, EXPECTED, |row: &MultipleChoiceRow| {
        if row.gold >= row.choices.len() {
            return Err(format!("gold is {}, but there are {} choices", row.gold, row.choices.len()));
        }
        match row.choices.iter().position(String::is_empty) {
            Some(index) => Err(format!("choice {index} is empty")),
            None => Ok(()),
        }
    })
}

/// Scores `rows`; `delimiter` stands between question and choice (lm_eval's default is one space).
pub fn score_multiple_choice(
    model: &mut dyn LanguageModel,
    conventions: &Conventions,
    task: &str,
    rows: &[MultipleChoiceRow],
    delimiter: &str,
) -> Result<TaskResult, EvalError> {
    let mut requests = Vec::new();
    for row in rows {
        for choice in &row.choices {
            let continuation = format!("{delimiter}{choice}");
            requests.push(encode_continuation(model, conventions, &row.query, &continuation)?);
        }
    }
    let answers = ask(model, &requests)?;
    let (mut acc, mut acc_norm, mut acc_bytes) = (Vec::new(), Vec::new(), Vec::new());
    let mut next = 0;
    for row in rows {
        let scores = &answers[next..next + row.choices.len()];
        next += row.choices.len();
        let right_by = |length: &dyn Fn(&str) -> f64| {
            let values: Vec<f64> = scores
                .iter()
                .zip(&row.choices)
                .map(|(score, choice)| score.log_prob / length(choice))
                .collect();
            if argmax(&values) == row.gold { 1.0 } else { 0.0 }
        };
        acc.push(right_by(&|_| 1.0));
        acc_norm.push(right_by(&|choice| choice.chars().count() as f64));
        acc_bytes.push(right_by(&|choice| choice.len() as f64));
    }
    let metric = |name: &str, values: &[f64]| Metric {
        name: name.into(),
        value: mean(values),
        stderr: mean_stderr(values),
        higher_is_better: true,
    };
    let metrics = vec![metric("acc", &acc), metric("acc_norm", &acc_norm), metric("acc_bytes", &acc_bytes)];
    Ok(TaskResult { task: task.into(), samples: rows.len(), metrics })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{GenerateRequest, LogLikelihood, ScoreRequest};

    /// Characters as tokens; each character's log-probability is minus its place in the alphabet.
    struct Alphabet;

    impl LanguageModel for Alphabet {
        fn encode(&mut self, text: &str, _: bool) -> Result<Vec<u32>, EvalError> {
            Ok(text.chars().map(|c| c as u32).collect())
        }
        fn log_likelihood(&mut self, requests: &[ScoreRequest]) -> Result<Vec<LogLikelihood>, EvalError> {
            let score = |request: &ScoreRequest| {
                let scored = &request.tokens[request.tokens.len() - request.scored..];
                let cost = |&token: &u32| if token == 32 { 0.0 } else { token as f64 - 96.0 };
                LogLikelihood { log_prob: -scored.iter().map(cost).sum::<f64>(), is_greedy: false }
            };
            Ok(requests.iter().map(score).collect())
        }
        fn generate_until(&mut self, _: &[GenerateRequest]) -> Result<Vec<String>, EvalError> {
            Ok(Vec::new())
        }
    }

    fn row(choices: &[&str], gold: usize) -> MultipleChoiceRow {
        let choices = choices.iter().map(|c| c.to_string()).collect();
        MultipleChoiceRow { query: "q:".into(), choices, gold }
    }

    #[test]
    fn accuracy_plain_and_by_length() {
        let conventions = Conventions { max_length: 50, prefix_token: 0, prefix_text: String::new() };
        // "c" costs 3; "bb" costs 4 in all and 2 per character: acc picks the first, acc_norm the second.
        let rows = [row(&["c", "bb"], 0), row(&["c", "bb"], 1), row(&["a", "b"], 0), row(&["a", "a"], 1)];
        let result = score_multiple_choice(&mut Alphabet, &conventions, "letters", &rows, " ").unwrap();
        let value = |name: &str| result.metrics.iter().find(|m| m.name == name).unwrap().clone();
        assert_eq!(value("acc").value, 0.5, "rows 0 and 2; a tie goes to the first choice");
        assert_eq!(value("acc_norm").value, 0.5, "rows 1 and 2");
        assert_eq!(value("acc").stderr, Some((1.0f64 / 3.0).sqrt() / 2.0));
        assert_eq!(result.samples, 4);
    }

    #[test]
    fn length_is_in_characters_for_norm_and_in_bytes_for_bytes() {
        let conventions = Conventions { max_length: 50, prefix_token: 0, prefix_text: String::new() };
        // 'é' is one character and two bytes and costs 137: -137 per character, -68.5 per byte. "ee" x 40 = -100 each.
        let rows = [row(&["é", "\u{c4}"], 1)];
        let result = score_multiple_choice(&mut Alphabet, &conventions, "t", &rows, "").unwrap();
        assert!(result.metrics.iter().all(|m| m.value == 1.0), "{result:?}");
        // 'ä' (228-96 = 132, two bytes: -66 per byte) against "zzz" (26 each, -26 per byte and character).
        let rows = [row(&["ä", "ÿ"], 0)];
        let result = score_multiple_choice(&mut Alphabet, &conventions, "t", &rows, "").unwrap();
        assert!(result.metrics.iter().all(|m| m.value == 1.0), "{result:?}");
    }

    #[test]
    fn broken_rows_are_named_by_file_and_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("task.jsonl");
        let good = r#"{"query": "q", "choices": ["a", "b"], "gold": 1, "extra": 3}"#;
        for (bad, reason) in [
            (r#"{"query": "q", "choices": ["a"], "gold": 1}"#, "gold is 1"),
            (r#"{"query": "q", "choices": ["a", ""], "gold": 0}"#, "choice 1 is empty"),
            (r#"{"query": "q", "choices": ["a"]"#, "EOF"),
        ] {
            std::fs::write(&path, format!("{good}\n\n{bad}\n")).unwrap();
            let error = read_multiple_choice(&path).unwrap_err().to_string();
            assert!(error.contains("task.jsonl:3:") && error.contains(reason), "{error}");
        }
        std::fs::write(&path, format!("{good}\n")).unwrap();
        assert_eq!(read_multiple_choice(&path).unwrap().len(), 1);
        std::fs::write(&path, "\n").unwrap();
        assert!(matches!(read_multiple_choice(&path), Err(EvalError::Empty { .. })));
        assert!(matches!(read_multiple_choice(&dir.path().join("no")), Err(EvalError::Read { .. })));
    }
}
