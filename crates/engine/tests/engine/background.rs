//! Checkpoints in the background: training goes on, waits where it must, and learns what went wrong.

use crate::bigram::{Done, Setup, args};
use foundry_engine::callbacks::{Callback, Flow};
use foundry_engine::checkpoint::{CheckpointError, list, search};
use foundry_engine::{EngineError, SaveReport, SaveStrategy, StepCount, StepReport, TrainingArgs};
use std::cell::RefCell;
use std::io;
use std::path::Path;
use std::rc::Rc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

/// What happened, in order: `step 3`, `saved 2`.
type Events = Rc<RefCell<Vec<String>>>;

struct Record {
    events: Events,
    /// The disk may go on after this step.
    release: Option<(u64, SyncSender<()>)>,
}

impl Callback for Record {
    fn on_step(&mut self, report: &StepReport) -> Result<Flow, EngineError> {
        self.events.borrow_mut().push(format!("step {}", report.step));
        if let Some((_, sender)) = self.release.take_if(|(step, _)| *step == report.step) {
            sender.send(()).unwrap();
        }
        Ok(Flow::Continue)
    }
    fn on_save(&mut self, report: &SaveReport) -> Result<(), EngineError> {
        self.events.borrow_mut().push(format!("saved {}", report.step));
        assert!(report.seconds >= report.blocked_seconds, "{report:?}");
        Ok(())
    }
}

/// A hook that waits at the flush of the first checkpoint until it is released.
fn slow_disk(released: Receiver<()>) -> Arc<dyn Fn(&'static str) -> io::Result<()> + Send + Sync> {
    let released = std::sync::Mutex::new(Some(released));
    Arc::new(move |point| {
        if point == "checkpoint.before_flush"
            && let Some(released) = released.lock().unwrap().take()
        {
            released.recv_timeout(Duration::from_secs(60)).map_err(io::Error::other)?;
        }
        Ok(())
    })
}

fn setup<'a>(dir: &'a Path, steps: i64, save_steps: u32, record: Record) -> Setup<'a> {
    let args = TrainingArgs { save_steps: StepCount::steps(save_steps), ..args(steps, 3, 1) };
    Setup { output_dir: Some(dir), extra: vec![Box::new(record)], ..Setup::new(args) }
}

#[test]
fn steps_are_taken_while_a_checkpoint_is_in_the_making() {
    let dir = tempfile::tempdir().unwrap();
    let (sender, receiver) = sync_channel(1);
    let events = Events::default();
    let record = Record { events: Rc::clone(&events), release: Some((4, sender)) };
    let mut run = setup(dir.path(), 6, 2, record);
    run.crash = slow_disk(receiver);
    run.run().summary.unwrap();
    let events = events.borrow();
    let place =
        |event: &str| events.iter().position(|e| e == event).unwrap_or_else(|| panic!("{event}: {events:?}"));
    assert!(place("saved 2") > place("step 4"), "two steps were taken meanwhile: {events:?}");
    assert!(place("saved 2") < place("saved 4") && place("saved 4") < place("saved 6"), "{events:?}");
    assert!(place("saved 2") < place("step 6"), "told when it was complete, not at the end: {events:?}");
    assert_eq!(list(dir.path()).unwrap().len(), 3);
}

/// What the model did and the disk was given, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moment {
    Model(Done),
    Written,
}

#[derive(Default)]
struct Moments {
    all: Mutex<Vec<Moment>>,
    changed: Condvar,
}

impl Moments {
    fn push(&self, moment: Moment) {
        self.all.lock().unwrap().push(moment);
        self.changed.notify_all();
    }

    fn count(all: &[Moment], of: Done) -> usize {
        all.iter().filter(|moment| **moment == Moment::Model(of)).count()
    }

    /// Waits for the gradients of a step.
    fn wait_for_gradients(&self, steps: usize) -> io::Result<()> {
        let lacks = |all: &mut Vec<Moment>| Self::count(all, Done::Gradients) < steps;
        let all = self.all.lock().unwrap();
        let (_all, waited) = self.changed.wait_timeout_while(all, Duration::from_secs(60), lacks).unwrap();
        if waited.timed_out() { Err(io::Error::other("nothing is computed meanwhile")) } else { Ok(()) }
    }
}

/// Keeps the reports of checkpoints.
struct Saves(Rc<RefCell<Vec<SaveReport>>>);

impl Callback for Saves {
    fn on_save(&mut self, report: &SaveReport) -> Result<(), EngineError> {
        self.0.borrow_mut().push(report.clone());
        Ok(())
    }
}

#[test]
fn the_next_step_is_computed_while_numbers_are_written_and_its_update_waits() {
    const COMPUTING: Duration = Duration::from_millis(200);
    const WRITING: Duration = Duration::from_millis(100);
    let dir = tempfile::tempdir().unwrap();
    let moments = Arc::new(Moments::default());
    let saves = Rc::new(RefCell::new(Vec::new()));
    let args = TrainingArgs { save_steps: StepCount::steps(2), ..args(3, 3, 1) };
    let mut run = Setup { output_dir: Some(dir.path()), ..Setup::new(args) };
    run.extra = vec![Box::new(Saves(Rc::clone(&saves)))];
    let seen = Arc::clone(&moments);
    run.watch = Rc::new(move |done| {
        if done == Done::Gradients {
            std::thread::sleep(COMPUTING);
        }
        seen.push(Moment::Model(done));
    });
    let seen = Arc::clone(&moments);
    run.crash = Arc::new(move |point| {
        match point {
            "checkpoint.after_model" => {
                seen.wait_for_gradients(3)?;
                std::thread::sleep(WRITING);
            }
            "checkpoint.after_optimizer" => seen.push(Moment::Written),
            _ => {}
        }
        Ok(())
    });
    run.run().summary.unwrap();
    let (computed, updated) = (Moment::Model(Done::Gradients), Moment::Model(Done::Update));
    let order = [computed, updated, computed, updated, computed, Moment::Written, updated];
    assert_eq!(moments.all.lock().unwrap()[..order.len()], order);
    let saves = saves.borrow();
    let SaveReport { step: 2, seconds, blocked_seconds, .. } = saves[0] else { panic!("{saves:?}") };
    assert!(blocked_seconds >= WRITING.as_secs_f64(), "the update waited: {blocked_seconds}");
    assert!(seconds - blocked_seconds >= COMPUTING.as_secs_f64(), "nothing else did: {saves:?}");
}

