//! Files that are larger than what a run may hold: what the real process reads and how much memory it takes, as the
//! system counts it.
#![cfg(target_os = "linux")]

use crate::support::{Room, Said};
use serde_json::Value;
use std::io::{BufWriter, Seek as _, SeekFrom, Write as _};
use std::path::Path;
use std::time::Duration;

const MB: u64 = 1_000_000;

/// The most memory and the bytes read of a process.
#[derive(Clone, Copy, Debug, Default)]
struct Used {
    peak: u64,
    read: u64,
}

/// Runs the binary and watches it.
fn watched(room: &Room, args: &[&str]) -> (Said, Used) {
    let mut command = room.command(args);
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let mut child = command.spawn().expect("the binary starts");
    let proc = format!("/proc/{}", child.id());
    let field = |file: &str, name: &str, unit: u64| {
        let text = std::fs::read_to_string(format!("{proc}/{file}")).ok()?;
        let line =
            text.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse().ok());
        line.map(|number: u64| number * unit)
    };
    let mut used = Used::default();
    // Both only grow, so that the last look before the end has nearly all of it.
    while child.try_wait().expect("watched").is_none() {
        used.peak = field("status", "VmHWM:", 1024).unwrap_or(0).max(used.peak);
        used.read = field("io", "rchar:", 1).unwrap_or(0).max(used.read);
        std::thread::sleep(Duration::from_millis(2));
    }
    (Said::from(child.wait_with_output().expect("ended")), used)
}

/// A file of about `megabytes` of texts.
fn texts(path: &Path, megabytes: u64) {
    let mut file = BufWriter::new(std::fs::File::create(path).expect("made"));
    let text = "The cat is here and the dog is there. ".repeat(100);
    let rows = megabytes * MB / (text.len() as u64 + 20);
    for row in 0..rows {
        writeln!(file, "{{\"text\": \"{row:07} {text}\"}}").expect("written");
    }
}

#[test]
fn memory_and_the_first_step_do_not_depend_on_the_size_of_the_file() {
    let room = Room::new();
    room.lora_run("  max_steps: 1\n  save_strategy: \"no\"\n");
    let mut seen = Vec::new();
    for megabytes in [5, 250] {
        let name = format!("{megabytes}.jsonl");
        texts(&room.path(&name), megabytes);
        // A whole pass, of which one row in a hundred is tokenised.
        let source = format!("data.sources=[{{path: {name}, fraction: 0.01}}]");
        let out = format!("tokens{megabytes}");
        let args = ["data", "tokenize", "config.yaml", "~data.train", &source, "-o", &out, "--json"];
        let (said, pass) = watched(&room, &args);
        let done: Value = serde_json::from_str(&said.expect_done().out).expect("JSON");
        assert!(pass.read > megabytes * MB, "{megabytes} MB: {pass:?}");
        assert!(done["counts"]["documents"].as_u64() > Some(megabytes / 10), "{done}");
        // One step of a stream.
        let train = format!("data.train={name}");
        let run = format!("output_dir=run{megabytes}");
        let args = ["train", "config.yaml", &train, &run, "data.streaming=true", "data.packing=true"];
        let (said, step) = watched(&room, &args);
        said.expect_done();
        seen.push((pass, step));
    }
    let [(small_pass, small_step), (large_pass, large_step)] = seen[..] else { panic!("two sizes") };
    // A few megabytes are the allocator's and the watcher's; the file alone would be 245 more.
    assert!(large_pass.peak < small_pass.peak + 20 * MB, "a pass: {small_pass:?}, {large_pass:?}");
    assert!(large_step.peak < small_step.peak + 60 * MB, "a step: {small_step:?}, {large_step:?}");
    // A chunk is 1000 rows, here four megabytes, and a chunk is made ahead; the shuffle buffer has as many rows.
    assert!(large_step.read < 60 * MB, "what the first step reads: {small_step:?}, {large_step:?}");
}

#[test]
fn a_line_of_a_gigabyte_is_refused_or_left_out_in_bounded_memory() {
    let room = Room::new();
    room.lora_run("");
    let mut file = std::fs::File::create(room.path("huge.jsonl")).expect("made");
    writeln!(file, "{{\"text\": \"first\"}}").expect("written");
    write!(file, "{{\"text\": \"").expect("written");
    // A hole: it takes no room on the disk, and reads as zeros.
    file.seek(SeekFrom::Current(1_000_000_000)).expect("moved");
    writeln!(file, "\"}}\n{{\"text\": \"last\"}}").expect("written");
    drop(file);
    let args = ["data", "tokenize", "config.yaml", "-o", "tokens", "data.train=huge.jsonl", "--json"];
    let (said, refused) = watched(&room, &args);
    said.expect_refusal(&["huge.jsonl:2: the line is longer than 268435456 bytes"]);
    let (said, skipped) = watched(&room, &[&args[..], &["data.on_error=skip"]].concat());
    let done: Value = serde_json::from_str(&said.expect_done().out).expect("JSON");
    assert_eq!((&done["counts"]["documents"], &done["counts"]["skipped"]), (&2.into(), &1.into()));
    assert!(done["problems"][0].as_str().is_some_and(|problem| problem.contains("huge.jsonl:2")), "{done}");
    for used in [refused, skipped] {
        // The limit of a line, which a growing buffer may have twice while it moves.
        assert!(used.peak < 800 * MB, "{used:?}");
    }
}

#[test]
fn files_that_were_cut_or_damaged_on_the_way_are_told() {
    let room = Room::new();
    room.lora_run("  max_steps: 1\n  save_strategy: \"no\"\n");
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(room.read("train.jsonl").as_bytes()).expect("in memory");
    let whole = encoder.finish().expect("in memory");
    room.write("cut.jsonl.gz", &whole[..whole.len() / 2]);
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../data/golden/tables.parquet");
    let mut table = std::fs::read(golden).expect("a table");
    let end = table.len();
    table[end - 8..end - 4].copy_from_slice(&i32::MAX.to_le_bytes());
    room.write("lying.parquet", &table);
    let report = |change: &str| room.foundry(&["data", "report", "config.yaml", change]);
    report("data.train=cut.jsonl.gz")
        .expect_refusal(&["cut.jsonl.gz: broken compressed data: it ends in the middle"]);
    report("data.train=lying.parquet").expect_refusal(&["lying.parquet: broken table"]);
    for (file, rows) in [("cut.jsonl.gz", true), ("lying.parquet", false)] {
        let change = format!("data.train=[{file}, train.jsonl]");
        let said = room.foundry(&["data", "report", "config.yaml", &change, "data.on_error=skip"]);
        let said = said.expect_done();
        assert!(said.out.contains("1 row(s)") && said.out.contains(file), "{}", said.out);
        assert!(
            !rows || !said.out.contains("24 example(s) in 2"),
            "what came before the cut is used: {}",
            said.out
        );
    }
}
