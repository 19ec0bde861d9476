//! What can stop a run.

use crate::arguments::ArgumentError;
use crate::checkpoint::{CheckpointError, ResumeError};
use crate::schedule::ScheduleError;
use foundry_comm::CommError;
use std::path::PathBuf;

/// An error of someone else's code, kept whole.
pub type BoxedError = Box<dyn std::error::Error + Send + Sync>;

/// Why a run could not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// A training argument out of range.
    #[error(transparent)]
    Argument(#[from] ArgumentError),

    /// A schedule that cannot be made.
    #[error(transparent)]
    Schedule(#[from] ScheduleError),

    /// Loss or gradient became NaN or infinite. The step was not applied and nothing was written after it.
    #[error(
        "step {step} (epoch {epoch:.3}): the {quantity} is {value}, so the step was not applied; \
         rows of the data set in this step (counted from 0): {}{}; \
         lower learning_rate, set max_grad_norm, or look at these rows. Earlier checkpoints are unchanged",
        list(rows),
        already_in(suspects)
    )]
    NonFinite {
        /// The step, from 1.
        step: u64,
        /// Epochs before the step.
        epoch: f64,
        /// `loss` or `gradient norm`.
        quantity: &'static str,
        /// NaN or an infinity.
        value: f64,
        /// Rows of the data set that this rank saw in the step.
        rows: Vec<u64>,
        /// Those whose micro-batch had a loss that was not finite.
        suspects: Vec<u64>,
    },

    /// The model failed.
    #[error("the model failed at step {step}: {source}")]
    Model {
        /// The step, from 1; for an evaluation, the step before it.
        step: u64,
        /// Its error.
        source: BoxedError,
    },

    /// The data could not be read on.
    #[error("step {step}: {source}")]
    Data {
        /// The step, from 1.
        step: u64,
        /// What is wrong, and where.
        source: Box<foundry_data::DataError>,
    },

    /// Ranks lost each other.
    #[error(transparent)]
    Comm(#[from] CommError),

    /// A checkpoint could not be written or read.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),

    /// A checkpoint belongs to another run.
    #[error(transparent)]
    Resume(#[from] ResumeError),

    /// The metrics file could not be written or read.
    #[error("{}: cannot {action} the metrics ({source}); check disk space and permissions", path.display())]
    Metrics {
        /// The file.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// What the system said.
        source: std::io::Error,
    },

    /// A callback from outside this crate failed.
    #[error("callback '{name}': {source}")]
    Callback {
        /// Which one.
        name: &'static str,
        /// Its error.
        source: BoxedError,
    },
}

/// At most twelve numbers, then how many more.
fn list(rows: &[u64]) -> String {
    let shown: Vec<String> = rows.iter().take(12).map(u64::to_string).collect();
    let more = rows.len().saturating_sub(12);
    let tail = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{}{tail}", shown.join(", "))
}

fn already_in(rows: &[u64]) -> String {
    if rows.is_empty() { String::new() } else { format!(" (not finite already in row {})", list(rows)) }
}
