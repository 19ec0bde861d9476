//! What must hold of checkpoints: resume is bit-exact, a crash at any moment loses nothing, damage is found.

use crate::bigram::{Outcome, Setup, args, rows};
use foundry_engine::callbacks::{Callback, Flow};
use foundry_engine::checkpoint::{
    CRASH_POINTS, Checkpoint, CheckpointError, Damage, Manifest, ResumeError, Search, list, open, search,
    sweep_leftovers, verify,
};
use foundry_engine::{EngineError, EvalReport, IntervalStrategy, StepCount, StepReport, TrainingArgs};
use serde_json::Value;
use std::fs;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Twenty steps with everything that a resume could get wrong: dropout, a warm-up, log windows across the checkpoint,
/// evaluations, epochs of three steps and a short last window.
fn twenty<'a>(dir: &'a Path) -> Setup<'a> {
    let args = TrainingArgs {
        logging_steps: StepCount::steps(3),
        eval_strategy: IntervalStrategy::Steps,
        eval_steps: Some(StepCount::steps(7)),
        save_steps: StepCount::steps(5),
        ..args(20, 1, 4)
    };
    Setup {
        rows: rows(10, None),
        held_out: Some(rows(4, None)),
        dropout: 0.2,
        output_dir: Some(dir),
        ..Setup::new(args)
    }
}

/// Lines of the metrics that do not depend on the clock or on having resumed.
fn curve(dir: &Path) -> Vec<Value> {
    let text = fs::read_to_string(dir.join("metrics.jsonl")).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines
        .filter(|line| line["event"].is_null() || line["event"] == "eval")
        .map(|mut line| {
            for key in ["seconds", "data_seconds", "tokens_per_second", "eval_seconds"] {
                line.as_object_mut().unwrap().remove(key);
            }
            line
        })
        .collect()
}

fn latest(dir: &Path) -> Checkpoint {
    search(dir).unwrap().found.expect("a sound checkpoint")
}

struct StopAfter(u64);

impl Callback for StopAfter {
    fn on_step(&mut self, report: &StepReport) -> Result<Flow, EngineError> {
        Ok(if report.step == self.0 { Flow::Stop } else { Flow::Continue })
    }
}

#[test]
fn twenty_steps_are_ten_and_ten_resumed_bit_for_bit() {
    let (straight, halves) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let whole = twenty(straight.path()).run();
    for stop in [10, 13] {
        let _ = fs::remove_dir_all(halves.path());
        let first =
            Setup { extra: vec![Box::new(StopAfter(stop))], ..twenty(halves.path()) }.run().summary.unwrap();
        assert!(first.stopped && first.step == stop);
        let checkpoint = latest(halves.path());
        assert_eq!(checkpoint.state.step, stop);
        let second = Setup { resume: Some(&checkpoint), ..twenty(halves.path()) }.run();
        assert_eq!(second.bits(), whole.bits(), "values and optimiser state after a stop at {stop}");
        assert_eq!(curve(halves.path()), curve(straight.path()), "losses, norms, rates, evaluations");
        for file in ["model.safetensors", "optimizer.safetensors"] {
            let read = |dir: &Path| fs::read(dir.join("checkpoint-20").join(file)).unwrap();
            assert!(read(halves.path()) == read(straight.path()), "{file}");
        }
        let (a, b) = (second.summary.unwrap(), whole.summary.as_ref().unwrap());
        assert_eq!((a.train_loss, a.tokens, a.epoch), (b.train_loss, b.tokens, b.epoch));
    }
}

/// Breaks off the first evaluation after `passed` of its batches.
struct BreaksOff {
    passed: usize,
}

impl Callback for BreaksOff {
    fn interrupts(&mut self) -> bool {
        self.passed = self.passed.wrapping_sub(1);
        self.passed == usize::MAX
    }
}

/// Counts evaluations.
struct Evaluations(std::rc::Rc<std::cell::Cell<usize>>);

impl Callback for Evaluations {
    fn on_evaluate(&mut self, _: &EvalReport) -> Result<Flow, EngineError> {
        self.0.set(self.0.get() + 1);
        Ok(Flow::Continue)
    }
}

