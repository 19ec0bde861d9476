//! Signals and the time limit: what a run does when it is told to end.
#![cfg(unix)]

use crate::resume::room;
use crate::support::{Room, metrics};
use std::io::Read;
use std::process::Stdio;
use std::time::{Duration, Instant};

fn signal(child: &std::process::Child, name: &str) {
    let status = std::process::Command::new("kill").args([name, &child.id().to_string()]).status();
    assert!(status.expect("kill is there").success());
}

/// Starts a run of many steps and waits until it has taken some.
fn long_run(room: &Room, more: &[&str]) -> std::process::Child {
    let args = [&["train", "config.yaml", "training.max_steps=100000"], more].concat();
    let child = room.command(&args).stderr(Stdio::piped()).spawn().expect("the binary starts");
    let metrics = room.path("run/metrics.jsonl");
    let began = Instant::now();
    while !std::fs::read_to_string(&metrics).is_ok_and(|text| text.lines().count() > 3) {
        assert!(began.elapsed() < Duration::from_secs(60), "no step in a minute");
        std::thread::sleep(Duration::from_millis(10));
    }
    child
}

fn end(mut child: std::process::Child) -> (Option<i32>, String) {
    let mut said = String::new();
    child.stderr.take().expect("piped").read_to_string(&mut said).expect("read");
    (child.wait().expect("it ends").code(), said)
}

#[test]
fn a_signal_finishes_the_step_and_says_how_to_go_on() {
    for name in ["-INT", "-TERM"] {
        let room = room();
        let child = long_run(&room, &[]);
        signal(&child, name);
        // Passed on by the shell as well: still one wish, not "stop now".
        signal(&child, name);
        let (code, said) = end(child);
        assert_eq!(code, Some(130), "{said}");
        assert!(
            said.contains("continue with: llm-foundry train config.yaml training.max_steps=100000 --resume"),
            "{said}"
        );
        assert!(
            !room.path("run/adapter_model.safetensors").exists(),
            "an unfinished run has no final result"
        );
        let steps = metrics(&room, "run").len() as u64;
        let total = format!("training.max_steps={}", steps + 2);
        let resumed = room.foundry(&["train", "config.yaml", &total, "--resume"]).expect_done();
        assert!(resumed.err.contains("changed since that checkpoint: max_steps"), "{}", resumed.err);
        assert_eq!(metrics(&room, "run").len() as u64, steps + 2, "no step is lost or taken twice");
    }
}

#[test]
fn a_signal_saves_even_where_no_checkpoints_are_due() {
    let room = room();
    let child = long_run(&room, &["training.save_strategy=no", "training.save_steps=500"]);
    signal(&child, "-INT");
    let (code, said) = end(child);
    assert_eq!(code, Some(130), "{said}");
    assert!(said.contains("continue with:"), "{said}");
    let steps = metrics(&room, "run").len();
    assert!(room.path("run").join(format!("checkpoint-{steps}")).is_dir(), "{said}");
}

#[test]
fn the_second_signal_ends_the_program_at_once() {
    let room = room();
    let mut command = room.command(&["train", "config.yaml", "training.max_steps=100000"]);
    command.env("FOUNDRY_CRASH_AT", "hang:step.5").stderr(Stdio::piped());
    let mut child = command.spawn().expect("the binary starts");
    let began = Instant::now();
    // The line of step 4 is there; step 5 hangs before its own.
    while !std::fs::read_to_string(room.path("run/metrics.jsonl")).is_ok_and(|t| t.contains("\"step\":4,")) {
        assert!(began.elapsed() < Duration::from_secs(60), "no step in a minute");
        std::thread::sleep(Duration::from_millis(10));
    }
    std::thread::sleep(Duration::from_millis(200));
    signal(&child, "-INT");
    std::thread::sleep(Duration::from_millis(1300));
    assert!(child.try_wait().expect("asked").is_none(), "the first signal waits for the step");
    signal(&child, "-TERM");
    let began = Instant::now();
    let (code, _) = end(child);
    assert_eq!(code, Some(130));
    assert!(began.elapsed() < Duration::from_secs(5), "at once");
    // What was saved before is whole.
    let resumed = room.foundry(&["train", "config.yaml", "--resume"]).expect_done();
    assert!(resumed.err.contains("checkpoint-3 (step 3 of 11)"), "{}", resumed.err);
}

#[test]
fn sigusr1_saves_and_goes_on() {
    let room = room();
    let child = long_run(&room, &["training.save_strategy=no", "training.save_steps=500"]);
    signal(&child, "-USR1");
    let began = Instant::now();
    let saved = || room.read("run/metrics.jsonl").matches("\"event\":\"save\"").count();
    while saved() == 0 {
        assert!(began.elapsed() < Duration::from_secs(60), "no checkpoint in a minute");
        std::thread::sleep(Duration::from_millis(10));
    }
    let steps = metrics(&room, "run").len();
    let began = Instant::now();
    while metrics(&room, "run").len() <= steps + 2 {
        assert!(began.elapsed() < Duration::from_secs(60), "it does not go on");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(saved(), 1);
    signal(&child, "-INT");
    assert_eq!(end(child).0, Some(130));
}

#[test]
fn a_time_limit_saves_and_stops_before_it() {
    let room = room();
    let began = Instant::now();
    let args = ["train", "config.yaml", "training.max_steps=100000", "training.max_time=4s"];
    let said = room.foundry(&args);
    assert_eq!(said.code, Some(130), "{}", said.err);
    // On a busy machine the end itself may take a while; a run without a limit would take minutes.
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    assert!(said.err.contains("the time limit (training.max_time) is near, after step"), "{}", said.err);
    assert!(said.err.contains("training.max_time=4s --resume"), "{}", said.err);
    let steps = metrics(&room, "run").len() as u64;
    assert!(room.path(&format!("run/checkpoint-{steps}")).is_dir());
    let more = format!("training.max_steps={}", steps + 1);
    let said =
        room.foundry(&["train", "config.yaml", &more, "--resume", "training.max_time=null"]).expect_done();
    assert!(said.err.contains(&format!("(step {steps} of {})", steps + 1)), "{}", said.err);
}
