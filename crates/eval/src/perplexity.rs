//! Perplexity of texts (lm_eval 0.4.13, `output_type: loglikelihood_rolling`).
//!
//! With `L` the sum of the log-likelihoods of all tokens of all texts: `word_perplexity = exp(-L/words)`,
//! `byte_perplexity = exp(-L/bytes)`, `bits_per_byte = -L/(bytes·ln 2)`, and, weighted by tokens as in training,
//! `token_perplexity = exp(-L/tokens)` (not in lm_eval; depends on the tokenizer).

use crate::encoding::encode_text;
use crate::model::ask;
use crate::rows::read_rows;
use crate::{Conventions, EvalError, LanguageModel, Metric, TaskResult, rolling_windows};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// One text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PerplexityRow {
    /// The text, scored as a whole.
    pub text: String,
}

/// Texts from a JSONL file.
pub fn read_perplexity(path: &Path) -> Result<Vec<PerplexityRow>, EvalError> {
    read_rows(path, r#"{"text": "…"}"#, |row: &PerplexityRow| {
        if row.text.is_empty() { Err("text is empty".into()) } else { Ok(()) }
    })
}

/// Words as lm_eval counts them: `len(re.split(r"\s+", text))`, so that space at either end counts one more.
fn words(text: &str) -> usize {
    let mut separators = 0;
    let mut inside_space = false;
    for c in text.chars() {
        let space = c.is_whitespace() || ('\x1c'..='\x1f').contains(&c);
        separators += usize::from(space && !inside_space);
        inside_space = space;
    }
    separators + 1
}

/// Scores `rows`.
pub fn score_perplexity(
    model: &mut dyn LanguageModel,
    conventions: &Conventions,
    task: &str,
    rows: &[PerplexityRow],
) -> Result<TaskResult, EvalError> {
    let mut requests = Vec::new();
    let (mut word_count, mut bytes) = (0, 0);
    for row in rows {
        let tokens = encode_text(model, conventions, &row.text)?;
        requests.extend(rolling_windows(&tokens, conventions));
        word_count += words(&row.text);
        bytes += row.text.len();
    }
    let tokens: usize = requests.iter().map(|request| request.scored).sum();
    let total: f64 = ask(model, &requests)?.iter().map(|answer| answer.log_prob).sum();
    let metric =
        |name: &str, value: f64| Metric { name: name.into(), value, stderr: None, higher_is_better: false };
    let metrics = vec![
        metric("word_perplexity", (-total / word_count as f64).exp()),
        metric("byte_perplexity", (-total / bytes as f64).exp()),
        metric("bits_per_byte", -total / (bytes as f64 * std::f64::consts::LN_2)),
        metric("token_perplexity", (-total / tokens as f64).exp()),
    ];
    Ok(TaskResult { task: task.into(), samples: rows.len(), metrics })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{GenerateRequest, LogLikelihood, ScoreRequest};

    /// Two characters per token, every token with probability 1/8.
    struct Eighths {
        scored: usize,
    }

    impl LanguageModel for Eighths {
        fn encode(&mut self, text: &str, _: bool) -> Result<Vec<u32>, EvalError> {
            Ok(vec![7; text.chars().count().div_ceil(2)])
        }
        fn log_likelihood(&mut self, requests: &[ScoreRequest]) -> Result<Vec<LogLikelihood>, EvalError> {
            let answer = |request: &ScoreRequest| {
                self.scored += request.scored;
                LogLikelihood { log_prob: -(8f64.ln()) * request.scored as f64, is_greedy: true }
            };
            Ok(requests.iter().map(answer).collect())
        }
        fn generate_until(&mut self, _: &[GenerateRequest]) -> Result<Vec<String>, EvalError> {
            Ok(Vec::new())
        }
    }

    #[test]
    fn per_token_byte_and_word() {
        let conventions = Conventions { max_length: 3, prefix_token: 0, prefix_text: String::new() };
        // 20 bytes, 10 tokens (four windows), 4 words: L = -10·ln 8 = -30 bits.
        let rows = [PerplexityRow { text: "abcd efg".into() }, PerplexityRow { text: "hijklm nopqr".into() }];
        let mut model = Eighths { scored: 0 };
        let result = score_perplexity(&mut model, &conventions, "text", &rows).unwrap();
        assert_eq!(model.scored, 10, "each token once");
        let value = |name: &str| result.metrics.iter().find(|m| m.name == name).unwrap().value;
        let close = |a: f64, b: f64| (a - b).abs() < 1e-12 * b;
        assert!(close(value("token_perplexity"), 8.0));
        assert!(close(value("bits_per_byte"), 1.5));
        assert!(close(value("byte_perplexity"), 2f64.powf(1.5)));
        assert!(close(value("word_perplexity"), 2f64.powf(7.5)));
    }

    #[test]
    fn words_are_counted_as_python_splits() {
        // python: [len(re.split(r"\s+", t)) for t in ("a b", " a  b ", "", "a\n\nb c")]
        assert_eq!(["a b", " a  b ", "", "a\n\nb c"].map(words), [2, 4, 1, 3]);
    }
}
