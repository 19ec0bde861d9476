//! Evaluation of language models with the numbers of lm_eval 0.4.13.
//!
//! This crate does not know how logits are made: it asks a [`LanguageModel`] three things, and turns the answers into
//! metrics under the names and with the arithmetic that lm_eval users know.

mod encoding;
mod error;
mod model;
mod multiple_choice;
mod perplexity;
mod results;
mod rows;
mod statistics;

pub use encoding::{Conventions, encode_continuation, rolling_windows};
pub use error::EvalError;
pub use model::{GenerateRequest, LanguageModel, LogLikelihood, ScoreRequest};
pub use multiple_choice::{MultipleChoiceRow, read_multiple_choice, score_multiple_choice};
pub use perplexity::{PerplexityRow, read_perplexity, score_perplexity};
pub use results::{Metric, Results, TaskResult};
pub use statistics::{mean, mean_stderr};
