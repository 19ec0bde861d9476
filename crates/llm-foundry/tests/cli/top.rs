//! `top`: a run seen from outside, and `train --json`.

use crate::support::Room;
use serde_json::Value;
use std::fs;

#[test]
fn a_run_that_is_over_is_shown_as_text() {
    let room = Room::new();
    room.lora_run("  max_steps: 5\n  save_strategy: \"no\"\n");
    room.foundry(&["train", "config.yaml", "--quiet"]).expect_done();
    for args in [&["top", "run", "--once"][..], &["top", "run"]] {
        let said = room.foundry(args).expect_done();
        for words in ["run: finished, step 5 of 5", "loss", "learning rate", "tokens/s", "█"] {
            assert!(said.out.contains(words), "no `{words}` in:\n{}", said.out);
        }
        assert!(!said.out.contains('\u{1b}'), "no terminal, no colours and no cursor");
    }
}

#[test]
fn places_without_a_run_are_refused() {
    let room = Room::new();
    room.foundry(&["top", "nowhere"]).expect_refusal(&["nowhere is no directory", "output_dir"]);
    fs::create_dir(room.path("empty")).expect("made");
    room.foundry(&["top", "empty"]).expect_refusal(&["empty holds no run", "metrics.jsonl"]);
}

#[test]
fn metrics_go_to_standard_output_when_asked() {
    let room = Room::new();
    room.lora_run("  max_steps: 3\n");
    let said = room.foundry(&["train", "config.yaml", "--json", "--quiet"]).expect_done();
    assert_eq!((said.out.as_str(), said.err.as_str()), (room.read("run/metrics.jsonl").as_str(), ""));
    let lines: Vec<Value> = said.out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!([&lines[0]["event"], &lines.last().expect("lines")["event"]], ["run_start", "run_end"]);
    room.foundry(&["train", "config.yaml", "--json", "--multirun"]).expect_refusal(&["--json", "--multirun"]);
    // A reader that has seen enough does not end the run.
    let line = format!(
        "'{}' train config.yaml --json --quiet --overwrite-output-dir | head -n 1",
        env!("CARGO_BIN_EXE_llm-foundry")
    );
    let mut command = std::process::Command::new("sh");
    command.current_dir(room.path("")).args(["-c", &line]).env("HF_HUB_OFFLINE", "1");
    assert!(command.output().expect("sh starts").status.success());
    assert!(room.read("run/metrics.jsonl").contains("run_end"));
}

/// The full screen in a pseudo-terminal, which `script` of util-linux makes.
#[cfg(all(feature = "tui", target_os = "linux"))]
mod screen {
    use super::*;
    use std::io::{Read as _, Write as _};
    use std::process::{Child, Command, Stdio};
    use std::time::{Duration, Instant};

    const ENTERS: &str = "\u{1b}[?1049h";
    const LEAVES: &str = "\u{1b}[?1049l";

    fn run_in_room() -> Room {
        let room = Room::new();
        room.lora_run("  max_steps: 5\n  save_strategy: \"no\"\n");
        room.foundry(&["train", "config.yaml", "--quiet"]).expect_done();
        room
    }

    fn shown(room: &Room) -> Child {
        let line = format!(
            "stty rows 30 cols 100; echo $$ > pid; exec '{}' top run",
            env!("CARGO_BIN_EXE_llm-foundry")
        );
        let mut script = Command::new("script");
        script.args(["--quiet", "--return", "--flush", "--command", &line, "typescript"]);
        script.current_dir(room.path("")).env("TERM", "xterm").env("SHELL", "/bin/sh");
        script
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("script starts")
    }

    /// Waits until the screen shows `words`.
    fn wait_for(room: &Room, words: &str) {
        let began = Instant::now();
        let seen = || fs::read(room.path("typescript")).map(|b| String::from_utf8_lossy(&b).into_owned());
        while !seen().is_ok_and(|text| text.contains(words)) {
            assert!(began.elapsed() < Duration::from_secs(20), "{:?}", seen());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn end(room: &Room, mut script: Child) -> String {
        let mut text = String::new();
        script.stdout.take().expect("piped").read_to_string(&mut text).expect("text");
        assert!(script.wait().expect("it ends").success(), "{text}");
        let _ = room;
        text
    }

    #[test]
    fn q_gives_the_terminal_back() {
        let room = run_in_room();
        let mut script = shown(&room);
        wait_for(&room, "finished");
        script.stdin.as_mut().expect("piped").write_all(b"q").expect("typed");
        let text = end(&room, script);
        assert!(text.contains(ENTERS) && text.rfind(LEAVES) > text.rfind(ENTERS), "{text:?}");
    }

    #[test]
    fn a_signal_gives_the_terminal_back() {
        let room = run_in_room();
        let script = shown(&room);
        wait_for(&room, "finished");
        let pid = room.read("pid");
        assert!(Command::new("kill").args(["-TERM", pid.trim()]).status().expect("kill runs").success());
        let text = end(&room, script);
        assert!(text.rfind(LEAVES) > text.rfind(ENTERS), "{text:?}");
    }
}
