//! Checkpoints while training: when one is due, the background takes hold of the numbers and writes them; only the next
//! update waits for that.

use super::{Callback, Snapshot};
use crate::checkpoint::{
    CheckpointError, Contents, CrashHook, Pending, Work, abandon_after, list, no_crash, sweep_leftovers,
};
use crate::error::EngineError;
use crate::report::{SaveReport, StartReport};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Writes `OUTPUT_DIR/checkpoint-N` whenever one is due. A new run refuses an output directory that holds checkpoints:
/// a later resume could not tell whose they are. A run resumed from an earlier checkpoint moves the later ones
/// aside, to `.abandoned-checkpoint-N`: they belong to a course that this run no longer follows.
///
/// Dropping it waits for the checkpoint in the making: a run that ends with an error keeps the checkpoints of before.
pub struct Checkpoint {
    output_dir: PathBuf,
    save_total_limit: usize,
    crash: CrashHook,
    pending: Option<Pending>,
    completed: Vec<SaveReport>,
}

impl Checkpoint {
    /// Checkpoints in `output_dir`, of which `save_total_limit` are kept (0 or `None`: all).
    pub fn new(output_dir: &Path, save_total_limit: Option<usize>) -> Self {
        Self {
            output_dir: output_dir.to_path_buf(),
            save_total_limit: save_total_limit.unwrap_or(0),
            crash: no_crash(),
            pending: None,
            completed: Vec::new(),
        }
    }

    /// The same, with a hook at every moment at which a crash would leave something behind (for tests).
    pub fn with_crash_hook(mut self, crash: CrashHook) -> Self {
        self.crash = crash;
        self
    }

    /// Waits for the checkpoint in the making.
    fn settle(&mut self) -> Result<(), CheckpointError> {
        if let Some(pending) = self.pending.take() {
            self.completed.push(pending.wait()?);
        }
        Ok(())
    }
}

impl Drop for Checkpoint {
    fn drop(&mut self) {
        // While a panic unwinds, a second one would abort; and whoever dropped this has an error of their own to show.
        if !std::thread::panicking() {
            let _ = self.settle();
        }
    }
}

impl Callback for Checkpoint {
    fn before_start(&mut self, report: &StartReport) -> Result<(), EngineError> {
        let last = list(&self.output_dir)?.last().map(|(step, _)| *step);
        match last {
            Some(step) if report.resumed_from.is_none() => {
                Err(CheckpointError::Occupied { output_dir: self.output_dir.clone(), step }.into())
            }
            _ => Ok(()),
        }
    }

    fn on_start(&mut self, report: &StartReport) -> Result<(), EngineError> {
        sweep_leftovers(&self.output_dir)?;
        if report.resumed_from.is_some() {
            abandon_after(&self.output_dir, report.step)?;
        }
        Ok(())
    }

    fn on_save_due(&mut self, snapshot: &Snapshot<'_>) -> Result<(), EngineError> {
        let began = Instant::now();
        // One at a time: a disk that cannot keep up slows training down instead of piling up copies.
        self.settle()?;
        let work = Work {
            contents: Contents::gather(&self.output_dir, snapshot)?,
            output_dir: self.output_dir.clone(),
            save_total_limit: self.save_total_limit,
            began,
            crash: self.crash.clone(),
        };
        self.pending = Some(Pending::start(work)?);
        Ok(())
    }

    fn before_update(&mut self) -> Result<(), EngineError> {
        if self.pending.as_mut().is_some_and(|pending| !pending.wait_until_written()) {
            self.settle()?;
        }
        Ok(())
    }

    fn completed_saves(&mut self, wait: bool) -> Result<Vec<SaveReport>, EngineError> {
        if wait || self.pending.as_ref().is_some_and(Pending::is_finished) {
            self.settle()?;
        }
        Ok(std::mem::take(&mut self.completed))
    }
}
