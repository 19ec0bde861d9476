//! What an evaluation asks of a model.

use crate::EvalError;

/// Score the last `scored` of `tokens`, each given all tokens before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScoreRequest {
    /// Context and continuation, at most one token longer than the model's context (the last one is only predicted).
    pub tokens: Vec<u32>,
    /// Length of the continuation, `1 ..= tokens.len() - 1`.
    pub scored: usize,
}

impl ScoreRequest {
    /// Context and continuation.
    ///
    /// # Panics
    /// If `scored` is more than there are tokens.
    pub fn parts(&self) -> (&[u32], &[u32]) {
        self.tokens.split_at(self.tokens.len() - self.scored)
    }
}

/// How likely a continuation is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LogLikelihood {
    /// Sum of the natural logarithms of the tokens' probabilities.
    pub log_prob: f64,
    /// Every token was the most likely one at its place.
    pub is_greedy: bool,
}

/// Continue a text.
#[derive(Debug, Clone, PartialEq)]
pub struct GenerateRequest {
    /// The context, already truncated to leave room for `max_new_tokens`.
    pub tokens: Vec<u32>,
    /// Stop where one of these begins; it is not part of the answer.
    pub until: Vec<String>,
    /// The most tokens to generate.
    pub max_new_tokens: usize,
    /// How tokens are drawn.
    pub drawing: Drawing,
}

/// How tokens are drawn. What is not given is the model's own setting.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Drawing {
    /// At random; else always the most likely token.
    pub do_sample: bool,
    /// Divides the logits; above 0.
    pub temperature: Option<f64>,
    /// Only the most likely tokens that together have this probability.
    pub top_p: Option<f64>,
    /// Only this many of the most likely tokens.
    pub top_k: Option<usize>,
    /// Of the random numbers.
    pub seed: u64,
}

impl Drawing {
    /// Always the most likely token.
    pub const GREEDY: Self = Self { do_sample: false, temperature: None, top_p: None, top_k: None, seed: 0 };
}

/// A model as evaluations see it. Scores that are no numbers are [`EvalError::NotFinite`], with the request.
pub trait LanguageModel {
    /// Token ids of `text`; `add_special_tokens` decides over what the tokenizer adds by itself (BOS).
    fn encode(&mut self, text: &str, add_special_tokens: bool) -> Result<Vec<u32>, EvalError>;

    /// One answer for each request, in their order.
    fn log_likelihood(&mut self, requests: &[ScoreRequest]) -> Result<Vec<LogLikelihood>, EvalError>;

    /// The generated text for each request, without the stop string, in their order.
    fn generate_until(&mut self, requests: &[GenerateRequest]) -> Result<Vec<String>, EvalError>;
}

/// One answer for each request, checked.
pub(crate) fn counted<T>(answers: Vec<T>, requests: usize) -> Result<Vec<T>, EvalError> {
    if answers.len() != requests {
        return Err(EvalError::AnswerCount { requests, answers: answers.len() });
    }
    Ok(answers)
}