#[test]
fn a_stop_does_not_wait_for_an_evaluation_which_is_made_when_the_run_goes_on() {
    let (straight, halves) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let whole = twenty(straight.path()).run();
    // Evaluations are due after steps 7 and 14 and after the last.
    for (stop, breaks_off) in [(7, false), (14, false), (20, false), (7, true)] {
        let _ = fs::remove_dir_all(halves.path());
        let made = std::rc::Rc::new(std::cell::Cell::new(0));
        let wish: Box<dyn Callback> = match breaks_off {
            true => Box::new(BreaksOff { passed: 1 }),
            false => Box::new(StopAfter(stop)),
        };
        let extra: Vec<Box<dyn Callback>> = vec![wish, Box::new(Evaluations(made.clone()))];
        let mut setup = Setup { extra, ..twenty(halves.path()) };
        if breaks_off {
            // So that there is something between batches.
            setup.args.per_device_eval_batch_size = 1;
        }
        let first = setup.run().summary.unwrap();
        assert!(first.stopped && first.step == stop, "{first:?}");
        assert_eq!(made.get() as u64, (stop - 1) / 7, "not that of the step after which it stopped");
        let checkpoint = latest(halves.path());
        assert!(checkpoint.state.owes_evaluation && checkpoint.state.step == stop);
        // A second attempt must not tell the evaluation twice.
        for _ in 0..2 {
            let second = Setup { resume: Some(&checkpoint), ..twenty(halves.path()) }.run();
            assert_eq!(second.bits(), whole.bits(), "values and optimiser state after a stop at {stop}");
            assert_eq!(curve(halves.path()), curve(straight.path()), "losses, norms, rates, evaluations");
            let (a, b) = (second.summary.unwrap(), whole.summary.as_ref().unwrap());
            assert!(!a.stopped);
            assert_eq!((&a.best, a.epoch), (&b.best, b.epoch));
        }
    }
}

#[test]
fn a_resume_that_changes_nothing_else_is_not_trivially_equal() {
    // Without dropout's seed or with other data the bits would differ: the comparison above can fail.
    let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let one = twenty(a.path()).run();
    let mut other = twenty(b.path());
    other.args.seed += 1;
    other.args.data_seed = Some(other.args.seed - 1);
    assert_ne!(other.run().bits(), one.bits());
}

/// Runs until the hook strikes at `point` while the checkpoint of step 10 is written.
fn crash_at(dir: &Path, point: &'static str, strike: fn() -> io::Result<()>) -> Option<Outcome> {
    let first = dir.join("checkpoint-5");
    let strikes = move |at: &'static str| {
        let is_second = first.exists() || at == "checkpoint.during_rotation";
        if at == point && is_second { strike() } else { Ok(()) }
    };
    let mut setup = twenty(dir);
    setup.args.save_total_limit = Some(1);
    setup.crash = Arc::new(strikes);
    catch_unwind(AssertUnwindSafe(|| setup.run())).ok()
}

fn resume_to_the_end(dir: &Path) -> Outcome {
    sweep_leftovers(dir).unwrap();
    let Search { found, damaged, .. } = search(dir).unwrap();
    assert!(damaged.is_empty(), "a crash leaves no damaged checkpoint: {damaged:?}");
    let checkpoint = found.expect("a sound checkpoint");
    let mut setup = twenty(dir);
    setup.args.save_total_limit = Some(1);
    Setup { resume: Some(&checkpoint), ..setup }.run()
}

fn leftovers(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.file_name().unwrap().to_string_lossy().starts_with('.')).collect()
}

#[test]
fn a_kill_at_any_moment_of_a_write_loses_nothing() {
    let straight = tempfile::tempdir().unwrap();
    let whole = twenty(straight.path()).run();
    for point in CRASH_POINTS {
        let dir = tempfile::tempdir().unwrap();
        // Unwinding from the middle of the write cleans up no more than a kill would.
        let outcome = crash_at(dir.path(), point, || panic!("killed"));
        assert!(outcome.is_none(), "{point} was not reached");
        let resumed = resume_to_the_end(dir.path());
        assert_eq!(resumed.bits(), whole.bits(), "{point}");
        assert_eq!(curve(dir.path()), curve(straight.path()), "{point}");
        assert_eq!(leftovers(dir.path()), Vec::<PathBuf>::new(), "{point}");
        assert_eq!(list(dir.path()).unwrap().len(), 1, "{point}: the limit holds");
    }
}

