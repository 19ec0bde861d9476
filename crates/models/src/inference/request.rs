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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// Whose.
    pub id: RequestId,
    /// The new token.
    pub token: Option<u32>,
    /// It was the last news.
    pub finish: Option<Finish>,
}
