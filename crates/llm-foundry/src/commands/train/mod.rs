//! `llm-foundry train`: plan, load, fit, save. Nothing is written before everything has been checked.

mod crash;
mod facts;
mod resume;
mod save;

use crate::cli::{MachineArgs, TrainArgs};
use crate::config::{self, Config, WeightInit};
use crate::console::{self, TrainingConsole};
use crate::failure::{Failure, Outcome};
use crate::hub::Need;
use crate::machine::Machine;
use crate::model_source::expand_home;
use crate::output_dir::{self, Existing};
use crate::plan::Plan;
use crate::signals::StopRequest;
use crate::subject::Subject;
use foundry_comm::Solo;
use foundry_data::Loader;
use foundry_engine::callbacks::{Callback, Checkpoint, Flow, Memory, MetricsJsonl, Throughput};
use foundry_engine::checkpoint;
use foundry_engine::optim;
use foundry_engine::{DecoderModel, EngineError, Evaluation, Run, StepReport, Summary, fit};
use foundry_kernels::CpuBackend;
use foundry_models::{Decoder, Tuning};
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

/// Trains as the configuration says.
pub(crate) fn run(args: TrainArgs, machine_args: &MachineArgs) -> Outcome {
    let quiet = machine_args.quiet;
    let resolved = config::load(&args.config.config, &args.config.overrides)?;
    if args.config.print_config {
        return Ok(anstream::stdout().write_all(resolved.to_yaml_with_origins().as_bytes())?);
    }
    let config = &resolved.config;
    let output_dir = expand_home(config.output_dir.as_deref().ok_or_else(|| no_output_dir(&args))?);
    let existing = match (&args.resume, args.overwrite_output_dir) {
        (Some(_), _) => Existing::Continue,
        (None, true) => Existing::MoveAside,
        (None, false) => Existing::Refuse,
    };
    output_dir::check(&output_dir, existing)?;
    let resume = args.resume.as_deref().map(|from| resume::find(from, &output_dir, quiet)).transpose()?;

    let machine = Machine::choose(machine_args, config.training.threads)?;
    let plan = Plan::make(&resolved, machine, Need::Everything, quiet)?;
    console::say(quiet, plan.summary().trim_end());
    plan.check_memory(config)?;
    let backend = machine.backend();
    let mut decoder = load(&plan, config, &backend)?;

    if let Some(moved) = output_dir::prepare(&output_dir, existing)? {
        console::say(quiet, format!("the earlier run was moved to {}", moved.display()));
    }
    output_dir::write_whole(&output_dir.join("config.resolved.yaml"), &resolved.to_yaml())?;
    let job = Job { args: &args, output_dir: &output_dir, backend: &backend, quiet };
    job.fit(plan, &mut decoder, resume.as_ref())
}

fn no_output_dir(args: &TrainArgs) -> Failure {
    Failure::Input(format!(
        "{}: `output_dir` is missing: where should the result go? Write it into the file, or add output_dir=DIR",
        args.config.config.display()
    ))
}

/// Allocates the model and fills it.
fn load(plan: &Plan, config: &Config, backend: &CpuBackend) -> Outcome<Decoder> {
    let Subject { decoder: shape, tuning, compute, files, adapter, .. } = &plan.subject;
    let is_random = config.model.init == WeightInit::Random;
    // Opened before anything is allocated: a pickle or a broken header is found now.
    let weights = match files {
        Some(files) if !is_random => Some((files, files.weights().map_err(Failure::input)?)),
        _ => None,
    };
    let mut decoder = Decoder::allocate(backend, shape, tuning, *compute, plan.max_tokens, plan.storage)
        .map_err(Failure::input)?;
    match weights {
        Some((files, weights)) => decoder
            .load(backend, weights.as_ref())
            .map_err(|e| Failure::Input(format!("{}: {e}", files.path.display())))?,
        None => decoder.init_random(backend, config.training.seed, shape.initializer_range),
    }
    match (tuning, adapter) {
        (Tuning::Lora(_), Some(dir)) => decoder.load_adapter(backend, dir).map_err(Failure::input)?,
        (Tuning::Lora(_), None) => decoder.init_lora(backend, config.training.seed),
        _ => {}
    }
    Ok(decoder)
}

/// A run whose every part is ready.
struct Job<'a> {
    args: &'a TrainArgs,
    output_dir: &'a Path,
    backend: &'a CpuBackend,
    quiet: bool,
}

