//! What merge, export and adapters must not take away, lose or claim.

use crate::support::{Room, copy_files, rewrite_tensors, tiny_model};
use serde_json::Value;
use std::path::Path;

fn model() -> &'static str {
    tiny_model().to_str().expect("UTF-8")
}

/// A room in which `run` holds a trained adapter.
fn room() -> Room {
    let room = Room::new();
    room.lora_run("  max_steps: 2\n  save_steps: 1\n");
    room.foundry(&["train", "config.yaml"]).expect_done();
    room
}

fn json_of(room: &Room, name: &str) -> Value {
    serde_json::from_str(&room.read(name)).expect("JSON")
}

#[test]
fn force_never_deletes_a_run_or_what_is_read() {
    let room = room();
    let before = room.read("run/metrics.jsonl");
    room.foundry(&["merge", model(), "run", "-o", "run", "--force"])
        .expect_refusal(&["run", "is read from there"]);
    room.foundry(&["export", model(), "--to", "safetensors", "-o", "run", "--force"])
        .expect_refusal(&["run", "may be a run"]);
    room.foundry(&["export", model(), "--to", "gguf", "-o", "run", "--force"])
        .expect_refusal(&["is a directory"]);
    room.foundry(&["adapters", "merge", "run", "-o", "run", "--force"])
        .expect_refusal(&["is read from there"]);
    assert_eq!(room.read("run/metrics.jsonl"), before);
    room.foundry(&["merge", model(), "run", "-o", "merged"]).expect_done();
    room.foundry(&["merge", model(), "run/checkpoint-1", "-o", "merged", "--force"]).expect_done();
    let hidden: Vec<String> = room.names().into_iter().filter(|name| name.starts_with('.')).collect();
    assert!(hidden.is_empty(), "{hidden:?}");
}

#[test]
fn a_run_does_not_write_over_a_project() {
    let room = room();
    room.write("project/README.md", "# Mine\n");
    room.foundry(&["train", "config.yaml", "output_dir=project"]).expect_refusal(&["project", "README.md"]);
    assert_eq!(room.read("project/README.md"), "# Mine\n");
}

#[test]
fn every_result_has_a_model_card() {
    let room = room();
    room.foundry(&["merge", model(), "run", "-o", "merged"]).expect_done();
    let card = room.read("merged/README.md");
    assert!(card.contains("library_name: transformers") && card.contains("the adapter `run`"), "{card}");
    assert!(card.contains("mean KL divergence from base with adapter"), "{card}");
    room.foundry(&["export", "merged", "--to", "safetensors", "--quant", "fp8", "-o", "small"]).expect_done();
    assert!(room.read("small/README.md").contains("written as fp8"));
    room.foundry(&["adapters", "merge", "run:0.5", "-o", "half"]).expect_done();
    let card = room.read("half/README.md");
    assert!(card.contains("library_name: peft") && card.contains("0.5 times `run`"), "{card}");
    let said = room.foundry(&["push", "run", "me/run", "--dry-run"]).expect_done();
    assert!(said.err.contains("README.md shows the command"), "{}", said.err);
    assert!(said.err.contains("adapter_config.json names its base model"), "{}", said.err);
    assert!(
        !room.foundry(&["push", "merged", "me/run", "--dry-run"]).expect_done().err.contains("README.md")
    );
}

#[test]
fn cards_show_no_directories_of_this_machine() {
    let room = Room::new();
    room.lora_run("  max_steps: 1\n  save_strategy: \"no\"\n");
    let absolute = |name: &str| room.path(name).to_str().expect("UTF-8").to_owned();
    let (config, train) = (absolute("config.yaml"), format!("data.train=['{}']", absolute("train.jsonl")));
    let output = format!("output_dir={}", absolute("run"));
    room.foundry(&["train", &config, &train, &output]).expect_done();
    room.foundry(&["merge", model(), &absolute("run"), "-o", &absolute("merged")]).expect_done();
    room.foundry(&["export", &absolute("merged"), "--to", "safetensors", "-o", &absolute("again")])
        .expect_done();
    let above = |path: &str| Path::new(path).parent().expect("there").to_str().expect("UTF-8").to_owned();
    for name in ["run", "merged", "again"] {
        let card = room.read(&format!("{name}/README.md"));
        for place in [above(&absolute("run")), above(model())] {
            assert!(!card.contains(&place), "{name}: {place} in:\n{card}");
        }
    }
    let card = room.read("run/README.md");
    for shown in
        ["train config.yaml", "output_dir=run", "name_or_path: tiny-model", "| files | train.jsonl |"]
    {
        assert!(card.contains(shown), "no `{shown}` in:\n{card}");
    }
    // What stays on this machine can be run again.
    assert!(room.read("run/config.resolved.yaml").contains(&absolute("train.jsonl")));
}

