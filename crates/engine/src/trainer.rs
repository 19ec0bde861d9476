//! The training loop.

use crate::arguments::TrainingArgs;
use crate::best::EvalMetric;
use crate::callbacks::{Callback, Examination, Findings, Flow, Snapshot};
use crate::checkpoint::{self, Checkpoint, Facts, ResumeError, Successor};
use crate::error::EngineError;
use crate::evaluation::{Evaluated, Evaluation, evaluate};
use crate::model::Trainable;
use crate::objectives::objective;
use crate::optim::Optimizer;
use crate::progress::Progress;
use crate::report::{Judgement, StartReport, Summary, TaskReport};
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
    let (mut progress, mut ending) = start(run, timetable)?;
    ending = ending.or(before_the_next_step(run, &timetable, &mut progress, ending)?);
    while progress.step < timetable.total_steps && ending == Flow::Continue {
        let began = Instant::now();
        let step = progress.step + 1;
        let plan = StepPlan {
            step,
            epoch: timetable.epoch(progress.step),
            micro_batches: timetable.micro_batches(step),
            learning_rate: schedule.learning_rate(progress.step),
        };
        let taken = step::take(run, &objective, &plan)?;
        let seconds = (began.elapsed().as_secs_f64() - taken.blocked_seconds).max(0.0);
        let report = progress.advance(&plan, &taken, seconds);
        let mut flow = Flow::Continue;
        for callback in &mut run.callbacks {
            flow = progress.heed(flow, callback.on_step(&report)?);
        }
        if timetable.logs_after(step) {
            log(run, &mut progress)?;
        }
        if timetable.evaluates_after(step) {
            flow = evaluate_unless_stopped(run, &mut progress, flow)?;
        }
        flow = agree(run, flow)?;
        flow = examine_unless_stopped(run, &timetable, &mut progress, flow)?;
        if timetable.saves_after(step) || saves(run, &timetable, &progress, flow) {
            save(run, &progress)?;
        }
        tell_saves(run, false)?;
        if !flow.goes_on() {
            ending = flow;
        }
    }
    tell_saves(run, true)?;
    let summary = progress.summary(ending);
    for callback in &mut run.callbacks {
        callback.on_end(&summary)?;
    }
    Ok(summary)
}

