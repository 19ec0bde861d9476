//! Trackers as a callback: reports become names, numbers and texts. A tracker that fails is left out from then on, with
//! a warning: no run dies of its tracker.

mod machine;
mod names;
mod samples;
mod settings;

pub(super) use names::Scale;
pub(super) use settings::{Sources, TrackingSettings};

use super::resume::is_foreign;
use crate::console::ConsoleLines;
use foundry_engine::callbacks::{Callback, Flow, Snapshot};
use foundry_engine::{EngineError, EvalReport, LogRecord, StartReport, StepReport, Summary};
use foundry_tracking::mlflow::MlflowRun;
use foundry_tracking::tensorboard::Events;
use foundry_tracking::{Row, Tracker, TrackingError, wandb};
use machine::MachineProbe;
use names::{Naming, Values};
use samples::SampleFile;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Under which name the identities of runs stand in checkpoints.
const STATE: &str = "tracking";

/// Where generated samples stand, if there are some.
const SAMPLES: &str = "samples.jsonl";

/// Exit codes that trackers are told.
const FAILED: u8 = 1;
const INTERRUPTED: u8 = 130;

/// Tells all trackers of a run.
pub(super) struct Tracking {
    settings: TrackingSettings,
    scale: Scale,
    lines: ConsoleLines,
    machine: Option<MachineProbe>,
    samples: SampleFile,
    output_dir: PathBuf,
    /// The step that the run goes on from.
    resumed: Option<u64>,
    trackers: Vec<Told>,
    /// Identities by the names of trackers: those of the run that is gone on with, and the last ones of trackers that
    /// were left out since. Later attempts may have more luck with them.
    earlier: Map<String, Value>,
    is_quiet: bool,
}

/// A tracker, and how it calls things.
struct Told {
    tracker: Box<dyn Tracker>,
    values: Naming,
    summary: Naming,
}

impl Tracking {
    /// `lines` are what the console prints.
    pub(super) fn new(
        settings: TrackingSettings,
        scale: Scale,
        lines: ConsoleLines,
        output_dir: &Path,
        is_quiet: bool,
    ) -> Self {
        Self {
            settings,
            scale,
            lines,
            machine: MachineProbe::new(),
            samples: SampleFile::new(output_dir.join(SAMPLES)),
            output_dir: output_dir.to_owned(),
            resumed: None,
            trackers: Vec::new(),
            earlier: Map::new(),
            is_quiet,
        }
    }

    /// Tells every tracker. Those that fail are dropped, and their identities kept.
    fn tell(&mut self, mut what: impl FnMut(&mut Told) -> Result<(), TrackingError>) {
        let Self { trackers, earlier, .. } = self;
        trackers.retain_mut(|told| match what(told) {
            Ok(()) => true,
            Err(error) => {
                let name = told.tracker.name();
                crate::console::tell!("warning: {name}: {error}\n  the run goes on without it");
                earlier.insert(name.to_owned(), told.tracker.state().into());
                false
            }
        });
    }

    fn log(&mut self, position: u64, values: &Values) {
        self.tell(|told| told.tracker.log(&Row { position, values: told.values.of(values) }));
    }

    /// Passes on what the console printed since the last time.
    fn pass_lines(&mut self) {
        for line in self.lines.take() {
            self.tell(|told| told.tracker.print(&line));
        }
    }

    /// Passes on what the model answered since the last time.
    fn pass_samples(&mut self, position: u64) {
        if let Some(table) = self.samples.grown(self.resumed) {
            self.tell(|told| told.tracker.tabulate(position, "samples", &table));
        }
    }

