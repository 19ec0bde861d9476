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
    // Other data under the same settings is noticed.
    room.write("b.csv", "q,a\nWhat?,Nothing.\n");
    let mut args = train("output_dir=killed");
    args.extend(["training.max_steps=30".to_owned(), "--resume".to_owned()]);
    run(&args).expect_refusal(&["streamed data", "was written under other settings"]);
}

#[test]
fn a_stream_needs_an_end_and_a_bad_row_is_told() {
    let room = room();
    let said = room.foundry(&["train", "config.yaml", "training.max_steps=-1"]);
    said.expect_refusal(&[
        "`training.max_steps` must say when to end",
        "one pass is about",
        "streaming=false",
    ]);
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
