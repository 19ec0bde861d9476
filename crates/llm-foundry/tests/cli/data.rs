//! `data preview` and `data report`.

use crate::support::Room;
use serde_json::Value;

#[test]
fn a_preview_shows_masks_special_tokens_and_boundaries() {
    let room = Room::new();
    room.lora_run("");
    let args = ["data", "preview", "config.yaml", "data.packing=true", "data.max_length=80", "--rows", "1"];
    let said = room.foundry(&args).expect_done();
    for word in [
        "row 0 of",
        "── sequence 1 of 2: ",
        "── sequence 2 of 2: ",
        // Everything is learned but the first token of each sequence, line breaks included.
        "<|im_start|>⟦user↵",
        "<|im_start|>assistant↵",
        "<|im_end|>↵",
        "learned; the rest is only read",
    ] {
        assert!(said.out.contains(word), "no `{word}` in:\n{}", said.out);
    }
    assert!(!said.out.contains('\u{1b}'), "no colour where standard output is no terminal");
    let coloured = room
        .command(&args)
        .env("CLICOLOR_FORCE", "1")
        .output()
        .map(|o| String::from_utf8_lossy(&o.stdout).into_owned())
        .expect("the binary starts");
    assert!(coloured.contains("\u{1b}[32;7m<|im_end|>\u{1b}[0m"), "{coloured}");
    let plain =
        room.command(&args).env("CLICOLOR_FORCE", "1").env("NO_COLOR", "1").output().expect("started");
    assert!(!String::from_utf8_lossy(&plain.stdout).contains('\u{1b}'), "NO_COLOR wins");

    let json = room
        .foundry(&["data", "preview", "config.yaml", "--rows", "2", "--from", "5", "--json"])
        .expect_done();
    let rows: Vec<Value> = json.out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!((rows.len(), &rows[1]["row"]), (2, &6.into()));
    let count = |key: &str| rows[0][key].as_array().expect("a list").len();
    assert_eq!(count("tokens"), count("labels"));
    assert!(rows[0]["text"].as_str().expect("text").contains("number 5."));
}

#[test]
fn a_report_counts_lengths_masks_and_duplicates() {
    let room = Room::new();
    room.lora_run("");
    let twice = room.read("train.jsonl").repeat(2);
    room.write("train.jsonl", twice);
    let said = room.foundry(&["data", "report", "config.yaml", "data.eval_fraction=0.25"]).expect_done();
    for word in [
        "training data\n",
        "36 example(s)",
        "evaluation data\n",
        "12 example(s)",
        "half at most",
        "double BOS 0",
    ] {
        assert!(said.out.contains(word), "no `{word}` in:\n{}", said.out);
    }
    let json = room.foundry(&["data", "report", "config.yaml", "--json"]).expect_done();
    let report: Value = serde_json::from_str(&json.out).expect("JSON");
    let train = &report["train"];
    assert_eq!(
        (&train["examples"], &train["duplicates"], &train["compared"]),
        (&48.into(), &24.into(), &48.into())
    );
    assert_eq!(train["eos_trained_percent"], 100.0);
    let counted: u64 =
        train["lengths"].as_array().expect("classes").iter().filter_map(|c| c["examples"].as_u64()).sum();
    assert_eq!(counted, 48);
    assert_eq!(train["files"][0]["tokens"], train["tokens"]);
    assert!(train["warnings"][0].as_str().expect("a warning").contains("24 of 48 example(s) repeat"));
    assert_eq!(report["eval"], Value::Null);
}

#[test]
fn looking_at_data_needs_no_model_weights_and_says_what_is_missing() {
    let room = Room::new();
    room.lora_run("");
    let model = room.model("model");
    std::fs::remove_file(model.join("model.safetensors")).expect("removed");
    room.foundry(&["data", "report", "config.yaml", "model.name_or_path=model"]).expect_done();
    std::fs::remove_file(model.join("tokenizer.json")).expect("removed");
    room.foundry(&["data", "report", "config.yaml", "model.name_or_path=model"])
        .expect_refusal(&["tokenizer.json"]);
    room.foundry(&["data", "preview", "config.yaml", "--eval"])
        .expect_refusal(&["no evaluation data", "data.eval"]);
    room.foundry(&["data", "preview", "config.yaml", "--from", "24"])
        .expect_refusal(&["--from 24", "24 row(s), numbered from 0"]);
    room.foundry(&["data", "preview", "config.yaml", "data.train=nowhere.jsonl"])
        .expect_refusal(&["no file nowhere"]);
}

