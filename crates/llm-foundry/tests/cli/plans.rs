//! `plan`.

use crate::support::{Room, copy_files, tiny_config, tiny_tokenizer};
use serde_json::Value;

#[test]
fn a_plan_counts_data_steps_memory_and_defaults_and_writes_nothing() {
    let room = Room::new();
    room.lora_run("  num_train_epochs: 2\n  gradient_accumulation_steps: 5\n");
    let before = room.names();
    let said = room.foundry(&["plan", "config.yaml"]).expect_done();
    for word in [
        "24 examples (messages)",
        "truncated 0",
        "steps",
        "activations",
        "optimiser state",
        "lora.use_rslora = false",
    ] {
        assert!(said.out.contains(word), "no `{word}` in:\n{}", said.out);
    }
    assert_eq!(room.names(), before);
    let json = room.foundry(&["plan", "config.yaml", "--json"]).expect_done();
    let plan: Value = serde_json::from_str(&json.out).expect("JSON");
    // 24 rows in batches of 2 are 12 micro-batches; windows of 5 make 3 steps an epoch.
    assert_eq!((&plan["steps"], &plan["steps_per_epoch"]), (&6.into(), &3.into()));
    assert_eq!(plan["data"]["examples"], 24);
    assert!(plan["flops_per_token"].as_f64().expect("a number") > 1e5);
    let total: u64 =
        plan["memory"]["classes"].as_object().expect("classes").values().filter_map(Value::as_u64).sum();
    let memory = |key: &str| plan["memory"][key].as_u64().expect("a number");
    assert_eq!(memory("total"), total + memory("data") + memory("process") + memory("kernels"));
    assert_eq!(plan["defaults"]["training.learning_rate"], Value::Null, "it was given");
    assert_eq!(plan["defaults"]["training.warmup_steps"], "0");
}

#[test]
fn a_planned_run_needs_what_was_planned() {
    let room = Room::new();
    room.lora_run("  max_steps: 1\n  save_strategy: \"no\"\n");
    let json = room.foundry(&["plan", "config.yaml", "--json"]).expect_done();
    let plan: Value = serde_json::from_str(&json.out).expect("JSON");
    // Two numbers of f32 state for each trained number, in cache lines.
    let trained = plan["model"]["trainable_parameters"].as_u64().expect("a number");
    let state = plan["memory"]["classes"]["optimiser_state"].as_u64().expect("a number");
    assert!(state >= 8 * trained && state < 8 * trained + 64 * 1000, "{state} bytes for {trained} numbers");
}

#[test]
fn a_plan_makes_do_with_a_configuration_alone() {
    let room = Room::new();
    room.lora_run("");
    let repository = "hf-home/hub/models--org--name";
    room.write(&format!("{repository}/refs/main"), "abc");
    room.write(&format!("{repository}/snapshots/abc/config.json"), tiny_config().to_string());
    let said = room.foundry(&["plan", "config.yaml", "model.name_or_path=org/name"]).expect_done();
    assert!(said.out.contains("the data is not counted: there are no tokenizer files"), "{}", said.out);
    let said = room.foundry(&["plan", "config.yaml", "data.train=nowhere.jsonl"]).expect_done();
    assert!(said.out.contains("the data is not counted: data.train: no file nowhere.jsonl"), "{}", said.out);
    // A run needs everything.
    room.foundry(&["train", "config.yaml", "model.name_or_path=org/name"])
        .expect_refusal(&["tokenizer.json, model.safetensors"]);
}

