//! Files that are larger than what a run may hold: what the real process reads and how much memory it takes, as the
//! system counts it.
#![cfg(target_os = "linux")]

use crate::support::{Room, Said, copy_files, tiny_config, tiny_tokenizer};
use foundry_formats::StoredDtype;
use foundry_formats::safetensors::{Entry, Writer};
use serde_json::{Value, json};
use std::io::{BufWriter, Seek as _, SeekFrom, Write as _};
use std::path::Path;
use std::time::Duration;

const MB: u64 = 1_000_000;

/// The most memory and the bytes read of a process.
#[derive(Clone, Copy, Debug, Default)]
struct Used {
    peak: u64,
    read: u64,
    /// Processor time, in hundredths of a second.
    ticks: u64,
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
        used.ticks = ticks(&proc).unwrap_or(0).max(used.ticks);
        std::thread::sleep(Duration::from_millis(2));
    }
    (Said::from(child.wait_with_output().expect("ended")), used)
}

/// Processor time of a process, user's and system's, in the 1/100 s of all Linux machines.
fn ticks(proc: &str) -> Option<u64> {
    let text = std::fs::read_to_string(format!("{proc}/stat")).ok()?;
    // Behind the name, which may hold anything, times are the 12th and 13th field.
    let mut fields = text.rsplit_once(") ")?.1.split(' ').skip(11);
    Some(fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?)
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
    // The first batch comes within two seconds, here of processor time: the clock counts what else a machine does. That
    // is with the model, a step, and the rows of three chunks, the first for the plan and one made ahead.
    assert!(large_step.ticks < 200, "{small_step:?}, {large_step:?}");
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

const LAYERS: usize = 12;
const WIDTH: usize = 768;
const INNER: usize = 3072;

/// A model whose layers are alike, with 227 MB of bfloat16 weights of which the largest tensor has 5 MB, and an adapter
/// on its query projections.
fn wide_model_and_adapter(room: &Room) {
    let mut config = tiny_config();
    for (key, value) in [("hidden_size", WIDTH), ("intermediate_size", INNER), ("num_hidden_layers", LAYERS)]
    {
        config[key] = value.into();
    }
    config["num_key_value_heads"] = 4.into();
    copy_files(&tiny_tokenizer(), &room.path("model"));
    room.write("model/config.json", config.to_string());
    let attention = ["q_proj", "k_proj", "v_proj", "o_proj"].map(|name| format!("self_attn.{name}"));
    let attention = attention.map(|name| (name, [WIDTH, WIDTH]));
    let mlp = [("gate_proj", [INNER, WIDTH]), ("up_proj", [INNER, WIDTH]), ("down_proj", [WIDTH, INNER])];
    let mlp = mlp.map(|(name, shape)| (format!("mlp.{name}"), shape));
    let mut entries = vec![
        Entry::new("model.embed_tokens.weight", StoredDtype::BF16, &[768, WIDTH]),
        Entry::new("model.norm.weight", StoredDtype::BF16, &[WIDTH]),
    ];
    let mut branches = Vec::new();
    for layer in 0..LAYERS {
        let at = |name: &str| format!("model.layers.{layer}.{name}");
        for (name, shape) in attention.iter().chain(&mlp) {
            entries.push(Entry::new(at(&format!("{name}.weight")), StoredDtype::BF16, shape));
        }
        for name in ["input_layernorm", "post_attention_layernorm"] {
            entries.push(Entry::new(at(&format!("{name}.weight")), StoredDtype::BF16, &[WIDTH]));
        }
        for (name, shape) in [("lora_A", [4, WIDTH]), ("lora_B", [WIDTH, 4])] {
            let name = format!("base_model.model.{}", at(&format!("self_attn.q_proj.{name}.weight")));
            branches.push(Entry::new(name, StoredDtype::F32, &shape));
        }
    }
    filled(&room.path("model/model.safetensors"), &entries);
    let adapter = json!({"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 4, "lora_alpha": 8, "bias": "none",
        "target_modules": ["q_proj"], "base_model_name_or_path": "model"});
    let path = room.write("adapter/adapter_config.json", adapter.to_string());
    filled(&path.with_file_name("adapter_model.safetensors"), &branches);
}

/// The tensors, every number a half.
fn filled(path: &Path, entries: &[Entry]) {
    let mut writer = Writer::create(path, entries, &[("format".into(), "pt".into())]).expect("created");
    for entry in entries {
        writer.write_f32(&entry.name, &vec![0.5; entry.elements()]).expect("written");
    }
    writer.finish().expect("finished");
}

/// Without the comparison at the end a merge holds the adapter and a few rows; an export to GGUF a few rows.
#[test]
fn a_merge_holds_a_piece_of_the_model_at_a_time() {
    let room = Room::new();
    wide_model_and_adapter(&room);
    let size = std::fs::metadata(room.path("model/model.safetensors")).expect("there").len();
    assert!(size > 150 * MB, "{size}");
    // The largest tensor has 9 MB in float32, the program itself some 11. A quantiser has 16 MB of numbers at a time,
    // before and after rounding.
    let commands: [(&[&str], u64); 2] = [
        (&["merge", "model", "adapter", "-o", "merged"], 45),
        (&["export", "model", "--to", "gguf", "--quant", "q8_0"], 95),
    ];
    for (args, most) in commands {
        let (said, used) = watched(&room, &[args, &["--no-check"]].concat());
        said.expect_done();
        println!("{args:?}: {} MB at most, the model has {} MB", used.peak / MB, size / MB);
        assert!(used.peak < most * MB, "{args:?}: {used:?}");
    }
}