#[test]
fn templates_have_names_and_turns_are_chosen() {
    let room = Room::new();
    room.lora_run("");
    let preview = |more: &[&str]| {
        let args = ["data", "preview", "config.yaml", "--rows", "1"];
        room.foundry(&[&args[..], more].concat())
    };
    let said = preview(&["tokenizer.chat_template=chatml", "data.train_on=all"]).expect_done();
    assert!(
        said.out.contains("<|im_start|>assistant↵\n⟦The ") && said.out.contains("<|im_end|>⟧"),
        "{}",
        said.out
    );
    let said = preview(&["tokenizer.chat_template=chatml", "data.train_on=[user]"]).expect_done();
    assert!(said.out.contains("<|im_start|>user↵\n⟦Say something"), "{}", said.out);
    preview(&["tokenizer.chat_template=chatlm"])
        .expect_refusal(&["chatlm", "a built-in one: alpaca, chatml, gemma"]);
    preview(&["data.train_on=first"]).expect_refusal(&["first", "last"]);
    preview(&["data.train_on=[]"]).expect_refusal(&["`data.train_on` names no role"]);
    preview(&["data.train_on=[user]", "data.assistant_only_loss=true"]).expect_refusal(&["keep one of them"]);
    preview(&["data.multi_turn=splt"]).expect_refusal(&["did you mean `split`?"]);
}

#[test]
fn data_that_never_ends_is_refused_unless_that_is_meant() {
    let room = Room::new();
    room.lora_run("  max_steps: 1\n  save_strategy: \"no\"\n");
    let endless =
        "tokenizer.chat_template='{% for m in messages %}{{ m.role }}: {{ m.content }} {% endfor %}'";
    room.foundry(&["train", "config.yaml", endless])
        .expect_refusal(&["no example trains an end-of-sequence token", "data.allow_missing_eos=true"]);
    assert!(!room.names().contains(&"run".to_owned()), "nothing was written");
    room.foundry(&["train", "config.yaml", endless, "data.allow_missing_eos=true"]).expect_done();
}

