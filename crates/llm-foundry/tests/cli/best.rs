//! Early stopping and the best model, from the configuration to the result.

use crate::support::{Room, metrics};
use serde_json::Value;

/// A run that learns a little and then, at a rate far too high, forgets.
const TRAINING: &str = "  max_steps: 40\n  eval_steps: 2\n  save_strategy: \"no\"\n  lr_scheduler_type: constant_with_warmup\n  \
                        warmup_steps: 40\n  early_stopping_patience: 3\n";

fn evaluations(room: &Room, run: &str) -> Vec<(u64, f64)> {
    let text = room.read(&format!("{run}/metrics.jsonl"));
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let evaluations = lines.filter(|line| line["event"] == "eval");
    evaluations
        .map(|e| (e["step"].as_u64().expect("a step"), e["eval_loss"].as_f64().expect("a loss")))
        .collect()
}

#[test]
fn a_run_stops_early_and_its_result_is_the_best_model() {
    let room = Room::new();
    room.lora_run(TRAINING);
    let args =
        ["data.eval_fraction=0.25", "training.learning_rate=3.0", "training.load_best_model_at_end=true"];
    let said = room.foundry(&[&["train", "config.yaml"], &args[..]].concat()).expect_done();
    let evaluations = evaluations(&room, "run");
    let best = evaluations.iter().min_by(|a, b| a.1.total_cmp(&b.1)).expect("evaluated").0;
    let steps = metrics(&room, "run").len() as u64;
    assert_eq!(steps, best + 6, "three evaluations in a row, two steps apart: {evaluations:?}");
    assert!(steps < 40);
    assert!(said.err.contains(&format!("the result is the model of step {best}")), "{}", said.err);
    let adapter =
        |dir: String| std::fs::read(room.path(&dir).join("adapter_model.safetensors")).expect("saved");
    assert!(adapter("run".into()) == adapter(format!("run/checkpoint-{best}")), "the best one's bits");
    // The same without it: the last step's values.
    let args = ["data.eval_fraction=0.25", "training.learning_rate=3.0", "output_dir=last"];
    room.foundry(&[&["train", "config.yaml"], &args[..]].concat()).expect_done();
    assert!(adapter("run".into()) != adapter("last".into()));
}

#[test]
fn keys_that_need_evaluations_are_refused_without_them() {
    let room = Room::new();
    room.lora_run("  max_steps: 2\n");
    let refused = |args: &[&str], words: &[&str]| {
        room.foundry(&[&["train", "config.yaml"], args].concat()).expect_refusal(words);
    };
    for key in [
        "training.load_best_model_at_end=true",
        "training.early_stopping_patience=2",
        "training.save_strategy=best",
        "training.metric_for_best_model=perplexity",
        "training.greater_is_better=true",
    ] {
        let name = key.split('=').next().expect("a key");
        refused(&[key], &[name, "there is no evaluation data"]);
    }
    let eval = "data.eval_fraction=0.25";
    refused(
        &[eval, "training.load_best_model_at_end=true", "training.eval_strategy=no"],
        &["needs evaluations"],
    );
    refused(&[eval, "training.early_stopping_patience=0"], &["early_stopping_patience", "1 or more"]);
    refused(&[eval, "training.early_stopping_threshold=0.1"], &["nothing stops early"]);
    refused(&[eval, "training.early_stopping_threshold=-1"], &["early_stopping_threshold", "0 or more"]);
    refused(&[eval, "training.metric_for_best_model=acuracy"], &["metric_for_best_model", "unknown value"]);
    refused(&["training.max_time=soon"], &["training.max_time", "soon", "90m"]);
    refused(&["training.max_time=0"], &["training.max_time", "90m"]);
    refused(&["training.max_time=1h", "training.save_only_model=true"], &["save_only_model", "max_time"]);
}