    fn begin(&mut self, report: &StartReport) -> Result<(), TrackingError> {
        // A branch is a run of its own: it must not write over the one that it comes from.
        if report.resumed_from.as_ref().is_none_or(|from| is_foreign(from, &self.output_dir)) {
            self.earlier.clear();
        }
        let earlier = |name: &str| self.earlier.get(name).and_then(Value::as_object);
        let mut trackers = Vec::new();
        if let Some(settings) = &self.settings.wandb {
            let run = match earlier("wandb") {
                Some(state) => wandb::Run::resume(settings, state, report.step)?,
                None => wandb::Run::create(settings)?,
            };
            trackers.push(Told { tracker: Box::new(run), values: Naming::Grouped, summary: Naming::Plain });
        }
        if let Some(settings) = &self.settings.tensorboard {
            let run = match earlier("tensorboard") {
                Some(state) => Events::resume(settings, state, report.step)?,
                None => Events::create(settings)?,
            };
            trackers.push(Told { tracker: Box::new(run), values: Naming::Grouped, summary: Naming::Grouped });
        }
        if let Some(settings) = &self.settings.mlflow {
            let run = match earlier("mlflow") {
                Some(state) => MlflowRun::resume(settings, state)?,
                None => MlflowRun::create(settings)?,
            };
            trackers.push(Told { tracker: Box::new(run), values: Naming::Plain, summary: Naming::Plain });
        }
        self.trackers = trackers;
        self.resumed = report.resumed_from.as_ref().map(|_| report.step);
        Ok(())
    }

    /// The run is over: tells the trackers, and the user where to look and what they did not get. Does nothing the
    /// second time.
    fn close(&mut self, code: u8) {
        self.pass_lines();
        self.tell(|told| told.tracker.finish(code));
        for place in self.trackers.drain(..).filter_map(|told| told.tracker.whereabouts()) {
            crate::console::say(self.is_quiet, place);
        }
    }
}

impl Callback for Tracking {
    fn state(&self) -> Option<(String, Value)> {
        let trackers = self.trackers.iter().map(|told| &told.tracker);
        let mut states = self.earlier.clone();
        states.extend(trackers.map(|tracker| (tracker.name().to_owned(), tracker.state().into())));
        Some((STATE.into(), Value::Object(states)))
    }

    fn restore(&mut self, states: &BTreeMap<String, Value>) -> Result<Flow, EngineError> {
        self.earlier = states.get(STATE).and_then(Value::as_object).cloned().unwrap_or_default();
        Ok(Flow::Continue)
    }

    fn on_start(&mut self, report: &StartReport) -> Result<(), EngineError> {
        let begun = self.begin(report);
        begun.map_err(|source| EngineError::Callback { name: "report_to", source: source.into() })
    }

    fn on_step(&mut self, _: &StepReport) -> Result<Flow, EngineError> {
        if let Some(values) = self.machine.as_mut().and_then(MachineProbe::due) {
            self.tell(|told| told.tracker.measure(&values));
        }
        Ok(Flow::Continue)
    }

    fn on_log(&mut self, record: &mut LogRecord) -> Result<(), EngineError> {
        self.log(record.step, &names::of_log(record));
        self.pass_samples(record.step);
        self.pass_lines();
        Ok(())
    }

    fn on_evaluate(&mut self, report: &EvalReport) -> Result<Flow, EngineError> {
        self.log(report.step, &names::of_evaluation(report, &self.scale));
        self.pass_samples(report.step);
        self.pass_lines();
        Ok(Flow::Continue)
    }

    /// What a checkpoint stands for is on disk before the checkpoint is.
    fn on_save_due(&mut self, _: &Snapshot<'_>) -> Result<(), EngineError> {
        self.tell(|told| told.tracker.flush());
        Ok(())
    }

    fn on_end(&mut self, summary: &Summary) -> Result<(), EngineError> {
        self.pass_lines();
        if let Some(values) = self.machine.as_mut().and_then(MachineProbe::now) {
            self.tell(|told| told.tracker.measure(&values));
        }
        let values = names::of_summary(summary, &self.scale);
        let code = if summary.stopped { INTERRUPTED } else { 0 };
        let position = summary.step;
        self.pass_samples(position);
        self.tell(|told| told.tracker.summarize(&Row { position, values: told.summary.of(&values) }));
        self.close(code);
        Ok(())
    }
}

