//! The best evaluation: which one it is, what is saved for it, when a run ends because there is no better one.

use crate::bigram::{Setup, args, rows};
use foundry_engine::callbacks::{Callback, EarlyStopping, Examination, Findings, Flow};
use foundry_engine::checkpoint::{CheckpointError, ResumeError, list, load_values, open, search};
use foundry_engine::{
    EngineError, EvalMetric, EvalReport, IntervalStrategy, SaveStrategy, StepCount, StepReport, Summary,
    TaskMetric, TaskReport, TrainingArgs,
};
use std::cell::RefCell;
use std::path::Path;
use std::rc::Rc;

/// A run that gets better, then, when the rate has risen far too much, worse: evaluated after every step.
fn rise_and_fall() -> TrainingArgs {
    TrainingArgs {
        eval_strategy: IntervalStrategy::Steps,
        eval_steps: Some(StepCount::steps(1)),
        save_strategy: SaveStrategy::Best,
        warmup_steps: StepCount::steps(12),
        learning_rate: 9.0,
        ..args(12, 3, 1)
    }
}

struct Evaluations(Rc<RefCell<Vec<EvalReport>>>);

impl Callback for Evaluations {
    fn on_evaluate(&mut self, report: &EvalReport) -> Result<Flow, EngineError> {
        self.0.borrow_mut().push(report.clone());
        Ok(Flow::Continue)
    }
}

struct Ran {
    summary: Summary,
    evaluations: Vec<EvalReport>,
    parameters: Vec<Vec<f32>>,
}

fn run<'a>(args: TrainingArgs, dir: &'a Path, extra: Vec<Box<dyn Callback + 'a>>) -> Ran {
    let seen = Rc::new(RefCell::new(Vec::new()));
    let mut callbacks: Vec<Box<dyn Callback + 'a>> = vec![Box::new(Evaluations(Rc::clone(&seen)))];
    callbacks.extend(extra);
    let setup =
        Setup { output_dir: Some(dir), held_out: Some(rows(4, None)), extra: callbacks, ..Setup::new(args) };
    let outcome = setup.run();
    let evaluations = seen.borrow().clone();
    Ran { summary: outcome.summary.unwrap(), evaluations, parameters: outcome.parameters }
}

fn steps_kept(dir: &Path) -> Vec<u64> {
    list(dir).unwrap().into_iter().map(|(step, _)| step).collect()
}

#[test]
fn save_strategy_best_saves_improvements_only() {
    let dir = tempfile::tempdir().unwrap();
    let ran = run(rise_and_fall(), dir.path(), Vec::new());
    let mut lowest = f64::INFINITY;
    let mut improvements = Vec::new();
    for report in &ran.evaluations {
        if report.eval_loss < lowest {
            lowest = report.eval_loss;
            improvements.push(report.step);
        }
    }
    assert!(improvements.len() >= 2 && improvements.len() < 12, "rise and fall: {improvements:?}");
    assert_eq!(steps_kept(dir.path()), improvements);
    let best = ran.summary.best.unwrap();
    assert_eq!((Some(&best.step), best.value), (improvements.last(), lowest));
}

#[test]
fn the_best_model_can_be_loaded_at_the_end_and_its_checkpoint_stays() {
    for save_only_model in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let args = TrainingArgs {
            load_best_model_at_end: true,
            save_strategy: SaveStrategy::Steps,
            save_steps: StepCount::steps(5),
            save_total_limit: Some(1),
            save_only_model,
            ..rise_and_fall()
        };
        let ran = run(args, dir.path(), Vec::new());
        let best = ran.summary.best.unwrap();
        assert!(best.step < 12 && !best.step.is_multiple_of(5), "saved for being the best only: {best:?}");
        assert_eq!(steps_kept(dir.path()), [best.step, 12], "the best and the last, whatever the limit");
        let backend = foundry_kernels::ReferenceBackend::default();
        let mut model = crate::bigram::Bigram::new(&backend, crate::bigram::WIDTH);
        load_values(&dir.path().join(format!("checkpoint-{}", best.step)), &backend, &mut model).unwrap();
        let loaded = crate::bigram::model_values(&backend, &model);
        assert_ne!(loaded, ran.parameters, "not the last step's");
        // The same run, stopped at the best step, has these values.
        let again = tempfile::tempdir().unwrap();
        let stop: Box<dyn Callback> = Box::new(StopAfter(best.step));
        let stopped = run(rise_and_fall(), again.path(), vec![stop]);
        assert_eq!(loaded, stopped.parameters);
    }
}