#[test]
fn a_full_disk_at_any_moment_of_a_write_leaves_earlier_checkpoints() {
    for point in CRASH_POINTS {
        let dir = tempfile::tempdir().unwrap();
        let outcome = crash_at(dir.path(), point, || Err(io::ErrorKind::StorageFull.into())).unwrap();
        let error = outcome.summary.unwrap_err();
        if point != "checkpoint.during_rotation" {
            let EngineError::Checkpoint(CheckpointError::Write { path, source, .. }) = &error else {
                panic!("{point}: {error}");
            };
            assert_eq!(source.kind(), io::ErrorKind::StorageFull);
            assert!(path.starts_with(dir.path()));
            assert!(error.to_string().contains("earlier checkpoints are unchanged"), "{error}");
        }
        if !["checkpoint.after_rename", "checkpoint.during_rotation"].contains(&point) {
            assert_eq!(leftovers(dir.path()), Vec::<PathBuf>::new(), "{point}: nothing half-written");
            assert_eq!(latest(dir.path()).state.step, 5, "{point}");
        }
        resume_to_the_end(dir.path()).summary.unwrap();
    }
}

/// Two checkpoints of a short run.
fn two_checkpoints(dir: &Path) {
    let args = TrainingArgs { save_steps: StepCount::steps(2), ..args(4, 3, 1) };
    Setup { output_dir: Some(dir), ..Setup::new(args) }.run().summary.unwrap();
    assert_eq!(list(dir).unwrap().iter().map(|(step, _)| *step).collect::<Vec<_>>(), [2, 4]);
}

/// What a search says when the later checkpoint is damaged: the earlier one, and the damage by name.
fn fallen_back(dir: &Path) -> Damage {
    let mut found = search(dir).unwrap();
    assert_eq!(found.found.map(|checkpoint| checkpoint.state.step), Some(2));
    let (path, damage) = found.damaged.pop().expect("the later one is named");
    assert_eq!(path, dir.join("checkpoint-4"));
    let error = open(&path).unwrap_err();
    assert!(matches!(&error, CheckpointError::Damaged { damage: same, .. } if *same == damage), "{error}");
    damage
}

#[test]
fn missing_and_truncated_files_are_found() {
    let dir = tempfile::tempdir().unwrap();
    two_checkpoints(dir.path());
    let checkpoint = dir.path().join("checkpoint-4");
    let files: Vec<PathBuf> = fs::read_dir(&checkpoint).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(files.len(), 5, "model, config, optimizer, state, manifest: {files:?}");
    for file in files {
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        let bytes = fs::read(&file).unwrap();
        fs::remove_file(&file).unwrap();
        let expected =
            if name == "manifest.json" { Damage::NoManifest } else { Damage::Missing { file: name.clone() } };
        assert_eq!(fallen_back(dir.path()), expected);
        for keep in [0, bytes.len() / 2, bytes.len() - 1] {
            fs::write(&file, &bytes[..keep]).unwrap();
            match fallen_back(dir.path()) {
                Damage::Size { file, expected, found } => {
                    assert_eq!((file, expected, found), (name.clone(), bytes.len() as u64, keep as u64));
                }
                Damage::Unreadable { file, .. } => {
                    assert_eq!((file.as_str(), name.as_str()), ("manifest.json", name.as_str()))
                }
                other => panic!("{name}: {other}"),
            }
            // The manifest's last byte is a line feed that JSON does not need.
            if name == "manifest.json" && keep + 2 >= bytes.len() / 2 {
                break;
            }
        }
        fs::write(&file, &bytes).unwrap();
        assert_eq!(latest(dir.path()).state.step, 4, "whole again");
    }
}

