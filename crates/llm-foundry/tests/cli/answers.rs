//! `generate` and `chat`.

use crate::support::{Room, tiny_model};
use serde_json::{Value, json};

fn model() -> &'static str {
    tiny_model().to_str().expect("UTF-8")
}

fn json_answer(room: &Room, more: &[&str]) -> Value {
    let args = [&["generate", model(), "--prompt", "The cat", "--json", "--dtype", "float32"], more].concat();
    let said = room.foundry(&args).expect_done();
    serde_json::from_str(&said.out).expect("one JSON object")
}

#[test]
fn greedy_answers_are_the_same_every_time() {
    let room = Room::new();
    let first = json_answer(&room, &["--max-new-tokens", "8"]);
    let again = json_answer(&room, &["--max-new-tokens", "8", "--greedy", "--seed", "7"]);
    assert_eq!(first["token_ids"], again["token_ids"]);
    assert!(first["token_ids"].as_array().expect("a list").len() <= 8);
    assert_eq!(first["sampling"]["do_sample"], false);
    let args = ["generate", model(), "--prompt", "The cat", "--dtype", "float32", "--max-new-tokens", "8"];
    let plain = room.foundry(&args).expect_done();
    assert_eq!(
        plain.out.trim_end_matches('\n'),
        first["text"].as_str().expect("a text").trim_end_matches('\n')
    );
}

#[test]
fn draws_follow_the_seed() {
    let room = Room::new();
    let draw = |seed: &str| {
        json_answer(&room, &["--max-new-tokens", "12", "--temperature", "2", "--seed", seed])["token_ids"]
            .clone()
    };
    assert_eq!(draw("1"), draw("1"));
    assert_ne!(draw("1"), draw("2"), "twelve tokens at temperature 2");
}

#[test]
fn stop_strings_end_the_answer_and_are_not_part_of_it() {
    let room = Room::new();
    let whole = json_answer(&room, &["--max-new-tokens", "12"]);
    let text = whole["text"].as_str().expect("a text");
    let stop: String = text.chars().skip(2).take(2).collect();
    let cut = json_answer(&room, &["--max-new-tokens", "12", "--stop", &stop]);
    assert_eq!(cut["finish_reason"], "stop_string", "{cut}");
    assert_eq!(cut["text"].as_str().expect("a text"), &text[..text.find(&stop).expect("it occurs")]);
}

#[test]
fn messages_come_from_a_file_or_standard_input() {
    let room = Room::new();
    let messages = json!([{"role": "user", "content": "Hello"}]).to_string();
    room.write("m.json", &messages);
    let args = ["generate", model(), "--json", "--max-new-tokens", "4", "--messages"];
    let file = room.foundry(&[&args[..], &["m.json"]].concat()).expect_done();
    let stdin = room.foundry_reading(&[&args[..], &["-"]].concat(), &messages).expect_done();
    let ids = |text: &str| serde_json::from_str::<Value>(text).expect("JSON")["prompt_token_ids"].clone();
    assert_eq!(ids(&file.out), ids(&stdin.out));
    let object = json!({"messages": [{"role": "user", "content": "Hello"}]}).to_string();
    let stdin = room.foundry_reading(&[&args[..], &["-"]].concat(), &object).expect_done();
    assert_eq!(ids(&file.out), ids(&stdin.out));
}

#[test]
fn an_adapter_changes_the_answer() {
    let room = Room::new();
    room.lora_run("  max_steps: 40\n  save_strategy: \"no\"\n");
    room.foundry(&["train", "config.yaml", "lora.lora_dropout=0"]).expect_done();
    let question = json!([{"role": "user", "content": "Say something about the cat number 0."}]).to_string();
    let args = ["generate", model(), "--dtype", "float32", "--messages", "-", "--max-new-tokens", "24"];
    let before = room.foundry_reading(&args, &question).expect_done();
    let after = room.foundry_reading(&[&args[..], &["--adapter", "run"]].concat(), &question).expect_done();
    assert_ne!(before.out, after.out);
    let spoiled = room.foundry_reading(&[&args[..], &["--adapter", "nowhere"]].concat(), &question);
    spoiled.expect_refusal(&["nowhere"]);
}

