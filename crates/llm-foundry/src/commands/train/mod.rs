//! `llm-foundry train`: plan, load, fit, save. Nothing is written before everything has been checked.

mod card;
mod command;
mod examiner;
mod facts;
mod profile;
mod resume;
mod save;
mod tracking;
mod watch;

use crate::card::Card;
use crate::cli::{MachineArgs, TrainArgs};
use crate::config::{self, Config, WeightInit};
use crate::console;
use crate::data_report;
use crate::failure::{Failure, Outcome};
use crate::hub::Need;
use crate::machine::{Machine, dtype_name};
use crate::model_source::expand_home;
use crate::output_dir::{self, Claim, Existing};
use crate::plan::Plan;
use crate::report;
use crate::shell_words::quoted;
use crate::signals::SignalRequests;
use crate::subject::Subject;
use examiner::Examiner;
use foundry_comm::Solo;
use foundry_data::{Batches, DataReport, Loader, StreamLoader};
use foundry_engine::callbacks::Callback;
use foundry_engine::checkpoint::{self, Facts};
use foundry_engine::optim;
use foundry_engine::{DecoderModel, EngineError, Evaluation, Run, Summary, Trainable, fit};
use foundry_kernels::{Backend, CpuBackend, ProfilingBackend};
use foundry_models::{Decoder, Tuning, with_vocabulary};
use profile::Profile;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;
use tracking::{Scale, Sources, Tracking, TrackingSettings};
use watch::Say;

/// Trains as the configuration says.
pub(crate) fn run(args: TrainArgs, machine_args: &MachineArgs) -> Outcome {
    let began = Instant::now();
    let quiet = machine_args.quiet;
    let resolved = config::load(&args.config.config, &args.config.overrides)?;
    if args.config.print_config {
        return Ok(anstream::stdout().write_all(resolved.to_yaml_with_origins().as_bytes())?);
    }
    let config = &resolved.config;
    let output_dir = expand_home(config.output_dir.as_deref().ok_or_else(|| no_output_dir(&args))?);
    // Before anything is swept up: what looks like leftovers may be another process at work.
    let mut claim = Claim::of(&output_dir)?;
    let (existing, resume) = match (&args.resume, args.overwrite_output_dir) {
        (Some(from), _) => resume::find(from, &output_dir, quiet)?,
        (None, true) => (Existing::MoveAside, None),
        (None, false) => (Existing::Refuse, None),
    };
    output_dir::check(&output_dir, existing)?;

    let machine = Machine::choose(machine_args, config.training.threads)?;
    let rendered_at = resume.as_ref().and_then(|checkpoint| facts::rendered_at(&checkpoint.state.facts));
    let plan = Plan::make(&resolved, machine, Need::Everything, quiet, rendered_at)?;
    console::say(quiet, plan.summary().trim_end());
    plan.check_data(config)?;
    plan.check_memory(config)?;
    if config.training.check_disk {
        plan.disk.check(&output_dir, resume.is_some())?;
    }
    let facts = resume::facts_of(&plan, &config.data, resume.as_ref(), quiet)?;
    let command = command::of(&args, machine_args);
    let variable = |name: &str| std::env::var(name).ok();
    let sources =
        Sources { config, plan: &plan, output_dir: &output_dir, command: &command, variable: &variable };
    let tracking = TrackingSettings::resolve(&sources)?;
    let examiner = Examiner::new(config, &plan.subject, &output_dir, quiet)?;
    let backend = machine.backend();
    let mut decoder = load(&plan, config, &backend)?;

    if let Some(moved) = output_dir::prepare(&output_dir, existing)? {
        console::say(quiet, format!("the earlier run was moved to {}", moved.display()));
        claim.iter_mut().for_each(|claim| claim.follow(&moved));
    }
    let _claim = Claim::or_new(claim, &output_dir, existing, quiet)?;
    if let Some(checkpoint) = &resume {
        resume::carry_best(&plan.args, checkpoint, &output_dir, quiet)?;
    }
    let resolved_file = resolved.to_file(dtype_name(plan.subject.compute));
    output_dir::write_whole(&output_dir.join("config.resolved.yaml"), &resolved_file)?;
    if let Some(corpus) = &plan.corpus {
        let counts = format!("{:#}\n", data_report::of_corpus(corpus));
        output_dir::write_whole(&output_dir.join(data_report::DATA_REPORT), &counts)?;
    }
    let card = card::card(&plan, config, &resolved.to_card(), &output_dir, command.clone());
    let say = Say { quiet, json: args.json };
    let job = Job { command, tracking, config, output_dir: &output_dir, backend: &backend, began, say };
    let outcome = job.fit(plan, facts, card, &mut decoder, examiner, resume.as_ref());
    report::leave(&output_dir, quiet);
    outcome
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
        Some(files) if !is_random => {
            let weights = files.weights().map_err(Failure::input)?;
            let grown = with_vocabulary(weights, shape, adapter.as_deref()).map_err(Failure::input)?;
            Some((files, grown))
        }
        _ => None,
    };
    let mut decoder =
        Decoder::allocate(backend, shape, tuning, *compute, plan.max_tokens, plan.storage.clone())
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
    /// The command that this run was started with, without options that only say where to begin.
    command: String,
    tracking: TrackingSettings,
    config: &'a Config,
    output_dir: &'a Path,
    backend: &'a CpuBackend,
    /// When the command began.
    began: Instant,
    say: Say,
}