#[test]
fn flipped_bits_are_found() {
    let dir = tempfile::tempdir().unwrap();
    two_checkpoints(dir.path());
    let checkpoint = dir.path().join("checkpoint-4");
    for name in ["model.safetensors", "config.json", "optimizer.safetensors", "trainer_state.json"] {
        let file = checkpoint.join(name);
        let bytes = fs::read(&file).unwrap();
        for at in [0, bytes.len() / 3, bytes.len() - 1] {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << (at % 8);
            fs::write(&file, &flipped).unwrap();
            assert_eq!(fallen_back(dir.path()), Damage::Contents { file: name.into() });
        }
        fs::write(&file, &bytes).unwrap();
    }
}

#[test]
fn flipped_bits_of_the_manifest_are_found_or_harmless() {
    let dir = tempfile::tempdir().unwrap();
    two_checkpoints(dir.path());
    let checkpoint = dir.path().join("checkpoint-4");
    let file = checkpoint.join("manifest.json");
    let bytes = fs::read(&file).unwrap();
    let sound: Manifest = verify(&checkpoint).unwrap();
    let mut harmless = 0;
    // Bit 5 makes capitals and spaces out of small letters and nothings; the other bit differs from byte to byte.
    for bit in (0..bytes.len()).flat_map(|byte| [byte * 8 + 5, byte * 8 + byte % 8]) {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        fs::write(&file, &flipped).unwrap();
        match open(&checkpoint) {
            Err(CheckpointError::Damaged { .. }) => {}
            Err(other) => panic!("bit {bit}: {other}"),
            // One white space for another.
            Ok(_) => {
                assert_eq!(verify(&checkpoint).unwrap(), sound, "bit {bit}");
                harmless += 1;
            }
        }
    }
    assert!(harmless < bytes.len() / 4, "{harmless} of {} bits", 2 * bytes.len());
}

/// Puts `state` into the checkpoint and makes the manifest agree with it.
fn forge_state(checkpoint: &Path, state: &[u8]) {
    use sha2::Digest as _;
    fs::write(checkpoint.join("trainer_state.json"), state).unwrap();
    let file = checkpoint.join("manifest.json");
    let mut manifest: Manifest = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    let record = manifest.files.get_mut("trainer_state.json").unwrap();
    record.bytes = state.len() as u64;
    record.sha256 = sha2::Sha256::digest(state).iter().map(|byte| format!("{byte:02x}")).collect();
    fs::write(&file, serde_json::to_vec(&manifest).unwrap()).unwrap();
}

#[test]
fn a_forged_state_is_damage_and_never_a_panic() {
    let dir = tempfile::tempdir().unwrap();
    two_checkpoints(dir.path());
    let checkpoint = dir.path().join("checkpoint-4");
    let text = fs::read_to_string(checkpoint.join("trainer_state.json")).unwrap();
    let state: Value = serde_json::from_str(&text).unwrap();
    forge_state(&checkpoint, text.as_bytes());
    assert_eq!(open(&checkpoint).unwrap().state.step, 4, "the forger works");
    let hostile = [Value::Null, (-1).into(), 1e308.into(), "x".into(), Value::Array(vec![]), u64::MAX.into()];
    let mut refused = 0;
    for key in state.as_object().unwrap().keys() {
        for value in &hostile {
            let mut forged = state.clone();
            forged[key] = value.clone();
            forge_state(&checkpoint, forged.to_string().as_bytes());
            match open(&checkpoint) {
                Err(CheckpointError::Damaged { .. }) => refused += 1,
                Err(other) => panic!("{key}: {value}: {other}"),
                // Whatever is of the right type: going on from it fails or not, but in words.
                Ok(forged) => {
                    let args = TrainingArgs { save_steps: StepCount::steps(2), ..args(4, 3, 1) };
                    let _ = Setup { resume: Some(&forged), ..Setup::new(args) }.run();
                }
            }
        }
    }
    assert!(refused > 60, "{refused}");
    for text in ["", "{", "[]", "{}", "\u{0}", &"[".repeat(100_000)] {
        forge_state(&checkpoint, text.as_bytes());
        assert!(matches!(open(&checkpoint), Err(CheckpointError::Damaged { .. })), "{:.20}", text);
    }
}

