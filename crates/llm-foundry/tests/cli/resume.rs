//! A run that is killed or interrupted and resumed ends with the same bits as one that was not.

use crate::support::{Room, Said, metrics};
use serde_json::Value;
use std::io::Read;
use std::process::Stdio;
use std::time::{Duration, Instant};

/// Dropout, accumulation, warm-up and a schedule: everything that a resumed run could get wrong.
const TRAINING: &str = "  max_steps: 11\n  gradient_accumulation_steps: 2\n  warmup_steps: 2\n  \
                        lr_scheduler_type: cosine\n  save_steps: 3\n  save_total_limit: 1\n  neftune_noise_alpha: 5\n";

fn room() -> Room {
    let room = Room::new();
    room.lora_run(TRAINING);
    room
}

fn weights(room: &Room, run: &str) -> Vec<u8> {
    std::fs::read(room.path(run).join("adapter_model.safetensors")).expect("the adapter was saved")
}

/// Everything of the logged steps that does not depend on the clock.
fn numbers(room: &Room, run: &str) -> Vec<Value> {
    let mut steps = metrics(room, run);
    for step in &mut steps {
        let step = step.as_object_mut().expect("an object");
        let of_the_clock = ["tokens_per_second", "seconds", "data_seconds", "peak_rss_bytes"];
        step.retain(|key, _| !of_the_clock.contains(&key.as_str()));
    }
    steps
}

#[track_caller]
fn same_as_uninterrupted(room: &Room, run: &str) {
    room.foundry(&["train", "config.yaml", "output_dir=whole"]).expect_done();
    assert!(weights(room, run) == weights(room, "whole"), "the weights differ");
    assert_eq!(numbers(room, run), numbers(room, "whole"));
    let leftovers = std::fs::read_dir(room.path(run)).expect("listed").flatten();
    let leftovers: Vec<_> =
        leftovers.map(|e| e.file_name()).filter(|n| n.to_string_lossy().contains("partial")).collect();
    assert!(leftovers.is_empty(), "{leftovers:?}");
}

#[test]
fn killed_between_and_during_checkpoint_writes() {
    let room = room();
    for (i, point) in [
        "step.5",
        "checkpoint.after_model#2",
        "checkpoint.after_optimizer#2",
        "checkpoint.before_manifest#3",
        "checkpoint.before_rename#2",
        "checkpoint.after_rename#2",
        "checkpoint.during_rotation",
    ]
    .into_iter()
    .enumerate()
    {
        let output = format!("output_dir=killed-{i}");
        let killed = room.command(&["train", "config.yaml", &output]).env("FOUNDRY_CRASH_AT", point).output();
        let killed = Said::from(killed.expect("the binary starts"));
        assert_eq!(killed.code, None, "{point}: it should have been killed: {}", killed.err);
        let resumed = room.foundry(&["train", "config.yaml", &output, "--resume"]).expect_done();
        assert!(resumed.err.contains("going on from"), "{point}: {}", resumed.err);
        same_as_uninterrupted_once(&room, &format!("killed-{i}"), point);
    }
}

/// As [`same_as_uninterrupted`], with one uninterrupted run for all.
fn same_as_uninterrupted_once(room: &Room, run: &str, point: &str) {
    if !room.path("whole").exists() {
        room.foundry(&["train", "config.yaml", "output_dir=whole"]).expect_done();
    }
    assert!(weights(room, run) == weights(room, "whole"), "{point}: the weights differ");
    assert_eq!(numbers(room, run), numbers(room, "whole"), "{point}");
}

#[test]
fn killed_at_any_moment() {
    let room = room();
    // Moments spread over the run by the golden ratio; many fall into loading or into a write.
    let mut moment = 0.37_f64;
    let mut kills = 0;
    let began = Instant::now();
    loop {
        let first = !room.path("run").join("metrics.jsonl").exists();
        let has_checkpoint = std::fs::read_dir(room.path("run")).is_ok_and(|dir| {
            dir.flatten().any(|e| e.file_name().to_string_lossy().starts_with("checkpoint-"))
        });
        let args: &[&str] = match (first, has_checkpoint) {
            (true, _) => &["train", "config.yaml"],
            (false, true) => &["train", "config.yaml", "--resume"],
            (false, false) => &["train", "config.yaml", "--overwrite-output-dir"],
        };
        let mut child = room.command(args).stderr(Stdio::null()).spawn().expect("the binary starts");
        moment = (moment + 0.618_033_988_749_895).fract();
        if kills < 12 {
            std::thread::sleep(Duration::from_millis((20.0 + moment * 400.0) as u64));
            let _ = child.kill();
        }
        if child.wait().expect("it ends").success() {
            break;
        }
        kills += 1;
        assert!(kills < 20 && began.elapsed() < Duration::from_secs(300), "it never comes to an end");
    }
    same_as_uninterrupted(&room, "run");
}

#[cfg(unix)]
fn signal(child: &std::process::Child, name: &str) {
    let status = std::process::Command::new("kill").args([name, &child.id().to_string()]).status();
    assert!(status.expect("kill is there").success());
}

/// Starts a run of many steps and waits until it has taken some.
#[cfg(unix)]
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

#[cfg(unix)]
fn end(mut child: std::process::Child) -> (Option<i32>, String) {
    let mut said = String::new();
    child.stderr.take().expect("piped").read_to_string(&mut said).expect("read");
    (child.wait().expect("it ends").code(), said)
}

#[cfg(unix)]
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

#[cfg(unix)]
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
fn another_run_is_not_continued() {
    let room = room();
    room.foundry(&["train", "config.yaml", "training.max_steps=3"]).expect_done();
    let other = room.foundry(&["train", "config.yaml", "--resume", "training.seed=1"]);
    other.expect_refusal(&["seed: was 42, is 1"]);
    let other = room.foundry(&["train", "--resume", "config.yaml", "training.max_steps=2"]);
    other.expect_refusal(&["the checkpoint is at step 3, beyond the run's 2 steps", "raise max_steps"]);
    let other = room.foundry(&["train", "config.yaml", "--resume", "data.max_length=32"]);
    other.expect_refusal(&["training rows"]);
    let other = room.foundry(&["train", "config.yaml", "--resume", "lora.r=8"]);
    other.expect_refusal(&["lora"]);
}

#[test]
fn a_damaged_checkpoint_is_passed_over() {
    let room = room();
    let args = ["train", "config.yaml", "training.max_steps=6", "training.save_total_limit=null"];
    room.foundry(&args).expect_done();
    let file = room.path("run/checkpoint-6/optimizer.safetensors");
    let mut bytes = std::fs::read(&file).expect("read");
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(&file, bytes).expect("written");
    let said =
        room.foundry(&["train", "config.yaml", "--resume", "training.save_total_limit=null"]).expect_done();
    assert!(said.err.contains("checkpoint-6 is passed over"), "{}", said.err);
    assert!(said.err.contains("checkpoint-3 (step 3 of 11)"), "{}", said.err);
    same_as_uninterrupted(&room, "run");
}
