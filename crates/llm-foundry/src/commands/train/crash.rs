//! `FOUNDRY_CRASH_AT`, for tests: the process kills itself (SIGKILL: nothing is tidied up) at a named moment.
//!
//! `step.7` is after the update of step 7; the other names are those of [`foundry_engine::checkpoint::CRASH_POINTS`],
//! each with an optional count: `checkpoint.before_rename#2` is the second time.

use foundry_engine::callbacks::{Callback, Flow};
use foundry_engine::checkpoint::CrashHook;
use foundry_engine::{EngineError, StepReport};
use std::cell::Cell;
use std::rc::Rc;

/// Where to crash.
#[derive(Clone, Debug)]
pub(super) struct CrashAt {
    point: String,
    left: Rc<Cell<u32>>,
}

impl CrashAt {
    /// What the environment asks for.
    pub(super) fn from_env() -> Option<Self> {
        let wanted = std::env::var("FOUNDRY_CRASH_AT").ok().filter(|v| !v.is_empty())?;
        let (point, count) = wanted.split_once('#').unwrap_or((&wanted, "1"));
        let left = count.parse().unwrap_or(1);
        Some(Self { point: point.to_owned(), left: Rc::new(Cell::new(left)) })
    }

    fn reach(&self, point: &str) {
        if point != self.point {
            return;
        }
        self.left.set(self.left.get().saturating_sub(1));
        if self.left.get() == 0 {
            let _ = signal_hook::low_level::raise(signal_hook::consts::SIGKILL);
            std::process::abort();
        }
    }

    /// For the writer of checkpoints.
    pub(super) fn hook(self) -> CrashHook<'static> {
        Box::new(move |point| {
            self.reach(point);
            Ok(())
        })
    }
}

impl Callback for CrashAt {
    fn on_step(&mut self, report: &StepReport) -> Result<Flow, EngineError> {
        self.reach(&format!("step.{}", report.step));
        Ok(Flow::Continue)
    }
}