/// A run that ended with an error has told nobody that it is over.
impl Drop for Tracking {
    fn drop(&mut self) {
        self.close(FAILED);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;
    use std::rc::Rc;

    /// A tracker whose disk is full from its third row on.
    struct Filling(Rc<RefCell<Vec<String>>>);

    impl Tracker for Filling {
        fn name(&self) -> &'static str {
            "filling"
        }
        fn log(&mut self, row: &Row) -> Result<(), TrackingError> {
            self.0.borrow_mut().push(format!("{} {}", row.position, row.values[0].0));
            match row.position {
                3.. => Err(TrackingError::Thread(std::io::ErrorKind::StorageFull.into())),
                _ => Ok(()),
            }
        }
        fn summarize(&mut self, row: &Row) -> Result<(), TrackingError> {
            self.log(row)
        }
        fn flush(&mut self) -> Result<(), TrackingError> {
            Ok(())
        }
        fn finish(&mut self, exit_code: u8) -> Result<(), TrackingError> {
            self.0.borrow_mut().push(format!("end {exit_code}"));
            Ok(())
        }
        fn state(&self) -> Map<String, Value> {
            Map::from_iter([("id".to_owned(), Value::from("abc"))])
        }
        fn whereabouts(&self) -> Option<String> {
            self.0.borrow_mut().push("where".into());
            None
        }
    }

    #[test]
    fn a_tracker_that_fails_is_left_out_and_the_others_go_on() {
        let scale = Scale { rows_per_step: 1, eval_rows: 0, eval_batch: 1, flops_per_token: 1.0 };
        let lines = ConsoleLines::default();
        let mut tracking =
            Tracking::new(TrackingSettings::default(), scale, lines, Path::new("nowhere"), true);
        let (plain, grouped) = (Rc::default(), Rc::default());
        let told = |log: &Rc<RefCell<Vec<String>>>, values| {
            let tracker = Box::new(Filling(Rc::clone(log)));
            Told { tracker, values, summary: Naming::Plain }
        };
        tracking.trackers = vec![told(&plain, Naming::Plain), told(&grouped, Naming::Grouped)];
        tracking.log(1, &vec![("loss".into(), 1.0)]);
        tracking.log(2, &vec![("eval_loss".into(), 1.0)]);
        assert_eq!(tracking.trackers.len(), 2);
        tracking.trackers.truncate(1);
        tracking.log(3, &vec![("profile/mfu".into(), 1.0)]);
        assert_eq!(tracking.trackers.len(), 0, "left out, with a warning");
        tracking.log(4, &vec![("loss".into(), 1.0)]);
        let (_, state) = tracking.state().expect("a state");
        assert_eq!(state["filling"]["id"], "abc", "a later attempt goes on under the same identity");
        drop(tracking);
        assert_eq!(*plain.borrow(), ["1 loss", "2 eval_loss", "3 profile/mfu"]);
        assert_eq!(*grouped.borrow(), ["1 train/loss", "2 eval/loss"]);
    }

    #[test]
    fn a_run_that_ends_with_an_error_is_told_as_failed() {
        let scale = Scale { rows_per_step: 1, eval_rows: 0, eval_batch: 1, flops_per_token: 1.0 };
        let lines = ConsoleLines::default();
        let mut tracking =
            Tracking::new(TrackingSettings::default(), scale, lines, Path::new("nowhere"), true);
        let log = Rc::default();
        let tracker = Box::new(Filling(Rc::clone(&log)));
        tracking.trackers = vec![Told { tracker, values: Naming::Plain, summary: Naming::Plain }];
        drop(tracking);
        assert_eq!(*log.borrow(), ["end 1", "where"], "and what did not arrive is said");
    }
}