#[test]
fn tokens_are_written_in_shards_and_trained_on() {
    let room = Room::new();
    room.lora_run("  max_steps: 4\n  save_strategy: \"no\"\n");
    let tokenize = |more: &[&str]| {
        let args = ["data", "tokenize", "config.yaml", "-o", "tokens", "data.train_on=all"];
        room.foundry(&[&args[..], more].concat())
    };
    let said = tokenize(&["--shard", "0/2"]).expect_done();
    assert!(said.out.contains("shard 0/2 in tokens: 12 documents"), "{}", said.out);
    let train = |more: &[&str]| room.foundry(&[&["train", "config.yaml"][..], more].concat());
    train(&["data.train=tokens"])
        .expect_refusal(&["data.train: tokens: 1 of 2 shard(s) are not complete (1/2)"]);
    tokenize(&["--shard", "1/2"]).expect_done();
    let said = tokenize(&["--shard", "1/2", "--json"]).expect_done();
    let done: Value = serde_json::from_str(&said.out).expect("JSON");
    assert_eq!((&done["was_complete"], &done["counts"]["documents"]), (&true.into(), &12.into()));
    tokenize(&["--shard", "2/2"]).expect_refusal(&["shards are numbered from 0 to 1, not 2"]);
    tokenize(&["--shard", "2"]).expect_refusal(&["0/4"]);
    tokenize(&["--shard", "1/2", "data.append_eos=false"]).expect_refusal(&["is there already", "--force"]);

    // One shard: the rows of the file, in memory and as a stream; packed, mixed and shuffled.
    let one = ["data", "tokenize", "config.yaml", "-o", "whole", "data.train_on=all"];
    room.foundry(&one).expect_done();
    let preview = |more: &[&str]| {
        let args = ["data", "preview", "config.yaml", "--json", "--rows", "99", "data.packing=true"];
        room.foundry(&[&args[..], more].concat()).expect_done().out
    };
    assert_eq!(preview(&["data.train=whole"]), preview(&["data.train_on=all"]));
    assert_eq!(
        preview(&["data.train=whole", "data.streaming=true", "training.max_steps=1"]),
        preview(&["data.train_on=all"])
    );
    let held_out = ["data.eval_fraction=0.25", "data.shuffle_dataset=true", "--eval"];
    for rows in [&held_out[..2], &held_out[..]] {
        let tokens = preview(&[&["data.train=whole"], rows].concat());
        assert_eq!(tokens, preview(&[&["data.train_on=all"], rows].concat()));
    }
    train(&["data.train=whole", "output_dir=a"]).expect_done();
    train(&["data.train_on=all", "output_dir=b"]).expect_done();
    let adapter = |run: &str| std::fs::read(room.path(run).join("adapter_model.safetensors")).expect("saved");
    assert!(adapter("a") == adapter("b"), "tokens and texts train differently");
    // Tokens are not held, and a run goes on at its place in them.
    let plan = room.foundry(&["plan", "config.yaml", "data.train=whole"]).expect_done();
    assert!(plan.out.contains("read from token files in random order"), "{}", plan.out);
    let saving = ["data.train=whole", "training.save_strategy=steps", "training.save_steps=2"];
    train(&[&saving[..], &["output_dir=d"]].concat()).expect_done();
    train(&[&saving[..], &["output_dir=e", "--resume", "d/checkpoint-2"]].concat()).expect_done();
    assert!(adapter("a") == adapter("d") && adapter("d") == adapter("e"), "a resumed run goes another way");
    let mixture = "data.sources=[{path: whole, weight: 2}, {path: train.jsonl, weight: 1}]";
    let mixed = ["~data.train", mixture, "data.streaming=true", "data.packing=true", "output_dir=c"];
    train(&mixed).expect_done();

    train(&["data.train=whole", "data.train_on=last"])
        .expect_refusal(&["`data.train_on` is \"last\"", "\"all\""]);
    // What was given is asked for, even where it is the default; what an earlier run has filled in was not given.
    train(&["data.train=whole", "data.multi_turn=whole", "output_dir=f"]).expect_done();
    let one = ["data", "tokenize", "config.yaml", "-o", "silent", "data.append_eos=false"];
    room.foundry(&one).expect_done();
    let given = ["data.train=silent", "data.append_eos=true", "output_dir=g"];
    train(&given).expect_refusal(&["`data.append_eos` is true, but these tokens were made with false"]);
    train(&["data.train=silent", "output_dir=g"]).expect_done();
    let again = ["train", "g/config.resolved.yaml", "output_dir=h"];
    room.foundry(&again).expect_done();
    train(&["data.train=whole", "tokenizer.add_tokens=[<new>]"])
        .expect_refusal(&["made with another tokenizer"]);
    train(&["data.train=whole", "tokenizer.chat_template=chatml"]).expect_refusal(&["another chat template"]);
    std::fs::write(room.path("whole/shard-00000-of-00001.00000.tokens"), "LFTOKENS").expect("written");
    train(&["data.train=whole"]).expect_refusal(&["00000.tokens: not to be trusted: it has 8 bytes"]);
}

#[test]
fn a_data_set_of_the_hub_is_read_from_the_cache() {
    let room = Room::new();
    room.lora_run("  max_steps: 1\n  save_strategy: \"no\"\n");
    let run =
        |more: &[&str]| room.foundry(&[&["data", "report", "config.yaml", "--json"][..], more].concat());
    run(&["data.train=org/name"]).expect_refusal(&[
        "data.train: no file or directory org/name here, so it was looked up as a data set of the hub",
        "the data set is not in the cache",
        "HF_HUB_OFFLINE",
    ]);
    let repository = "hf-home/hub/datasets--org--name";
    let commit = "0123456789abcdef0123456789abcdef01234567";
    room.write(&format!("{repository}/refs/main"), commit);
    let rows = room.read("train.jsonl");
    room.write(&format!("{repository}/snapshots/{commit}/train.jsonl"), &rows);
    room.write(&format!("{repository}/snapshots/{commit}/test.jsonl"), rows.lines().next().expect("a row"));
    let said = run(&["data.train=org/name", "data.eval=org/name"]).expect_done();
    let report: Value = serde_json::from_str(&said.out).expect("JSON");
    assert_eq!((&report["train"]["examples"], &report["eval"]["examples"]), (&24.into(), &1.into()));
    let said = run(&["~data.train", "data.sources=[{path: org/name, split: test}]"]).expect_done();
    assert!(said.out.contains("\"examples\": 1,"), "{}", said.out);
    run(&["data.train=org/name", "data.split=dev"])
        .expect_refusal(&["org/name (revision main): it has no split `dev`; it has test, train"]);
    run(&["data.train=org/name", "data.revision=v2"]).expect_refusal(&["(revision v2)", "not in the cache"]);
    run(&["data.split=test"])
        .expect_refusal(&["data.split is about data sets of the hub, but data.train names none"]);
    room.foundry(&["train", "config.yaml", "data.train=org/name"]).expect_done();
}