impl Job<'_> {
    fn fit(&self, plan: Plan, decoder: &mut Decoder, resume: Option<&checkpoint::Checkpoint>) -> Outcome {
        let Plan { subject, args, corpus, max_tokens, storage, .. } = plan;
        let corpus = corpus.ok_or_else(|| Failure::Input("there is no data to train on".into()))?;
        let facts = facts::facts(&subject, &corpus, storage);
        let rows = Arc::new(corpus.train.rows);
        let eval_rows = corpus.eval.map(|eval| eval.rows);
        let mut loader = Loader::new(rows, args.per_device_train_batch_size, args.data_seed(), true, 0, 1);
        let mut optimizer = optim::make(self.backend, decoder.parameters(), &args);
        let mut model = DecoderModel { decoder, save: save::saver(&subject) };
        let stop = StopRequest::install().map_err(Failure::run)?;
        let mut run = Run {
            args: &args,
            backend: self.backend,
            comm: &Solo,
            model: &mut model,
            optimizer: optimizer.as_mut(),
            loader: &mut loader,
            evaluation: eval_rows.as_deref().map(|rows| Evaluation { rows, max_tokens }),
            callbacks: self.callbacks(&stop, args.save_total_limit),
            resume,
            facts,
        };
        let summary = fit(&mut run).map_err(failure_of)?;
        drop(run);
        if summary.stopped {
            return Err(self.interrupted(&summary));
        }
        save::into_output_dir(&model, self.backend, self.output_dir)?;
        let what = if matches!(subject.tuning, Tuning::Lora(_)) { "adapter" } else { "model" };
        console::say(self.quiet, format!("{what} saved in {}", self.output_dir.display()));
        Ok(())
    }

    fn callbacks(&self, stop: &StopRequest, save_total_limit: Option<usize>) -> Vec<Box<dyn Callback>> {
        let mut callbacks: Vec<Box<dyn Callback>> = vec![
            Box::new(Throughput::default()),
            Box::new(Memory::of_this_process()),
            Box::new(MetricsJsonl::new(self.output_dir)),
        ];
        if !self.quiet {
            callbacks.push(Box::new(TrainingConsole::new()));
        }
        callbacks.push(Box::new(StopOnSignal { stop: stop.clone(), told: self.quiet }));
        let checkpoints = Checkpoint::new(self.output_dir, save_total_limit);
        if let Some(crash) = crash::CrashAt::from_env() {
            callbacks.push(Box::new(crash.clone()));
            callbacks.push(Box::new(checkpoints.with_crash_hook(crash.hook())));
        } else {
            callbacks.push(Box::new(checkpoints));
        }
        callbacks
    }

    /// What to say after a signal.
    fn interrupted(&self, summary: &Summary) -> Failure {
        let last = checkpoint::list(self.output_dir).ok().and_then(|list| list.last().cloned());
        let place = format!("after step {} of {}", summary.step, summary.total_steps);
        Failure::Interrupted(match last {
            Some((step, path)) if step == summary.step => {
                format!("{place}; checkpoint {}\n  continue with: {}", path.display(), self.resume_command())
            }
            Some((step, path)) => format!(
                "{place}; the last checkpoint is that of step {step}, {}\n  continue with: {}",
                path.display(),
                self.resume_command()
            ),
            None => format!("{place}; there is no checkpoint; start anew with --overwrite-output-dir"),
        })
    }

    fn resume_command(&self) -> String {
        let mut words = vec!["llm-foundry train".to_owned(), self.args.config.config.display().to_string()];
        words.extend(
            self.args
                .config
                .overrides
                .iter()
                .map(|o| if o.contains(' ') { format!("'{o}'") } else { o.clone() }),
        );
        words.push("--resume".into());
        words.join(" ")
    }
}

/// Asks the loop to stop after a signal.
struct StopOnSignal {
    stop: StopRequest,
    told: bool,
}

impl Callback for StopOnSignal {
    fn on_step(&mut self, _: &StepReport) -> Result<Flow, EngineError> {
        if !self.stop.is_set() {
            return Ok(Flow::Continue);
        }
        if !std::mem::replace(&mut self.told, true) {
            anstream::eprintln!("stopping after this step, with a checkpoint (once more: at once)");
        }
        Ok(Flow::Stop)
    }
}

/// Whose fault an engine's error is.
fn failure_of(error: EngineError) -> Failure {
    use checkpoint::CheckpointError;
    match error {
        EngineError::Argument(_) | EngineError::Schedule(_) | EngineError::Resume(_) => Failure::input(error),
        EngineError::Checkpoint(CheckpointError::Damaged { .. } | CheckpointError::Occupied { .. }) => {
            Failure::input(error)
        }
        error => Failure::run(error),
    }
}
