//! `eval` against lm_eval 0.4.13's HF backend on a tiny model: `tests/goldens/lm_eval`, made by its `make.py`.

use crate::support::{Room, copy_files, tiny_tokenizer};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// lm_eval's arithmetic is torch's in float32.
const LOG_LIKELIHOOD: f64 = 1e-3;
/// Of numbers that are sums of log-likelihoods, of their size.
const RELATIVE: f64 = 1e-5;
const EXACT: [&str; 4] = ["acc", "acc_norm", "acc_bytes", "exact_match"];

fn goldens() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/lm_eval")
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_else(|| panic!("{key} of {value}"))
}

/// A room with model, tasks and data.
fn room() -> Room {
    let room = Room::new();
    for name in ["model", "tasks", "data"] {
        copy_files(&goldens().join(name), &room.path(name));
    }
    copy_files(&tiny_tokenizer(), &room.path("model"));
    room
}

/// Command-line arguments of a run of the goldens.
fn arguments(run: &Value) -> Vec<String> {
    let tasks: Vec<&str> =
        run["tasks"].as_array().expect("a list").iter().filter_map(Value::as_str).collect();
    let mut args = vec!["--tasks".to_owned(), tasks.join(",")];
    for (key, option) in [("num_fewshot", "--num-fewshot"), ("limit", "--limit")] {
        if let Some(number) = run[key].as_u64() {
            args.extend([option.to_owned(), number.to_string()]);
        }
    }
    if let Some(instruction) = run["system_instruction"].as_str() {
        args.extend(["--system-instruction".to_owned(), instruction.to_owned()]);
    }
    if run["chat"] == true {
        args.push("--apply-chat-template".to_owned());
        args.extend(["--fewshot-as-multiturn".to_owned(), run["multiturn"].to_string()]);
    }
    args
}

#[test]
fn numbers_prompts_and_log_likelihoods_are_lm_evals() {
    let room = room();
    let expected = std::fs::read_to_string(goldens().join("expected.json")).expect("the goldens");
    let expected: Vec<Value> = serde_json::from_str(&expected).expect("JSON");
    assert_eq!(expected.len(), 6);
    let mut checked = 0;
    for (at, run) in expected.iter().enumerate() {
        let name = text(run, "name");
        let out = format!("out{at}");
        let mut args: Vec<String> =
            ["eval", "model", "--include-path", "tasks", "--dtype", "float32", "--json"]
                .map(str::to_owned)
                .to_vec();
        args.extend(["--log-samples", "--bootstrap-iters", "0", "-o", &out].map(str::to_owned));
        args.extend(arguments(run));
        let said = room.foundry(&args.iter().map(String::as_str).collect::<Vec<_>>()).expect_done();
        let results: Value = serde_json::from_str(&said.out).expect("one JSON object");
        for (task, numbers) in run["results"].as_object().expect("tasks") {
            for (key, value) in numbers.as_object().expect("numbers") {
                let (theirs, ours) =
                    (value.as_f64().expect("a number"), results["results"][task][key].as_f64());
                let ours = ours.unwrap_or_else(|| panic!("{name}: {task} has no {key}"));
                let is_exact = EXACT.contains(&key.split(',').next().unwrap_or_default());
                let most = if is_exact { 0.0 } else { RELATIVE * theirs.abs().max(1.0) };
                assert!((ours - theirs).abs() <= most, "{name}: {task} {key}: {ours}, lm_eval's {theirs}");
                checked += 1;
            }
            checked += compare_samples(&room.path(&out), name, task, &run["samples"][task]);
        }
    }
    assert!(checked > 200, "{checked}");
}

/// Each sample's prompts byte for byte, its answers, and how they were found.
fn compare_samples(out: &Path, name: &str, task: &str, expected: &Value) -> usize {
    let dir =
        std::fs::read_dir(out).expect("a directory").next().expect("the model's").expect("readable").path();
    let begins = format!("samples_{task}_");
    let file = std::fs::read_dir(dir).expect("a directory").flatten().find(|entry| {
        let name = entry.file_name();
        name.to_string_lossy().starts_with(&begins)
    });
    let lines = std::fs::read_to_string(file.expect("samples").path()).expect("readable");
    let ours: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let theirs = expected.as_array().expect("a list");
    assert_eq!(ours.len(), theirs.len(), "{name}: {task}");
    for theirs in theirs {
        let key = |sample: &Value| (sample["doc_id"].clone(), sample["filter"].clone());
        let ours = ours.iter().find(|ours| key(ours) == key(theirs)).expect("the same document");
        let place = format!("{name}: {task} {}", theirs["doc_id"]);
        for (i, arguments) in theirs["arguments"].as_array().expect("a list").iter().enumerate() {
            for (j, argument) in arguments.as_array().expect("a list").iter().enumerate() {
                let own = &ours["arguments"][format!("gen_args_{i}")][format!("arg_{j}")];
                assert_eq!(own, argument, "{place}: argument {i}/{j}");
            }
        }
        for (index, key) in ["doc_hash", "prompt_hash", "target_hash"].into_iter().enumerate() {
            assert_eq!(ours[key], theirs["hashes"][index], "{place}: {key}");
        }
        let answers = theirs["answers"].as_array().expect("a list");
        assert_eq!(ours["filtered_resps"].as_array().expect("a list").len(), answers.len(), "{place}");
        for (index, answer) in answers.iter().enumerate() {
            compare_answer(&ours["filtered_resps"][index], answer, &place);
        }
    }
    theirs.len()
}

fn compare_answer(ours: &Value, theirs: &Value, place: &str) {
    let near = |ours: &Value, theirs: &Value| {
        let own: f64 = ours.as_str().expect("a number as text").parse().expect("a number");
        let difference = (own - theirs.as_f64().expect("a number")).abs();
        assert!(difference < LOG_LIKELIHOOD, "{place}: {ours}, lm_eval's {theirs}");
    };
    match theirs {
        Value::Array(pair) => {
            near(&ours[0], &pair[0]);
            assert_eq!(ours[1] == "True", pair[1] == true, "{place}: greedy");
        }
        Value::Number(_) => near(ours, theirs),
        text => assert_eq!(ours, text, "{place}"),
    }
}
