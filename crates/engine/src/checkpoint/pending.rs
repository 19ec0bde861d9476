//! The checkpoint in the making: flushed, hashed, named and counted on a thread of its own while training goes on.

use super::{CheckpointError, CrashHook, Draft, rotate};
use crate::report::SaveReport;
use std::path::PathBuf;
use std::thread::{self, JoinHandle};
use std::time::Instant;

/// What is left to do for a checkpoint once its numbers are with the system.
pub(crate) struct Rest {
    pub(crate) draft: Draft,
    pub(crate) output_dir: PathBuf,
    /// Checkpoints to keep; 0: all.
    pub(crate) save_total_limit: usize,
    pub(crate) step: u64,
    /// Step of the best evaluation so far; its checkpoint stays.
    pub(crate) best: Option<u64>,
    pub(crate) began: Instant,
    /// How long training waited.
    pub(crate) blocked_seconds: f64,
    pub(crate) crash: CrashHook,
}

impl Rest {
    /// Does it.
    pub(crate) fn finish(self) -> Result<SaveReport, CheckpointError> {
        let path = self.draft.finish(&self.crash)?;
        rotate(&self.output_dir, self.save_total_limit, self.step, self.best, &self.crash)?;
        let seconds = self.began.elapsed().as_secs_f64();
        Ok(SaveReport { step: self.step, path, seconds, blocked_seconds: self.blocked_seconds })
    }
}

/// A checkpoint that a thread is finishing.
pub(crate) struct Pending(JoinHandle<Result<SaveReport, CheckpointError>>);

impl Pending {
    /// Starts the thread.
    pub(crate) fn start(rest: Rest) -> Result<Self, CheckpointError> {
        let path = rest.draft.path().to_path_buf();
        let thread = thread::Builder::new().name("checkpoint".into()).spawn(move || rest.finish());
        thread.map(Self).map_err(|source| CheckpointError::Thread { path, source })
    }

    /// [`Pending::wait`] would not wait.
    pub(crate) fn is_finished(&self) -> bool {
        self.0.is_finished()
    }

    /// Waits until the checkpoint is complete. A panic of the thread goes on in this one.
    pub(crate) fn wait(self) -> Result<SaveReport, CheckpointError> {
        self.0.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}
