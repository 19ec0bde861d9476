//! Checkpoints: everything a run needs to go on as if it had never stopped.
//!
//! `OUTPUT_DIR/checkpoint-N/` holds
//! - the adapter or model as PEFT or transformers save it, for other programs ([`Trainable::save`]);
//! - `optimizer.safetensors`: for each parameter its value (`param.NAME`) and the optimiser's state (`exp_avg.NAME`,
//!   `exp_avg_sq.NAME`), f32, exact: the values are here a second time because the model's own file may be bf16 (with
//!   `save_only_model` it is absent, and the run cannot go on from there);
//! - `trainer_state.json`: step, data position, sums of the log, best evaluation, what callbacks remember, arguments,
//!   facts about the run;
//! - `manifest.json`: size and SHA-256 of every other file, written last.
//!
//! A checkpoint is built in a directory of another name; every file is flushed to disk, then the directory is renamed
//! and its parent flushed. So a directory named `checkpoint-N` is complete, unless it was damaged afterwards, which the
//! manifest tells.
//!
//! All of that happens on a thread of its own ([`Pending`]). The numbers are not copied for it: the thread reads the
//! run's own buffers ([`foundry_kernels::Backend::share`]), which nobody writes to between two updates, so that data,
//! forward and backward of the next step go on meanwhile and its update waits until the numbers have been handed to the
//! system. From then on the system's page cache holds the copy that flushing and hashing need. One checkpoint is in the
//! making at a time: the next waits for the one before.
//!
//! [`Trainable::save`]: crate::model::Trainable::save

mod error;
mod facts;
mod manifest;
mod pending;
mod rotation;
mod search;
mod state;
mod tensors;
mod writer;

pub use error::{CheckpointError, Damage, ResumeError};
pub use facts::{Difference, Facts, Successor};
pub use manifest::{FileRecord, MANIFEST, Manifest, verify, verify_model};
pub(crate) use pending::{Pending, Work};
pub(crate) use rotation::{abandon_after, rotate};
pub use search::{Checkpoint, Search, list, open, search, sweep_leftovers};
pub(crate) use state::LogWindow;
pub use state::{BestEvaluation, CallbackStates, TrainerState};
pub use tensors::load_values;
pub(crate) use tensors::restore;
pub(crate) use writer::Contents;
pub use writer::{CRASH_POINTS, CrashHook, no_crash};

/// File of the parameters' values and the optimiser's state.
pub const OPTIMIZER: &str = "optimizer.safetensors";
/// File of the parameters' values alone, where `save_only_model` leaves the other out and the best checkpoint will have
/// to be loaded again.
pub const VALUES: &str = "parameters.safetensors";
/// File of everything else.
pub const STATE: &str = "trainer_state.json";
