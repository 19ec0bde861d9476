//! The checkpoint in the making: written, flushed, hashed, named and counted on a thread of its own while training goes
//! on, up to the next update.

use super::writer::{draft, partial};
use super::{CheckpointError, Contents, CrashHook, rotate};
use crate::report::SaveReport;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// What is to be done for a checkpoint.
pub(crate) struct Work {
    pub(crate) contents: Contents,
    pub(crate) output_dir: PathBuf,
    /// Checkpoints to keep; 0: all.
    pub(crate) save_total_limit: usize,
    /// When it was due.
    pub(crate) began: Instant,
    pub(crate) crash: CrashHook,
}

impl Work {
    /// Does it, and says in between that the numbers are written and shared no longer.
    fn run(self, written: &Sender<()>) -> Result<SaveReport, CheckpointError> {
        let Work { contents, output_dir, save_total_limit, began, crash } = self;
        let step = contents.state().step;
        // Its checkpoint stays.
        let best = contents.state().best.as_ref().map(|best| best.step);
        let draft = draft(&output_dir, contents, &crash)?;
        // A run that has ended with an error has no ear for it.
        let _ = written.send(());
        let path = draft.finish(&crash)?;
        rotate(&output_dir, save_total_limit, step, best, &crash)?;
        Ok(SaveReport { step, path, seconds: began.elapsed().as_secs_f64(), blocked_seconds: 0.0 })
    }
}

/// A checkpoint that a thread is making.
pub(crate) struct Pending {
    thread: JoinHandle<Result<SaveReport, CheckpointError>>,
    /// One message: the numbers are written. The other end is dropped without it where something went wrong.
    written: Receiver<()>,
    is_written: bool,
    began: Instant,
    /// How long training has waited.
    blocked: Duration,
    /// When it last went on, since `began`.
    freed: Duration,
}

impl Pending {
    /// Starts the thread.
    pub(crate) fn start(work: Work) -> Result<Self, CheckpointError> {
        let (path, began) = (partial(&work.output_dir, work.contents.state().step), work.began);
        let (sender, written) = channel();
        let thread = thread::Builder::new().name("checkpoint".into()).spawn(move || work.run(&sender));
        let thread = thread.map_err(|source| CheckpointError::Thread { path, source })?;
        let blocked = began.elapsed();
        Ok(Self { thread, written, is_written: false, began, blocked, freed: blocked })
    }

    /// Waits until the numbers are written, so that they may be changed. False: they could not be, and
    /// [`Pending::wait`] tells why.
    pub(crate) fn wait_until_written(&mut self) -> bool {
        if !self.is_written {
            let waits = Instant::now();
            self.is_written = self.written.recv().is_ok();
            self.blocked += waits.elapsed();
            self.freed = self.began.elapsed();
        }
        self.is_written
    }

    /// [`Pending::wait`] would not wait.
    pub(crate) fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }

    /// Waits until the checkpoint is complete. A panic of the thread goes on in this one.
    pub(crate) fn wait(self) -> Result<SaveReport, CheckpointError> {
        let mut report = self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        report.blocked_seconds = self.blocked.as_secs_f64();
        // The thread may have been done before training woke.
        report.seconds = report.seconds.max(self.freed.as_secs_f64());
        Ok(report)
    }
}
