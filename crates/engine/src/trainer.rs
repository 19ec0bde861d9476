//! The training loop.

use crate::arguments::TrainingArgs;
use crate::callbacks::{Callback, Flow, Snapshot};
use crate::checkpoint::{self, Checkpoint, Difference, Facts, ResumeError};
use crate::error::EngineError;
use crate::evaluation::{Evaluation, evaluate};
use crate::model::Trainable;
use crate::objectives::objective;
use crate::optim::Optimizer;
use crate::progress::Progress;
use crate::report::{StartReport, Summary};
use crate::schedule::Schedule;
use crate::step::{self, StepPlan};
use crate::timetable::Timetable;
use foundry_comm::Communicator;
use foundry_data::Batches;
use foundry_kernels::Backend;
use std::time::Instant;

/// Everything a run consists of, on one rank.
pub struct Run<'a> {
    /// What the run is told.
    pub args: &'a TrainingArgs,
    /// Where the numbers are.
    pub backend: &'a dyn Backend,
    /// The other ranks.
    pub comm: &'a dyn Communicator,
    /// What is trained.
    pub model: &'a mut dyn Trainable,
    /// How it is updated; made for the model's parameters.
    pub optimizer: &'a mut dyn Optimizer,
    /// This rank's micro-batches, at the start of the first epoch.
    pub loader: &'a mut dyn Batches,
    /// The held-out split, if there is one.
    pub evaluation: Option<Evaluation<'a>>,
    /// Who is told what happens, in order.
    pub callbacks: Vec<Box<dyn Callback + 'a>>,
    /// Go on from here.
    pub resume: Option<&'a Checkpoint>,
    /// What a checkpoint is bound to besides the arguments.
    pub facts: Facts,
}

/// Trains until the last step, or until a callback stops. On an error the step at hand has not been applied.
pub fn fit(run: &mut Run<'_>) -> Result<Summary, EngineError> {
    run.args.validate()?;
    run.args.validate_evaluation(run.evaluation.is_some())?;
    let timetable = Timetable::of(run.args, run.loader.batches_per_epoch())?;
    let schedule = schedule(run.args, timetable.total_steps)?;
    let objective = objective(run.args);
    let mut progress = start(run, timetable)?;
    if run.args.eval_on_start && progress.step == 0 {
        evaluate_and_tell(run, &mut progress)?;
    }
    let mut flow = Flow::Continue;
    while progress.step < timetable.total_steps && flow == Flow::Continue {
        let began = Instant::now();
        let step = progress.step + 1;
        let plan = StepPlan {
            step,
            epoch: timetable.epoch(progress.step),
            micro_batches: timetable.micro_batches(step),
            learning_rate: schedule.learning_rate(progress.step),
        };
        let taken = step::take(run, &objective, &plan)?;
        let report = progress.advance(&plan, &taken, began.elapsed().as_secs_f64());
        for callback in &mut run.callbacks {
            flow = flow.or(callback.on_step(&report)?);
        }
        if timetable.logs_after(step) {
            log(run, &mut progress)?;
        }
        if timetable.evaluates_after(step) {
            flow = flow.or(evaluate_and_tell(run, &mut progress)?);
        }
        flow = agree(run, flow)?;
        // Who stops a run wants to go on with it, whatever the timetable says.
        if timetable.saves_after(step) || flow == Flow::Stop {
            save(run, &progress)?;
        }
    }
    let summary = progress.summary();
    for callback in &mut run.callbacks {
        callback.on_end(&summary)?;
    }
    Ok(summary)
}

/// The schedule of a run of `total_steps`; a plan makes it too, to find mistakes in its options early.
pub fn schedule(args: &TrainingArgs, total_steps: u64) -> Result<Schedule, EngineError> {
    let warmup = args.warmup_steps.resolve(total_steps);
    Ok(Schedule::new(
        args.lr_scheduler_type,
        args.learning_rate,
        warmup,
        total_steps,
        &args.lr_scheduler_kwargs,
    )?)
}

