//! Checkpoints that were damaged after they were written: refused wherever they are used as a model or an adapter.

use crate::support::{Room, Said, tiny_model};
use std::path::PathBuf;

fn model() -> &'static str {
    tiny_model().to_str().expect("UTF-8")
}

/// Changes a bit in the middle of a file.
fn flip(path: PathBuf) {
    let mut bytes = std::fs::read(&path).expect("read");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(path, bytes).expect("written");
}

/// Every command that reads an adapter in `dir`.
fn with_adapter(dir: &str) -> Vec<Vec<&str>> {
    let mut commands = vec![
        vec!["merge", model(), dir, "-o", "out", "--no-check"],
        vec!["adapters", "merge", dir, "-o", "out"],
        vec!["generate", model(), "--adapter", dir, "--prompt", "a", "--max-new-tokens", "1"],
        vec!["chat", model(), "--adapter", dir],
        vec!["eval", model(), "--adapter", dir, "--include-path", "tasks", "--tasks", "animals"],
        vec!["push", dir, "me/it", "--dry-run"],
        vec!["export", dir, "--target", "vllm"],
    ];
    if cfg!(feature = "serve") {
        commands.push(vec!["serve", model(), "--adapter", dir, "--port", "0"]);
    }
    commands
}

/// Every command that reads a model in `dir`.
fn with_model(dir: &str) -> Vec<Vec<&str>> {
    let mut commands = vec![
        vec!["merge", dir, "adapter", "-o", "out", "--no-check"],
        vec!["generate", dir, "--prompt", "a", "--max-new-tokens", "1"],
        vec!["chat", dir],
        vec!["eval", dir, "--include-path", "tasks", "--tasks", "animals"],
        vec!["push", dir, "me/it", "--dry-run"],
        vec!["export", dir, "--target", "vllm"],
    ];
    if cfg!(feature = "serve") {
        commands.push(vec!["serve", dir, "--port", "0"]);
    }
    for to in ["gguf", "ollama", "safetensors"] {
        commands.push(vec!["export", dir, "--to", to, "-o", "out", "--no-check"]);
    }
    commands
}

fn trained() -> Room {
    let room = Room::new();
    room.lora_run("  max_steps: 3\n  save_steps: 1\n  save_total_limit: null\n");
    room.foundry(&["train", "config.yaml"]).expect_done();
    room
}

#[test]
fn an_adapter_is_refused_by_every_command_and_the_one_before_offered() {
    let room = trained();
    flip(room.path("run/checkpoint-2/tokenizer.json"));
    flip(room.path("run/checkpoint-3/adapter_model.safetensors"));
    let words = [
        "run/checkpoint-3 is damaged",
        "adapter_model.safetensors has changed",
        "sound before it: run/checkpoint-1",
    ];
    // To begin another run with it.
    let config = room.read("config.yaml");
    let own = "  r: 4\n  lora_alpha: 8\n  lora_dropout: 0.1\n";
    room.write("next.yaml", config.replace(own, "  adapter: run/checkpoint-3\n"));
    room.foundry(&["train", "next.yaml", "output_dir=next"]).expect_refusal(&words);
    crate::eval::write_tasks(&room);
    let before = room.names();
    for args in with_adapter("run/checkpoint-3") {
        room.foundry(&args).expect_refusal(&words);
        assert_eq!(room.names(), before, "{args:?}: nothing is written");
    }
    // By a name that tells no step.
    let here = room
        .command(&["push", ".", "me/it", "--dry-run"])
        .current_dir(room.path("run/checkpoint-3"))
        .output();
    Said::from(here.expect("the binary starts")).expect_refusal(&["adapter_model.safetensors"]);
    // What a run alone reads is no part of the adapter; nor is the manifest of a stranger, or none, a damage.
    flip(room.path("run/checkpoint-1/optimizer.safetensors"));
    let merge = |dir: &str| room.foundry(&["merge", model(), dir, "-o", "out", "--no-check", "--force"]);
    merge("run/checkpoint-1").expect_done();
    std::fs::remove_file(room.path("run/checkpoint-3/manifest.json")).expect("removed");
    merge("run/checkpoint-3").expect_done();
    room.write("run/manifest.json", "{\"name\": \"of another program\"}");
    merge("run").expect_done();
}

#[test]
fn a_model_is_refused_by_every_command_and_the_one_before_offered() {
    let room = trained();
    std::fs::rename(room.path("run"), room.path("adapter")).expect("renamed");
    let config = room.read("config.yaml");
    let (start, end) =
        (config.find("lora:").expect("a section"), config.find("training:").expect("a section"));
    room.write("config.yaml", [&config[..start], &config[end..]].concat());
    room.foundry(&["train", "config.yaml"]).expect_done();
    flip(room.path("run/checkpoint-3/model.safetensors"));
    let words =
        ["run/checkpoint-3 is damaged", "model.safetensors has changed", "sound before it: run/checkpoint-2"];
    room.foundry(&["train", "config.yaml", "model.name_or_path=run/checkpoint-3", "output_dir=next"])
        .expect_refusal(&words);
    crate::eval::write_tasks(&room);
    let before = room.names();
    for args in with_model("run/checkpoint-3") {
        room.foundry(&args).expect_refusal(&words);
        assert_eq!(room.names(), before, "{args:?}: nothing is written");
    }
    std::fs::remove_file(room.path("run/checkpoint-3/config.json")).expect("removed");
    room.foundry(&["generate", "run/checkpoint-3", "--prompt", "a"])
        .expect_refusal(&["config.json is missing", "sound before it: run/checkpoint-2"]);
    room.foundry(&["export", "run/checkpoint-2", "--to", "gguf", "--quant", "f32", "-o", "out.gguf"])
        .expect_done();
}
