//! Runs that are killed, or find the disk full, at named and at random moments: nothing is lost beyond the
//! last complete checkpoint, and a run that was gone on with ends with the same bits as one that was not interrupted.
//!
//! `FOUNDRY_KILLS` says how often the random test kills (default 24; `cargo xtask test`, which CI runs, asks for 200).

use crate::resume::{leftovers, numbers, room, weights};
use crate::support::{Room, Said};
use foundry_engine::checkpoint::{CRASH_POINTS, Search, search};
use std::process::Stdio;
use std::time::{Duration, Instant};

/// What must be in a run's directory after a crash: no damaged checkpoint, and none lost. Returns the latest
/// one's step.
#[track_caller]
fn sound(room: &Room, run: &str, before: Option<u64>, what: &str) -> Option<u64> {
    let Search { found, damaged, .. } = search(&room.path(run)).expect("searched");
    assert!(damaged.is_empty(), "{what}: {damaged:?}");
    let step = found.map(|checkpoint| checkpoint.state.step);
    assert!(step >= before, "{what}: the checkpoint of step {before:?} is lost, there is {step:?}");
    step
}

/// The run is as if nothing had happened.
#[track_caller]
fn same_as_uninterrupted(room: &Room, run: &str, what: &str) {
    if !room.path("whole").exists() {
        room.foundry(&["train", "config.yaml", "output_dir=whole"]).expect_done();
    }
    assert!(weights(room, run) == weights(room, "whole"), "{what}: the weights differ");
    assert_eq!(numbers(room, run), numbers(room, "whole"), "{what}");
    let optimizer =
        |run: &str| std::fs::read(room.path(run).join("checkpoint-11/optimizer.safetensors")).expect("kept");
    assert!(optimizer(run) == optimizer("whole"), "{what}: the optimiser's state differs");
    assert_eq!(leftovers(room, run), Vec::<String>::new(), "{what}");
}

/// Moments to crash at: each named point the first and the second time, steps, and the move of the result.
fn moments() -> Vec<String> {
    let steps =
        ["step.2", "step.5", "step.11", "final.before_move", "final.during_move", "final.during_move#2"];
    let points = CRASH_POINTS.into_iter().filter(|point| *point != "checkpoint.during_rotation");
    let twice = points.flat_map(|point| [point.to_owned(), format!("{point}#2")]);
    steps
        .map(str::to_owned)
        .into_iter()
        .chain(twice)
        .chain(["checkpoint.during_rotation".to_owned()])
        .collect()
}

#[test]
fn killed_at_every_named_moment() {
    let room = room();
    for (i, moment) in moments().iter().enumerate() {
        let (run, output) = (format!("killed-{i}"), format!("output_dir=killed-{i}"));
        let killed =
            room.command(&["train", "config.yaml", &output]).env("FOUNDRY_CRASH_AT", moment).output();
        let killed = Said::from(killed.expect("the binary starts"));
        assert_eq!(killed.code, None, "{moment}: it should have been killed: {}", killed.err);
        sound(&room, &run, None, moment);
        room.foundry(&["train", "config.yaml", &output, "--resume", "auto"]).expect_done();
        same_as_uninterrupted(&room, &run, moment);
    }
}

#[test]
fn killed_at_random_moments() {
    let wanted: u32 = std::env::var("FOUNDRY_KILLS").map_or(24, |kills| kills.parse().expect("a number"));
    let room = room();
    let began = Instant::now();
    room.foundry(&["train", "config.yaml", "output_dir=whole"]).expect_done();
    let whole = began.elapsed();
    // Moments spread over a whole run by the golden ratio; many fall into loading, into a write or into the end.
    let (mut moment, mut kills, mut runs) = (0.37_f64, 0, 0);
    while kills < wanted {
        runs += 1;
        let (run, output) = (format!("run-{runs}"), format!("output_dir=run-{runs}"));
        let mut latest = None;
        for attempt in 0.. {
            let mut command = room.command(&["train", "config.yaml", &output, "--resume", "auto"]);
            let mut child = command.stderr(Stdio::null()).spawn().expect("the binary starts");
            moment = (moment + 0.618_033_988_749_895).fract();
            // Enough kills of one run; and each run must come to its end.
            if attempt < 12 {
                std::thread::sleep(whole.mul_f64(moment));
                let _ = child.kill();
            }
            if child.wait().expect("it ends").success() {
                break;
            }
            kills += 1;
            assert!(attempt < 12, "it fails without being killed");
            if room.path(&run).exists() {
                latest = sound(&room, &run, latest, &format!("kill {kills} at {moment:.3} of a run"));
            }
        }
        same_as_uninterrupted(&room, &run, &format!("run {runs}, {kills} kills so far"));
        std::fs::remove_dir_all(room.path(&run)).expect("removed");
    }
    println!("{kills} kills in {runs} runs, {:.1} s", began.elapsed().as_secs_f64());
}