/// Whether there is a checkpoint after the step at hand, besides those of the timetable.
fn saves(run: &Run<'_>, timetable: &Timetable, progress: &Progress, flow: Flow) -> bool {
    let is_best = progress.is_best() && run.args.saves_best();
    let wanted = match flow {
        Flow::Continue => false,
        Flow::Finish => timetable.saves_at_the_end(),
        // Who stops a run wants to go on with it, whatever the timetable says.
        Flow::Save | Flow::Stop => true,
    };
    wanted || is_best
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
fn start(run: &mut Run<'_>, timetable: Timetable) -> Result<(Progress, Flow), EngineError> {
    let mut progress = Progress::new(timetable);
    let mut ending = Flow::Continue;
    let mut changed = Vec::new();
    if let Some(checkpoint) = run.resume {
        let successor = Successor {
            args: run.args,
            facts: &run.facts,
            world_size: run.comm.world_size(),
            timetable,
            epoch_is_known: run.loader.batches_per_epoch().is_some(),
            optimizer: Some(run.optimizer.name()),
        };
        changed = successor.accepts(checkpoint)?;
        checkpoint::restore(&checkpoint.path, run.backend, run.model, run.optimizer)?;
        let (path, state) = (&checkpoint.path, &checkpoint.state.data);
        run.loader
            .restore(state)
            .map_err(|source| ResumeError::Data { path: path.clone(), source: Box::new(source) })?;
        for callback in &mut run.callbacks {
            ending = ending.or(callback.restore(&checkpoint.state.callbacks)?);
        }
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
        owes_evaluation: progress.owes_evaluation,
        owes_examination: progress.owes_examination,
        changed,
    };
    for callback in &mut run.callbacks {
        callback.before_start(&report)?;
    }
    for callback in &mut run.callbacks {
        callback.on_start(&report)?;
    }
    Ok((progress, ending))
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

/// What comes before the next step: evaluation and examination of the model as it was, or those that the checkpoint
/// owes. The checkpoint that they may be worth is written anew: it says how they came out.
fn before_the_next_step(
    run: &mut Run<'_>,
    timetable: &Timetable,
    progress: &mut Progress,
    ending: Flow,
) -> Result<Flow, EngineError> {
    let evaluates = progress.owes_evaluation || (run.args.eval_on_start && progress.step == 0);
    let examines = progress.owes_examination || progress.step == 0;
    if !evaluates && !examines {
        return Ok(Flow::Continue);
    }
    (progress.owes_evaluation, progress.owes_examination) = (false, false);
    let mut flow = progress.heed(Flow::Continue, ending);
    if evaluates {
        flow = evaluate_unless_stopped(run, progress, flow)?;
        flow = agree(run, flow)?;
    }
    // An evaluation may find that this step is the last, which is examined.
    if examines || !flow.goes_on() {
        flow = examine_unless_stopped(run, timetable, progress, flow)?;
    }
    if progress.step > 0 && saves(run, timetable, progress, flow) {
        save(run, progress)?;
    }
    tell_saves(run, false)?;
    Ok(if flow.goes_on() { Flow::Continue } else { flow })
}

/// Evaluates, unless the run is to be stopped, by `flow` or by the wish of a callback: then the checkpoint comes first,
/// which must not wait, and the evaluation when the run goes on.
fn evaluate_unless_stopped(
    run: &mut Run<'_>,
    progress: &mut Progress,
    mut flow: Flow,
) -> Result<Flow, EngineError> {
    if run.evaluation.is_none() {
        return Ok(flow);
    }
    for callback in &mut run.callbacks {
        flow = progress.heed(flow, callback.before_evaluate()?);
    }
    if agree(run, flow)? == Flow::Stop {
        progress.owes_evaluation = true;
        return Ok(Flow::Stop);
    }
    Ok(flow.or(evaluate_and_tell(run, progress)?))
}

/// Evaluates and tells the callbacks.
fn evaluate_and_tell(run: &mut Run<'_>, progress: &mut Progress) -> Result<Flow, EngineError> {
    let mut report = match evaluate(run, progress.step, progress.epoch())? {
        Evaluated::Done(report) => report,
        Evaluated::Nothing => return Ok(Flow::Continue),
        Evaluated::Interrupted => {
            progress.owes_evaluation = true;
            return Ok(Flow::Stop);
        }
    };
    let comparison = run.args.comparison();
    let judgement = comparison.metric.of(&report).map(|value| progress.judge(value, &comparison));
    report.is_best = judgement.is_some_and(|judgement| judgement.is_best);
    progress.evaluated(&report);
    let mut flow = Flow::Continue;
    for callback in &mut run.callbacks {
        flow = progress.heed(flow, callback.on_evaluate(&report)?);
    }
    match judgement {
        Some(judgement) => Ok(flow.or(tell_judgement(run, progress, &judgement)?)),
        None => Ok(flow),
    }
}

/// Tells the callbacks how a figure compares with the best before.
fn tell_judgement(
    run: &mut Run<'_>,
    progress: &mut Progress,
    judgement: &Judgement,
) -> Result<Flow, EngineError> {
    let mut flow = Flow::Continue;
    for callback in &mut run.callbacks {
        flow = progress.heed(flow, callback.on_judged(judgement)?);
    }
    Ok(flow)
}

/// Lets the callbacks examine the model where they want to, unless the run is to be stopped: then that is owed. Every
/// rank returns the same.
fn examine_unless_stopped(
    run: &mut Run<'_>,
    timetable: &Timetable,
    progress: &mut Progress,
    mut flow: Flow,
) -> Result<Flow, EngineError> {
    let is_last = progress.finishes || progress.step >= timetable.total_steps || flow == Flow::Finish;
    let is_due = run.callbacks.iter().any(|callback| callback.examines_after(progress.step, is_last));
    if flow == Flow::Stop {
        progress.owes_examination = is_due;
        return Ok(flow);
    }
    let found = if is_due { examine(run, progress.step, is_last)? } else { Findings::Whole(Vec::new()) };
    match found {
        Findings::Whole(reports) => flow = flow.or(judge_task(run, progress, &reports)?),
        Findings::BrokenOff => {
            progress.owes_examination = true;
            flow = Flow::Stop;
        }
    }
    agree(run, flow)
}

/// Examines, and tells the callbacks what was found.
fn examine(run: &mut Run<'_>, step: u64, is_last: bool) -> Result<Findings, EngineError> {
    let began = Instant::now();
    let is_alone = run.comm.world_size() == 1;
    let mut all = Vec::new();
    for index in 0..run.callbacks.len() {
        let (before, rest) = run.callbacks.split_at_mut(index);
        let Some((callback, after)) = rest.split_first_mut() else { break };
        if !callback.examines_after(step, is_last) {
            continue;
        }
        let mut others = || before.iter_mut().chain(after.iter_mut()).any(|callback| callback.interrupts());
        let interrupts = &mut || is_alone && others();
        let model = &mut *run.model;
        let examination = &mut Examination { step, interrupts, backend: run.backend, model };
        match callback.examine(examination)? {
            Findings::Whole(reports) => all.extend(reports),
            Findings::BrokenOff => return Ok(Findings::BrokenOff),
        }
    }
    for callback in &mut run.callbacks {
        callback.on_examined(began.elapsed().as_secs_f64())?;
    }
    for report in &all {
        for callback in &mut run.callbacks {
            callback.on_task(report)?;
        }
    }
    Ok(Findings::Whole(all))
}

/// Judges by the number of a benchmark, if that decides and was found, on whatever rank.
fn judge_task(
    run: &mut Run<'_>,
    progress: &mut Progress,
    reports: &[TaskReport],
) -> Result<Flow, EngineError> {
    let EvalMetric::Task(wanted) = &run.args.metric_for_best_model else { return Ok(Flow::Continue) };
    let found = reports.iter().find(|report| wanted.is_of(report));
    let mut sums = found.map_or([0.0, 0.0], |report| [report.value, 1.0]);
    run.comm.all_reduce_sum(&mut sums)?;
    let [value, count] = sums;
    if count == 0.0 {
        return Ok(Flow::Continue);
    }
    let judgement = progress.judge(value / count, &run.args.comparison());
    tell_judgement(run, progress, &judgement)
}

/// The strongest answer of all ranks, on every rank.
fn agree(run: &Run<'_>, flow: Flow) -> Result<Flow, EngineError> {
    const ANSWERS: [Flow; 3] = [Flow::Save, Flow::Finish, Flow::Stop];
    let mut votes = ANSWERS.map(|answer| if flow == answer { 1.0 } else { 0.0 });
    run.comm.all_reduce_sum(&mut votes)?;
    let given = ANSWERS.into_iter().zip(votes).filter(|(_, votes)| *votes > 0.0);
    Ok(given.map(|(answer, _)| answer).max().unwrap_or_default())
}

/// Lets the callbacks take hold of the finished step; no rank goes on before that is done.
fn save(run: &mut Run<'_>, progress: &Progress) -> Result<(), EngineError> {
    let state = progress.state(run);
    for callback in &mut run.callbacks {
        let (model, optimizer) = (&*run.model, &*run.optimizer);
        callback.on_save_due(&Snapshot { state: &state, backend: run.backend, model, optimizer })?;
    }
    Ok(run.comm.barrier()?)
}

/// Tells the callbacks which checkpoints have been completed.
fn tell_saves(run: &mut Run<'_>, wait: bool) -> Result<(), EngineError> {
    let mut saved = Vec::new();
    for callback in &mut run.callbacks {
        saved.extend(callback.completed_saves(wait)?);
    }
    for report in &saved {
        for callback in &mut run.callbacks {
            callback.on_save(report)?;
        }
    }
    Ok(())
}
