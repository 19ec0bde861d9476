//! `--resume`: which checkpoint, and when it is refused.

use crate::support::{Room, metrics};
use serde_json::Value;

/// Dropout, accumulation, warm-up and a schedule: everything that a resumed run could get wrong.
const TRAINING: &str = "  max_steps: 11\n  gradient_accumulation_steps: 2\n  warmup_steps: 2\n  \
                        lr_scheduler_type: cosine\n  save_steps: 3\n  save_total_limit: 1\n  neftune_noise_alpha: 5\n";

pub(crate) fn room() -> Room {
    let room = Room::new();
    room.lora_run(TRAINING);
    room
}

pub(crate) fn weights(room: &Room, run: &str) -> Vec<u8> {
    std::fs::read(room.path(run).join("adapter_model.safetensors")).expect("the adapter was saved")
}

/// Everything of the logged steps that does not depend on the clock.
pub(crate) fn numbers(room: &Room, run: &str) -> Vec<Value> {
    let mut steps = metrics(room, run);
    for step in &mut steps {
        let step = step.as_object_mut().expect("an object");
        let of_the_clock = ["tokens_per_second", "seconds", "data_seconds", "peak_rss_bytes"];
        step.retain(|key, _| !of_the_clock.contains(&key.as_str()));
    }
    steps
}

/// Names in a run's directory that a finished run does not leave: half-made files and directories, and what was moved
/// aside.
pub(crate) fn leftovers(room: &Room, run: &str) -> Vec<String> {
    let names = std::fs::read_dir(room.path(run)).expect("listed").flatten();
    let names = names.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|name| name.starts_with('.') || name.contains("partial")).collect()
}

#[track_caller]
fn same_as_uninterrupted(room: &Room, run: &str) {
    room.foundry(&["train", "config.yaml", "output_dir=whole"]).expect_done();
    assert!(weights(room, run) == weights(room, "whole"), "the weights differ");
    assert_eq!(numbers(room, run), numbers(room, "whole"));
    // What was moved aside because it was passed over stays; nothing else does.
    let leftovers: Vec<String> =
        leftovers(room, run).into_iter().filter(|name| !name.starts_with(".abandoned-")).collect();
    assert_eq!(leftovers, Vec::<String>::new());
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

#[test]
fn a_damaged_checkpoint_that_is_named_is_refused_and_the_one_before_offered() {
    let room = room();
    let args = ["train", "config.yaml", "training.save_total_limit=null"];
    room.foundry(&args).expect_done();
    std::fs::write(room.path("run/checkpoint-9/trainer_state.json"), "{}").expect("written");
    std::fs::remove_file(room.path("run/checkpoint-6/optimizer.safetensors")).expect("removed");
    let said = room.foundry(&[&args[..], &["--resume", "run/checkpoint-9"]].concat());
    said.expect_refusal(&["trainer_state.json has", "sound before it: --resume run/checkpoint-3"]);
    let said = room.foundry(&[&args[..], &["--resume", "run/checkpoint-6"]].concat());
    said.expect_refusal(&["optimizer.safetensors is missing", "sound before it: --resume run/checkpoint-3"]);
    for step in [3, 11] {
        std::fs::remove_file(room.path(&format!("run/checkpoint-{step}/manifest.json"))).expect("removed");
    }
    for from in ["latest", "auto"] {
        let said = room.foundry(&[&args[..], &["--resume", from]].concat());
        let said = said.expect_refusal(&["holds no checkpoint that is whole"]);
        for step in [3, 6, 9, 11] {
            assert!(said.err.contains(&format!("checkpoint-{step} is passed over")), "{}", said.err);
        }
    }
}

#[test]
fn auto_begins_goes_on_and_ends() {
    let room = room();
    let run = ["train", "config.yaml", "--resume", "auto"];
    let fresh = room.command(&run).env("FOUNDRY_CRASH_AT", "step.11").output().expect("the binary starts");
    assert!(!String::from_utf8_lossy(&fresh.stderr).contains("going on from"));
    // Goes on (the checkpoint of step 9 may still have been in the making, that of step 6 not: one at a time), and once
    // more when there is nothing left to do.
    let said = room.foundry(&run).expect_done();
    let goes_on =
        |step: u64| said.err.contains(&format!("going on from run/checkpoint-{step} (step {step} of 11)"));
    assert!(goes_on(6) || goes_on(9), "{}", said.err);
    let said = room.foundry(&run).expect_done();
    assert!(said.err.contains("checkpoint-11 (step 11 of 11)"), "{}", said.err);
    same_as_uninterrupted(&room, "run");
    // An attempt without checkpoints is kept aside.
    room.write("other/metrics.jsonl", "{}\n");
    let said = room.foundry(&[&run[..], &["output_dir=other"]].concat()).expect_done();
    assert!(said.err.contains("moved to other.previous-1"), "{}", said.err);
    assert_eq!(room.read("other.previous-1/metrics.jsonl"), "{}\n");
}

#[test]
fn a_checkpoint_beyond_the_end_is_refused_before_any_weight_is_read() {
    let room = Room::new();
    let model = room.model("model");
    room.lora_run(TRAINING);
    let name = format!("model.name_or_path={}", model.display());
    room.foundry(&["train", "config.yaml", &name, "training.max_steps=3"]).expect_done();
    std::fs::write(model.join("model.safetensors"), "no weights").expect("written");
    let said = room.foundry(&["train", "config.yaml", &name, "--resume", "training.max_steps=2"]);
    said.expect_refusal(&["the checkpoint is at step 3, beyond the run's 2 steps"]);
    let said = room.foundry(&["train", "config.yaml", &name, "--resume", "training.seed=5"]);
    said.expect_refusal(&["seed: was 42, is 5"]);
}

#[test]
fn checkpoints_of_the_model_alone_are_smaller_and_not_gone_on_from() {
    let room = room();
    let args = ["train", "config.yaml", "training.save_only_model=true"];
    room.foundry(&args).expect_done();
    assert!(room.path("run/checkpoint-11/adapter_model.safetensors").exists());
    assert!(!room.path("run/checkpoint-11/optimizer.safetensors").exists());
    let said = room.foundry(&[&args[..], &["--resume"]].concat());
    let said = said.expect_refusal(&["holds no checkpoint that a run can go on from", "save_only_model"]);
    assert!(said.err.contains("checkpoint-11 is passed over"), "{}", said.err);
    let said = room.foundry(&[&args[..], &["--resume", "run/checkpoint-11"]].concat());
    said.expect_refusal(&["was written with save_only_model"]);
}

#[test]
fn a_template_that_tells_the_time_does_not_stop_a_resume() {
    let room = Room::new();
    room.lora_run("  max_steps: 2\n  save_steps: 1\n");
    let template = "tokenizer.chat_template='{% for m in messages %}{{ strftime_now(\"%H:%M:%S.%f\") }} {{ m.content }}\
                    <|im_end|>{% endfor %}'";
    room.foundry(&["train", "config.yaml", template]).expect_done();
    let first =
        room.foundry(&["train", "config.yaml", template, "training.max_steps=4", "--resume"]).expect_done();
    assert!(first.err.contains("going on from"), "{}", first.err);
    // Without a run to go on with, it tells another time, and so is other data.
    let named = ["train", "config.yaml", template, "training.max_steps=6", "--resume", "run/checkpoint-4"];
    room.foundry(&named).expect_done();
}
