//! Streamed data: resumed runs, choice of the mode, and what is refused.

use crate::support::{Room, Said, chats, lora_config, metrics};
use std::io::Write as _;

/// A compressed, mixed, shuffled and packed stream.
const STREAM: &str = "data:\n  sources:\n  - {path: a.jsonl.gz, weight: 2}\n  - {path: b.csv, weight: 1, columns: \
                      {prompt: q, completion: a}}\n  streaming: true\n  shuffle_buffer: 7\n  packing: true\n  stopping_strategy: all_exhausted\n";

fn room() -> Room {
    let room = Room::new();
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(chats(60).as_bytes()).expect("in memory");
    room.write("a.jsonl.gz", encoder.finish().expect("in memory"));
    let rows: String = (0..40).map(|i| format!("\"How many,\n{i}?\",It is {i}.\n")).collect();
    room.write("b.csv", format!("q,a\n{rows}"));
    let config = lora_config("  max_steps: 20\n  save_steps: 10\n");
    room.write("config.yaml", config.replace("data:\n  train: train.jsonl\n", STREAM));
    room
}

#[test]
fn ten_and_ten_after_a_kill_are_twenty_bit_for_bit() {
    let room = room();
    let train = |output: &str| {
        vec!["train", "config.yaml", output].into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    let run = |args: &[String]| room.foundry(&args.iter().map(String::as_str).collect::<Vec<_>>());
    run(&train("output_dir=whole")).expect_done();
    let killed = room
        .command(&["train", "config.yaml", "output_dir=killed"])
        // While the checkpoint of step 20 is in the making: that of step 10 is complete then.
        .env("FOUNDRY_CRASH_AT", "checkpoint.before_rename#2")
        .output()
        .expect("the binary starts");
    assert_eq!(Said::from(killed).code, None, "it should have been killed");
    let mut resume = train("output_dir=killed");
    resume.push("--resume".to_owned());
    let said = run(&resume).expect_done();
    assert!(said.err.contains("going on from") && said.err.contains("step 10"), "{}", said.err);
    let adapter = |run: &str| std::fs::read(room.path(run).join("adapter_model.safetensors")).expect("saved");
    assert!(adapter("whole") == adapter("killed"), "the weights differ");
    let losses = |run: &str| metrics(&room, run).iter().map(|m| m["loss"].clone()).collect::<Vec<_>>();
    assert_eq!(losses("whole"), losses("killed"));
    // Settings that make other rows are named; batches of another size go on behind the same row.
    let resume = |change: &str| {
        let mut args = train("output_dir=killed");
        args.extend(["training.max_steps=30", change, "--resume"].map(str::to_owned));
        run(&args)
    };
    resume("data.shuffle_buffer=9")
        .expect_refusal(&["was written under other settings", "data.shuffle_buffer: was 7, is 9"]);
    let said = resume("training.per_device_train_batch_size=3").expect_done();
    assert!(said.err.contains("per_device_train_batch_size: was 2, is 3"), "{}", said.err);
    // Other data under the same settings is noticed.
    room.write("b.csv", "q,a\nWhat?,Nothing.\n");
    let mut args = train("output_dir=killed");
    args.extend(["training.max_steps=30".to_owned(), "--resume".to_owned()]);
    run(&args).expect_refusal(&["files of the streamed data", "was written under other settings"]);
}

/// A stream of several chunks: rows of four tokens, a hundred in a step.
fn deep_room() -> Room {
    let room = Room::new();
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(chats(900).as_bytes()).expect("in memory");
    room.write("a.jsonl.gz", encoder.finish().expect("in memory"));
    room.write("b.jsonl", chats(700));
    let rows: String = (0..600).map(|i| format!("\"How many,\n{i}?\",It is {i}.\n")).collect();
    room.write("c.csv", format!("q,a\n{rows}"));
    let config = lora_config("  max_steps: 14\n  save_steps: 12\n");
    let data = "data:\n  sources:\n  - {path: a.jsonl.gz, weight: 2, fraction: 0.8}\n  - {path: b.jsonl, weight: 1, skip: 5}\n  \
                - {path: c.csv, weight: 1, take: 500, columns: {prompt: q, completion: a}}\n  streaming: true\n  \
                shuffle_buffer: 300\n  packing: true\n  stopping_strategy: all_exhausted\n";
    let config =
        config.replace("data:\n  train: train.jsonl\n", data).replace("max_length: 64", "max_length: 4");
    let config = config.replace("per_device_train_batch_size: 2", "per_device_train_batch_size: 100");
    room.write("config.yaml", config);
    room
}

#[test]
fn a_killed_run_goes_on_in_a_later_chunk_with_what_is_in_the_buffer() {
    let room = deep_room();
    let allowed = "data.allow_missing_eos=true";
    room.foundry(&["train", "config.yaml", "output_dir=whole", allowed]).expect_done();
    let killed = room
        .command(&["train", "config.yaml", "output_dir=killed", allowed])
        .env("FOUNDRY_CRASH_AT", "checkpoint.before_rename#2")
        .output()
        .expect("the binary starts");
    assert_eq!(Said::from(killed).code, None, "it should have been killed");
    let state: serde_json::Value =
        serde_json::from_str(&room.read("killed/checkpoint-12/trainer_state.json")).expect("JSON");
    let text = state.to_string();
    // The place of the second chunk: mixture, buffer and all sources are in it.
    assert!(text.contains("\"shuffle\":{") && text.contains("\"mixer\":{"), "{text}");
    room.foundry(&["train", "config.yaml", "output_dir=killed", allowed, "--resume"]).expect_done();
    let adapter = |run: &str| std::fs::read(room.path(run).join("adapter_model.safetensors")).expect("saved");
    assert!(adapter("whole") == adapter("killed"), "the weights differ");
}

#[test]
fn epochs_of_a_stream_are_counted_once_and_end_with_its_rows() {
    let room = Room::new();
    room.lora_run("  num_train_epochs: 2\n  save_steps: 13\n  eval_strategy: epoch\n");
    room.write("eval.jsonl", chats(3));
    room.write("train.jsonl", chats(25));
    let train = |output: &str| {
        let more = ["data.streaming=true", "data.eval=eval.jsonl", output];
        room.foundry(&[&["train", "config.yaml"][..], &more].concat())
    };
    let plan = room.foundry(&["plan", "config.yaml", "data.streaming=true", "data.eval=eval.jsonl"]);
    let plan = plan.expect_done();
    assert!(plan.out.contains("a guess from the first ones"), "{}", plan.out);
    let cut = room.foundry(&[
        "train",
        "config.yaml",
        "data.streaming=true",
        "data.eval=eval.jsonl",
        "data.max_length=8",
    ]);
    assert!(!cut.err.contains("counting the rows"), "{}", cut.err);
    cut.expect_refusal(&["no example trains an end-of-sequence token"]);
    let said = train("output_dir=a").expect_done();
    assert!(said.err.contains("counting the rows"), "{}", said.err);
    assert!(said.err.contains("has 25 rows, counted in"), "{}", said.err);
    let steps = metrics(&room, "a");
    assert_eq!(steps.len(), 26, "25 rows are 13 batches of 2, the last one short");
    assert_eq!((&steps[12]["epoch"], &steps[25]["epoch"]), (&1.0.into(), &2.0.into()));
    let said = train("output_dir=b").expect_done();
    assert!(said.err.contains("has 25 rows, as counted before"), "{}", said.err);
    // It goes on after the first epoch as if it had not stopped.
    std::fs::remove_dir_all(room.path("b/checkpoint-26")).expect("removed");
    let more = ["data.streaming=true", "data.eval=eval.jsonl", "output_dir=b", "--resume"];
    let said = room.foundry(&[&["train", "config.yaml"][..], &more].concat()).expect_done();
    assert!(said.err.contains("step 13"), "{}", said.err);
    let adapter = |run: &str| std::fs::read(room.path(run).join("adapter_model.safetensors")).expect("saved");
    assert!(adapter("a") == adapter("b"), "the weights differ");
    let more = ["data.streaming=true", "data.eval=eval.jsonl", "output_dir=b", "--resume"];
    let other = ["training.per_device_train_batch_size=4", "training.num_train_epochs=9"];
    room.foundry(&[&["train", "config.yaml"][..], &other, &more].concat())
        .expect_refusal(&["per_device_train_batch_size: was 2, is 4"]);
}

#[test]
fn a_run_that_met_a_bad_row_goes_on_without_it() {
    let room = Room::new();
    room.lora_run("  max_steps: 800\n  save_steps: 200\n");
    let config =
        room.read("config.yaml").replace("per_device_train_batch_size: 2", "per_device_train_batch_size: 4");
    room.write("config.yaml", config);
    room.write("train.jsonl", format!("{}{{broken\n{}", chats(2100), chats(1200)));
    let args = ["train", "config.yaml", "data.streaming=true", "training.save_total_limit=1"];
    room.foundry(&args).expect_refusal(&["train.jsonl:2101: broken JSON"]);
    let said = room.foundry(&[&args[..], &["--resume", "data.on_error=skip"]].concat()).expect_done();
    assert!(said.err.contains("going on from"), "{}", said.err);
    assert!(said.err.contains("1 unusable row(s) were left out since the checkpoint"), "{}", said.err);
}

#[test]
fn a_bad_row_is_told() {
    let room = room();
    let said = room.foundry(&["plan", "config.yaml"]).expect_done();
    assert!(said.out.contains("through a shuffle buffer of 7"), "{}", said.out);
    room.write("b.csv", format!("q,a\n{}x\n", "How?,So.\n".repeat(3)));
    room.foundry(&["train", "config.yaml", "output_dir=bad", "data.shuffle_buffer=0"])
        .expect_refusal(&["b.csv:5: 1 value(s), but the header has 2 column(s)"]);
    let said = room.foundry(&["train", "config.yaml", "output_dir=good", "data.on_error=skip"]).expect_done();
    assert!(
        said.err.contains("unusable row(s) were left out") && said.err.contains("b.csv:5"),
        "{}",
        said.err
    );
}

#[test]
fn a_report_counts_all_of_a_stream_and_a_preview_goes_anywhere_in_it() {
    let room = Room::new();
    let rows: String = (0..2400).map(|i| format!("{{\"text\": \"row {i} of many\"}}\n")).collect();
    room.write("many.jsonl", rows);
    let data = "data:\n  train: many.jsonl\n  streaming: true\n";
    let config = lora_config("  max_steps: -1\n").replace("data:\n  train: train.jsonl\n", data);
    room.write("config.yaml", config);
    // Neither needs to know when a run would end.
    let said = room.foundry(&["data", "report", "config.yaml", "--json"]).expect_done();
    let report: serde_json::Value = serde_json::from_str(&said.out).expect("JSON");
    assert_eq!(
        (&report["train"]["examples"], &report["train"]["of_first_rows"]),
        (&2400.into(), &false.into())
    );
    let said =
        room.foundry(&["data", "preview", "config.yaml", "--from", "2300", "--rows", "1"]).expect_done();
    assert!(
        said.out.contains("row 2300 of a stream") && said.out.contains("ow 2300 of many"),
        "{}",
        said.out
    );
    let said = room.foundry(&["data", "preview", "config.yaml", "--from", "2400"]);
    said.expect_refusal(&["--from 2400: the training data has 2400 row(s)"]);
}

#[test]
fn settings_that_do_not_fit_are_refused() {
    let room = room();
    let refused = |change: &str, words: &[&str]| {
        room.foundry(&["train", "config.yaml", change]).expect_refusal(words);
    };
    refused("data.deduplicate=true", &["remembers every row"]);
    refused("data.shuffle_dataset=true", &["use `shuffle_buffer`"]);
    refused("data.streaming=false", &["`data.shuffle_buffer` is given"]);
    refused("data.train=a.jsonl.gz", &["`data.train` and `data.sources` are both given"]);
    refused("data.streaming=perhaps", &["auto, true or false"]);
    refused(
        "data.sources=[{path: b.csv}, {path: b.csv, weight: 1}]",
        &["1 of the 2 sources have a `weight`"],
    );
    refused("data.sources=[{path: b.csv, fraction: 1.5}]", &["above 0 and at most 1"]);
    refused(
        "data.sources=[{path: b.csv}]",
        &["`data.stopping_strategy` is given, but no source has a `weight`"],
    );
    let columns = "data.sources=[{path: b.csv, weight: 1, columns: {prompt: z, completion: a}}]";
    refused(columns, &["b.csv:2: there is no column `z`"]);
}
