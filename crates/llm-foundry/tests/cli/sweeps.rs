//! `train --multirun`.

use crate::support::Room;
use serde_json::Value;

fn room() -> Room {
    let room = Room::new();
    room.lora_run("  max_steps: 2\n");
    room
}

fn record(room: &Room) -> Value {
    serde_json::from_str(&room.read("run/sweep.json")).expect("JSON")
}

fn states(record: &Value) -> Vec<&str> {
    let runs = record["runs"].as_array().expect("runs");
    runs.iter().map(|run| run["state"].as_str().expect("a state")).collect()
}

#[test]
fn every_combination_is_a_run_of_its_own_and_the_best_is_marked() {
    let room = room();
    room.write("eval.jsonl", crate::support::chats(4));
    let args =
        ["train", "config.yaml", "--multirun", "training.learning_rate=1e-2,1e-9", "lora.r=range(2,4)"];
    let eval = ["data.eval=eval.jsonl", "training.eval_strategy=steps", "training.eval_steps=1"];
    let said = room.foundry(&[&args[..], &eval[..]].concat()).expect_done();
    let lines: Vec<&str> = said.out.lines().collect();
    assert_eq!(lines.len(), 5, "{}", said.out);
    for word in ["learning_rate", "r", "loss", "eval loss", "tokens/s", "memory"] {
        assert!(lines[0].contains(word), "{}", lines[0]);
    }
    assert_eq!(said.out.matches("best by eval loss").count(), 1, "{}", said.out);
    assert!(lines[1].contains("best") || lines[2].contains("best"), "the rate that learns: {}", said.out);
    let record = record(&room);
    assert_eq!(states(&record), ["done"; 4]);
    assert_eq!(record["compared_by"], "eval_loss");
    let name = record["runs"][3]["name"].as_str().expect("a name");
    assert_eq!(name, "004_learning_rate=1e-9_r=3");
    let adapter = room.read(&format!("run/{name}/adapter_config.json"));
    assert!(adapter.contains("\"r\": 3"), "{adapter}");
    // The directory is taken, also for a plain run.
    room.foundry(&args).expect_refusal(&["holds an earlier run"]);
    room.foundry(&["train", "config.yaml"]).expect_refusal(&["holds an earlier run"]);
}

#[test]
fn a_run_that_fails_does_not_stop_the_rest_and_is_tried_again() {
    let room = room();
    let args =
        ["train", "config.yaml", "--multirun", "data.train=train.jsonl,absent.jsonl", "training.seed=1,2"];
    let said = room.foundry(&args);
    assert_eq!(said.code, Some(1), "{}", said.err);
    assert!(said.err.contains("absent.jsonl") && said.err.contains("2 of 4 runs failed"), "{}", said.err);
    assert!(said.out.contains("failed (exit code 2)"), "{}", said.out);
    assert_eq!(states(&record(&room)), ["done", "done", "failed", "failed"]);
    let finished = room.path("run/001_train=train.jsonl_seed=1/metrics.jsonl");
    let before = std::fs::metadata(&finished).expect("there").modified().expect("a time");
    room.write("absent.jsonl", crate::support::chats(6));
    let other = ["train", "config.yaml", "-m", "training.seed=1,2", "--resume"];
    room.foundry(&other).expect_refusal(&["another sweep"]);
    room.foundry(&[&args[..], &["--resume"]].concat()).expect_done();
    assert_eq!(states(&record(&room)), ["done"; 4]);
    let after = std::fs::metadata(&finished).expect("there").modified().expect("a time");
    assert_eq!(before, after, "what was done is left alone");
}

#[test]
fn wrong_sweeps_are_refused_before_the_first_run() {
    let room = room();
    let before = room.names();
    let sweep = |more: &[&str]| room.foundry(&[&["train", "config.yaml", "--multirun"], more].concat());
    sweep(&[]).expect_refusal(&["no override has several values"]);
    sweep(&["training.seed=1,1"]).expect_refusal(&["twice"]);
    sweep(&["training.seed=range(5,1)"]).expect_refusal(&["empty"]);
    sweep(&["training.seed=glob(*)"]).expect_refusal(&["glob"]);
    sweep(&["training.seed=range(100)", "lora.r=range(1,100)"]).expect_refusal(&["1000 runs"]);
    sweep(&["lora.r=8,x"]).expect_refusal(&["lora.r=x"]);
    sweep(&["lora.r=8,16", "--resume", "run/checkpoint-2"]).expect_refusal(&["checkpoint-2"]);
    sweep(&["lora.r=8,16", "--resume"]).expect_refusal(&["sweep.json"]);
    sweep(&["lora.r=8,16", "output_dir=run/${lora.r}"]).expect_refusal(&["output_dir depends"]);
    sweep(&["lora.r=8,16", "--print-config"]).expect_refusal(&["--print-config"]);
    let plain = room.foundry(&["train", "config.yaml", "training.learning_rate=1e-4,2e-4"]);
    plain.expect_refusal(&["must be a number", "train --multirun"]);
    assert_eq!(room.names(), before, "nothing was written");
}

