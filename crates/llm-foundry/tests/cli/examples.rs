//! The examples below each command's `--help`: every command has some, and they work as they stand.

use crate::support::{Room, Said, chats, copy_files, lora_config, tiny_model};
use std::path::Path;
use std::process::Stdio;

/// The model that examples name; a directory of that name is found before the hub is asked.
const MODEL: &str = "HuggingFaceTB/SmolLM2-135M-Instruct";

/// The help of a command, and of all below it, as (words, text).
fn helps(room: &Room, words: &[String], found: &mut Vec<(Vec<String>, String)>) {
    let args: Vec<&str> = words.iter().map(String::as_str).chain(["--help"]).collect();
    let text = room.foundry(&args).expect_done().out;
    let commands = text.lines().skip_while(|line| *line != "Commands:").skip(1);
    let names = commands.take_while(|line| !line.is_empty()).filter(|line| line.starts_with("  "));
    let names =
        names.filter(|line| !line.starts_with("   ")).filter_map(|line| line.split_whitespace().next());
    for name in names.filter(|name| *name != "help") {
        helps(room, &[words, &[name.to_owned()]].concat(), found);
    }
    found.push((words.to_vec(), text));
}

/// The lines below `Examples:`.
fn examples(help: &str) -> Vec<&str> {
    let lines = help.lines().skip_while(|line| *line != "Examples:").skip(1);
    lines.take_while(|line| line.starts_with("  ")).map(str::trim).collect()
}

/// A room in which everything that examples name is there.
fn furnished() -> Room {
    let room = Room::new();
    copy_files(tiny_model(), &room.path(MODEL));
    copy_files(tiny_model(), &room.path("models/base"));
    room.write("train.jsonl", chats(24));
    let config = lora_config("  max_steps: 2\n").replace(&tiny_model().display().to_string(), MODEL);
    room.write("my_run.yaml", config.replace("output_dir: run", "output_dir: runs/mine"));
    room.write(
        "axolotl.yaml",
        "base_model: m\ndatasets: [{path: train.jsonl, type: alpaca}]\nlearning_rate: 1e-4\n",
    );
    room.write("trl.yaml", "model_name_or_path: m\ndataset_name: train.jsonl\n");
    let question = r#"{"question": "Who barks?", "choices": {"text": ["dog", "cat"], "label": ["A", "B"]}, "answerKey": "A"}"#;
    room.write("bench/arc_easy/test.jsonl", format!("{question}\n{question}\n"));
    room.write("prompts.jsonl", "{\"prompt\": \"The cat\"}\n{\"prompt\": \"The dog\"}\n");
    room.write("messages.json", r#"[{"role": "user", "content": "Who are you?"}]"#);
    room
}

/// Runs a line as a shell does, in `$HOME` = the room.
fn shell(room: &Room, line: &str) -> Said {
    let program = room.command(&[]);
    let bin = Path::new(program.get_program()).parent().expect("a directory");
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap_or_default());
    let mut sh = std::process::Command::new("sh");
    sh.args(["-c", line]).current_dir(room.path("")).stdin(Stdio::null());
    for (name, value) in program.get_envs() {
        match value {
            Some(value) => sh.env(name, value),
            None => sh.env_remove(name),
        };
    }
    Said::from(sh.env("PATH", path).env("HOME", room.path("")).output().expect("sh starts"))
}

#[test]
#[cfg(unix)]
fn every_command_has_examples_and_they_work() {
    let room = furnished();
    let mut found = Vec::new();
    helps(&room, &[], &mut found);
    assert!(found.len() > 10, "{found:?}");
    let leaf = |words: &[String]| {
        !found.iter().any(|(other, _)| other.len() > words.len() && other.starts_with(words))
    };
    for (words, text) in found.iter().filter(|(words, _)| words.is_empty() || leaf(words)) {
        assert!(!examples(text).is_empty(), "`llm-foundry {}` has no examples in its help", words.join(" "));
    }
    // In an order in which each finds what it needs: runs first.
    for prepared in ["train my_run.yaml", "train my_run.yaml output_dir=runs/other training.seed=7"] {
        let args: Vec<&str> = prepared.split(' ').collect();
        room.foundry(&args).expect_done();
    }
    for place in [".local/share/bash-completion/completions/x", ".zfunc/x", ".config/fish/completions/x"] {
        room.write(place, "");
    }
    let rank = |words: &[String]| words.first().map(String::as_str) == Some("export");
    found.sort_by_key(|(words, _)| (rank(words), words.clone()));
    for (_, text) in &found {
        for line in examples(text) {
            // A run is already there: what it would say is tested elsewhere.
            let leaves_it = ["output_dir=", "--resume", "--print-config", "--help"];
            let again = line.contains("foundry train") && !leaves_it.iter().any(|word| line.contains(word));
            let line = if again { format!("{line} --overwrite-output-dir") } else { line.to_owned() };
            // A server answers until it is stopped; one that had ended by then could not be.
            let line = match line.contains("foundry serve") {
                true => format!("{line} --port 0 & sleep 3; kill $!"),
                false => line,
            };
            let said = shell(&room, &line);
            assert_eq!(said.code, Some(0), "$ {line}\n{}\n{}", said.err, said.out);
        }
    }
}
