//! Checkpoints do not depend on the number of ranks: what two have saved, one goes on with, and the other way round.

use crate::bigram::{Outcome, Setup, args, rows};
use foundry_comm::Threads;
use foundry_engine::checkpoint::{Checkpoint, ResumeError, open};
use foundry_engine::{EngineError, StepCount, TrainingArgs};
use std::path::Path;

/// Twelve steps, two micro-batches each on all ranks together, and a checkpoint in the middle of each epoch of six.
fn setup<'a>(count: usize, ranks: usize, dir: &'a Path, resume: Option<&'a Checkpoint>) -> Setup<'a> {
    let args = TrainingArgs { save_steps: StepCount::steps(4), ..args(12, 1, 2 / ranks) };
    Setup { rows: rows(count, None), output_dir: Some(dir), resume, ..Setup::new(args) }
}

/// The outcome of rank 0 over `count` rows.
fn run(count: usize, ranks: usize, dir: &Path, resume: Option<&Checkpoint>) -> Outcome {
    std::thread::scope(|scope| {
        let group = Threads::group(ranks).into_iter();
        let ranks: Vec<_> =
            group.map(|comm| scope.spawn(move || setup(count, ranks, dir, resume).run_on(&comm))).collect();
        ranks.into_iter().map(|rank| rank.join().unwrap()).collect::<Vec<_>>().remove(0)
    })
}

#[test]
fn a_run_goes_on_with_another_number_of_ranks() {
    let straight = tempfile::tempdir().unwrap();
    let whole = run(12, 1, straight.path(), None);
    for (before, after) in [(1, 2), (2, 1)] {
        let first = tempfile::tempdir().unwrap();
        run(12, before, first.path(), None);
        for step in [4, 8] {
            let second = tempfile::tempdir().unwrap();
            let checkpoint = open(&first.path().join(format!("checkpoint-{step}"))).unwrap();
            let resumed = run(12, after, second.path(), Some(&checkpoint));
            let tokens = |outcome: &Outcome| outcome.summary.as_ref().unwrap().tokens;
            assert_eq!(tokens(&resumed), tokens(&whole), "the same rows");
            // f32 sums in another order: Adam divides by the gradient's own size, so an entry near 0 may move by more
            // than its rounding error; other rows would move everything by steps of 0.02.
            let distance = resumed.distance(&whole);
            assert!(distance < 1e-4, "{before} to {after} at {step}: {distance}");
        }
    }
}

#[test]
fn rows_that_the_ranks_do_not_divide_are_gone_on_with_as_well() {
    // Two ranks see one of the eleven rows twice in an epoch (`even_batches`), one rank does not.
    for (before, after) in [(1, 2), (2, 1), (2, 2)] {
        let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let uninterrupted = run(11, before, first.path(), None);
        let checkpoint = open(&first.path().join("checkpoint-8")).unwrap();
        let resumed = run(11, after, second.path(), Some(&checkpoint));
        assert_eq!(resumed.summary.as_ref().unwrap().step, 12);
        if before == after {
            assert_eq!(resumed.bits(), uninterrupted.bits());
        }
    }
}

#[test]
fn another_number_of_micro_batches_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    run(12, 2, dir.path(), None);
    let checkpoint = open(&dir.path().join("checkpoint-4")).unwrap();
    let mut alone = setup(12, 1, dir.path(), Some(&checkpoint));
    alone.args.gradient_accumulation_steps = 3;
    let error = alone.run().summary.unwrap_err();
    let EngineError::Resume(ResumeError::OtherRun { differences, .. }) = &error else { panic!("{error}") };
    let said: Vec<String> = differences.iter().map(ToString::to_string).collect();
    assert_eq!(
        said,
        ["gradient_accumulation_steps times ranks: was 2, is 3", "steps of an epoch: was 6, is 4"]
    );
}
