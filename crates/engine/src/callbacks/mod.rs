//! Callbacks: what happens around the steps. They receive reports and answer whether the run goes on; the loop does
//! not know what they do.
//!
//! Order matters in two places: those that fill in a [`LogRecord`] ([`Throughput`], [`Memory`]) come before those that
//! write it, and [`Checkpoint`] comes last, so that what a checkpoint stands for has been written before it.
//! With several ranks only rank 0 has callbacks that write.

mod checkpoint;
mod early_stopping;
mod memory;
mod metrics_jsonl;
mod throughput;
mod time_limit;

pub use checkpoint::Checkpoint;
pub use early_stopping::EarlyStopping;
pub use memory::Memory;
pub use metrics_jsonl::{METRICS, MetricsJsonl};
pub use throughput::Throughput;
pub use time_limit::TimeLimit;

use crate::checkpoint::{CallbackStates, TrainerState};
use crate::error::EngineError;
use crate::model::Trainable;
use crate::optim::Optimizer;
use crate::report::{
    EvalReport, Judgement, LogRecord, SaveReport, StartReport, StepReport, Summary, TaskReport,
};
use foundry_kernels::Backend;
use serde_json::Value;

/// Whether a run goes on. Of two answers the later in this list counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Flow {
    /// It goes on.
    #[default]
    Continue,
    /// It goes on, with a checkpoint after this step.
    Save,
    /// It has reached its end with this step: results are final. There is a last checkpoint if `save_strategy`
    /// is steps or epoch.
    Finish,
    /// It is interrupted after this step and is to be resumed: with a checkpoint, whatever `save_strategy` is.
    Stop,
}

impl Flow {
    /// The stronger of two answers.
    pub fn or(self, other: Flow) -> Flow {
        self.max(other)
    }

    /// There is another step.
    pub fn goes_on(self) -> bool {
        self <= Flow::Save
    }
}

/// A finished step with everything that was said about it: what a checkpoint is made of.
#[derive(Clone, Copy)]
pub struct Snapshot<'a> {
    /// Where the run stands.
    pub state: &'a TrainerState,
    /// Where the numbers are.
    pub backend: &'a dyn Backend,
    /// The model after the step.
    pub model: &'a dyn Trainable,
    /// The optimiser after the step.
    pub optimizer: &'a dyn Optimizer,
}

/// A moment at which the model may be asked something: after a step, with its log and evaluation.
pub struct Examination<'a> {
    /// Steps taken.
    pub step: u64,
    /// Whether it is to be broken off: asked where that is possible, so that what is at hand (a task) is waited for.
    pub interrupts: &'a mut dyn FnMut() -> bool,
    /// Where the numbers are.
    pub backend: &'a dyn Backend,
    /// The model after the step; it must be left as it is.
    pub model: &'a mut dyn Trainable,
}

/// What came out of an examination.
#[derive(Clone, Debug, PartialEq)]
pub enum Findings {
    /// All that was to be found, perhaps nothing.
    Whole(Vec<TaskReport>),
    /// It was broken off, and is to be made anew when the run goes on.
    BrokenOff,
}

/// Something that watches a run. An error ends the run.
pub trait Callback {
    /// What must be remembered over a resume, under the callback's own name.
    fn state(&self) -> Option<(String, Value)> {
        None
    }

    /// The run goes on from a checkpoint: what [`Callback::state`] gave for it is among these. Called before
    /// [`Callback::before_start`]. [`Flow::Finish`]: the run had reached its end with that step.
    fn restore(&mut self, _states: &CallbackStates) -> Result<Flow, EngineError> {
        Ok(Flow::Continue)
    }

    /// The run is about to begin. A callback that cannot take part says so here, where no other callback has changed
    /// anything yet; it must not change anything itself.
    fn before_start(&mut self, _report: &StartReport) -> Result<(), EngineError> {
        Ok(())
    }

    /// The run begins, or goes on from a checkpoint.
    fn on_start(&mut self, _report: &StartReport) -> Result<(), EngineError> {
        Ok(())
    }

    /// A step was taken; called for every step.
    fn on_step(&mut self, _report: &StepReport) -> Result<Flow, EngineError> {
        Ok(Flow::Continue)
    }

    /// A line of the log is due. Callbacks may fill in what they know before a later one writes it.
    fn on_log(&mut self, _record: &mut LogRecord) -> Result<(), EngineError> {
        Ok(())
    }

    /// An evaluation is due after the step at hand. [`Flow::Stop`]: the checkpoint comes first, and the evaluation when
    /// the run goes on.
    fn before_evaluate(&mut self) -> Result<Flow, EngineError> {
        Ok(Flow::Continue)
    }

    /// Whether an evaluation is to be broken off, asked between its batches: as [`Callback::before_evaluate`]. With
    /// several ranks evaluations are not broken off.
    fn interrupts(&mut self) -> bool {
        false
    }

    /// The held-out split was evaluated.
    fn on_evaluate(&mut self, _report: &EvalReport) -> Result<Flow, EngineError> {
        Ok(Flow::Continue)
    }

    /// The figure that decides which model is the best was found.
    fn on_judged(&mut self, _judgement: &Judgement) -> Result<Flow, EngineError> {
        Ok(Flow::Continue)
    }

    /// Whether it wants to examine the model after `step` steps; 0: before the first. `is_last`: there is no other
    /// step.
    fn examines_after(&self, _step: u64, _is_last: bool) -> bool {
        false
    }

    /// The model may be examined, which was asked for: what was found is told to all callbacks.
    fn examine(&mut self, _examination: &mut Examination<'_>) -> Result<Findings, EngineError> {
        Ok(Findings::Whole(Vec::new()))
    }

    /// An examination took so many seconds.
    fn on_examined(&mut self, _seconds: f64) -> Result<(), EngineError> {
        Ok(())
    }

    /// A number that an examination found.
    fn on_task(&mut self, _report: &TaskReport) -> Result<(), EngineError> {
        Ok(())
    }

    /// A checkpoint is due: the step is finished, with log and evaluation. Whoever keeps states takes them now, or
    /// shares the numbers ([`Backend::share`]) until [`Callback::before_update`]; whoever has something unwritten
    /// writes it.
    fn on_save_due(&mut self, _snapshot: &Snapshot<'_>) -> Result<(), EngineError> {
        Ok(())
    }

    /// The next step has its gradients, and changes the model's values and the optimiser's state now: whoever still
    /// reads what a [`Snapshot`] gave waits until that is done. An error leaves them as they are.
    fn before_update(&mut self) -> Result<(), EngineError> {
        Ok(())
    }

    /// Checkpoints completed since the last question, asked after every step and (with `wait`: until none is
    /// in the making) at the end. What went wrong with one in the background comes to light here.
    fn completed_saves(&mut self, _wait: bool) -> Result<Vec<SaveReport>, EngineError> {
        Ok(Vec::new())
    }

    /// A checkpoint is complete.
    fn on_save(&mut self, _report: &SaveReport) -> Result<(), EngineError> {
        Ok(())
    }

    /// The run is over; not called after an error.
    fn on_end(&mut self, _summary: &Summary) -> Result<(), EngineError> {
        Ok(())
    }
}
