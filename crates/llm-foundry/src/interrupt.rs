//! Ctrl-C and SIGTERM while a result is being made: it is left off at the next tensor, and nothing of it stays.

use crate::failure::{Failure, Outcome};
use crate::signals::watch_stop;
use foundry_formats::{FormatError, TensorInfo, TensorSource};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether the result is still wanted.
#[derive(Clone, Debug, Default)]
pub(crate) struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// From now on the first signal is remembered and looked for between tensors; one that comes later ends the process
    /// at once, as in training.
    pub(crate) fn install() -> Outcome<Self> {
        let interrupt = Self::default();
        watch_stop(interrupt.0.clone())
            .map_err(|e| Failure::Run(format!("cannot listen for signals: {e}")))?;
        Ok(interrupt)
    }

    fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Ends the work here where a signal has come.
    pub(crate) fn check(&self) -> Outcome {
        if self.is_set() { Err(Failure::Interrupted(String::new())) } else { Ok(()) }
    }

    /// Tensors that are no longer given when a signal has come.
    pub(crate) fn over<'a>(&self, tensors: Box<dyn TensorSource + 'a>) -> Box<dyn TensorSource + 'a> {
        Box::new(Wanted { tensors, interrupt: self.clone() })
    }

    /// What the work on `result` has come to. An error after a signal is the signal's, however it is worded: by then
    /// what was written has been removed.
    pub(crate) fn ended(&self, outcome: Outcome, result: &Path) -> Outcome {
        match outcome {
            // The reader of a report that was made.
            Err(Failure::BrokenPipe) => Err(Failure::BrokenPipe),
            Err(_) if self.is_set() => {
                let what = format!("{} is not written; what was made of it is removed", result.display());
                Err(Failure::Interrupted(what))
            }
            outcome => outcome,
        }
    }
}

/// See [`Interrupt::over`].
struct Wanted<'a> {
    tensors: Box<dyn TensorSource + 'a>,
    interrupt: Interrupt,
}

impl Wanted<'_> {
    fn check(&self, name: &str) -> Result<(), FormatError> {
        match self.interrupt.is_set() {
            false => Ok(()),
            true => {
                let source = io::ErrorKind::Interrupted.into();
                Err(FormatError::Io { path: name.into(), action: "read", source })
            }
        }
    }
}

impl TensorSource for Wanted<'_> {
    fn tensors(&self) -> &[TensorInfo] {
        self.tensors.tensors()
    }

    fn read_f32(&self, name: &str, start: usize, dst: &mut [f32]) -> Result<(), FormatError> {
        self.check(name)?;
        self.tensors.read_f32(name, start, dst)
    }

    fn read_i64(&self, name: &str, start: usize, dst: &mut [i64]) -> Result<(), FormatError> {
        self.check(name)?;
        self.tensors.read_i64(name, start, dst)
    }

    fn raw(&self, name: &str) -> Result<Option<&[u8]>, FormatError> {
        self.check(name)?;
        self.tensors.raw(name)
    }
}
