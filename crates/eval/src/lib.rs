//! Evaluation of language models with the numbers of lm_eval 0.4.13.
//!
//! This crate does not know how logits are made: it asks a [`LanguageModel`] three things, and turns the answers into
//! metrics under the names and with the arithmetic that lm_eval users know. Tasks are lm_eval's YAML files
//! ([`Library`]); documents come from [`Documents`].
//!
//! The road of a document: `task` (what a file says) → `fewshot` → `prompt` → `request` → the model → `filter` →
//! `scoring` → `metrics` → `results`.

mod document;
mod encoding;
mod error;
mod fewshot;
mod filter;
mod metrics;
mod model;
mod native;
mod prompt;
mod python;
mod request;
mod results;
mod run;
mod sample;
mod scoring;
mod statistics;
mod task;
mod template;

pub use encoding::{Conventions, encode_continuation, rolling_windows};
pub use error::{DocumentError, EvalError};
pub use model::{Drawing, GenerateRequest, LanguageModel, LogLikelihood, ScoreRequest};
pub use prompt::{ChatTemplate, PromptStyle, Turn};
pub use results::{Metric, Results, Row, TaskResult};
pub use run::{Documents, Limit, RunOptions, check_task, evaluate_task};
pub use sample::{Sample, sha256};
pub use statistics::{mean, mean_stderr};
pub use task::{AggregateMetric, Group, Library, Member, OutputType, Selection, TaskSpec};