#[test]
fn a_manifest_does_not_lead_out_of_its_directory() {
    let dir = tempfile::tempdir().unwrap();
    two_checkpoints(dir.path());
    let file = dir.path().join("checkpoint-4/manifest.json");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replace("\"config.json\"", "\"../checkpoint-2/config.json\"")).unwrap();
    let Damage::Unreadable { reason, .. } = fallen_back(dir.path()) else { panic!("not refused") };
    assert!(reason.contains("outside"), "{reason}");
}

#[test]
fn a_renamed_checkpoint_is_not_taken_for_another_step() {
    let dir = tempfile::tempdir().unwrap();
    two_checkpoints(dir.path());
    fs::rename(dir.path().join("checkpoint-4"), dir.path().join("checkpoint-9")).unwrap();
    let found = search(dir.path()).unwrap();
    assert_eq!(found.damaged[0].1, Damage::Step { directory: 9, manifest: 4 });
    assert_eq!(found.found.unwrap().state.step, 2);
    // Under a name of the user's own it is a checkpoint like any other.
    fs::rename(dir.path().join("checkpoint-9"), dir.path().join("good")).unwrap();
    assert_eq!(open(&dir.path().join("good")).unwrap().state.step, 4);
}

#[test]
fn a_path_that_is_no_checkpoint_is_said_to_be_none() {
    let dir = tempfile::tempdir().unwrap();
    assert!(search(&dir.path().join("absent")).unwrap().found.is_none());
    assert!(matches!(open(&dir.path().join("absent")), Err(CheckpointError::Read { .. })));
    let error = open(dir.path()).unwrap_err();
    assert!(matches!(error, CheckpointError::Damaged { damage: Damage::NoManifest, .. }), "{error}");
}

#[test]
fn a_new_run_refuses_the_directory_of_an_old_one() {
    let dir = tempfile::tempdir().unwrap();
    two_checkpoints(dir.path());
    let metrics = fs::read(dir.path().join("metrics.jsonl")).unwrap();
    let setup = Setup { output_dir: Some(dir.path()), ..Setup::new(args(4, 3, 1)) };
    let error = setup.run().summary.unwrap_err();
    assert!(matches!(&error, EngineError::Checkpoint(CheckpointError::Occupied { step: 4, .. })), "{error}");
    assert!(fs::read(dir.path().join("metrics.jsonl")).unwrap() == metrics, "nothing was overwritten");
}

#[test]
fn a_checkpoint_of_other_settings_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    two_checkpoints(dir.path());
    let checkpoint = latest(dir.path());
    let base = || TrainingArgs { save_steps: StepCount::steps(2), ..args(8, 3, 1) };
    let differences = |setup: Setup<'_>| -> Vec<String> {
        match setup.run().summary.unwrap_err() {
            EngineError::Resume(ResumeError::OtherRun { differences, .. }) => {
                differences.into_iter().map(|d| d.to_string()).collect()
            }
            other => panic!("{other}"),
        }
    };
    let setup = |args| Setup { resume: Some(&checkpoint), ..Setup::new(args) };
    let other_batch = differences(setup(TrainingArgs { per_device_train_batch_size: 2, ..base() }));
    assert_eq!(
        other_batch,
        ["micro-batches of an epoch: was 4, is 6", "per_device_train_batch_size: was 3, is 2"]
    );
    let other_seed = differences(setup(TrainingArgs { seed: 4, ..base() }));
    assert_eq!(other_seed, ["seed: was 3, is 4"]);
    let mut other_model = setup(base());
    other_model.facts.insert("model".into(), "trigram".into());
    other_model.facts.insert("data".into(), "abc".into());
    assert_eq!(
        differences(other_model),
        ["model: was \"bigram\", is \"trigram\"", "data: was null, is \"abc\""]
    );
    let wider = Setup { width: 7, ..setup(base()) }.run().summary.unwrap_err();
    let EngineError::Resume(ResumeError::OtherTensors { problem, .. }) = &wider else { panic!("{wider}") };
    assert!(problem.contains("param.embed_tokens.weight") && problem.contains("[13, 6]"), "{problem}");
}