#[test]
fn a_full_disk_at_every_named_moment() {
    let room = room();
    for (i, moment) in moments().iter().filter(|moment| !moment.starts_with("step.")).enumerate() {
        let (run, output) = (format!("full-{i}"), format!("output_dir=full-{i}"));
        let full = format!("full:{moment}");
        let said = room.command(&["train", "config.yaml", &output]).env("FOUNDRY_CRASH_AT", full).output();
        let said = Said::from(said.expect("the binary starts"));
        assert_eq!(said.code, Some(1), "{moment}: {}", said.err);
        assert!(said.err.contains(&format!("full-{i}")), "{moment}: a place: {}", said.err);
        assert!(!said.err.contains("this is a bug"), "{moment}: {}", said.err);
        sound(&room, &run, None, moment);
        assert!(!room.path(&run).join("final.partial").exists(), "{moment}");
        room.foundry(&["train", "config.yaml", &output, "--resume", "auto"]).expect_done();
        same_as_uninterrupted(&room, &run, moment);
    }
}

/// A limit on the size of files is how a test without rights fills a disk: real writes fail in the middle.
#[cfg(target_os = "linux")]
#[test]
fn writes_that_fail_in_the_middle() {
    let room = room();
    room.foundry(&["train", "config.yaml", "output_dir=whole"]).expect_done();
    let size = |name: &str| std::fs::metadata(room.path(name)).expect("there").len();
    let optimizer = size("whole/checkpoint-11/optimizer.safetensors");
    let adapter = size("whole/adapter_model.safetensors");
    assert!(adapter < optimizer);
    // `ulimit -f` counts blocks of 512 bytes in a POSIX shell, of 1024 in bash: ask for what both refuse.
    for (i, limit) in [optimizer / 1024 / 2, adapter / 1024 / 2, 1].into_iter().enumerate() {
        let script = format!("trap '' XFSZ; ulimit -f {limit}; exec \"$0\" \"$@\"");
        let plain = room.command(&[]);
        let mut command = std::process::Command::new("sh");
        command.current_dir(room.path(".")).args(["-c", &script]).arg(plain.get_program());
        command.args(["train", "config.yaml", &format!("output_dir=limited-{i}")]);
        for (name, value) in plain.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        let said = Said::from(command.output().expect("sh starts"));
        assert_eq!(said.code, Some(1), "{limit}: {}", said.err);
        assert!(
            said.err.contains("File too large") && said.err.contains("limited-"),
            "{limit}: {}",
            said.err
        );
        // With one block not even the files of the beginning fit.
        assert!(i == 2 || said.err.contains("earlier checkpoints are unchanged"), "{limit}: {}", said.err);
        let run = format!("limited-{i}");
        assert_eq!(sound(&room, &run, None, &said.err), None, "no checkpoint fits");
        assert_eq!(leftovers(&room, &run), Vec::<String>::new(), "nothing half-written: {}", said.err);
        room.foundry(&["train", "config.yaml", &format!("output_dir={run}"), "--resume", "auto"])
            .expect_done();
        same_as_uninterrupted(&room, &run, &said.err);
    }
}

/// A killed run leaves at most what the next start clears up; nothing that grows.
#[test]
fn repeated_kills_leave_nothing_behind() {
    let room = room();
    for moment in ["checkpoint.after_model", "checkpoint.before_manifest", "final.before_move"] {
        for _ in 0..2 {
            let mut command = room.command(&["train", "config.yaml", "--resume", "auto"]);
            let _ = command.env("FOUNDRY_CRASH_AT", moment).output().expect("the binary starts");
        }
    }
    let began = Instant::now();
    room.foundry(&["train", "config.yaml", "--resume", "auto"]).expect_done();
    assert!(began.elapsed() < Duration::from_secs(60));
    same_as_uninterrupted(&room, "run", "after six kills");
}