#[test]
#[cfg(unix)]
fn ctrl_c_ends_the_sweep_and_resume_goes_on() {
    let room = room();
    let args = ["train", "config.yaml", "-m", "training.seed=1,2,3", "training.max_steps=400"];
    let mut command = room.command(&args);
    let child = command.stdout(std::process::Stdio::piped()).spawn().expect("the binary starts");
    let began = std::time::Instant::now();
    let second = room.path("run/002_seed=2/metrics.jsonl");
    while !std::fs::read_to_string(&second).is_ok_and(|text| text.lines().count() > 3) {
        assert!(began.elapsed().as_secs() < 100, "the second run takes no step");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let status = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    assert!(status.expect("kill is there").success());
    let output = child.wait_with_output().expect("it ends");
    let table = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(130), "{table}");
    assert!(table.contains("interrupted") && table.contains("not begun"), "{table}");
    assert_eq!(states(&record(&room)), ["done", "interrupted", "waiting"]);
    let said = room.foundry(&[&args[..], &["--resume"]].concat()).expect_done();
    assert!(said.err.contains("going on from"), "{}", said.err);
    let record = record(&room);
    assert_eq!(states(&record), ["done"; 3]);
    assert_eq!(record["runs"][1]["results"]["steps"], 400);
}

/// TensorBoard would mix the curves of runs that share a folder, and servers the runs that share an identity.
#[test]
fn runs_of_a_sweep_do_not_share_their_places_in_trackers() {
    let room = Room::new();
    room.lora_run(
        "  max_steps: 1\n  report_to: [wandb, tensorboard]\n  logging_dir: boards\n  run_name: mine\n",
    );
    let args = ["train", "config.yaml", "-m", "training.seed=1,2"];
    let said = room.command(&args).env("WANDB_RUN_ID", "one").output().expect("started");
    crate::support::Said::from(said).expect_refusal(&["WANDB_RUN_ID", "2"]);
    assert!(!room.path("run").exists());
    room.foundry(&args).expect_done();
    for name in ["001_seed=1", "002_seed=2"] {
        let files = std::fs::read_dir(room.path("boards").join(name)).expect("a folder of its own").count();
        assert_eq!(files, 1, "{name}");
        let resolved = room.read(&format!("run/{name}/config.resolved.yaml"));
        assert!(resolved.contains(&format!("run_name: \"mine_{name}\"")), "{resolved}");
    }
}

/// A sweep that is killed cannot pass a signal on: its run notices, and stops with a checkpoint.
#[test]
#[cfg(unix)]
fn a_killed_sweep_leaves_no_run_behind() {
    let room = room();
    let args = ["train", "config.yaml", "-m", "training.seed=1,2", "training.max_steps=20000"];
    let mut child = room.command(&args).spawn().expect("the binary starts");
    let lines = || {
        let text = std::fs::read_to_string(room.path("run/001_seed=1/metrics.jsonl")).unwrap_or_default();
        (text.lines().count(), text.contains("\"stopped\":true"))
    };
    let wait_for = |what: &str, holds: &dyn Fn() -> bool| {
        let began = std::time::Instant::now();
        while !holds() {
            assert!(began.elapsed().as_secs() < 60, "{what}");
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    };
    wait_for("the first run takes no step", &|| lines().0 > 3);
    child.kill().expect("killed");
    child.wait().expect("gone");
    wait_for("the run goes on without the sweep", &|| lines().1);
    let names = std::fs::read_dir(room.path("run/001_seed=1")).expect("there").flatten();
    let has_checkpoint =
        |entry: &std::fs::DirEntry| entry.file_name().to_string_lossy().starts_with("checkpoint-");
    assert!(names.into_iter().any(|entry| has_checkpoint(&entry)), "what was learned is kept");
    assert_eq!(states(&record(&room)), ["running", "waiting"]);
}

#[test]
#[cfg(unix)]
fn a_terminal_that_goes_ends_the_sweep_in_order() {
    let room = room();
    let args = ["train", "config.yaml", "-m", "training.seed=1,2", "training.max_steps=20000"];
    let child = room.command(&args).stdout(std::process::Stdio::piped()).spawn().expect("the binary starts");
    let began = std::time::Instant::now();
    let first = room.path("run/001_seed=1/metrics.jsonl");
    while !std::fs::read_to_string(&first).is_ok_and(|text| text.lines().count() > 3) {
        assert!(began.elapsed().as_secs() < 100, "the first run takes no step");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let status = std::process::Command::new("kill").args(["-HUP", &child.id().to_string()]).status();
    assert!(status.expect("kill is there").success());
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(130), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(states(&record(&room)), ["interrupted", "waiting"]);
}