#[test]
fn an_adapter_of_another_base_is_told() {
    let room = room();
    copy_files(tiny_model(), &room.path("other-name"));
    let said = room.foundry(&["merge", "other-name", "run", "-o", "merged"]).expect_done();
    assert!(said.err.contains("says that it belongs to"), "{}", said.err);
    let said = room.foundry(&["merge", model(), "run", "-o", "again"]).expect_done();
    assert!(!said.err.contains("says that it belongs to"), "{}", said.err);
}

#[test]
fn adapters_with_different_tokenizers_keep_the_tokens() {
    let room = room();
    let tokens = ["tokenizer.add_special_tokens=['<|tool|>']", "lora.trainable_token_indices=added"];
    room.foundry(&["train", "config.yaml", tokens[0], tokens[1], "output_dir=more"]).expect_done();
    room.foundry(&["adapters", "merge", "run", "more", "-o", "sum"]).expect_done();
    let added = json_of(&room, "sum/tokenizer.json")["added_tokens"].clone();
    assert!(added.as_array().expect("a list").iter().any(|token| token["content"] == "<|tool|>"), "{added}");
    let other = "tokenizer.add_special_tokens=['<|other|>']";
    room.foundry(&["train", "config.yaml", other, tokens[1], "output_dir=other"]).expect_done();
    room.foundry(&["adapters", "merge", "other", "more", "-o", "both"]).expect_refusal(&[
        "token 768",
        "<|other|>",
        "<|tool|>",
        "contradict",
    ]);
    let generate = ["generate", model(), "--adapter", "other", "--adapter", "more", "--prompt", "a"];
    room.foundry(&generate).expect_refusal(&["contradict"]);
}

#[test]
fn a_new_end_token_ends_generation_everywhere() {
    let room = room();
    let end = ["tokenizer.add_special_tokens=['<|end|>']", "tokenizer.eos_token=<|end|>"];
    let args =
        ["train", "config.yaml", end[0], end[1], "lora.trainable_token_indices=added", "output_dir=ends"];
    room.foundry(&args).expect_done();
    room.foundry(&["merge", model(), "ends", "-o", "merged"]).expect_done();
    assert_eq!(json_of(&room, "merged/config.json")["eos_token_id"], 768);
}

#[test]
fn the_result_is_what_the_target_is_asked_about() {
    let room = Room::new();
    room.foundry(&["export", model(), "--to", "gguf", "--target", "vllm"]).expect_refusal(&["safetensors"]);
    let args =
        ["export", model(), "--to", "safetensors", "--quant", "fp8", "--target", "vllm", "-o", "small"];
    room.foundry(&args).expect_done();
    assert!(room.path("small/model.safetensors").exists());
    room.foundry(&["export", "nobody/nothing", "--target", "vllm"]).expect_refusal(&["nobody/nothing"]);
}