#[test]
fn a_chat_reads_lines_and_remembers_them() {
    let room = Room::new();
    let args = ["chat", model(), "--max-new-tokens", "3", "--system", "Be brief."];
    let said = room.foundry_reading(&args, "Hello\n\nAnd again\n/reset\nHello\n").expect_done();
    assert_eq!(said.err, "");
    assert!(said.out.lines().count() >= 3, "an answer for each line:\n{}", said.out);
    room.foundry_reading(&["chat", model(), "--max-length", "8"], "Too much for eight tokens\n")
        .expect_refusal(&["room for 8"]);
}

/// Prompts and conversations of a file, answered together: each as if it were alone.
#[test]
fn lines_of_a_file_are_answered_in_their_order() {
    let room = Room::new();
    let chat = json!([{"role": "user", "content": "Hello"}]);
    let lines = [
        json!({"id": 7, "prompt": "The cat"}),
        json!({"messages": chat}),
        json!({"prompt": "The dog is", "note": "kept"}),
        json!({"prompt": "The cat is here. The cat"}),
    ];
    room.write("prompts.jsonl", lines.iter().map(|line| format!("{line}\n\n")).collect::<String>());
    let args = ["generate", model(), "--dtype", "float32", "--max-new-tokens", "8", "--json", "--seed", "5"];
    let said = room.foundry(&[&args[..], &["--prompts", "prompts.jsonl"]].concat()).expect_done();
    let found: Vec<Value> = said.out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!((found.len(), &found[0]["id"], &found[2]["note"]), (4, &json!(7), &json!("kept")));
    let alone = json_answer(&room, &["--max-new-tokens", "8"]);
    assert_eq!(found[0]["token_ids"], alone["token_ids"]);
    assert_eq!((&found[0]["answer"], &found[0]["finish_reason"]), (&alone["text"], &alone["finish_reason"]));
    let stdin =
        room.foundry_reading(&[&args[..], &["--messages", "-"]].concat(), &chat.to_string()).expect_done();
    let alone: Value = serde_json::from_str(&stdin.out).expect("JSON");
    assert_eq!(found[1]["token_ids"], alone["token_ids"]);
    assert!(said.err.contains("4 answers"), "{}", said.err);
    // One at a time, drawn: line 3 has seed 5 + 4, as blank lines count.
    let drawn = ["--temperature", "2", "--prompts", "-", "--batch-size", "1"];
    let text: String = lines.iter().map(|line| format!("{line}\n\n")).collect();
    let said = room.foundry_reading(&[&args[..], &drawn].concat(), &text).expect_done();
    let third: Value = serde_json::from_str(said.out.lines().nth(2).expect("three lines")).expect("JSON");
    let single = ["generate", model(), "--dtype", "float32", "--max-new-tokens", "8", "--json", "--prompt"];
    let more = ["The dog is", "--temperature", "2", "--seed", "9"];
    let alone = room.foundry(&[&single[..], &more].concat()).expect_done();
    let alone: Value = serde_json::from_str(&alone.out).expect("JSON");
    assert_eq!(third["token_ids"], alone["token_ids"]);
}

#[test]
fn a_wrong_line_is_named() {
    let room = Room::new();
    for (line, words) in [
        ("{\"prompt\": 3}", ["prompts.jsonl:2", "not a text"]),
        ("{\"text\": \"x\"}", ["prompts.jsonl:2", "neither"]),
        ("{\"prompt\": \"x\", \"messages\": []}", ["prompts.jsonl:2", "both"]),
        ("{\"prompt\": \"x\", \"answer\": 1}", ["prompts.jsonl:2", "answer"]),
        ("{\"messages\": [{}]}", ["prompts.jsonl:2", "role"]),
        ("[]", ["prompts.jsonl:2", "not an object"]),
        ("{", ["prompts.jsonl:2", "column"]),
        ("{\"prompt\": \"a a a a a a a a a a a a a a a a\"}", ["line 2", "--max-length"]),
    ] {
        room.write("prompts.jsonl", format!("{{\"prompt\": \"a\"}}\n{line}\n"));
        let args = ["generate", model(), "--prompts", "prompts.jsonl", "--max-length", "12"];
        room.foundry(&args).expect_refusal(&words);
    }
    room.write("prompts.jsonl", "\n");
    room.foundry(&["generate", model(), "--prompts", "prompts.jsonl"]).expect_refusal(&["no lines"]);
}