#[test]
fn settings_that_may_change_are_told() {
    let dir = tempfile::tempdir().unwrap();
    two_checkpoints(dir.path());
    let checkpoint = latest(dir.path());
    let longer = TrainingArgs { save_steps: StepCount::steps(2), learning_rate: 0.01, ..args(6, 3, 1) };
    let outcome =
        Setup { resume: Some(&checkpoint), output_dir: Some(dir.path()), ..Setup::new(longer) }.run();
    assert_eq!(outcome.summary.unwrap().step, 6);
    let text = fs::read_to_string(dir.path().join("metrics.jsonl")).unwrap();
    let resume =
        text.lines().map(|l| serde_json::from_str::<Value>(l).unwrap()).find(|l| l["event"] == "resume");
    let changed: Vec<Value> =
        resume.unwrap()["changed"].as_array().unwrap().iter().map(|c| c["key"].clone()).collect();
    assert_eq!(changed, ["max_steps", "learning_rate"]);
}

#[test]
fn a_finished_run_resumed_is_finished() {
    let dir = tempfile::tempdir().unwrap();
    let whole = twenty(dir.path()).run();
    let checkpoint = latest(dir.path());
    let again = Setup { resume: Some(&checkpoint), ..twenty(dir.path()) }.run();
    assert_eq!(again.bits(), whole.bits());
    assert_eq!(again.summary.unwrap().step, 20);
}

#[test]
fn a_resume_from_an_earlier_checkpoint_moves_the_later_ones_aside() {
    let dir = tempfile::tempdir().unwrap();
    let whole = twenty(dir.path()).run();
    let earlier = open(&dir.path().join("checkpoint-5")).unwrap();
    let again = Setup { resume: Some(&earlier), ..twenty(dir.path()) }.run();
    assert_eq!(again.bits(), whole.bits());
    let aside = |name: &str| dir.path().join(format!(".abandoned-checkpoint-{name}"));
    let mut found = leftovers(dir.path());
    found.sort();
    assert_eq!(found, ["10", "15", "20"].map(aside));
    for (step, path) in list(dir.path()).unwrap() {
        assert_eq!(open(&path).unwrap().state.step, step);
    }
    // A second time, and stopped before the end: the latest is of the new course, and nothing is lost.
    let stop: Box<dyn Callback> = Box::new(StopAfter(7));
    let outcome = Setup { resume: Some(&earlier), extra: vec![stop], ..twenty(dir.path()) }.run();
    assert_eq!(outcome.summary.unwrap().step, 7);
    assert_eq!(latest(dir.path()).state.step, 7, "not 20 of the abandoned course");
    assert_eq!(leftovers(dir.path()).len(), 6);
    assert!(aside("20.2").join("manifest.json").exists());
}

#[test]
fn rotation_keeps_the_newest_and_the_best() {
    let dir = tempfile::tempdir().unwrap();
    let args = TrainingArgs {
        save_steps: StepCount::steps(1),
        save_total_limit: Some(2),
        eval_strategy: IntervalStrategy::Steps,
        eval_steps: Some(StepCount::steps(1)),
        // The first step has rate 0, the others far too much.
        warmup_steps: StepCount::steps(5),
        learning_rate: 20.0,
        ..args(5, 3, 1)
    };
    Setup { output_dir: Some(dir.path()), held_out: Some(rows(4, None)), ..Setup::new(args) }
        .run()
        .summary
        .unwrap();
    let best = latest(dir.path()).state.best.unwrap().step;
    assert!(best < 4, "the best is not among the last two: {best}");
    let kept: Vec<u64> = list(dir.path()).unwrap().into_iter().map(|(step, _)| step).collect();
    assert_eq!(kept, [best, 5]);
}

#[test]
fn a_moved_aside_checkpoint_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    two_checkpoints(dir.path());
    fs::rename(dir.path().join("checkpoint-4"), dir.path().join(".replaced-checkpoint-4")).unwrap();
    fs::create_dir(dir.path().join(".partial-checkpoint-4")).unwrap();
    sweep_leftovers(dir.path()).unwrap();
    assert_eq!(latest(dir.path()).state.step, 4);
    assert_eq!(leftovers(dir.path()), Vec::<PathBuf>::new());
}
