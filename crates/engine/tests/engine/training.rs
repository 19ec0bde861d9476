//! What must hold of training, whatever the model.

use crate::bigram::{Outcome, Setup, args, rows};
use foundry_comm::Threads;
use foundry_engine::callbacks::{Callback, Flow};
use foundry_engine::{
    BoxedError, EngineError, EvalReport, IntervalStrategy, LogRecord, SaveStrategy, StepCount, StepReport,
    TrainingArgs,
};
use serde_json::Value;
use std::cell::RefCell;
use std::path::Path;
use std::rc::Rc;

/// The lines of a metrics file.
fn metrics(dir: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(dir.join("metrics.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn losses(dir: &Path) -> Vec<f64> {
    metrics(dir)
        .iter()
        .filter(|line| line.get("event").is_none())
        .map(|line| line["loss"].as_f64().unwrap())
        .collect()
}

#[test]
fn ten_steps_sanity() {
    let dir = tempfile::tempdir().unwrap();
    let outcome = Setup { output_dir: Some(dir.path()), ..Setup::new(args(10, 2, 2)) }.run();
    let summary = outcome.summary.unwrap();
    assert_eq!((summary.step, summary.total_steps, summary.stopped), (10, 10, false));
    // 12 rows are 6 micro-batches and 3 steps an epoch.
    assert_eq!(summary.epoch, 3.0 + 2.0 / 6.0);
    let lines = metrics(dir.path());
    let kinds: Vec<&str> = lines.iter().map(|l| l["event"].as_str().unwrap_or("step")).collect();
    let expected = [vec!["run_start"], vec!["step"; 10], vec!["save", "run_end"]].concat();
    assert_eq!(kinds, expected);
    for line in &lines[1..11] {
        for key in
            ["loss", "grad_norm", "learning_rate", "mean_token_accuracy", "entropy", "tokens_per_second"]
        {
            assert!(line[key].as_f64().is_some_and(f64::is_finite), "{key}: {line}");
        }
    }
    let rates: Vec<f64> = lines[1..4].iter().map(|l| l["learning_rate"].as_f64().unwrap()).collect();
    assert_eq!(rates, [0.0, 0.01, 0.02], "warm-up of two steps; the first step has rate 0");
    let mean = losses(dir.path()).iter().sum::<f64>() / 10.0;
    assert!((summary.train_loss - mean).abs() < 1e-12);
}

#[test]
fn loss_decreases() {
    let dir = tempfile::tempdir().unwrap();
    let args = TrainingArgs { learning_rate: 0.1, ..args(60, 4, 1) };
    Setup { output_dir: Some(dir.path()), ..Setup::new(args) }.run().summary.unwrap();
    let losses = losses(dir.path());
    let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len() as f64;
    let (first, last) = (mean(&losses[..6]), mean(&losses[54..]));
    assert!(first > 2.3, "13 words, nothing learnt: about ln 13 = 2.56, got {first}");
    assert!(last < 0.6 * first, "{first} to {last}");
}

#[test]
fn the_split_into_micro_batches_does_not_change_the_update() {
    let whole = Setup::new(args(6, 12, 1)).run();
    for (batch, accumulation) in [(1, 12), (2, 6), (3, 4), (6, 2)] {
        let split = Setup::new(args(6, batch, accumulation)).run();
        let distance = whole.distance(&split);
        // The same sums in another order: f32 rounding, amplified by Adam's division, over six steps of size 0.02.
        assert!(distance < 1e-5, "{batch}·{accumulation}: {distance}");
    }
    let other = Setup::new(args(6, 6, 1)).run();
    assert!(whole.distance(&other) > 1e-3, "half the rows give another update, or this test shows nothing");
}

#[test]
fn a_short_last_window_is_normalised_by_its_own_tokens() {
    // 10 rows an epoch in steps of 4, 4 and 2 rows, whatever the micro-batches.
    let run = |batch, accumulation| {
        Setup { rows: rows(10, None), ..Setup::new(args(6, batch, accumulation)) }.run()
    };
    let (whole, split) = (run(4, 1), run(1, 4));
    assert!(whole.distance(&split) < 1e-5, "{}", whole.distance(&split));
    assert_eq!(whole.summary.unwrap().epoch, 2.0);
    assert_eq!(split.summary.unwrap().epoch, 2.0);
}

fn on_ranks(world: usize, make: impl Fn() -> TrainingArgs + Sync) -> Vec<Outcome> {
    let make = &make;
    std::thread::scope(|scope| {
        let ranks: Vec<_> = Threads::group(world)
            .into_iter()
            .map(|comm| scope.spawn(move || Setup::new(make()).run_on(&comm)))
            .collect();
        ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
    })
}

#[test]
fn ranks_do_not_change_the_update() {
    let alone = Setup::new(args(7, 1, 4)).run();
    for (world, accumulation) in [(2, 2), (4, 1)] {
        let ranks = on_ranks(world, || args(7, 1, accumulation));
        let distance = alone.distance(&ranks[0]);
        assert!(distance < 1e-5, "{world} ranks: {distance}");
        assert!(ranks.iter().all(|rank| rank.bits() == ranks[0].bits()), "all ranks hold the same bits");
        assert_eq!(on_ranks(world, || args(7, 1, accumulation))[0].bits(), ranks[0].bits(), "on every run");
        let losses: Vec<f64> = ranks.into_iter().map(|rank| rank.summary.unwrap().train_loss).collect();
        let loss = alone.summary.as_ref().unwrap().train_loss;
        assert!(losses.iter().all(|l| (l - loss).abs() < 1e-6), "{losses:?} {loss}");
    }
}

#[test]
fn the_logged_loss_is_the_mean_since_the_last_line() {
    let run = |logging: u32| {
        let dir = tempfile::tempdir().unwrap();
        let args = TrainingArgs { logging_steps: StepCount::steps(logging), ..args(7, 3, 1) };
        Setup { output_dir: Some(dir.path()), ..Setup::new(args) }.run().summary.unwrap();
        metrics(dir.path()).into_iter().filter(|line| line.get("event").is_none()).collect::<Vec<_>>()
    };
    let (each, third) = (run(1), run(3));
    let loss = |line: &Value| line["loss"].as_f64().unwrap();
    assert_eq!(third.iter().map(|l| l["step"].as_u64().unwrap()).collect::<Vec<_>>(), [3, 6]);
    for (line, steps) in third.iter().zip(each.chunks(3)) {
        let mean = steps.iter().map(loss).sum::<f64>() / 3.0;
        assert!((loss(line) - mean).abs() < 1e-12);
        for key in ["grad_norm", "learning_rate", "tokens", "epoch"] {
            assert_eq!(line[key], steps[2][key], "{key} is that of the last step");
        }
    }
}

#[test]
fn a_loss_that_is_not_finite_stops_before_the_update() {
    let dir = tempfile::tempdir().unwrap();
    let setup = |poison| Setup {
        rows: rows(12, Some(7)),
        poison,
        output_dir: Some(dir.path()),
        ..Setup::new(TrainingArgs { save_steps: StepCount::steps(1), ..args(6, 1, 2) })
    };
    let outcome = setup(Some(12)).run();
    let error = outcome.summary.as_ref().unwrap_err();
    let EngineError::NonFinite { step, quantity, value, rows, suspects, .. } = &error else {
        panic!("{error}")
    };
    assert_eq!((*quantity, value.is_nan(), suspects.as_slice()), ("loss", true, [7].as_slice()));
    assert!(rows.len() == 2 && rows.contains(&7), "{rows:?}");
    let message = error.to_string();
    assert!(message.contains(&format!("step {step}")) && message.contains("row 7"), "{message}");
    assert!(*step > 1, "with this seed row 7 is not in the first step");
    let last = foundry_engine::checkpoint::list(dir.path()).unwrap().last().map(|(step, _)| *step);
    assert_eq!(last, Some(step - 1), "no checkpoint of the bad step");
    // A run that ends before the bad step ends where the failed one did.
    let watch = Watch { stop_after: Some(step - 1), seen: Rc::default(), fail: false };
    let before = Setup { output_dir: None, extra: vec![Box::new(watch)], ..setup(None) }.run();
    assert_eq!(before.bits(), outcome.bits());
}

#[test]
fn no_label_at_all_gives_no_gradient_and_no_nan() {
    let mut unlabelled = rows(4, None).as_ref().clone();
    unlabelled.iter_mut().for_each(|row| row.labels.fill(-100));
    let args = TrainingArgs { weight_decay: 0.0, ..args(3, 2, 1) };
    let before = Setup {
        rows: unlabelled.clone().into(),
        ..Setup::new(TrainingArgs { max_steps: 1, ..args.clone() })
    };
    let after = Setup { rows: unlabelled.into(), ..Setup::new(args) };
    let (before, after) = (before.run(), after.run());
    assert_eq!(after.summary.unwrap().train_loss, 0.0);
    assert_eq!(before.parameters, after.parameters);
}

/// Stops after a step, and writes down what it sees.
struct Watch {
    stop_after: Option<u64>,
    seen: Rc<RefCell<Vec<String>>>,
    fail: bool,
}

impl Callback for Watch {
    fn on_step(&mut self, report: &StepReport) -> Result<Flow, EngineError> {
        self.seen.borrow_mut().push(format!("step {}", report.step));
        if self.fail {
            let source: BoxedError = "no more paper".into();
            return Err(EngineError::Callback { name: "printer", source });
        }
        Ok(if self.stop_after == Some(report.step) { Flow::Stop } else { Flow::Continue })
    }
    fn on_log(&mut self, record: &mut LogRecord) -> Result<(), EngineError> {
        self.seen.borrow_mut().push(format!("log {}", record.step));
        Ok(())
    }
    fn on_evaluate(&mut self, report: &EvalReport) -> Result<Flow, EngineError> {
        self.seen.borrow_mut().push(format!("eval {}", report.step));
        Ok(Flow::Continue)
    }
    fn on_save(&mut self, report: &foundry_engine::SaveReport) -> Result<(), EngineError> {
        self.seen.borrow_mut().push(format!("save {}", report.step));
        Ok(())
    }
}

fn watched(args: TrainingArgs, stop_after: Option<u64>, fail: bool) -> (Outcome, Vec<String>) {
    let dir = tempfile::tempdir().unwrap();
    let seen = Rc::new(RefCell::new(Vec::new()));
    let watch = Watch { stop_after, seen: Rc::clone(&seen), fail };
    let outcome = Setup {
        output_dir: Some(dir.path()),
        held_out: Some(rows(5, None)),
        extra: vec![Box::new(watch)],
        ..Setup::new(args)
    }
    .run();
    let seen = seen.borrow().clone();
    (outcome, seen)
}

#[test]
fn callbacks_see_the_run_in_order() {
    let args = TrainingArgs {
        logging_steps: StepCount::steps(2),
        eval_strategy: IntervalStrategy::Steps,
        eval_on_start: true,
        save_steps: StepCount::steps(3),
        ..args(3, 4, 1)
    };
    let (_, seen) = watched(args, None, false);
    assert_eq!(seen, ["eval 0", "step 1", "step 2", "log 2", "eval 2", "step 3", "eval 3", "save 3"]);
}

#[test]
fn a_callback_that_stops_leaves_a_checkpoint() {
    let (outcome, seen) = watched(args(9, 4, 1), Some(2), false);
    assert_eq!(seen, ["step 1", "log 1", "step 2", "log 2", "save 2"]);
    let summary = outcome.summary.unwrap();
    assert!(summary.stopped && summary.step == 2 && summary.total_steps == 9);
    let no_saving = TrainingArgs { save_strategy: SaveStrategy::No, ..args(9, 4, 1) };
    assert_eq!(watched(no_saving, Some(1), false).1, ["step 1", "log 1", "save 1"]);
}

#[test]
fn a_callback_that_fails_ends_the_run() {
    let (outcome, seen) = watched(args(9, 4, 1), None, true);
    assert_eq!(seen, ["step 1"]);
    assert_eq!(outcome.summary.unwrap_err().to_string(), "callback 'printer': no more paper");
}

#[test]
fn evaluation_weights_tokens_not_batches() {
    let run = |batch, world: usize| {
        let make = || {
            let args = TrainingArgs {
                per_device_eval_batch_size: batch,
                eval_strategy: IntervalStrategy::Epoch,
                learning_rate: 1e-9,
                ..args(1, 3, 1)
            };
            Setup { held_out: Some(rows(7, None)), ..Setup::new(args) }
        };
        let make = &make;
        std::thread::scope(|scope| {
            let ranks: Vec<_> = Threads::group(world)
                .into_iter()
                .map(|comm| scope.spawn(move || make().run_on(&comm).summary.unwrap().eval.unwrap()))
                .collect();
            ranks.into_iter().map(|rank| rank.join().unwrap()).collect::<Vec<_>>()
        })
    };
    let one = run(1, 1).remove(0);
    let labelled: usize = rows(7, None).iter().map(|row| row.labelled()).sum();
    assert_eq!(one.eval_tokens, labelled as u64);
    assert!((one.eval_perplexity - one.eval_loss.exp()).abs() < 1e-12);
    for other in [run(3, 1), run(8, 1), run(2, 2), run(1, 3)].concat() {
        assert!((other.eval_loss - one.eval_loss).abs() < 1e-6, "{other:?} {one:?}");
        assert_eq!(other.eval_tokens, one.eval_tokens);
        assert_eq!(other.eval_mean_token_accuracy, one.eval_mean_token_accuracy);
    }
}

#[test]
fn wrong_arguments_stop_before_anything_happens() {
    let dir = tempfile::tempdir().unwrap();
    let output = dir.path().join("out");
    let bad = TrainingArgs { adam_beta1: 1.0, ..args(1, 1, 1) };
    let outcome = Setup { output_dir: Some(&output), ..Setup::new(bad) }.run();
    assert!(matches!(outcome.summary, Err(EngineError::Argument(_))));
    let mut bad = args(1, 1, 1);
    bad.lr_scheduler_kwargs.insert("num_cycle".into(), 1.into());
    let outcome = Setup { output_dir: Some(&output), ..Setup::new(bad) }.run();
    assert!(matches!(outcome.summary, Err(EngineError::Schedule(_))));
    assert!(!output.exists());
}
