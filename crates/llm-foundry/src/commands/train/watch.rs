//! Who watches a training run: metrics, console, signals, limits, checkpoints.

use super::tracking::Tracking;
use crate::config::Config;
use crate::console::{ConsoleLines, TrainingConsole};
use crate::crash::CrashAt;
use crate::signals::SignalRequests;
use foundry_engine::callbacks::{
    Callback, Checkpoint, EarlyStopping, Flow, Memory, MetricsJsonl, Throughput, TimeLimit,
};
use foundry_engine::{EngineError, StepReport, TrainingArgs};
use std::path::Path;
use std::time::Instant;

/// What is said while a run goes on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Say {
    /// Nothing to people.
    pub(super) quiet: bool,
    /// The metrics to programs, on standard output.
    pub(super) json: bool,
}

/// The callbacks, in the order that the engine asks for: those that fill in before those that write, checkpoints last.
pub(super) fn callbacks(
    config: &Config,
    args: &TrainingArgs,
    output_dir: &Path,
    began: Instant,
    signals: &SignalRequests,
    tracking: impl FnOnce(ConsoleLines) -> Option<Tracking>,
    say: Say,
) -> Vec<Box<dyn Callback>> {
    let mut callbacks: Vec<Box<dyn Callback>> = vec![
        Box::new(Throughput::default()),
        Box::new(Memory::of_this_process()),
        Box::new(match say.json {
            true => MetricsJsonl::new(output_dir).with_copy(Box::new(std::io::stdout())),
            false => MetricsJsonl::new(output_dir),
        }),
    ];
    let lines = ConsoleLines::kept();
    let tracking = tracking(lines.clone());
    if !say.quiet {
        let kept = if tracking.is_some() { lines } else { ConsoleLines::default() };
        callbacks.push(Box::new(TrainingConsole::new(kept)));
    }
    if let Some(tracking) = tracking {
        callbacks.push(Box::new(tracking));
    }
    let training = &config.training;
    if let Some(patience) = training.early_stopping_patience {
        let threshold = training.early_stopping_threshold;
        callbacks.push(Box::new(EarlyStopping::new(patience, threshold, args.comparison())));
    }
    if let Some(limit) = training.max_time {
        callbacks.push(Box::new(TimeLimit::new(began, limit.0)));
    }
    callbacks.push(Box::new(AskedBySignal { signals: signals.clone(), told: say.quiet }));
    let crash = CrashAt::from_env();
    if let Some(crash) = crash.clone() {
        callbacks.push(Box::new(crash));
    }
    let checkpoints = Checkpoint::new(output_dir, args.save_total_limit);
    callbacks.push(Box::new(checkpoints.with_crash_hook(CrashAt::hook(crash))));
    callbacks
}

/// Asks the loop to stop, or to save, after a signal.
struct AskedBySignal {
    signals: SignalRequests,
    told: bool,
}

impl AskedBySignal {
    fn stops(&mut self) -> bool {
        let stops = self.signals.is_stop_set();
        if stops && !std::mem::replace(&mut self.told, true) {
            crate::console::tell!("stopping after this step, with a checkpoint (once more: at once)");
        }
        stops
    }
}

impl Callback for AskedBySignal {
    fn on_step(&mut self, _: &StepReport) -> Result<Flow, EngineError> {
        if self.stops() {
            return Ok(Flow::Stop);
        }
        Ok(if self.signals.take_save() { Flow::Save } else { Flow::Continue })
    }

    fn before_evaluate(&mut self) -> Result<Flow, EngineError> {
        Ok(if self.stops() { Flow::Stop } else { Flow::Continue })
    }

    fn interrupts(&mut self) -> bool {
        self.stops()
    }
}
