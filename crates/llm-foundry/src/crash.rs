//! `FOUNDRY_CRASH_AT`, for tests: something bad happens at a named moment.
//!
//! `step.7` is after the update of step 7; `final.before_move` and `final.during_move` are while the result is put into
//! the output directory; `result.before_check` is between what a merge or an export writes and its comparison with the
//! source, `result.before_publish` before it gets its name; the other names are those of
//! [`foundry_engine::checkpoint::CRASH_POINTS`]. A count may follow: `checkpoint.before_rename#2` is the second time.
//! The process kills itself (SIGKILL: nothing is tidied up), unless `hang:` stands before the name (it sleeps there
//! forever), `stop:` (SIGSTOP: a test may change files and let it go on) or `full:` (the disk is full there, where
//! files are written).

use crate::failure::{Failure, Outcome};
use foundry_engine::callbacks::{Callback, Flow};
use foundry_engine::checkpoint::{CrashHook, no_crash};
use foundry_engine::{EngineError, StepReport};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mishap {
    Kill,
    Hang,
    Stop,
    FullDisk,
}

/// Where to crash, and how.
#[derive(Clone, Debug)]
pub(crate) struct CrashAt {
    point: String,
    mishap: Mishap,
    left: Arc<AtomicU32>,
}

impl CrashAt {
    /// What the environment asks for.
    pub(crate) fn from_env() -> Option<Self> {
        let wanted = std::env::var("FOUNDRY_CRASH_AT").ok().filter(|v| !v.is_empty())?;
        let (mishap, rest) = match wanted.split_once(':') {
            Some(("hang", rest)) => (Mishap::Hang, rest),
            Some(("stop", rest)) => (Mishap::Stop, rest),
            Some(("full", rest)) => (Mishap::FullDisk, rest),
            _ => (Mishap::Kill, wanted.as_str()),
        };
        let (point, count) = rest.split_once('#').unwrap_or((rest, "1"));
        let left = Arc::new(AtomicU32::new(count.parse().unwrap_or(1).max(1)));
        Some(Self { point: point.to_owned(), mishap, left })
    }

    fn reach(&self, point: &str) -> io::Result<()> {
        if point != self.point || self.left.fetch_sub(1, Ordering::Relaxed) != 1 {
            return Ok(());
        }
        match self.mishap {
            Mishap::FullDisk => return Err(io::ErrorKind::StorageFull.into()),
            Mishap::Stop => return signal_hook::low_level::raise(signal_hook::consts::SIGSTOP),
            Mishap::Hang => loop {
                std::thread::sleep(Duration::from_secs(3600));
            },
            Mishap::Kill => {
                let _ = signal_hook::low_level::raise(signal_hook::consts::SIGKILL);
            }
        }
        std::process::abort();
    }

    /// For whoever writes files: the environment's wish, or an empty hook.
    pub(crate) fn hook(this: Option<Self>) -> CrashHook {
        match this {
            Some(crash) => Arc::new(move |point| crash.reach(point)),
            None => no_crash(),
        }
    }
}

/// For commands that make one result at `place`: a moment that the environment may have named.
pub(crate) fn reach(point: &str, place: &Path) -> Outcome {
    let Some(crash) = CrashAt::from_env() else { return Ok(()) };
    crash.reach(point).map_err(|e| Failure::io("write", place, &e))
}

impl Callback for CrashAt {
    fn on_step(&mut self, report: &StepReport) -> Result<Flow, EngineError> {
        // No file is written here, so a full disk changes nothing.
        let _ = self.reach(&format!("step.{}", report.step));
        Ok(Flow::Continue)
    }
}