#[test]
fn auto_keeps_as_much_as_the_budget_allows_and_a_budget_binds() {
    let room = Room::new();
    room.lora_run("");
    let plan = |extra: &[&str]| -> Value {
        let words = [&["plan", "config.yaml", "--json", "data.max_length=64"], extra].concat();
        serde_json::from_str(&room.foundry(&words).expect_done().out).expect("JSON")
    };
    let total = |plan: &Value| plan["memory"]["total"].as_u64().expect("a number");
    let kept = |plan: &Value| plan["memory"]["checkpointing"].as_str().expect("a text").to_owned();
    let [everything, selective, full] =
        ["none", "selective", "full"].map(|mode| plan(&[&format!("training.gradient_checkpointing={mode}")]));
    let activations = |plan: &Value| {
        let classes = &plan["memory"]["classes"];
        classes["activations"].as_u64().expect("a number") + classes["workspace"].as_u64().expect("a number")
    };
    assert!(
        activations(&full) < activations(&selective) && activations(&selective) < activations(&everything)
    );
    assert_eq!(kept(&plan(&[])), kept(&everything), "memory enough: the fastest");
    assert_eq!(kept(&plan(&["training.gradient_checkpointing=true"])), kept(&full));
    assert_eq!(kept(&plan(&["training.gradient_checkpointing=false"])), kept(&everything));
    // A budget too small for anything: the smallest is planned, and training is refused.
    let tight =
        room.foundry(&["plan", "config.yaml", "--json", "data.max_length=64", "training.memory_budget=1MB"]);
    let tight = tight.expect_refusal(&["not enough memory", "training.memory_budget allows 1"]);
    let tight: Value = serde_json::from_str(&tight.out).expect("the plan is printed all the same");
    assert_eq!((kept(&tight), tight["memory"]["budget"].as_u64()), (kept(&full), Some(1_000_000)));
    assert!(total(&tight) > 1_000_000);
    room.foundry(&["train", "config.yaml", "training.memory_budget=1MB"])
        .expect_refusal(&["not enough memory", "training.memory_budget allows 1"]);
}

#[test]
fn a_run_uses_the_memory_that_was_planned() {
    let room = Room::new();
    room.lora_run("  max_steps: 2\n  save_strategy: \"no\"\n");
    let json = room.foundry(&["plan", "config.yaml", "--json"]).expect_done();
    let plan: Value = serde_json::from_str(&json.out).expect("JSON");
    let planned = plan["memory"]["total"].as_u64().expect("a number") as f64;
    room.foundry(&["train", "config.yaml"]).expect_done();
    let metrics = std::fs::read_to_string(room.path("run/metrics.jsonl")).expect("metrics");
    let used = metrics
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok()?["peak_rss_bytes"].as_f64())
        .fold(0.0, f64::max);
    // A tiny model: nearly all of it is the process itself, whose allocator and page cache vary by a few megabytes.
    assert!(used > 0.0 && (used - planned).abs() < 20e6, "{used} used, {planned} planned");
}

#[test]
fn a_plan_says_what_a_run_writes_and_a_run_that_does_not_fit_is_refused() {
    let room = Room::new();
    room.lora_run("  max_steps: 4\n  save_steps: 1\n  save_total_limit: 2\n");
    let said = room.foundry(&["plan", "config.yaml", "--json"]).expect_done();
    let plan: Value = serde_json::from_str(&said.out).expect("JSON");
    let disk = |key: &str| plan["disk"][key].as_u64().expect("a number");
    assert_eq!(disk("checkpoints"), 3, "two, and one in the making");
    assert_eq!(disk("total"), 3 * disk("checkpoint") + disk("result"));
    room.foundry(&["train", "config.yaml"]).expect_done();
    let size = |dir: &str| -> u64 {
        let entries = std::fs::read_dir(room.path(dir)).expect("listed").flatten();
        entries.map(|entry| entry.metadata().expect("there")).filter(|m| m.is_file()).map(|m| m.len()).sum()
    };
    // 8 MB are set aside for what is not weights; the tiny tokenizer needs less.
    assert!(size("run/checkpoint-4") <= disk("checkpoint"), "{}", size("run/checkpoint-4"));
    let small = 8_000_000;
    assert!(size("run/checkpoint-4") + small > disk("checkpoint"), "{}", size("run/checkpoint-4"));

    copy_files(&tiny_tokenizer(), &room.path("tokenizer"));
    let mut config = tiny_config();
    // Fifteen terabytes.
    for (key, value) in [("hidden_size", 16384), ("intermediate_size", 16384), ("num_hidden_layers", 2048)] {
        config[key] = value.into();
    }
    room.write("config.json", config.to_string());
    room.write("text.txt", "The cat is here.\n");
    let text = "model: {init: random, config: config.json, dtype: float32}\ntokenizer: {name_or_path: tokenizer}\n\
                data: {train: text.txt, max_length: 64}\ntraining: {max_steps: 1, check_memory: false}\n\
                output_dir: huge\n";
    room.write("huge.yaml", text);
    let refused = room.foundry(&["train", "huge.yaml"]);
    refused.expect_refusal(&["not enough disk space", "are free in", "training.save_total_limit"]);
    assert!(!room.path("huge").exists());
}

