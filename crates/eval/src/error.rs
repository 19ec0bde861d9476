//! What can go wrong in an evaluation.

use std::path::PathBuf;

/// An evaluation that could not be done.
#[derive(Debug, thiserror::Error)]
pub enum EvalError {
    /// A file of rows cannot be read.
    #[error("{}: cannot be read ({source}); check the path and its permissions", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },

    /// A line is not a row of the task.
    #[error("{}:{line}: {reason}; expected {expected}", path.display())]
    Row {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// What is wrong.
        reason: String,
        /// What a row looks like.
        expected: &'static str,
    },

    /// A file without rows.
    #[error("{}: no rows to evaluate; expected one JSON object per line", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },

    /// A continuation that has no tokens, or more than the model can see at once.
    #[error(
        "continuation {text:?} has {tokens} tokens, the model scores 1 to {max_length} at once; \
         shorten it or leave the row out"
    )]
    ContinuationLength {
        /// The first characters of the continuation.
        text: String,
        /// Its tokens.
        tokens: usize,
        /// The model's limit.
        max_length: usize,
    },

    /// The model answered with another number of results than there were requests: a bug of the model's side.
    #[error("the model gave {answers} answers to {requests} requests; this is a bug, please report it")]
    AnswerCount {
        /// Requests made.
        requests: usize,
        /// Answers received.
        answers: usize,
    },

    /// The model failed.
    #[error("the model could not answer: {0}")]
    Model(#[source] Box<dyn std::error::Error + Send + Sync>),
}
