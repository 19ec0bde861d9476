//! Going on in another directory, at another time, or beside another process.

use crate::support::{Room, metrics};

fn adapter(room: &Room, dir: &str) -> Vec<u8> {
    std::fs::read(room.path(dir).join("adapter_model.safetensors")).expect("saved")
}

#[test]
fn a_checkpoint_of_elsewhere_is_not_gone_on_from_into_another_run() {
    let room = Room::new();
    room.lora_run("  max_steps: 4\n  save_steps: 2\n");
    room.foundry(&["train", "config.yaml"]).expect_done();
    room.foundry(&["train", "config.yaml", "output_dir=other", "training.seed=1"]).expect_done();
    let before = (room.read("other/metrics.jsonl"), adapter(&room, "other"));
    for from in ["run/checkpoint-2", "run"] {
        let said = room.foundry(&["train", "config.yaml", "output_dir=other", "--resume", from]);
        said.expect_refusal(&["other holds an earlier run"]);
    }
    assert!((room.read("other/metrics.jsonl"), adapter(&room, "other")) == before, "nothing was touched");
    // Into an empty directory it goes on, and leaves the first as it was.
    let first = room.read("run/metrics.jsonl");
    let args = ["train", "config.yaml", "output_dir=new", "--resume", "run/checkpoint-2"];
    room.foundry(&args).expect_done();
    assert_eq!(room.read("run/metrics.jsonl"), first);
    assert_eq!(metrics(&room, "new").len(), 2, "steps 3 and 4");
    assert!(adapter(&room, "new") == adapter(&room, "run"));
    // The directory's own checkpoints, however they are named, are gone on from.
    let own = room.path("run/checkpoint-2");
    room.foundry(&["train", "config.yaml", "--resume", own.to_str().expect("text")]).expect_done();
}

/// Learns a little and then, at a rate far too high, forgets; ends three evaluations after the best.
const RISE_AND_FALL: &str = "  max_steps: 40\n  eval_steps: 2\n  save_steps: 2\n  save_total_limit: 1\n  \
                             lr_scheduler_type: constant_with_warmup\n  warmup_steps: 40\n  \
                             early_stopping_patience: 3\n  load_best_model_at_end: true\n";

#[test]
fn an_ended_run_takes_no_step_and_the_best_checkpoint_goes_along() {
    let room = Room::new();
    room.lora_run(RISE_AND_FALL);
    let run = |more: &[&str]| {
        let args = ["train", "config.yaml", "data.eval_fraction=0.25", "training.learning_rate=3.0"];
        room.foundry(&[&args[..], more].concat()).expect_done()
    };
    run(&[]);
    let steps = metrics(&room, "run").len() as u64;
    let best = steps - 6;
    let result = adapter(&room, "run");
    assert!(result == adapter(&room, &format!("run/checkpoint-{best}")));
    // It had ended by early stopping: nothing is left to do.
    let said = run(&["--resume"]);
    assert!(said.err.contains(&format!("the result is the model of step {best}")), "{}", said.err);
    assert_eq!(metrics(&room, "run").len() as u64, steps);
    assert!(adapter(&room, "run") == result);
    // With more patience elsewhere it takes steps, and the best one is still that of before.
    let last = format!("run/checkpoint-{steps}");
    let patient = ["training.early_stopping_patience=4", "--resume", &last];
    let said = run(&[&["output_dir=other"], &patient[..]].concat());
    assert!(said.err.contains(&format!("checkpoint-{best}, was copied to other")), "{}", said.err);
    assert_eq!(metrics(&room, "other").len(), 2);
    assert!(adapter(&room, "other") == result);
    // Where it is gone, the run still ends with a result.
    std::fs::remove_dir_all(room.path(&format!("run/checkpoint-{best}"))).expect("removed");
    let said = run(&[&["output_dir=third"], &patient[..]].concat());
    assert!(said.err.contains("the best checkpoint so far is not carried over"), "{}", said.err);
    assert!(said.err.contains("so the last step's values are the result"), "{}", said.err);
    assert!(adapter(&room, "third") == adapter(&room, &format!("third/checkpoint-{}", steps + 2)));
}

#[test]
fn a_template_that_tells_the_time_tells_the_same_after_a_resume() {
    let room = Room::new();
    room.lora_run("  max_steps: 4\n  save_steps: 2\n");
    let template = "tokenizer.chat_template='{{ strftime_now(\"%H %M %S\") }}{% for m in messages %}\
                    {{ m.content }}<|im_end|>{% endfor %}'";
    let allowed = "data.allow_missing_eos=true";
    for streaming in ["data.streaming=false", "data.streaming=true"] {
        let output = format!("output_dir={streaming}");
        let args = ["train", "config.yaml", template, allowed, streaming, &output];
        room.foundry(&args).expect_done();
        let whole = adapter(&room, streaming);
        std::fs::remove_dir_all(room.path(&format!("{streaming}/checkpoint-4"))).expect("removed");
        room.foundry(&[&args[..], &["--resume"]].concat()).expect_done();
        assert!(adapter(&room, streaming) == whole, "{streaming}: the rows are the same");
    }
}

#[test]
fn two_processes_do_not_share_an_output_directory() {
    let room = Room::new();
    room.lora_run("  max_steps: 2\n");
    room.foundry(&["train", "config.yaml"]).expect_done();
    assert!(!room.path("run/.lock").exists(), "it goes with the process");
    // What a process at work looks like, with a checkpoint in the making.
    let lock = std::fs::File::create(room.path("run/.lock")).expect("made");
    lock.lock().expect("locked");
    room.write("run/.partial-checkpoint-3/model.safetensors", "half");
    for more in [&["--resume"][..], &["--resume", "auto"], &["--overwrite-output-dir"], &[]] {
        let said = room.foundry(&[&["train", "config.yaml"], more].concat());
        said.expect_refusal(&["another process is at work in run"]);
    }
    assert!(room.path("run/.partial-checkpoint-3").exists(), "and it is left alone");
    // A process that was killed leaves the file, but no lock.
    drop(lock);
    room.foundry(&["train", "config.yaml", "--resume"]).expect_done();
    room.foundry(&["train", "config.yaml", "--overwrite-output-dir"]).expect_done();
    assert!(!room.path("run/.lock").exists() && !room.path("run.previous-1/.lock").exists());
}
