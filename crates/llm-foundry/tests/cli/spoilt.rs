//! Results that are damaged between the writing and the reading back: refused, and nothing of them is kept.
//!
//! `FOUNDRY_CRASH_AT=stop:result.before_check` stops the process in between; the test puts the same export of another
//! model in the place of what was written, and lets the process go on.

use crate::support::{Room, Said, copy_files, rewrite_tensors, tiny_model};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

fn model() -> &'static str {
    tiny_model().to_str().expect("UTF-8")
}

/// Runs `args`, with `change` done to the unfinished result called `name` before the check.
fn changed(room: &Room, name: &str, args: &[&str], change: impl Fn(&Path)) -> Said {
    let mut command = room.command(args);
    command.env("FOUNDRY_CRASH_AT", "stop:result.before_check").stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().expect("the binary starts");
    let id = child.id().to_string();
    let began = Instant::now();
    while state(&id) != Some('T') {
        if state(&id).is_none_or(|state| state == 'Z') || began.elapsed() > Duration::from_secs(120) {
            return Said::from(child.wait_with_output().expect("it ends"));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    change(&unfinished(room, name));
    assert!(Command::new("kill").args(["-CONT", &id]).status().expect("kill starts").success());
    Said::from(child.wait_with_output().expect("it ends"))
}

/// The letter of a process's state; `None`: there is no such process.
fn state(id: &str) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    // Behind the name, which may contain anything.
    stat.rsplit_once(") ")?.1.chars().next()
}

/// The directory in which the result called `name` is made.
fn unfinished(room: &Room, name: &str) -> PathBuf {
    let prefix = format!(".{name}.");
    let names = room.names();
    let mut found = names.iter().filter(|n| n.starts_with(&prefix) && n.ends_with(".incomplete"));
    room.path(found.next().unwrap_or_else(|| panic!("nothing unfinished in {names:?}")))
}

/// A copy of the model with other weights: every number of the last norm is times -10.
fn other_logits(room: &Room) -> PathBuf {
    let dir = room.model("other-logits");
    rewrite_tensors(&dir.join("model.safetensors"), |name, values| {
        let factor = if name == "model.norm.weight" { -10.0 } else { 1.0 };
        values.iter_mut().for_each(|x| *x *= factor);
        Some(name.to_owned())
    });
    dir
}

/// A copy that joins fewer letters: without the first merges of its tokenizer.
fn other_tokens(room: &Room) -> PathBuf {
    let dir = room.model("other-tokens");
    let path = dir.join("tokenizer.json");
    let mut tokenizer: Value = serde_json::from_slice(&fs::read(&path).expect("read")).expect("JSON");
    tokenizer["model"]["merges"].as_array_mut().expect("a list").drain(..40);
    fs::write(path, tokenizer.to_string()).expect("written");
    dir
}

/// A copy with another chat template.
fn other_chat(room: &Room) -> PathBuf {
    let dir = room.model("other-chat");
    let template = "{% for message in messages %}<{{ message.role }}>{{ message.content }}{% endfor %}";
    fs::write(dir.join("chat_template.jinja"), template).expect("written");
    dir
}

/// What makes the other model, and what is said of it.
type Damage = (fn(&Room) -> PathBuf, &'static str);

const DAMAGES: [Damage; 3] = [
    // Of GGUF the numbers are compared before predictions are.
    (other_logits, "does not predict what the source does|does not come back as it was written"),
    (other_tokens, "gets other token ids from the"),
    (other_chat, "the chat template renders another conversation"),
];

/// Every form of result whose every kind of damage is found: the words of the command, its name, files or directory.
#[test]
fn a_damaged_export_is_refused_and_not_kept() {
    let forms: [(&[&str], &str); 8] = [
        (&["--to", "gguf", "--quant", "f32"], "out.gguf"),
        (&["--to", "gguf", "--quant", "f16"], "out.gguf"),
        (&["--to", "gguf", "--quant", "q8_0"], "out.gguf"),
        (&["--to", "ollama", "--quant", "q8_0"], "out"),
        (&["--to", "safetensors"], "out"),
        (&["--to", "safetensors", "--quant", "fp8"], "out"),
        (&["--to", "safetensors", "--quant", "int8"], "out"),
        (&["--to", "safetensors", "--quant", "nf4"], "out"),
    ];
    for (words, name) in forms {
        let room = Room::new();
        for (spoil, said) in DAMAGES {
            let other = spoil(&room);
            let other = other.to_str().expect("UTF-8");
            refused(&room, words, name, other, said);
            fs::remove_dir_all(other).expect("removed");
            assert_eq!(room.names(), Vec::<String>::new(), "{words:?}: nothing is kept");
        }
        // The same way without a change is done: it is the damage that is refused.
        let args = [&["export", model(), "-o", name], words].concat();
        changed(&room, name, &args, |_| ()).expect_done();
    }
}

/// Exports the model, with the same export of `other` put in its place before the check.
fn refused(room: &Room, words: &[&str], name: &str, other: &str, said: &str) {
    let replacement = if name.ends_with(".gguf") { "spoilt.gguf" } else { "spoilt" };
    let args = [&["export", other, "--no-check", "-o", replacement], words].concat();
    room.foundry(&args).expect_done();
    let spoilt = room.path(replacement);
    let put = |dir: &Path| match spoilt.is_dir() {
        true => copy_named(&spoilt, dir),
        false => {
            let written = fs::read_dir(dir).expect("listed").flatten().next().expect("one file").path();
            fs::rename(&spoilt, written).expect("replaced");
        }
    };
    let args = [&["export", model(), "-o", name], words].concat();
    let refusal = changed(room, name, &args, put);
    assert_eq!(refusal.code, Some(1), "{words:?}, {said}: {}", refusal.err);
    assert!(
        said.split('|').any(|said| refusal.err.contains(said)) && refusal.err.contains("nothing was kept"),
        "{words:?}: {}",
        refusal.err
    );
    if spoilt.exists() {
        fs::remove_dir_all(spoilt).expect("removed");
    }
}

/// Files of one directory over those of another; a GGUF, whose name tells the model's, over the one that is there.
fn copy_named(from: &Path, to: &Path) {
    let gguf = |dir: &Path| {
        let paths = fs::read_dir(dir).expect("listed").flatten().map(|entry| entry.path());
        paths.into_iter().find(|path| path.extension().is_some_and(|e| e == "gguf"))
    };
    match (gguf(from), gguf(to)) {
        (Some(from), Some(to)) => drop(fs::copy(from, to).expect("copied")),
        _ => copy_files(from, to),
    }
}

/// A file of few bits may predict otherwise than the source, but not otherwise than it was written; nor is a torn file
/// or one with a flipped bit kept.
#[test]
fn a_damaged_export_of_few_bits_is_refused_and_not_kept() {
    let room = Room::new();
    let words = ["--to", "gguf", "--quant", "q4_k_m"];
    for (spoil, said) in &DAMAGES {
        let other = spoil(&room);
        let other = other.to_str().expect("UTF-8");
        refused(&room, &words, "out.gguf", other, said);
        fs::remove_dir_all(other).expect("removed");
    }
    let args = [&["export", model(), "-o", "out.gguf"], &words[..]].concat();
    let torn = changed(&room, "out.gguf", &args, |dir| {
        let written = fs::read_dir(dir).expect("listed").flatten().next().expect("one file").path();
        let bytes = fs::read(&written).expect("read");
        fs::write(&written, &bytes[..bytes.len() / 2]).expect("written");
    });
    assert_ne!(torn.code, Some(0), "{}", torn.err);
    assert!(!torn.err.contains("this is a bug"), "{}", torn.err);
    let flipped = changed(&room, "out.gguf", &args, |dir| {
        let written = fs::read_dir(dir).expect("listed").flatten().next().expect("one file").path();
        let mut bytes = fs::read(&written).expect("read");
        // Among the last numbers of the last layer, behind all descriptions.
        let at = bytes.len() - 200;
        bytes[at] ^= 16;
        fs::write(&written, bytes).expect("written");
    });
    assert_eq!(flipped.code, Some(1), "{}", flipped.err);
    assert!(flipped.err.contains("does not come back as it was written"), "{}", flipped.err);
    assert_eq!(room.names(), Vec::<String>::new(), "nothing is kept");
}

/// What a merge has written must predict what base and adapter do.
#[test]
fn a_damaged_merge_is_refused_and_not_kept() {
    let room = Room::new();
    room.lora_run("  max_steps: 2\n  save_strategy: \"no\"\n");
    room.foundry(&["train", "config.yaml"]).expect_done();
    let other = other_logits(&room);
    let args = ["merge", model(), "run", "-o", "merged", "--dtype", "float32"];
    let refusal = changed(&room, "merged", &args, |dir| {
        fs::copy(other.join("model.safetensors"), dir.join("model.safetensors")).expect("copied");
    });
    assert_eq!(refusal.code, Some(1), "{}", refusal.err);
    assert!(refusal.err.contains("does not predict what base and adapter do"), "{}", refusal.err);
    fs::remove_dir_all(other).expect("removed");
    assert_eq!(room.names(), ["config.yaml", "run", "train.jsonl"], "nothing is kept");
    changed(&room, "merged", &args, |_| ()).expect_done();
}

/// Killed, or out of space, at the named moments between writing and publishing.
#[test]
fn a_kill_or_a_full_disk_before_the_end_leaves_nothing_under_the_name() {
    let room = Room::new();
    let args = ["export", model(), "--to", "gguf", "--quant", "q8_0", "-o", "out.gguf"];
    for moment in ["result.before_check", "result.before_publish"] {
        let run = |wish: String| {
            let output = room.command(&args).env("FOUNDRY_CRASH_AT", wish).output();
            Said::from(output.expect("the binary starts"))
        };
        let killed = run(moment.to_owned());
        assert_eq!(killed.code, None, "{moment}: {}", killed.err);
        assert!(!room.path("out.gguf").exists(), "{moment}");
        let full = run(format!("full:{moment}"));
        assert_eq!(full.code, Some(1), "{moment}: {}", full.err);
        assert!(full.err.contains("out.gguf"), "{moment}: a place: {}", full.err);
        assert_eq!(room.names(), Vec::<String>::new(), "{moment}: also what the killed one left is gone");
    }
    room.foundry(&args).expect_done();
}
