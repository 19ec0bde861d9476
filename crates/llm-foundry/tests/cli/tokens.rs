//! Added tokens, from the configuration to the exported file.

use crate::support::{Room, tiny_model};
use foundry_formats::ModelFiles;
use serde_json::{Value, json};

/// Tokens of the tiny model.
const OLD: u64 = 768;
const SPECIAL: &str = "tokenizer.add_special_tokens=['<|tool|>']";
const PLAIN: &str = "tokenizer.add_tokens=[zyzzyva]";

/// A room with data that uses both new tokens.
fn room() -> Room {
    let room = Room::new();
    room.lora_run("  max_steps: 3\n  save_strategy: \"no\"\n");
    let line = |i: usize| {
        let answer = format!("<|tool|> zyzzyva number {i} <|tool|>");
        json!({"messages": [{"role": "user", "content": "Say it."}, {"role": "assistant", "content": answer}]})
    };
    room.write("train.jsonl", (0..12).map(|i| format!("{}\n", line(i))).collect::<String>());
    room
}

fn model() -> &'static str {
    tiny_model().to_str().expect("UTF-8")
}

fn json_of(room: &Room, name: &str) -> Value {
    serde_json::from_str(&room.read(name)).expect("JSON")
}

/// Greedy ids after a prompt with a new token.
fn answer(room: &Room, words: &[&str]) -> Value {
    let more = ["--prompt", "A <|tool|> zyzzyva", "--dtype", "float32", "--greedy", "--json"];
    let said = room.foundry(&[&["generate"], words, &more, &["--max-new-tokens", "12"]].concat());
    serde_json::from_str::<Value>(&said.expect_done().out).expect("JSON")["token_ids"].clone()
}

/// Merges, exports, and compares what all three answer.
fn goes_the_whole_way(room: &Room, run: &str) {
    let merged = format!("{run}-merged");
    let args = ["merge", model(), run, "-o", &merged, "--dtype", "float32", "--json"];
    let report: Value = serde_json::from_str(&room.foundry(&args).expect_done().out).expect("JSON");
    // The same sums in another order, in float32, on logits below 10.
    assert!(report["comparison"]["largest_logit_difference"].as_f64().expect("a number") < 1e-4, "{report}");
    assert_eq!(json_of(room, &format!("{merged}/config.json"))["vocab_size"], OLD + 2);
    let gguf = format!("{run}.gguf");
    room.foundry(&["export", &merged, "--to", "gguf", "--quant", "f32", "-o", &gguf]).expect_done();
    let expected = answer(room, &[model(), "--adapter", run]);
    assert_eq!(answer(room, &[&merged]), expected, "{run}");
    assert_eq!(answer(room, &[&gguf]), expected, "{run}");
    let tokenizer = ModelFiles::open(&room.path(&gguf)).expect("opens").tokenizer().expect("there");
    let ids = ["<|tool|>", "zyzzyva"].map(|token| tokenizer.token_to_id(token).map(u64::from));
    assert_eq!(ids, [Some(OLD), Some(OLD + 1)]);
    assert_eq!(tokenizer.decode(&[OLD as u32, OLD as u32 + 1], true).expect("decoded"), "zyzzyva");
}

#[test]
fn new_tokens_are_trained_merged_and_exported() {
    let room = room();
    let rows = "lora.trainable_token_indices=added";
    let said = room.foundry(&["plan", "config.yaml", SPECIAL, PLAIN, rows]).expect_done();
    assert!(said.out.contains("2 token(s) added, ids 768 to 769"), "{}", said.out);
    assert!(!said.out.contains("stay so"), "{}", said.out);
    room.foundry(&["train", "config.yaml", SPECIAL, PLAIN, rows, "output_dir=rows"]).expect_done();
    let config = json_of(&room, "rows/adapter_config.json");
    assert_eq!(config["trainable_token_indices"], json!([OLD, OLD + 1]));
    goes_the_whole_way(&room, "rows");
    let saved = "lora.modules_to_save=[embed_tokens, lm_head]";
    room.foundry(&["train", "config.yaml", SPECIAL, PLAIN, saved, "output_dir=saved"]).expect_done();
    goes_the_whole_way(&room, "saved");
    let said = room.foundry(&["train", "config.yaml", SPECIAL, PLAIN, "output_dir=frozen"]).expect_done();
    assert!(said.err.contains("stay so"), "{}", said.err);
    goes_the_whole_way(&room, "frozen");
    // Training goes on from an adapter with the tokens that it brings.
    let text = room.read("config.yaml");
    let (start, end) = (text.find("lora:").expect("there"), text.find("training:").expect("there"));
    room.write("next.yaml", format!("{}lora:\n  adapter: rows\n{}", &text[..start], &text[end..]));
    room.foundry(&["train", "next.yaml", "output_dir=next"]).expect_done();
    goes_the_whole_way(&room, "next");
}

#[test]
fn a_fully_trained_model_has_the_new_rows() {
    let room = room();
    let text = room.read("config.yaml");
    let (start, end) = (text.find("lora:").expect("there"), text.find("training:").expect("there"));
    room.write("full.yaml", format!("{}{}", &text[..start], &text[end..]));
    let args = ["train", "full.yaml", SPECIAL, PLAIN, "tokenizer.eos_token=<|tool|>", "output_dir=full"];
    room.foundry(&args).expect_done();
    assert_eq!(json_of(&room, "full/config.json")["vocab_size"], OLD + 2);
    assert_eq!(json_of(&room, "full/tokenizer_config.json")["eos_token"], "<|tool|>");
    assert_eq!(json_of(&room, "full/config.json")["eos_token_id"], OLD);
    answer(&room, &["full"]);
}

#[test]
fn tokens_that_cannot_be_are_refused() {
    let room = room();
    let refused = |more: &[&str], words: &[&str]| {
        room.foundry(&[&["train", "config.yaml"], more].concat()).expect_refusal(words);
    };
    refused(&["lora.trainable_token_indices=added"], &["trainable_token_indices", "add_tokens"]);
    refused(&["lora.trainable_token_indices=['<|nothing|>']"], &["<|nothing|>", "add_tokens"]);
    refused(&["lora.trainable_token_indices=[70000]"], &["70000", "0 to 767"]);
    refused(&["lora.trainable_token_indices=all"], &["trainable_token_indices", "added"]);
    refused(&["tokenizer.add_tokens=['']"], &["tokenizer.add_tokens", "empty"]);
    refused(&["lora.bias=all"], &["lora.bias", "no biases"]);
}
