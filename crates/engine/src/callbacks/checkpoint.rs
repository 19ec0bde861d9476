//! Checkpoints while training: when one is due, it is written, then old ones are deleted.

use super::{Callback, Snapshot};
use crate::checkpoint::{
    CheckpointError, CrashHook, abandon_after, list, no_crash, rotate, sweep_leftovers, write,
};
use crate::error::EngineError;
use crate::report::{SaveReport, StartReport};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Writes `OUTPUT_DIR/checkpoint-N` whenever one is due. A new run refuses an output directory that holds checkpoints:
/// a later resume could not tell whose they are. A run resumed from an earlier checkpoint moves the later ones
/// aside, to
/// `.abandoned-checkpoint-N`: they belong to a course that this run no longer follows.
pub struct Checkpoint<'a> {
    output_dir: PathBuf,
    save_total_limit: usize,
    crash: CrashHook<'a>,
}

impl<'a> Checkpoint<'a> {
    /// Checkpoints in `output_dir`, of which `save_total_limit` are kept (0 or `None`: all).
    pub fn new(output_dir: &Path, save_total_limit: Option<usize>) -> Self {
        let save_total_limit = save_total_limit.unwrap_or(0);
        Self { output_dir: output_dir.to_path_buf(), save_total_limit, crash: no_crash() }
    }

    /// The same, with a hook at every moment at which a crash would leave something behind (for tests).
    pub fn with_crash_hook(self, crash: CrashHook<'a>) -> Self {
        Self { crash, ..self }
    }
}

impl Callback for Checkpoint<'_> {
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

    fn on_save_due(&mut self, snapshot: &Snapshot<'_>) -> Result<Option<SaveReport>, EngineError> {
        let began = Instant::now();
        let Snapshot { state, backend, model, optimizer } = *snapshot;
        let path = write(&self.output_dir, state, backend, model, optimizer, &self.crash)?;
        let best = state.best.map(|best| best.step);
        rotate(&self.output_dir, self.save_total_limit, state.step, best, &self.crash)?;
        Ok(Some(SaveReport { step: state.step, path, seconds: began.elapsed().as_secs_f64() }))
    }
}
