//! Adapters of every kind, from training to the answer: saved, continued, combined, and bound to their base model.

use crate::support::{Room, Said, metrics};
use serde_json::Value;
use std::fs;

const STEPS: &str = "  max_steps: 3\n  save_strategy: \"no\"\n";

fn train(room: &Room, run: &str, more: &[&str]) -> Said {
    let output = format!("output_dir={run}");
    let args: Vec<&str> = ["train", "config.yaml", &output].into_iter().chain(more.iter().copied()).collect();
    room.foundry(&args)
}

fn settings(room: &Room, run: &str) -> Value {
    serde_json::from_str(&room.read(&format!("{run}/adapter_config.json"))).expect("JSON")
}

/// Greedy token ids under adapters.
fn answer(room: &Room, adapters: &[&str]) -> Value {
    let model = crate::support::tiny_model().to_str().expect("UTF-8");
    let mut args = vec!["generate", model, "--dtype", "float32", "--greedy", "--json", "--prompt", "The cat"];
    args.extend(["--max-new-tokens", "12"]);
    args.extend(adapters.iter().flat_map(|adapter| ["--adapter", adapter]));
    let said = room.foundry(&args).expect_done();
    serde_json::from_str::<Value>(&said.out).expect("JSON")["token_ids"].clone()
}

#[test]
fn every_kind_trains_and_is_continued() {
    let room = Room::new();
    room.lora_run(STEPS);
    let kinds: [(&str, &[&str]); 4] = [
        ("dora", &["lora.use_dora=true", "lora.use_rslora=true", "lora.rank_pattern={down_proj: 2}"]),
        ("pissa", &["lora.init_lora_weights=pissa", "training.loraplus_lr_ratio=4"]),
        ("olora", &["lora.init_lora_weights=olora", "lora.layers_to_transform=[1]"]),
        (
            "biased",
            &[
                "lora.lora_bias=true",
                "lora.modules_to_save=[embed_tokens]",
                "training.embedding_learning_rate=1e-4",
                "lora.alpha_pattern={q_proj: 3}",
            ],
        ),
    ];
    for (name, more) in kinds {
        train(&room, name, more).expect_done();
        let changes_base = name == "pissa" || name == "olora";
        assert_eq!(settings(&room, name)["r"], if changes_base { 8 } else { 4 }, "{name}");
        assert_eq!(settings(&room, name)["init_lora_weights"], true, "{name}");
        // Dropout is the adapter's; the first loss of the continued run is near the last of the first one.
        let text = room.read("config.yaml");
        let (start, end) = (text.find("lora:").expect("there"), text.find("training:").expect("there"));
        let lora = format!("lora:\n  adapter: {name}\n");
        room.write("next.yaml", format!("{}{lora}{}", &text[..start], &text[end..]));
        let next = format!("{name}-next");
        room.foundry(&["train", "next.yaml", &format!("output_dir={next}")]).expect_done();
        let loss = |run: &str, step: usize| metrics(&room, run)[step]["loss"].as_f64().expect("a number");
        assert!(loss(&next, 0) < loss(name, 0), "{name}: goes on from what was learned");
    }
}

#[test]
fn an_adapter_that_changed_the_base_resumes_bit_for_bit() {
    let room = Room::new();
    room.lora_run("  max_steps: 4\n  save_steps: 2\n");
    for kind in ["lora.init_lora_weights=pissa", "lora.use_dora=true"] {
        let whole = format!("whole-{}", &kind[5..8]);
        let halves = format!("halves-{}", &kind[5..8]);
        train(&room, &whole, &[kind]).expect_done();
        train(&room, &halves, &[kind]).expect_done();
        fs::remove_dir_all(room.path(&format!("{halves}/checkpoint-4"))).expect("removed");
        fs::remove_file(room.path(&format!("{halves}/adapter_model.safetensors"))).expect("removed");
        train(&room, &halves, &[kind, "--resume"]).expect_done();
        let bytes = |run: &str| fs::read(room.path(run).join("adapter_model.safetensors")).expect("saved");
        assert!(bytes(&whole) == bytes(&halves), "{kind}");
    }
}

#[test]
fn another_base_of_the_same_shape_is_noticed() {
    let room = Room::new();
    room.lora_run("  max_steps: 2\n  save_steps: 1\n");
    let model = room.model("model");
    let path = format!("model.name_or_path={}", model.display());
    train(&room, "run", &[&path]).expect_done();
    let weights = model.join("model.safetensors");
    let mut bytes = fs::read(&weights).expect("read");
    let middle = bytes.len() - 4;
    bytes[middle] ^= 1;
    fs::write(&weights, bytes).expect("written");
    train(&room, "run", &[&path, "--resume", "training.max_steps=3"]).expect_refusal(&[
        "base weights",
        "was",
        "is",
    ]);
}

#[test]
fn adapters_are_combined_by_command_and_at_inference() {
    let room = Room::new();
    room.lora_run(STEPS);
    train(&room, "a", &[]).expect_done();
    train(&room, "b", &["training.seed=7", "lora.r=3"]).expect_done();
    let merge = |args: &[&str]| {
        let args: Vec<&str> = ["adapters", "merge"].into_iter().chain(args.iter().copied()).collect();
        room.foundry(&args)
    };
    merge(&["a:0.7", "b:-0.4", "-o", "sum"]).expect_done();
    assert_eq!(settings(&room, "sum")["r"], 7);
    assert_eq!(answer(&room, &["sum"]), answer(&room, &["a:0.7", "b:-0.4"]));
    assert_eq!(answer(&room, &["a"]), answer(&room, &["a:1.0"]));
    // Combining nothing but one adapter with weight 0 is the base model.
    assert_eq!(answer(&room, &["a:0"]), answer(&room, &[]));
    merge(&["a", "b", "-o", "sum"]).expect_refusal(&["sum exists already", "--force"]);
    merge(&["a", "b", "-o", "sum", "--force", "--method", "svd", "--svd-rank", "2"]).expect_done();
    assert_eq!(settings(&room, "sum")["r"], 2);
    merge(&["a", "b", "-o", "x", "--method", "linear"]).expect_refusal(&["rank", "cat or svd"]);
    merge(&["a", "-o", "x", "--method", "ties"]).expect_refusal(&["needs --density"]);
    merge(&["a", "-o", "x", "--density", "0.5"]).expect_refusal(&["has no --density"]);
    merge(&["a", "nowhere", "-o", "x"]).expect_refusal(&["nowhere"]);
    merge(&["a:nan", "-o", "x"]).expect_refusal(&["weight"]);
    assert!(!room.path("x").exists(), "nothing is left of what was refused");
    let leftovers = room.names().into_iter().filter(|name| name.starts_with(".adapter-")).count();
    assert_eq!(leftovers, 0);
}