#[test]
fn numbers_that_are_none_are_found_before_few_bits_hide_them() {
    let room = Room::new();
    let path = room.model("broken").join("model.safetensors");
    let mut bytes = std::fs::read(&path).expect("read");
    let end = bytes.len();
    bytes[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    std::fs::write(&path, bytes).expect("written");
    for quant in ["int8", "nf4"] {
        let args = ["export", "broken", "--to", "safetensors", "--quant", quant, "--no-check"];
        room.foundry(&args).expect_refusal(&["NaN"]);
    }
    assert_eq!(room.names(), ["broken"]);
}

#[test]
fn from_gguf_to_gguf_in_one_chain() {
    let room = Room::new();
    room.foundry(&["export", model(), "--to", "gguf", "--quant", "q8_0", "-o", "base.gguf"]).expect_done();
    room.lora_run("  max_steps: 3\n  save_strategy: \"no\"\n");
    room.foundry(&["train", "config.yaml", "model.name_or_path=base.gguf"]).expect_done();
    let said = room
        .foundry(&["merge", "base.gguf", "run", "-o", "merged", "--dtype", "float32", "--json"])
        .expect_done();
    let report: Value = serde_json::from_str(&said.out).expect("JSON");
    // The same sums in another order, in float32, on logits below 10.
    assert!(report["comparison"]["largest_logit_difference"].as_f64().expect("a number") < 1e-4, "{report}");
    room.foundry(&["export", "merged", "--to", "gguf", "--quant", "q4_k_m", "-o", "small.gguf"])
        .expect_done();
    let answer = |words: &[&str]| {
        let more =
            ["--prompt", "The cat", "--max-new-tokens", "8", "--greedy", "--dtype", "float32", "--json"];
        let said = room.foundry(&[&["generate"], words, &more].concat()).expect_done();
        serde_json::from_str::<Value>(&said.out).expect("JSON")["token_ids"].clone()
    };
    assert_eq!(answer(&["merged"]), answer(&["base.gguf", "--adapter", "run"]));
    assert!(!answer(&["small.gguf"]).as_array().expect("ids").is_empty());
}

#[test]
fn an_adapter_of_other_shapes_is_refused_before_anything_is_written() {
    let room = room();
    let base = room.model("narrow");
    let mut config: Value = serde_json::from_str(&room.read("narrow/config.json")).expect("JSON");
    config["num_hidden_layers"] = Value::from(1);
    std::fs::write(base.join("config.json"), config.to_string()).expect("written");
    let first_layer = |name: &str, _: &mut Vec<f32>| (!name.contains("layers.1.")).then(|| name.to_owned());
    rewrite_tensors(&base.join("model.safetensors"), first_layer);
    room.foundry(&["merge", "narrow", "run", "-o", "merged"]).expect_refusal(&["adapter", "layers.1"]);
    assert!(!room.path("merged").exists());
}

/// Every way to write a model, and the merge of an adapter into it, refuse one whose parts do not belong together.
#[test]
fn a_model_that_does_not_fit_itself_is_refused_before_anything_is_written() {
    let room = room();
    let before = room.names();
    let name = "model.layers.1.mlp.up_proj.weight";
    let lacking = |tensor: &str, _: &mut Vec<f32>| (tensor != name).then(|| tensor.to_owned());
    let strange = |tensor: &str, _: &mut Vec<f32>| Some(tensor.replace("1.mlp.up_proj", "1.mlp.odd_proj"));
    type Broken<'a> = (&'a str, &'a dyn Fn(&Path), &'a [&'a str]);
    let broken: [Broken<'_>; 3] = [
        ("lacking", &|dir| rewrite_tensors(&dir.join("model.safetensors"), lacking), &[name]),
        ("strange", &|dir| rewrite_tensors(&dir.join("model.safetensors"), strange), &["mlp."]),
        ("wordy", &|dir| add_tokens(dir, 768), &["tokenizer", "embedding", "768"]),
    ];
    for (dir, spoil, words) in broken {
        spoil(&room.model(dir));
        for to in [
            &["gguf", "--quant", "q4_k_m"][..],
            &["ollama"],
            &["safetensors"],
            &["safetensors", "--quant", "nf4"],
        ] {
            for more in [&["-o", "out"][..], &["-o", "out", "--no-check"]] {
                let args = [&["export", dir, "--to"], to, more].concat();
                room.foundry(&args).expect_refusal(words);
            }
        }
        // An adapter brings a tokenizer of its own.
        if dir != "wordy" {
            room.foundry(&["merge", dir, "run", "-o", "out"]).expect_refusal(words);
            room.foundry(&["merge", dir, "run", "-o", "out", "--no-check"]).expect_refusal(words);
        }
        std::fs::remove_dir_all(room.path(dir)).expect("removed");
        assert_eq!(room.names(), before, "{dir}: nothing is written");
    }
}

/// Adds a token with this id to the tokenizer in `dir`.
pub(crate) fn add_tokens(dir: &Path, id: u32) {
    let path = dir.join("tokenizer.json");
    let mut tokenizer: Value = serde_json::from_slice(&std::fs::read(&path).expect("read")).expect("JSON");
    let token = serde_json::json!({"id": id, "content": "<|more|>", "single_word": false, "lstrip": false, "rstrip": false,
        "normalized": false, "special": true});
    tokenizer["added_tokens"].as_array_mut().expect("a list").push(token);
    std::fs::write(path, tokenizer.to_string()).expect("written");
}

#[test]
fn a_broken_base_is_refused_with_its_tensor() {
    let room = room();
    let path = room.model("broken").join("model.safetensors");
    let mut bytes = std::fs::read(&path).expect("read");
    let end = bytes.len();
    bytes[end - 4..].copy_from_slice(&f32::INFINITY.to_le_bytes());
    std::fs::write(&path, bytes).expect("written");
    room.foundry(&["merge", "broken", "run", "-o", "merged", "--no-check"])
        .expect_refusal(&["inf", "tensor"]);
    assert!(!room.path("merged").exists());
    // A disk that cannot be written to is said before.
    room.foundry(&["merge", model(), "run", "-o", "/proc/none/merged"]).expect_refusal(&["/proc/none"]);
    room.foundry(&["adapters", "merge", "run", "-o", "/proc/none/sum"]).expect_refusal(&["/proc/none"]);
}
