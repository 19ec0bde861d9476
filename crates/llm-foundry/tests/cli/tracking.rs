//! `training.report_to`: what trackers find of a run.

use crate::support::{Room, Said};
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
fn samples_become_tables() {
    let room = Room::new();
    room.lora_run("  max_steps: 2\n  report_to: wandb\n");
    room.write("run/samples.jsonl", "{\"step\": 1, \"prompt\": \"Who?\", \"text\": \"I.\"}\n");
    room.foundry(&["train", "config.yaml", "--quiet"]).expect_done();
    let run = only_run(&room, "run");
    let rows = rows(&run);
    let table = rows.iter().find_map(|row| row.get("samples")).expect("a table");
    let text =
        fs::read_to_string(run.join("files").join(table["path"].as_str().expect("a path"))).expect("read");
    assert_eq!(text, r#"{"columns":["step","prompt","text"],"data":[[1,"Who?","I."]]}"#);
}

#[test]
fn tensorboard_files_grow_in_one_folder() {
    let room = Room::new();
    room.lora_run("  max_steps: 6\n  save_steps: 2\n  report_to: tensorboard\n  profile: true\n");
    let crashed = room.command(&["train", "config.yaml"]).env("FOUNDRY_CRASH_AT", "step.5").output();
    assert!(!crashed.expect("started").status.success());
    let said = room.foundry(&["train", "config.yaml", "--resume"]).expect_done();
    assert!(said.err.contains("tensorboard --logdir "), "{}", said.err);
    let folders: Vec<PathBuf> = list(&room.path("run/runs"));
    assert_eq!(folders.len(), 1, "a resumed run goes on in its folder: {folders:?}");
    let files = list(&folders[0]);
    assert_eq!(files.len(), 2, "{files:?}");
    let text = |path: &PathBuf| String::from_utf8_lossy(&fs::read(path).expect("read")).into_owned();
    let first = text(&files[0]);
    for name in ["brain.Event:2", "train/loss", "train/learning_rate", "profile/mfu", "args/text_summary"] {
        assert!(first.contains(name), "{name}");
    }
    assert!(text(&files[1]).contains("train/train_runtime"));
    // Another folder, by name.
    room.lora_run("  max_steps: 1\n  report_to: tensorboard\n  logging_dir: boards\n");
    room.foundry(&["train", "config.yaml", "output_dir=other"]).expect_done();
    assert_eq!(list(&room.path("boards")).len(), 1);
}

/// A run that begins with another's checkpoint is another run: what trackers have of the first one stays as it is.
#[test]
fn a_branch_is_a_run_of_its_own() {
    let room = Room::new();
    room.lora_run("  max_steps: 4\n  save_steps: 2\n  report_to: [wandb, tensorboard]\n");
    let command = |args: &[&str]| {
        let mut command = room.command(&[&["train", "config.yaml", "--quiet"], args].concat());
        command.env("WANDB_DIR", room.path("shared"));
        Said::from(command.output().expect("started")).expect_done()
    };
    command(&[]);
    let first = only_run(&room, "shared");
    let before = rows(&first);
    command(&["output_dir=branch", "--resume", "run/checkpoint-2"]);
    let runs = list(&room.path("shared/wandb"));
    assert_eq!(runs.len(), 2, "{runs:?}");
    assert_eq!(rows(&first), before);
    let branch = runs.iter().find(|run| **run != first).expect("another run");
    assert_eq!(column(&rows(branch), "train/global_step"), [3.0, 4.0]);
    let folder = |run: &str| list(&room.path(run).join("runs"));
    assert_eq!((folder("run").len(), folder("branch").len()), (1, 1));
    assert_eq!(list(&folder("run")[0]).len(), 1, "no event of the branch is there");
    // The branch goes on as itself.
    command(&["output_dir=branch", "training.max_steps=6", "--resume"]);
    assert_eq!(list(&room.path("shared/wandb")).len(), 2);
    assert_eq!(column(&rows(branch), "train/global_step"), [3.0, 4.0, 5.0, 6.0]);
}

#[test]
fn names_in_the_environment_follow_the_rules_of_the_file() {
    let room = Room::new();
    room.lora_run("  max_steps: 1\n  report_to: all\n");
    let refused = |variable: &str, value: &str, words: &[&str]| {
        let mut command = room.command(&["train", "config.yaml"]);
        command.env("MLFLOW_TRACKING_URI", "http://127.0.0.1:1").env(variable, value);
        Said::from(command.output().expect("started")).expect_refusal(words);
        assert!(!room.path("run").exists());
    };
    refused("WANDB_PROJECT", "a/b", &["WANDB_PROJECT is `a/b`", "contains `/`"]);
    refused("WANDB_ENTITY", "me?", &["WANDB_ENTITY", "`?`"]);
    refused("WANDB_RUN_ID", "../../x", &["WANDB_RUN_ID is `../../x`"]);
    refused("WANDB_NAME", "two\nlines", &["WANDB_NAME is `two lines`", "line break"]);
    refused("MLFLOW_RUN_ID", "a b/c", &["MLFLOW_RUN_ID", "`/`"]);
    refused("MLFLOW_EXPERIMENT_NAME", &"x".repeat(200), &["MLFLOW_EXPERIMENT_NAME", "128 characters"]);
    // A password that stands in an address is said nowhere.
    let mut command = room.command(&["train", "config.yaml"]);
    command.env("WANDB_API_KEY", "k").env("WANDB_BASE_URL", "http://me:s3cret@127.0.0.1:1");
    let said = Said::from(command.output().expect("started"));
    assert!(!said.err.contains("s3cret"), "{}", said.err);
    said.expect_refusal(&[
        "WANDB_BASE_URL names a user",
        "WANDB_API_KEY",
        "WANDB_BASE_URL=http://127.0.0.1:1",
    ]);
    let mut command = room.command(&["train", "config.yaml"]);
    let said = Said::from(command.env("MLFLOW_TRACKING_URI", "me:s3cret@host").output().expect("started"));
    assert!(!said.err.contains("s3cret"), "{}", said.err);
    said.expect_refusal(&["MLFLOW_TRACKING_URI is `host`"]);
}

fn list(dir: &std::path::Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = fs::read_dir(dir).expect("a folder").flatten().map(|e| e.path()).collect();
    paths.sort();
    paths
}

/// A server that is away costs a warning and no more.
#[test]
fn servers_that_are_away_hinder_no_run() {
    let room = Room::new();
    room.lora_run("  max_steps: 2\n  report_to: all\n");
    let mut command = room.command(&["train", "config.yaml"]);
    // Nothing listens at port 1.
    command.env("MLFLOW_TRACKING_URI", "http://127.0.0.1:1").env("WANDB_API_KEY", "0".repeat(40));
    command.env("WANDB_BASE_URL", "http://127.0.0.1:1");
    let said = Said::from(command.output().expect("started")).expect_done();
    for words in
        ["did not reach the server", "did not get all of this run", "wandb sync ", "tensorboard --logdir"]
    {
        assert!(said.err.contains(words), "no `{words}` in {}", said.err);
    }
    assert!(!said.err.contains(&"0".repeat(40)), "the key is told nobody");
    let run = only_run(&room, "run");
    assert_eq!(column(&rows(&run), "train/global_step"), [1.0, 2.0]);
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
    refused(&["training.report_to=[wandb,banana]"], &["banana", "none, all, wandb, tensorboard, mlflow"]);
    refused(&["training.report_to=7"], &["training.report_to"]);
    refused(&["training.report_to=wandb", "training.project=a/b"], &["training.project", "`/`"]);
    refused(&["training.run_name=x"], &["training.run_name", "report_to"]);
    refused(&["training.report_to=wandb", "training.run_name=''"], &["training.run_name", "empty"]);
    refused(&["training.logging_dir=x"], &["training.logging_dir", "tensorboard"]);
    refused(&["training.report_to=mlflow"], &["MLFLOW_TRACKING_URI is not set", "mlflow server"]);
    refused(&["training.report_to=tensorbord"], &["did you mean `tensorboard`?"]);
    for (variable, value, words) in [
        ("MLFLOW_TRACKING_URI", "localhost:5000", ["MLFLOW_TRACKING_URI", "http://"]),
        ("MLFLOW_TRACKING_URI", "file:///mlruns", ["MLFLOW_TRACKING_URI", "file://"]),
        ("WANDB_MODE", "onlin", ["WANDB_MODE is `onlin`", "online, offline or disabled"]),
        ("WANDB_MODE", "online", ["WANDB_API_KEY", "wandb sync"]),
        ("TENSORBOARD_LOGGING_DIR", "train.jsonl/x", ["TENSORBOARD_LOGGING_DIR", "it is a file"]),
    ] {
        let mut command = room.command(&["train", "config.yaml", "training.report_to=all"]);
        let said = command.env(variable, value).output().expect("started");
        Said::from(said).expect_refusal(&words);
        assert!(!room.path("run").exists());
    }
    let mut command = room.command(&["train", "config.yaml", "training.report_to=wandb"]);
    command.env("WANDB_API_KEY", "x").env("WANDB_BASE_URL", "nowhere");
    Said::from(command.output().expect("started")).expect_refusal(&["WANDB_BASE_URL is `nowhere`"]);
    let file = room.write("file", "");
    let said =
        room.command(&["train", "config.yaml", "training.report_to=wandb"]).env("WANDB_DIR", file).output();
    Said::from(said.expect("started")).expect_refusal(&["WANDB_DIR", "it is a file"]);
    assert!(!room.path("run").exists());
}