#[test]
fn numbers_that_cannot_be_written_end_the_run_before_they_change() {
    for point in ["checkpoint.after_model", "checkpoint.after_state"] {
        let dir = tempfile::tempdir().unwrap();
        let moments = Arc::new(Moments::default());
        let record = Record { events: Events::default(), release: None };
        let mut run = setup(dir.path(), 6, 2, record);
        let seen = Arc::clone(&moments);
        run.watch = Rc::new(move |done| seen.push(Moment::Model(done)));
        run.crash =
            Arc::new(move |at| if at == point { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) });
        let error = run.run().summary.unwrap_err();
        assert!(error.to_string().contains("earlier checkpoints are unchanged"), "{error}");
        let all = moments.all.lock().unwrap();
        let counts = [Done::Gradients, Done::Update].map(|of| Moments::count(&all, of));
        assert_eq!(counts, [3, 2], "{point}: the third step was not applied");
        assert!(search(dir.path()).unwrap().found.is_none());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "{point}: metrics.jsonl alone");
    }
}

#[test]
fn the_next_checkpoint_waits_for_the_one_before() {
    let dir = tempfile::tempdir().unwrap();
    let events = Events::default();
    let most = Arc::new(std::sync::Mutex::new((0_u32, 0_u32)));
    let seen = Arc::clone(&most);
    let record = Record { events: Rc::clone(&events), release: None };
    let mut run = setup(dir.path(), 8, 1, record);
    run.crash = Arc::new(move |point| {
        let mut count = seen.lock().unwrap();
        match point {
            "checkpoint.before_flush" => count.0 += 1,
            "checkpoint.after_rename" => count.0 -= 1,
            _ => {}
        }
        count.1 = count.1.max(count.0);
        drop(count);
        if point == "checkpoint.before_manifest" {
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    });
    run.run().summary.unwrap();
    assert_eq!(*most.lock().unwrap(), (0, 1), "one at a time, all complete at the end");
    assert_eq!(list(dir.path()).unwrap().len(), 8);
    let saved = events.borrow().iter().filter(|event| event.starts_with("saved")).count();
    assert_eq!(saved, 8);
}

#[test]
fn an_error_in_the_background_ends_the_run_soon_and_keeps_what_was_there() {
    let dir = tempfile::tempdir().unwrap();
    let events = Events::default();
    let record = Record { events: Rc::clone(&events), release: None };
    let mut run = setup(dir.path(), 1000, 3, record);
    let first = dir.path().join("checkpoint-3");
    run.crash = Arc::new(move |point| match point {
        "checkpoint.before_manifest" if first.exists() => Err(io::ErrorKind::StorageFull.into()),
        _ => Ok(()),
    });
    let error = run.run().summary.unwrap_err();
    let EngineError::Checkpoint(CheckpointError::Write { source, .. }) = &error else { panic!("{error}") };
    assert_eq!(source.kind(), io::ErrorKind::StorageFull);
    let steps = events.borrow().iter().filter(|event| event.starts_with("step")).count();
    // At the latest the third checkpoint waits for the second.
    assert!((6..=9).contains(&steps), "{steps} steps");
    let found = search(dir.path()).unwrap();
    assert_eq!(found.found.unwrap().state.step, 3);
    assert!(found.damaged.is_empty());
}

#[test]
fn a_failed_run_keeps_the_checkpoint_in_the_making() {
    struct Fail(u64);
    impl Callback for Fail {
        fn on_step(&mut self, report: &StepReport) -> Result<Flow, EngineError> {
            match report.step == self.0 {
                true => Err(EngineError::Callback { name: "test", source: "no".into() }),
                false => Ok(Flow::Continue),
            }
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let record = Record { events: Events::default(), release: None };
    let mut run = setup(dir.path(), 10, 4, record);
    run.extra.push(Box::new(Fail(5)));
    run.crash = Arc::new(|point| {
        if point == "checkpoint.before_manifest" {
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    });
    run.run().summary.unwrap_err();
    assert_eq!(search(dir.path()).unwrap().found.map(|c| c.state.step), Some(4));
}

/// Asks for a checkpoint after one step.
struct SaveAfter(u64);

impl Callback for SaveAfter {
    fn on_step(&mut self, report: &StepReport) -> Result<Flow, EngineError> {
        Ok(if report.step == self.0 { Flow::Save } else { Flow::Continue })
    }
}

#[test]
fn a_callback_can_ask_for_a_checkpoint_and_the_run_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let record = Record { events: Events::default(), release: None };
    let mut run = setup(dir.path(), 5, 500, record);
    run.args.save_strategy = SaveStrategy::No;
    run.extra.push(Box::new(SaveAfter(2)));
    let summary = run.run().summary.unwrap();
    assert_eq!((summary.step, summary.stopped), (5, false));
    assert_eq!(list(dir.path()).unwrap().into_iter().map(|(step, _)| step).collect::<Vec<_>>(), [2]);
}
