//! Trackers as a callback: reports become names, numbers and texts. A tracker that fails is left out from then on, with
//! a warning: no run dies of its tracker.

mod machine;
mod names;
mod settings;

pub(super) use names::Scale;
pub(super) use settings::TrackingSettings;

use crate::console::ConsoleLines;
use foundry_engine::callbacks::{Callback, Flow, Snapshot};
use foundry_engine::{EngineError, EvalReport, LogRecord, StartReport, StepReport, Summary};
use foundry_tracking::{Row, Tracker, TrackingError, wandb};
use machine::MachineProbe;
use names::in_groups;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// Under which name the identities of runs stand in checkpoints.
const STATE: &str = "tracking";

/// Exit codes that trackers are told.
const FAILED: u8 = 1;
const INTERRUPTED: u8 = 130;

/// Tells all trackers of a run.
pub(super) struct Tracking {
    settings: TrackingSettings,
    scale: Scale,
    lines: ConsoleLines,
    machine: Option<MachineProbe>,
    trackers: Vec<Box<dyn Tracker>>,
    /// Of the run that is gone on with: identities, by the names of trackers.
    earlier: Map<String, Value>,
    is_quiet: bool,
}

impl Tracking {
    /// `lines` are what the console prints.
    pub(super) fn new(settings: TrackingSettings, scale: Scale, lines: ConsoleLines, is_quiet: bool) -> Self {
        let machine = MachineProbe::new();
        Self { settings, scale, lines, machine, trackers: Vec::new(), earlier: Map::new(), is_quiet }
    }

    /// Tells every tracker. Those that fail are dropped.
    fn tell(&mut self, mut what: impl FnMut(&mut dyn Tracker) -> Result<(), TrackingError>) {
        self.trackers.retain_mut(|tracker| match what(tracker.as_mut()) {
            Ok(()) => true,
            Err(error) => {
                anstream::eprintln!("warning: {}: {error}\n  the run goes on without it", tracker.name());
                false
            }
        });
    }

    /// Passes on what the console printed since the last time.
    fn pass_lines(&mut self) {
        for line in self.lines.take() {
            self.tell(|tracker| tracker.print(&line));
        }
    }

    fn begin(&mut self, report: &StartReport) -> Result<(), TrackingError> {
        if let Some(settings) = &self.settings.wandb {
            let earlier = self.earlier.get("wandb").and_then(Value::as_object);
            let run = match (earlier, &report.resumed_from) {
                (Some(earlier), Some(_)) => wandb::Run::resume(settings, earlier, report.step)?,
                _ => wandb::Run::create(settings)?,
            };
            self.trackers.push(Box::new(run));
        }
        Ok(())
    }
}

impl Callback for Tracking {
    fn state(&self) -> Option<(String, Value)> {
        let states = self.trackers.iter().map(|tracker| (tracker.name().to_owned(), tracker.state().into()));
        Some((STATE.into(), Value::Object(states.collect())))
    }

    fn restore(&mut self, states: &BTreeMap<String, Value>) -> Result<(), EngineError> {
        self.earlier = states.get(STATE).and_then(Value::as_object).cloned().unwrap_or_default();
        Ok(())
    }

    fn on_start(&mut self, report: &StartReport) -> Result<(), EngineError> {
        let begun = self.begin(report);
        begun.map_err(|source| EngineError::Callback { name: "report_to", source: source.into() })
    }

    fn on_step(&mut self, _: &StepReport) -> Result<Flow, EngineError> {
        if let Some(values) = self.machine.as_mut().and_then(MachineProbe::due) {
            self.tell(|tracker| tracker.measure(&values));
        }
        Ok(Flow::Continue)
    }

    fn on_log(&mut self, record: &mut LogRecord) -> Result<(), EngineError> {
        let row = Row { position: record.step, values: in_groups(names::of_log(record)) };
        self.tell(|tracker| tracker.log(&row));
        self.pass_lines();
        Ok(())
    }

    fn on_evaluate(&mut self, report: &EvalReport) -> Result<Flow, EngineError> {
        let row = Row { position: report.step, values: in_groups(names::of_evaluation(report, &self.scale)) };
        self.tell(|tracker| tracker.log(&row));
        self.pass_lines();
        Ok(Flow::Continue)
    }

    /// What a checkpoint stands for is on disk before the checkpoint is.
    fn on_save_due(&mut self, _: &Snapshot<'_>) -> Result<(), EngineError> {
        self.tell(|tracker| tracker.flush());
        Ok(())
    }

    fn on_end(&mut self, summary: &Summary) -> Result<(), EngineError> {
        self.pass_lines();
        if let Some(values) = self.machine.as_mut().and_then(MachineProbe::now) {
            self.tell(|tracker| tracker.measure(&values));
        }
        let values = names::of_summary(summary, &self.scale);
        let code = if summary.stopped { INTERRUPTED } else { 0 };
        self.tell(|tracker| tracker.summarize(&values));
        self.tell(|tracker| tracker.finish(code));
        for place in self.trackers.drain(..).filter_map(|tracker| tracker.whereabouts()) {
            crate::console::say(self.is_quiet, place);
        }
        Ok(())
    }
}

/// A run that ended with an error has told nobody that it is over.
impl Drop for Tracking {
    fn drop(&mut self) {
        self.pass_lines();
        self.tell(|tracker| tracker.finish(FAILED));
    }
}
