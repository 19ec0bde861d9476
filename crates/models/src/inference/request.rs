//! What is asked of an [`Inference`](super::Inference), and what it tells.

use crate::Sampling;

/// Names a request until it has finished.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId(pub(super) u64);

/// A text to continue.
#[derive(Clone, Debug)]
pub struct Request {
    /// The prompt.
    pub tokens: Vec<u32>,
    /// How tokens are drawn, and how many.
    pub sampling: Sampling,
    /// Tokens that end the answer.
    pub eos_token_ids: Vec<u32>,
    /// Tell how likely each new token is, with so many of the likeliest ones.
    pub log_probs: Option<usize>,
    /// Tell it of the prompt's tokens too; they are then all computed, shared beginning or not. With it
    /// `max_new_tokens` may be 0.
    pub prompt_log_probs: bool,
}

impl Request {
    /// A request that asks for tokens alone.
    pub fn new(tokens: Vec<u32>, sampling: Sampling, eos_token_ids: Vec<u32>) -> Self {
        Self { tokens, sampling, eos_token_ids, log_probs: None, prompt_log_probs: false }
    }
}

/// How likely a token is: natural logarithms of probabilities before temperature and penalties.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenScore {
    /// The token.
    pub token: u32,
    /// Its own.
    pub log_prob: f32,
    /// The likeliest tokens at its place and theirs, likeliest first.
    pub top: Vec<(u32, f32)>,
}

/// Why a generation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// An end-of-sequence token, which is not part of the result.
    EndOfSequence,
    /// `max_new_tokens`, or the sequence is as long as one may be.
    Length,
    /// A stop string, which is not part of the text.
    StopString,
    /// The caller said so.
    Stopped,
}

/// News of a request: a new token, the end, or both at once.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Whose.
    pub id: RequestId,
    /// The new token.
    pub token: Option<u32>,
    /// How likely tokens are: of the prompt from its second on, or the new one, an end-of-sequence token included.
    pub scores: Vec<TokenScore>,
    /// It was the last news.
    pub finish: Option<Finish>,
}