struct StopAfter(u64);

impl Callback for StopAfter {
    fn on_step(&mut self, report: &StepReport) -> Result<Flow, EngineError> {
        Ok(if report.step == self.0 { Flow::Stop } else { Flow::Continue })
    }
}

#[test]
fn the_metric_and_its_direction_decide() {
    let dir = tempfile::tempdir().unwrap();
    let args = TrainingArgs {
        metric_for_best_model: EvalMetric::Entropy,
        greater_is_better: Some(true),
        ..rise_and_fall()
    };
    let ran = run(args, dir.path(), Vec::new());
    let most = ran.evaluations.iter().map(|e| e.eval_entropy).fold(f64::NEG_INFINITY, f64::max);
    let best = ran.summary.best.unwrap();
    assert_eq!((best.metric, best.value), (EvalMetric::Entropy, most));
    assert!(ran.evaluations.iter().any(|e| e.step == best.step && e.eval_entropy == most));
}

#[test]
fn a_run_without_improvement_finishes_early_and_a_resumed_one_at_the_same_step() {
    let (straight, halves) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let args = || TrainingArgs { save_strategy: SaveStrategy::Steps, ..rise_and_fall() };
    let stopping = || -> Box<dyn Callback> { Box::new(EarlyStopping::new(3, 0.0, args().comparison())) };
    let whole = run(args(), straight.path(), vec![stopping()]);
    let best = whole.summary.best.as_ref().unwrap().step;
    assert!(whole.summary.finished_early && !whole.summary.stopped);
    assert_eq!(whole.summary.step, best + 3, "three evaluations in a row were not better");
    assert_eq!(steps_kept(straight.path()), [best + 3], "a last checkpoint");

    let stop: Box<dyn Callback> = Box::new(StopAfter(best + 2));
    let first = run(args(), halves.path(), vec![stopping(), stop]);
    assert!(first.summary.stopped && !first.summary.finished_early);
    let checkpoint = search(halves.path()).unwrap().found.unwrap();
    // The evaluation of that step has not been made: the wish to stop came first.
    assert_eq!(checkpoint.state.callbacks["early_stopping"]["waited"], 1);
    assert!(checkpoint.state.owes_evaluation);
    let setup = Setup {
        output_dir: Some(halves.path()),
        held_out: Some(rows(4, None)),
        extra: vec![stopping()],
        resume: Some(&checkpoint),
        ..Setup::new(args())
    };
    let second = setup.run().summary.unwrap();
    assert_eq!((second.step, second.finished_early), (whole.summary.step, true));

    // It has ended; going on from its end takes no further step, unless there is more patience.
    let ended = search(straight.path()).unwrap().found.unwrap();
    let go_on = |patience| {
        let stopping = EarlyStopping::new(patience, 0.0, args().comparison());
        let setup = Setup {
            held_out: Some(rows(4, None)),
            extra: vec![Box::new(stopping)],
            resume: Some(&ended),
            ..Setup::new(args())
        };
        setup.run().summary.unwrap()
    };
    let third = go_on(3);
    assert_eq!((third.step, third.finished_early, third.best), (best + 3, true, whole.summary.best));
    assert_eq!(go_on(4).step, best + 4);
}

#[test]
fn a_checkpoint_of_the_model_alone_is_sound_and_not_resumed() {
    let dir = tempfile::tempdir().unwrap();
    let args = TrainingArgs { save_only_model: true, save_steps: StepCount::steps(2), ..args(4, 3, 1) };
    let ran = run(args.clone(), dir.path(), Vec::new());
    assert_eq!(ran.summary.step, 4);
    let path = dir.path().join("checkpoint-4");
    assert!(path.join("model.safetensors").exists());
    assert!(!path.join("optimizer.safetensors").exists() && !path.join("parameters.safetensors").exists());
    let found = search(dir.path()).unwrap();
    assert!(found.found.is_none() && found.damaged.is_empty());
    assert_eq!(found.model_only, ["checkpoint-4", "checkpoint-2"].map(|name| dir.path().join(name)));
    let checkpoint = open(&path).unwrap();
    let error = Setup { resume: Some(&checkpoint), ..Setup::new(args) }.run().summary.unwrap_err();
    assert!(matches!(error, EngineError::Resume(ResumeError::ModelOnly { .. })), "{error}");
    assert!(error.to_string().contains("save_only_model"), "{error}");
    let backend = foundry_kernels::ReferenceBackend::default();
    let mut model = crate::bigram::Bigram::new(&backend, crate::bigram::WIDTH);
    let error = load_values(&path, &backend, &mut model).unwrap_err();
    assert!(matches!(error, EngineError::Resume(ResumeError::ModelOnly { .. })), "{error}");
}