#[test]
fn a_plan_of_a_sweep_is_a_table_of_what_each_run_needs() {
    let room = Room::new();
    room.lora_run("");
    let before = room.names();
    let args = ["plan", "config.yaml", "--multirun", "lora.r=2,64", "training.max_steps=7,9"];
    let said = room.foundry(&args).expect_done();
    let lines: Vec<&str> = said.out.lines().collect();
    assert_eq!(lines.len(), 5, "{}", said.out);
    for word in ["run", "r", "max_steps", "steps", "trained", "memory", "disk"] {
        assert!(lines[0].contains(word), "{}", lines[0]);
    }
    assert!(lines[1].starts_with("001") && lines[4].starts_with("004"), "{}", said.out);
    let json = room.foundry(&[&args[..], &["--json"]].concat()).expect_done();
    let plans: Value = serde_json::from_str(&json.out).expect("JSON");
    let figure = |run: usize, path: &str| plans["runs"][run].pointer(path).cloned().unwrap_or_default();
    assert_eq!((figure(1, "/plan/steps"), figure(1, "/values/lora.r")), (9.into(), "2".into()));
    let trained = |run| figure(run, "/plan/model/trainable_parameters").as_u64().expect("a number");
    assert_eq!(trained(2), 32 * trained(0), "64 is 32 times 2");
    assert!(figure(2, "/plan/memory/total").as_u64() > figure(0, "/plan/memory/total").as_u64());
    // One that does not fit is marked, and the command fails.
    let said = room.foundry(&[&args[..], &["training.memory_budget=1KB"]].concat());
    assert_eq!(said.out.matches("does not fit").count(), 4, "{}", said.out);
    said.expect_refusal(&["4 of 4 runs cannot work", "001_r=2_max_steps=7: not enough memory"]);
    room.foundry(&["plan", "config.yaml", "-m"]).expect_refusal(&["no override has several values"]);
    room.foundry(&["plan", "config.yaml", "-m", "lora.r=8,x"]).expect_refusal(&["lora.r=x"]);
    room.foundry(&["plan", "config.yaml", "lora.r=8,16"]).expect_refusal(&["--multirun"]);
    // Keys have no signs, and what the sweep itself would refuse is refused.
    let json = room.foundry(&["plan", "config.yaml", "-m", "++lora.r=2,4", "--json"]).expect_done();
    let plans: Value = serde_json::from_str(&json.out).expect("JSON");
    assert_eq!(plans["runs"][1]["values"], serde_json::json!({"lora.r": "4"}));
    room.foundry(&["plan", "config.yaml", "-m", "output_dir=a,b"]).expect_refusal(&["output_dir depends on"]);
    room.foundry(&["plan", "config.yaml", "-m", "lora.r=2,4", "++lora.r=8,9"])
        .expect_refusal(&["swept twice"]);
    let mut named = room.command(&["plan", "config.yaml", "-m", "lora.r=2,4", "training.report_to=wandb"]);
    let refused = named.env("WANDB_RUN_ID", "abc").output().expect("it runs");
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("WANDB_RUN_ID"), "{refused:?}");
    assert_eq!(room.names(), before);
}
