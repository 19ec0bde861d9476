//! `training.report_to`: what trackers find of a run.

use crate::support::Room;
use foundry_tracking::wandb;
use serde_json::{Map, Value};
use std::fs;
use std::path::PathBuf;

/// The only Weights & Biases directory below `parent`.
fn only_run(room: &Room, parent: &str) -> PathBuf {
    let entries = fs::read_dir(room.path(parent).join("wandb")).expect("there are runs").flatten();
    let mut runs: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    assert_eq!(runs.len(), 1, "{runs:?}");
    runs.remove(0)
}

fn rows(run: &std::path::Path) -> Vec<Map<String, Value>> {
    let name = run.file_name().expect("a name").to_string_lossy().into_owned();
    let id = name.rsplit('-').next().expect("an identity");
    wandb::history(&run.join(format!("run-{id}.wandb"))).expect("a readable file")
}

fn column(rows: &[Map<String, Value>], name: &str) -> Vec<f64> {
    rows.iter().filter_map(|row| row.get(name)?.as_f64()).collect()
}

#[test]
fn weights_and_biases_gets_every_key_of_the_trainer() {
    let room = Room::new();
    room.lora_run("  max_steps: 4\n  report_to: wandb\n  project: mine\n");
    room.write("eval.jsonl", crate::support::chats(4));
    let args = ["train", "config.yaml", "data.eval=eval.jsonl", "training.eval_steps=2"];
    let said = room.foundry(&args).expect_done();
    let run = only_run(&room, "run");
    assert!(said.err.contains("wandb sync "), "{}", said.err);
    let rows = rows(&run);
    assert_eq!(column(&rows, "train/global_step"), [1.0, 2.0, 2.0, 3.0, 4.0, 4.0]);
    for name in
        ["loss", "grad_norm", "learning_rate", "epoch", "num_input_tokens_seen", "mean_token_accuracy"]
    {
        assert!(column(&rows, &format!("train/{name}")).len() >= 4, "{name}: {rows:?}");
    }
    for name in ["loss", "runtime", "samples_per_second", "steps_per_second", "mean_token_accuracy"] {
        assert_eq!(column(&rows, &format!("eval/{name}")).len(), 2, "{name}: {rows:?}");
    }
    let metrics = room.read("run/metrics.jsonl");
    let lines = metrics.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let losses: Vec<f64> =
        lines.filter(|l| l["event"].is_null()).filter_map(|l| l["loss"].as_f64()).collect();
    assert_eq!(column(&rows, "train/loss"), losses, "the numbers are those of the metrics file");

    let text = |name: &str| fs::read_to_string(run.join("files").join(name)).expect("written");
    let config = text("config.yaml");
    for part in [
        "\"learning_rate\":\n    value: 0.005",
        "\"peft_config\":",
        "\"model/num_parameters\":",
        "\"hidden_size\":",
    ] {
        assert!(config.contains(part), "no {part} in {config}");
    }
    let summary: Value = serde_json::from_str(&text("wandb-summary.json")).expect("JSON");
    for name in
        ["train_loss", "train_runtime", "train_samples_per_second", "total_flos", "train/loss", "eval/loss"]
    {
        assert!(summary[name].is_number(), "{name}: {summary}");
    }
    assert!(text("output.log").contains("step 4"), "{}", text("output.log"));
    assert!(text("wandb-metadata.json").contains("llm-foundry"));
}

#[test]
fn a_killed_and_resumed_run_is_one_run_of_weights_and_biases() {
    let room = Room::new();
    room.lora_run("  max_steps: 6\n  save_steps: 2\n  report_to: [wandb]\n");
    let killed = room
        .command(&["train", "config.yaml", "--quiet"])
        .env("FOUNDRY_CRASH_AT", "step.5")
        .output()
        .expect("the binary starts");
    assert!(!killed.status.success());
    let run = only_run(&room, "run");
    assert_eq!(
        column(&rows(&run), "train/global_step"),
        [1.0, 2.0, 3.0, 4.0],
        "the file of a killed run is readable"
    );
    room.foundry(&["train", "config.yaml", "--resume"]).expect_done();
    assert_eq!(only_run(&room, "run"), run);
    let rows = rows(&run);
    assert_eq!(column(&rows, "train/global_step"), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    assert_eq!(column(&rows, "_step"), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
}

#[test]
fn the_environment_says_where_and_under_which_name() {
    let room = Room::new();
    room.lora_run("  max_steps: 1\n  report_to: all\n");
    let command = || {
        let mut command = room.command(&["train", "config.yaml", "--quiet"]);
        command.env("WANDB_DIR", room.path("elsewhere")).env("WANDB_RUN_ID", "abc123");
        command
    };
    assert!(command().status().expect("started").success());
    let run = only_run(&room, "elsewhere");
    assert!(run.to_string_lossy().ends_with("-abc123"), "{}", run.display());
    // Switched off from outside.
    fs::remove_dir_all(room.path("run")).expect("removed");
    fs::remove_dir_all(room.path("elsewhere")).expect("removed");
    assert!(command().env("WANDB_MODE", "disabled").status().expect("started").success());
    assert!(!room.path("elsewhere").exists());
}

#[test]
fn mistakes_are_refused_before_anything_is_written() {
    let room = Room::new();
    room.lora_run("  max_steps: 1\n");
    let refused = |overrides: &[&str], words: &[&str]| {
        let args = [&["train", "config.yaml"], overrides].concat();
        room.foundry(&args).expect_refusal(words);
        assert!(!room.path("run").exists());
    };
    refused(&["training.report_to=wandbb"], &["wandbb", "did you mean `wandb`?"]);
    refused(&["training.report_to=[wandb,banana]"], &["banana", "none, all, wandb"]);
    refused(&["training.report_to=7"], &["training.report_to"]);
    refused(&["training.report_to=wandb", "training.project=a/b"], &["training.project", "`/`"]);
    refused(&["training.run_name=x"], &["training.run_name", "report_to"]);
    refused(&["training.report_to=wandb", "training.run_name=''"], &["training.run_name", "empty"]);
    let file = room.write("file", "");
    let said =
        room.command(&["train", "config.yaml", "training.report_to=wandb"]).env("WANDB_DIR", file).output();
    crate::support::Said::from(said.expect("started")).expect_refusal(&["WANDB_DIR", "it is a file"]);
    assert!(!room.path("run").exists());
}
