//! `merge` and `export` that are told to end (Ctrl-C, SIGTERM) or are killed: nothing is half there, and after a signal
//! nothing is left beside it either.
#![cfg(unix)]

use crate::support::{Room, Said, copy_files, tiny_model};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

fn model() -> &'static str {
    tiny_model().to_str().expect("UTF-8")
}

/// A room with a trained adapter in `adapter` and nothing else.
fn room() -> Room {
    let other = Room::new();
    other.lora_run("  max_steps: 2\n  save_strategy: \"no\"\n");
    other.foundry(&["train", "config.yaml"]).expect_done();
    let room = Room::new();
    copy_files(&other.path("run"), &room.path("adapter"));
    room
}

/// Every kind of result.
fn commands() -> [Vec<&'static str>; 5] {
    let export = |more: &[&'static str]| [&["export", model(), "-o", "out"], more].concat();
    [
        vec!["merge", model(), "adapter", "-o", "out"],
        vec!["adapters", "merge", "adapter:0.5", "adapter", "-o", "out", "--method", "svd"],
        export(&["--to", "gguf", "--quant", "q8_0"]),
        export(&["--to", "ollama", "--quant", "q8_0"]),
        export(&["--to", "safetensors", "--quant", "nf4"]),
    ]
}

fn signal(child: &Child, name: &str) {
    // One that has just ended needs none.
    let _ = Command::new("kill").args([name, &child.id().to_string()]).stderr(Stdio::null()).status();
}

fn started(room: &Room, args: &[&str], stop_at: Option<&str>) -> Child {
    let mut command = room.command(args);
    if let Some(moment) = stop_at {
        command.env("FOUNDRY_CRASH_AT", format!("stop:{moment}"));
    }
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary starts")
}

fn ended(child: Child) -> Said {
    Said::from(child.wait_with_output().expect("it ends"))
}

/// Waits until the process has stopped itself.
#[cfg(target_os = "linux")]
fn wait_for_stop(child: &Child) {
    let began = Instant::now();
    loop {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.id())).expect("it runs");
        // Behind the name, which may contain anything.
        match stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next()) {
            Some('T') => return,
            Some('Z') => panic!("it ended before it came to that moment"),
            _ => assert!(began.elapsed() < Duration::from_secs(120), "it does not come to that moment"),
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_signal_removes_what_was_made_and_says_so() {
    let room = room();
    for args in commands().iter().filter(|args| args[0] != "adapters") {
        for name in ["-INT", "-TERM"] {
            let child = started(&room, args, Some("result.before_check"));
            wait_for_stop(&child);
            assert_eq!(room.names().len(), 2, "the unfinished result is there");
            signal(&child, name);
            signal(&child, "-CONT");
            let said = ended(child);
            assert_eq!(said.code, Some(130), "{args:?}: {}", said.err);
            assert!(said.err.contains("out is not written; what was made of it is removed"), "{}", said.err);
            assert_eq!(room.names(), ["adapter"], "{args:?} {name}");
        }
    }
}

/// Names and contents of a file or directory, without what tells the time or is drawn anew.
fn contents(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let read = |path: &Path| std::fs::read(path).expect("read");
    if path.is_file() {
        return BTreeMap::from([(String::new(), read(path))]);
    }
    let entries = std::fs::read_dir(path).expect("listed").flatten();
    entries.map(|entry| (entry.file_name().to_string_lossy().into_owned(), read(&entry.path()))).collect()
}

fn remove(path: &Path) {
    let removed = if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
    removed.expect("removed");
}

/// Stops each command with `name` at moments spread over its whole time, with and without an earlier result in its
/// place.
fn at_any_moment(name: &str, moments: u32) {
    let room = room();
    for args in commands() {
        let began = Instant::now();
        room.foundry(&args).expect_done();
        let whole = began.elapsed();
        let out = room.path("out");
        let expected = contents(&out);
        let force = [&args[..], &["--force"]].concat();
        for moment in 1..=moments {
            // An earlier result stays until the new one takes its place: here both are the same.
            let earlier = moment % 2 == 0;
            if out.exists() && !earlier {
                remove(&out);
            } else if !out.exists() && earlier {
                room.foundry(&args).expect_done();
            }
            let child = started(&room, &force, None);
            std::thread::sleep(whole.mul_f64(f64::from(moment) / f64::from(moments + 1)));
            signal(&child, name);
            let said = ended(child);
            let what = format!("{args:?} at moment {moment}: {:?} {}", said.code, said.err);
            assert!([None, Some(0), Some(130)].contains(&said.code), "{what}");
            assert!(!earlier || out.exists(), "the earlier result is gone: {what}");
            assert!(said.code != Some(0) || out.exists(), "{what}");
            assert!(!out.exists() || contents(&out) == expected, "{what}");
            for left in room.names().iter().filter(|left| !["adapter", "out"].contains(&left.as_str())) {
                assert!(left.starts_with(".out.") && left.ends_with(".incomplete"), "{what}: {left}");
                // A signal that is heard leaves nothing; the kill leaves what the next command sweeps away.
                assert_eq!(said.code, None, "{what}: {left}");
            }
        }
        room.foundry(&force).expect_done();
        assert_eq!(room.names(), ["adapter", "out"], "{args:?}: the next command sweeps");
        remove(&out);
    }
}

#[test]
fn interrupted_at_any_moment_nothing_is_half_there() {
    at_any_moment("-INT", 4);
}

#[test]
fn killed_at_any_moment_nothing_of_any_result_is_half_there() {
    at_any_moment("-KILL", 6);
}