#[test]
fn values_of_another_model_or_a_damaged_checkpoint_are_not_loaded() {
    let dir = tempfile::tempdir().unwrap();
    run(rise_and_fall(), dir.path(), Vec::new());
    let path = list(dir.path()).unwrap().pop().unwrap().1;
    let backend = foundry_kernels::ReferenceBackend::default();
    let mut wider = crate::bigram::Bigram::new(&backend, crate::bigram::WIDTH + 1);
    let error = load_values(&path, &backend, &mut wider).unwrap_err();
    assert!(matches!(error, EngineError::Resume(ResumeError::OtherTensors { .. })), "{error}");
    std::fs::write(path.join("optimizer.safetensors"), "").unwrap();
    let mut model = crate::bigram::Bigram::new(&backend, crate::bigram::WIDTH);
    let error = load_values(&path, &backend, &mut model).unwrap_err();
    assert!(matches!(error, EngineError::Checkpoint(CheckpointError::Damaged { .. })), "{error}");
}

/// Finds a number after every second step: those given, in turn.
struct Benchmark(Vec<f64>);

impl Callback for Benchmark {
    fn examines_after(&self, step: u64, is_last: bool) -> bool {
        step > 0 && (step.is_multiple_of(2) || is_last)
    }

    fn examine(&mut self, examination: &mut Examination<'_>) -> Result<Findings, EngineError> {
        let value = self.0[(examination.step as usize / 2 - 1).min(self.0.len() - 1)];
        let report = |metric: &str, value| TaskReport {
            step: examination.step,
            task: "words".into(),
            metric: metric.into(),
            value,
            stderr: None,
        };
        Ok(Findings::Whole(vec![report("f1", -value), report("acc", value)]))
    }
}

#[test]
fn a_benchmarks_number_can_decide_without_a_held_out_split() {
    let metric = EvalMetric::Task(TaskMetric { task: "words".into(), metric: "acc".into() });
    let args = TrainingArgs {
        metric_for_best_model: metric.clone(),
        load_best_model_at_end: true,
        save_strategy: SaveStrategy::No,
        ..args(12, 3, 1)
    };
    let run = |stopping: Option<EarlyStopping>| {
        let dir = tempfile::tempdir().unwrap();
        let mut extra: Vec<Box<dyn Callback>> = vec![Box::new(Benchmark(vec![0.2, 0.6, 0.5, 0.6, 0.1, 0.3]))];
        extra.extend(stopping.map(|stopping| Box::new(stopping) as Box<dyn Callback>));
        let setup = Setup { output_dir: Some(dir.path()), extra, ..Setup::new(args.clone()) };
        let summary = setup.run().summary.unwrap();
        (summary, steps_kept(dir.path()))
    };
    let (summary, kept) = run(None);
    let best = summary.best.unwrap();
    assert_eq!((best.step, best.value, best.metric), (4, 0.6, metric.clone()));
    assert_eq!((summary.step, kept), (12, vec![2, 4]), "each that was the best so far");
    let (summary, _) = run(Some(EarlyStopping::new(2, 0.0, args.comparison())));
    assert!(summary.finished_early);
    assert_eq!((summary.step, summary.best.unwrap().step), (8, 4), "two in a row were not better");
}

/// Examines after the fourth step, and lets itself be broken off.
struct Patient;

impl Callback for Patient {
    fn examines_after(&self, step: u64, _: bool) -> bool {
        step == 4
    }

