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
    /// `0`: greedy.
    pub temperature: f32,
}

/// A model as evaluations see it.
pub trait LanguageModel {
    /// Token ids of `text`; `add_special_tokens` decides over what the tokenizer adds by itself (BOS).
    fn encode(&mut self, text: &str, add_special_tokens: bool) -> Result<Vec<u32>, EvalError>;

    /// One answer for each request, in their order.
    fn log_likelihood(&mut self, requests: &[ScoreRequest]) -> Result<Vec<LogLikelihood>, EvalError>;

    /// The generated text for each request, without the stop string, in their order.
    fn generate_until(&mut self, requests: &[GenerateRequest]) -> Result<Vec<String>, EvalError>;
}

/// [`LanguageModel::log_likelihood`], with the promise of one answer for each request checked.
pub(crate) fn ask(
    model: &mut dyn LanguageModel,
    requests: &[ScoreRequest],
) -> Result<Vec<LogLikelihood>, EvalError> {
    let answers = model.log_likelihood(requests)?;
    if answers.len() != requests.len() {
        return Err(EvalError::AnswerCount { requests: requests.len(), answers: answers.len() });
    }
    Ok(answers)
}