/// Begins, or restores a checkpoint, and tells the callbacks.
fn start(run: &mut Run<'_>, timetable: Timetable) -> Result<Progress, EngineError> {
    let mut progress = Progress::new(timetable);
    let mut changed = Vec::new();
    if let Some(checkpoint) = run.resume {
        changed = check(run, checkpoint, &timetable)?;
        checkpoint::restore(&checkpoint.path, run.backend, run.model, run.optimizer)?;
        let (path, state) = (&checkpoint.path, &checkpoint.state.data);
        run.loader
            .restore(state)
            .map_err(|source| ResumeError::Data { path: path.clone(), source: Box::new(source) })?;
        progress = Progress::resumed(timetable, &checkpoint.state);
    }
    let report = StartReport {
        step: progress.step,
        total_steps: timetable.total_steps,
        steps_per_epoch: timetable.steps_per_epoch,
        world_size: run.comm.world_size(),
        trainable_parameters: run.model.parameters().iter().map(|p| p.elements() as u64).sum(),
        backend: run.backend.name(),
        resumed_from: run.resume.map(|checkpoint| checkpoint.path.clone()),
        changed,
    };
    for callback in &mut run.callbacks {
        callback.before_start(&report)?;
    }
    for callback in &mut run.callbacks {
        callback.on_start(&report)?;
    }
    Ok(progress)
}

/// What has changed since the checkpoint and may; an error if something has that must not.
fn check(
    run: &Run<'_>,
    checkpoint: &Checkpoint,
    timetable: &Timetable,
) -> Result<Vec<Difference>, EngineError> {
    let (step, total_steps) = (checkpoint.state.step, timetable.total_steps);
    if step > total_steps {
        return Err(ResumeError::Beyond { path: checkpoint.path.clone(), step, total_steps }.into());
    }
    let (differences, changed) = checkpoint::compare(
        &checkpoint.state,
        run.args,
        &run.facts,
        run.comm.world_size(),
        timetable.batches_per_epoch,
        run.optimizer.name(),
    );
    if differences.is_empty() {
        return Ok(changed);
    }
    Err(ResumeError::OtherRun { path: checkpoint.path.clone(), differences }.into())
}

/// A line of the log: filled in and written by the callbacks, then kept.
fn log(run: &mut Run<'_>, progress: &mut Progress) -> Result<(), EngineError> {
    let mut record = progress.log();
    for callback in &mut run.callbacks {
        callback.on_log(&mut record)?;
    }
    progress.remember(&record);
    Ok(())
}

/// Evaluates, if there is a held-out split, and tells the callbacks.
fn evaluate_and_tell(run: &mut Run<'_>, progress: &mut Progress) -> Result<Flow, EngineError> {
    let report = evaluate(run, progress.step, progress.epoch(), progress.best_loss())?;
    let Some(report) = report else { return Ok(Flow::Continue) };
    progress.evaluated(&report);
    let mut flow = Flow::Continue;
    for callback in &mut run.callbacks {
        flow = flow.or(callback.on_evaluate(&report)?);
    }
    Ok(flow)
}

/// Stops on every rank if one stops.
fn agree(run: &Run<'_>, flow: Flow) -> Result<Flow, EngineError> {
    let mut stops = [if flow == Flow::Stop { 1.0 } else { 0.0 }];
    run.comm.all_reduce_sum(&mut stops)?;
    Ok(if stops[0] > 0.0 { Flow::Stop } else { Flow::Continue })
}

/// Lets the callbacks keep the finished step; no rank goes on before that is done.
fn save(run: &mut Run<'_>, progress: &Progress) -> Result<(), EngineError> {
    let state = progress.state(run);
    let mut saved = Vec::new();
    for callback in &mut run.callbacks {
        let (model, optimizer) = (&*run.model, &*run.optimizer);
        let snapshot = Snapshot { state: &state, backend: run.backend, model, optimizer };
        saved.extend(callback.on_save_due(&snapshot)?);
    }
    for report in &saved {
        for callback in &mut run.callbacks {
            callback.on_save(report)?;
        }
    }
    Ok(run.comm.barrier()?)
}