    fn examine(&mut self, examination: &mut Examination<'_>) -> Result<Findings, EngineError> {
        Ok(if (examination.interrupts)() { Findings::BrokenOff } else { Findings::Whole(Vec::new()) })
    }
}

/// Wants to stop: after a step, or while others examine.
struct Impatient {
    after: Option<u64>,
}

impl Callback for Impatient {
    fn on_step(&mut self, report: &StepReport) -> Result<Flow, EngineError> {
        Ok(if self.after == Some(report.step) { Flow::Stop } else { Flow::Continue })
    }

    fn interrupts(&mut self) -> bool {
        self.after.is_none()
    }
}

#[test]
fn a_stop_does_not_wait_for_an_examination_which_is_owed() {
    for after in [Some(4), None] {
        let dir = tempfile::tempdir().unwrap();
        let extra: Vec<Box<dyn Callback>> = vec![Box::new(Patient), Box::new(Impatient { after })];
        let setup = Setup { output_dir: Some(dir.path()), extra, ..Setup::new(args(12, 3, 1)) };
        let summary = setup.run().summary.unwrap();
        assert!(summary.stopped && summary.step == 4, "{after:?}: {summary:?}");
        let checkpoint = search(dir.path()).unwrap().found.unwrap();
        assert!(checkpoint.state.owes_examination, "{after:?}");
        let extra: Vec<Box<dyn Callback>> = vec![Box::new(Patient)];
        let setup = Setup {
            output_dir: Some(dir.path()),
            resume: Some(&checkpoint),
            extra,
            ..Setup::new(args(12, 3, 1))
        };
        assert_eq!(setup.run().summary.unwrap().step, 12);
    }
}

/// Examines after the last step, whichever that is, and tells which it was.
struct AtTheEnd(Rc<RefCell<Vec<u64>>>);

impl Callback for AtTheEnd {
    fn examines_after(&self, _: u64, is_last: bool) -> bool {
        is_last
    }

    fn examine(&mut self, examination: &mut Examination<'_>) -> Result<Findings, EngineError> {
        self.0.borrow_mut().push(examination.step);
        Ok(Findings::Whole(Vec::new()))
    }
}

/// Wants to stop once the evaluation of a step has been made.
struct StopAfterEvaluation(u64);

impl Callback for StopAfterEvaluation {
    fn on_evaluate(&mut self, report: &EvalReport) -> Result<Flow, EngineError> {
        Ok(if report.step == self.0 { Flow::Stop } else { Flow::Continue })
    }
}

#[test]
fn a_stop_at_the_step_that_ends_a_run_early_does_not_lose_the_last_examination() {
    let args = || TrainingArgs { save_strategy: SaveStrategy::Steps, ..rise_and_fall() };
    let stopping = || -> Box<dyn Callback> { Box::new(EarlyStopping::new(3, 0.0, args().comparison())) };
    let whole = run(args(), tempfile::tempdir().unwrap().path(), vec![stopping()]);
    let last = whole.summary.step;
    let stops: [Box<dyn Callback>; 2] = [Box::new(StopAfter(last)), Box::new(StopAfterEvaluation(last))];
    for (stop, is_evaluated) in stops.into_iter().zip([false, true]) {
        let dir = tempfile::tempdir().unwrap();
        let examined = Rc::new(RefCell::new(Vec::new()));
        let at_the_end = || -> Box<dyn Callback> { Box::new(AtTheEnd(Rc::clone(&examined))) };
        let first = run(args(), dir.path(), vec![stopping(), stop, at_the_end()]);
        assert!(first.summary.stopped && first.summary.step == last, "{:?}", first.summary);
        assert!(examined.borrow().is_empty(), "the stop comes first");
        let checkpoint = search(dir.path()).unwrap().found.unwrap();
        assert_eq!(checkpoint.state.owes_evaluation, !is_evaluated);
        assert_eq!(checkpoint.state.owes_examination, is_evaluated);
        let resumed = Setup {
            output_dir: Some(dir.path()),
            held_out: Some(rows(4, None)),
            extra: vec![stopping(), at_the_end()],
            resume: Some(&checkpoint),
            ..Setup::new(args())
        };
        let second = resumed.run().summary.unwrap();
        assert_eq!((second.step, second.finished_early), (last, true));
        assert_eq!(*examined.borrow(), [last], "is_evaluated: {is_evaluated}");
    }
}