impl Job<'_> {
    fn fit(
        &self,
        plan: Plan,
        facts: Facts,
        mut card: Card,
        decoder: &mut Decoder,
        examiner: Option<Examiner>,
        resume: Option<&checkpoint::Checkpoint>,
    ) -> Outcome {
        let Plan { subject, args, corpus, max_tokens, flops_per_token, .. } = plan;
        let mut corpus = corpus.ok_or_else(resume::no_data)?;
        let rows = corpus.take_rows();
        let eval_rows = corpus.eval.map(|eval| eval.rows);
        let (mut streamed, mut indexed) = (None, None);
        let loader: &mut dyn Batches = match corpus.stream {
            Some(stream) => {
                let tokenizer =
                    subject.tokenizer.clone().ok_or_else(|| Failure::Input("no tokenizer".into()))?;
                let loader = StreamLoader::new(stream.spec, Arc::new(tokenizer)).map_err(Failure::input)?;
                streamed.insert(loader)
            }
            None => {
                let (size, seed) = (args.per_device_train_batch_size, args.data_seed());
                indexed.insert(Loader::new(rows, size, seed, true, 0, 1))
            }
        };
        let mut optimizer = optim::make(self.backend, decoder.parameters(), &args);
        let mut model = DecoderModel { decoder, gather: save::gatherer(&subject) };
        let signals = SignalRequests::install().map_err(Failure::run)?;
        let profiling = self.config.training.profile.then(|| ProfilingBackend::new(self.backend));
        let scale = Scale {
            rows_per_step: args.per_device_train_batch_size.saturating_mul(args.gradient_accumulation_steps),
            eval_rows: eval_rows.as_ref().map_or(0, Vec::len),
            eval_batch: args.per_device_eval_batch_size,
            flops_per_token,
        };
        let mut callbacks = self.callbacks(&args, scale, &signals, examiner);
        if let Some(profiling) = &profiling {
            let compute = subject.compute;
            let profile = Profile::new(profiling, compute, flops_per_token, self.output_dir, self.say.quiet);
            callbacks.insert(0, Box::new(profile));
        }
        let backend: &dyn Backend = match &profiling {
            Some(profiling) => profiling,
            None => self.backend,
        };
        let mut run = Run {
            args: &args,
            backend,
            comm: &Solo,
            model: &mut model,
            optimizer: optimizer.as_mut(),
            loader,
            evaluation: eval_rows.as_deref().map(|rows| Evaluation { rows, max_tokens }),
            callbacks,
            resume,
            facts,
        };
        let summary = fit(&mut run).map_err(failure_of)?;
        drop(run);
        streamed.iter().for_each(|loader| self.tell_left_out(loader.report(), resume.is_some()));
        if summary.stopped {
            return Err(self.interrupted(&summary, &signals));
        }
        if args.load_best_model_at_end {
            self.load_best(&summary, &mut model)?;
        }
        card.results = card::results(&summary);
        self.save(&subject, &model, &card)
    }

    /// Writes the result.
    fn save(&self, subject: &Subject, model: &DecoderModel<'_>, card: &Card) -> Outcome {
        save::into_output_dir(model, self.backend, card, self.output_dir)?;
        let what = if matches!(subject.tuning, Tuning::Lora(_)) { "adapter" } else { "model" };
        console::say(self.say.quiet, format!("{what} saved in {}", self.output_dir.display()));
        // Without a template there is nothing to chat with.
        let can_chat =
            subject.tokenizer.as_ref().is_some_and(|tokenizer| tokenizer.chat_template().is_some());
        let command = if can_chat { "chat" } else { "generate" };
        let output = quoted(&self.output_dir.display().to_string());
        let model = match &subject.tuning {
            Tuning::Lora(_) => format!("{} --adapter {output}", quoted(&subject.name)),
            _ => output,
        };
        let prompt = if can_chat { "" } else { " --prompt 'Once upon a time'" };
        console::say(self.say.quiet, format!("next: llm-foundry {command} {model}{prompt}"));
        Ok(())
    }

    /// Who watches the run.
    fn callbacks<'b>(
        &self,
        args: &foundry_engine::TrainingArgs,
        scale: Scale,
        signals: &SignalRequests,
        examiner: Option<Examiner>,
    ) -> Vec<Box<dyn Callback + 'b>> {
        let settings = self.tracking.clone();
        let quiet = self.say.quiet;
        let tracking = |lines| {
            settings.is_wanted().then(|| Tracking::new(settings, scale, lines, self.output_dir, quiet))
        };
        let watching =
            watch::callbacks(self.config, args, self.output_dir, self.began, signals, tracking, self.say);
        let examiner = examiner.map(|examiner| Box::new(examiner) as Box<dyn Callback + 'b>);
        let watching = watching.into_iter().map(|callback| callback as Box<dyn Callback + 'b>);
        examiner.into_iter().chain(watching).collect()
    }

    /// Rows of a stream that were left out: what loading tells before the first step.
    fn tell_left_out(&self, report: &DataReport, is_resumed: bool) {
        if report.skipped > 0 {
            // Counts are no part of the place that a checkpoint keeps.
            let since = if is_resumed { " since the checkpoint" } else { "" };
            let first = report.problems.join("\n  ");
            console::say(
                self.say.quiet,
                format!("{} unusable row(s) were left out{since}:\n  {first}", report.skipped),
            );
        }
    }

    /// Goes back to the values of the best evaluation.
    fn load_best(&self, summary: &Summary, model: &mut dyn Trainable) -> Outcome {
        let Some(best) = &summary.best else {
            console::say(
                self.say.quiet,
                "no evaluation was a number, so the last step's values are the result",
            );
            return Ok(());
        };
        if best.step != summary.step {
            let dir = self.output_dir.join(format!("checkpoint-{}", best.step));
            // Hours of training must not end without a result.
            if let Err(error) = checkpoint::open(&dir) {
                let said = format!("warning: {error}\n  so the last step's values are the result");
                console::say(self.say.quiet, said);
                return Ok(());
            }
            checkpoint::load_values(&dir, self.backend, model).map_err(failure_of)?;
        }
        let said = format!("the result is the model of step {}, whose evaluation was the best", best.step);
        console::say(self.say.quiet, said);
        Ok(())
    }

    /// What to say after a signal or at the time limit.
    fn interrupted(&self, summary: &Summary, signals: &SignalRequests) -> Failure {
        let last = checkpoint::list(self.output_dir).ok().and_then(|list| list.last().cloned());
        let why = match self.config.training.max_time {
            Some(_) if !signals.is_stop_set() => "the time limit (training.max_time) is near, ",
            _ => "",
        };
        let place = format!("{why}after step {} of {}", summary.step, summary.total_steps);
        let Some((step, path)) = last else {
            let anew = "start anew with --overwrite-output-dir";
            return Failure::Interrupted(format!("{place}; there is no checkpoint; {anew}"));
        };
        let path = path.display();
        let checkpoint = match step == summary.step {
            true => format!("checkpoint {path}"),
            false => format!("the last checkpoint is that of step {step}, {path}"),
        };
        let how = match self.config.training.save_only_model {
            true => "it holds the model only (save_only_model), so the run cannot go on from it".to_owned(),
            false => format!("continue with: {}", self.resume_command()),
        };
        Failure::Interrupted(format!("{place}; {checkpoint}\n  {how}"))
    }

    fn resume_command(&self) -> String {
        format!("{} --resume", self.command)
    }
}

/// Whose fault an engine's error is.
fn failure_of(error: EngineError) -> Failure {
    use checkpoint::CheckpointError;
    match error {
        EngineError::Argument(_) | EngineError::Schedule(_) | EngineError::Resume(_) => Failure::input(error),
        // A bad row met while streaming is the input's fault; a disk that fails is not.
        EngineError::Data { source, .. } if !matches!(*source, foundry_data::DataError::Io { .. }) => {
            Failure::Input(source.to_string())
        }
        EngineError::Checkpoint(CheckpointError::Damaged { .. } | CheckpointError::Occupied { .. }) => {
            Failure::input(error)
        }
        error => Failure::run(error),
    }
}
