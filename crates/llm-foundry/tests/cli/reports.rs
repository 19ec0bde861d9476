//! `report.html`: left by every run, made again by `report`.

use crate::support::Room;

fn room() -> Room {
    let room = Room::new();
    room.lora_run("  max_steps: 3\n");
    room
}

#[test]
fn every_run_leaves_a_page_with_curves_data_and_origins() {
    let room = room();
    room.write("eval.jsonl", crate::support::chats(4));
    room.foundry(&["train", "config.yaml", "data.eval=eval.jsonl", "training.eval_strategy=epoch"])
        .expect_done();
    let page = room.read("run/report.html");
    let curves = ["Loss", "Evaluation loss", "Learning rate", "Gradient norm", "Throughput", "Memory"];
    for title in curves.map(|title| format!("<figcaption>{title}")) {
        assert!(page.contains(&title), "no {title} in {page}");
    }
    for words in [
        "done: 3 steps",
        "config.yaml:2",
        "command line: data.eval=eval.jsonl",
        "train.jsonl (24)",
        "perplexity",
    ] {
        assert!(page.contains(words), "no {words} in {page}");
    }
    for bad in ["http:", "https:", "<script", "NaN", "url(", "inf "] {
        assert!(!page.contains(bad), "{bad} in {page}");
    }
    // Made again it is the same, and what is no report is not replaced.
    room.foundry(&["report", "run"]).expect_done();
    assert_eq!(room.read("run/report.html"), page);
    room.write("mine.html", "precious");
    room.foundry(&["report", "run", "-o", "mine.html"]).expect_refusal(&["mine.html", "no report"]);
    // The resolved configuration with its origins runs as it is.
    room.foundry(&["plan", "run/config.resolved.yaml"]).expect_done();
}

#[test]
fn runs_and_sweeps_are_laid_over_each_other() {
    let room = room();
    room.foundry(&["train", "config.yaml", "-m", "lora.r=2,4"]).expect_done();
    let left = room.read("run/report.html");
    let said = room.foundry(&["report", "run"]).expect_done();
    assert_eq!(said.out.trim(), "run/report.html");
    let page = room.read("run/report.html");
    assert_eq!(left, page, "a sweep leaves it");
    assert!(page.contains("001_r=2") && page.contains("002_r=4") && page.contains("What differs"), "{page}");
    room.foundry(&["report", "run/001_r=2", "run/002_r=4"]).expect_done();
    assert!(room.read("report.html").contains("2 runs"));
    room.write("empty/file", "");
    room.foundry(&["report", "empty"]).expect_refusal(&["no run here"]);
    room.foundry(&["report", "absent"]).expect_refusal(&["absent"]);
}

#[test]
fn an_interrupted_run_says_so() {
    let room = room();
    let said = room.foundry(&["train", "config.yaml", "training.max_steps=100000", "training.max_time=1s"]);
    assert_eq!(said.code, Some(130), "{}", said.err);
    assert!(room.read("run/report.html").contains("interrupted after step"));
}
