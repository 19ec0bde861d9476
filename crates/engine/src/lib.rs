//! The training loop: steps, optimisers, schedules, objectives, callbacks, checkpoints.
//!
//! [`fit`] is the loop on one screen; a step is one file further down. This crate does not know which
//! backend computes, which model is trained, or which data set it sees.

pub mod arguments;
mod best;
pub mod callbacks;
pub mod checkpoint;
mod error;
mod evaluation;
mod language_model;
pub mod memory;
mod model;
pub mod objectives;
pub mod optim;
mod progress;
mod report;
pub mod schedule;
mod seeds;
mod step;
mod timetable;
mod trainer;

pub use arguments::{
    ArgumentError, IntervalStrategy, LossType, Optim, SaveStrategy, SgdArgs, StepCount, TrainingArgs,
};
pub use best::{Comparison, EvalMetric, TaskMetric};
pub use error::{BoxedError, EngineError};
pub use evaluation::Evaluation;
pub use language_model::{DecoderLanguageModel, conventions};
pub use model::{DecoderModel, GatherDecoder, Trainable, WriteFiles};
pub use report::{
    EvalReport, Judgement, LogRecord, SaveReport, StartReport, StepReport, Summary, TaskReport,
};
pub use timetable::Timetable;
pub use trainer::{Run, fit, schedule as schedule_of};
