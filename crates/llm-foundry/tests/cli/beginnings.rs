//! `init` and `import-config`: configurations that are written for somebody.

use crate::support::{Room, chats, copy_files, tiny_model};
use serde_json::{Value, json};

fn room() -> Room {
    let room = Room::new();
    copy_files(tiny_model(), &room.path("model"));
    room.write("train.jsonl", chats(60));
    room
}

fn init(room: &Room, more: &[&str]) -> crate::support::Said {
    room.foundry(&[&["init", "--model", "model", "--data", "train.jsonl"], more].concat())
}

#[test]
fn what_init_writes_plans_and_trains() {
    let room = room();
    let said = init(&room, &["-o", "new.yaml"]).expect_done();
    assert!(said.err.contains("llm-foundry train new.yaml"), "{}", said.err);
    let text = room.read("new.yaml");
    // As long as the tiny model allows, learning from answers, with some rows kept back.
    for line in [
        "  assistant_only_loss: true",
        "  max_length: 256 ",
        "  eval_fraction: 0.05",
        "lora:\n",
        "output_dir: runs/new",
    ] {
        assert!(text.contains(line), "no `{line}` in:\n{text}");
    }
    let comments = text.lines().filter(|line| line.contains('#')).count();
    assert!(comments >= 12, "{text}");
    room.foundry(&["plan", "new.yaml"]).expect_done();
    room.foundry(&["train", "new.yaml", "training.max_steps=2"]).expect_done();
    assert!(room.path("runs/new/adapter_model.safetensors").is_file());
    init(&room, &["-o", "new.yaml"]).expect_refusal(&["new.yaml is there", "--force"]);
    init(&room, &["-o", "new.yaml", "--force", "--method", "full", "--output-dir", "else where"])
        .expect_done();
    let text = room.read("new.yaml");
    assert!(!text.contains("\nlora:") && text.contains("output_dir: \"else where\""), "{text}");
    init(&room, &["-o", "q.yaml", "--method", "qlora", "--eval", "train.jsonl"]).expect_done();
    let text = room.read("q.yaml");
    assert!(text.contains("  load_in_4bit: true") && text.contains("  eval: train.jsonl"), "{text}");
}

#[test]
fn plain_text_becomes_pre_training_and_a_missing_template_is_filled_in() {
    let room = room();
    let rows: String = (0..60)
        .map(|i| format!("{}\n", json!({"text": format!("The cat {i} sat on the mat. ").repeat(9)})))
        .collect();
    room.write("text.jsonl", rows);
    room.foundry(&["init", "--model", "model", "--data", "text.jsonl", "-o", "text.yaml"]).expect_done();
    let text = room.read("text.yaml");
    assert!(
        text.contains("bfd_split") && text.contains("num_train_epochs: 1 ") && !text.contains("assistant"),
        "{text}"
    );
    room.foundry(&["plan", "text.yaml"]).expect_done();

    for name in ["chat_template.jinja", "tokenizer_config.json"] {
        let path = room.path("model").join(name);
        let Ok(text) = std::fs::read_to_string(&path) else { continue };
        match serde_json::from_str::<Value>(&text) {
            Ok(mut config) => {
                config.as_object_mut().expect("an object").remove("chat_template");
                std::fs::write(&path, config.to_string()).expect("written");
            }
            Err(_) => std::fs::remove_file(&path).expect("removed"),
        }
    }
    init(&room, &["-o", "chats.yaml"]).expect_done();
    assert!(room.read("chats.yaml").contains("  chat_template: chatml\n"), "{}", room.read("chats.yaml"));
}

#[test]
fn init_writes_nothing_that_does_not_plan() {
    let room = room();
    let before = room.names();
    let said = room.foundry(&["init", "--model", "model", "--data", "absent.jsonl"]);
    said.expect_refusal(&["absent.jsonl"]);
    room.foundry(&["init", "--model", "absent", "--data", "train.jsonl"]).expect_refusal(&["absent"]);
    // Nobody is there to ask.
    room.foundry_reading(&["init", "--model", "model"], "train.jsonl\n")
        .expect_refusal(&["no terminal", "--data"]);
    assert_eq!(room.names(), before);
    room.foundry(&["init", "--model", "org/a", "--data", "b.jsonl", "--no-check"]).expect_done();
    assert!(room.read("my_run.yaml").contains("name_or_path: org/a"));
}

#[test]
fn imported_configurations_plan_and_name_what_is_missing() {
    let room = room();
    let theirs = "base_model: model\nadapter: lora\nlora_r: 4\nlora_alpha: 8\ndatasets:\n  - path: train.jsonl\n    \
        type: chat_template\nsequence_len: 64\nsample_packing: true\nlearning_rate: 1e-3\nnum_epochs: 1\n\
        deepspeed: zero2.json\nflash_attention: true\noutput_dir: out\n";
    room.write("theirs.yaml", theirs);
    let said = room.foundry(&["import-config", "theirs.yaml", "-o", "ours.yaml"]).expect_done();
    for words in [
        "deepspeed: zero2.json  (one process on one machine)",
        "flash_attention: true",
        "llm-foundry plan ours.yaml",
    ] {
        assert!(said.err.contains(words), "no `{words}` in:\n{}", said.err);
    }
    assert!(room.read("ours.yaml").contains("#   deepspeed: zero2.json"), "{}", room.read("ours.yaml"));
    room.foundry(&["plan", "ours.yaml"]).expect_done();
    let printed = room.foundry(&["import-config", "theirs.yaml", "-q"]).expect_done();
    assert_eq!((printed.out, printed.err), (room.read("ours.yaml"), String::new()));
    room.foundry(&["import-config", "theirs.yaml", "-o", "ours.yaml"])
        .expect_refusal(&["ours.yaml is there"]);
    room.write("dpo.yaml", "base_model: model\nrl: dpo\n");
    room.foundry(&["import-config", "dpo.yaml"]).expect_refusal(&["rl: dpo", "another method"]);
    room.foundry(&["import-config", "absent.yaml"]).expect_refusal(&["absent.yaml"]);
}
