//! Weights & Biases: run directories as its own client leaves them when it has no server (`wandb sync DIR` uploads
//! them later), and the same told to a server while the run goes on.
//!
//! `wandb/offline-run-DATE_TIME-ID/run-ID.wandb` holds records in order: header, run, definitions of metrics, then rows
//! of history, system metrics, console lines, and at the end summary and exit. What is in `files/` is uploaded as it
//! is.

mod directory;
mod framing;
mod live;
#[cfg(test)]
mod live_tests;
mod records;
mod resume;
mod run;
#[cfg(test)]
mod tests;

pub use live::ServerSettings;
pub use resume::history;
pub use run::{Run, RunSettings};
