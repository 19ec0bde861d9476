//! A run's directory as its readers find it.

use super::framing::records;
use super::records::{items, parse};
use super::*;
use crate::{Row, Table, Tracker};
use serde_json::{Map, Value, json};
use std::fs;
use std::path::{Path, PathBuf};

fn settings(parent: &Path) -> RunSettings {
    let config = json!({"learning_rate": 1e-3, "data": {"train": "a.jsonl"}, "quoted \"key\"": [1, null]});
    let Value::Object(config) = config else { unreachable!() };
    RunSettings {
        parent: parent.to_owned(),
        producer: "test".into(),
        project: "p".into(),
        name: "n".into(),
        tags: vec!["a".into(), "b".into()],
        axis: "train/global_step".into(),
        config,
        metadata: Map::from_iter([("program".to_owned(), json!("x"))]),
        ..RunSettings::default()
    }
}

fn row(position: u64, loss: f64) -> Row {
    Row { position, values: vec![("train/loss".into(), loss), ("train/global_step".into(), 99.0)] }
}

fn file_of(run: &Run) -> PathBuf {
    run.directory().join(format!("run-{}.wandb", run.id()))
}

/// Kinds and bodies of all records.
fn contents(path: &Path) -> Vec<(u32, Vec<u8>)> {
    let records = records(&fs::read(path).unwrap()).unwrap();
    let mut numbers = Vec::new();
    let mut found = Vec::new();
    for record in &records {
        let (number, kind, body) = parse(record).unwrap();
        numbers.push(number);
        found.push((kind, body.to_vec()));
    }
    assert!(numbers.is_sorted() && numbers.windows(2).all(|pair| pair[0] < pair[1]), "{numbers:?}");
    found
}

fn kinds(path: &Path) -> Vec<u32> {
    contents(path).into_iter().map(|(kind, _)| kind).collect()
}

#[test]
fn a_run_has_all_its_records_and_files() {
    let dir = tempfile::tempdir().unwrap();
    let mut run = Run::create(&settings(dir.path())).unwrap();
    let name = run.directory().file_name().unwrap().to_string_lossy().into_owned();
    assert!(name.starts_with("offline-run-20") && name.ends_with(run.id()), "{name}");
    run.log(&row(1, 2.5)).unwrap();
    run.print("a line").unwrap();
    run.measure(&[("cpu".into(), 12.5)]).unwrap();
    run.log(&Row { position: 2, values: vec![("eval/loss".into(), f64::NAN)] }).unwrap();
    run.summarize(&Row { position: 2, values: vec![("train_loss".into(), 2.25)] }).unwrap();
    run.finish(0).unwrap();
    assert_eq!(kinds(&file_of(&run)), [21, 17, 12, 12, 6, 2, 13, 7, 2, 3, 3, 18]);
    let history = history(&file_of(&run)).unwrap();
    assert_eq!(history[0]["train/loss"], 2.5);
    assert_eq!([&history[0]["train/global_step"], &history[1]["train/global_step"]], [1, 2]);
    assert_eq!([&history[0]["_step"], &history[1]["_step"]], [0, 1]);
    assert_eq!(history[1]["eval/loss"], "NaN", "as Python writes it");
    assert!(history[0]["_timestamp"].as_f64().unwrap() > 1.7e9);
    let text = |name: &str| fs::read_to_string(run.directory().join("files").join(name)).unwrap();
    assert_eq!(text("output.log"), "a line\n");
    assert!(
        text("config.yaml").contains("\"learning_rate\":\n    value: 0.001\n"),
        "{}",
        text("config.yaml")
    );
    assert!(text("config.yaml").contains("\"quoted \\\"key\\\"\":\n    value: [1,null]\n"));
    let summary = text("wandb-summary.json").replace("NaN", "null");
    let summary: Value = serde_json::from_str(&summary).unwrap();
    assert_eq!([&summary["train/loss"], &summary["train_loss"], &summary["_step"]], [2.5, 2.25, 1.0]);
    let metadata: Value = serde_json::from_str(&text("wandb-metadata.json")).unwrap();
    assert_eq!(metadata["program"], "x");
}

#[test]
fn a_killed_run_leaves_a_readable_file() {
    let dir = tempfile::tempdir().unwrap();
    let mut run = Run::create(&settings(dir.path())).unwrap();
    for position in 1..=200 {
        run.log(&row(position, 1.0 / position as f64)).unwrap();
        assert_eq!(history(&file_of(&run)).unwrap().len() as u64, position, "nothing waits in the process");
    }
    let bytes = fs::read(file_of(&run)).unwrap();
    // At a checkpoint the figures so far are written.
    run.flush().unwrap();
    let (kind, body) = contents(&file_of(&run)).pop().unwrap();
    assert_eq!((kind, items(&body)["train/global_step"].as_u64()), (3, Some(200)));
    // A kill within a write tears the last record.
    let torn = dir.path().join("torn.wandb");
    fs::write(&torn, &bytes[..bytes.len() - 3]).unwrap();
    assert_eq!(history(&torn).unwrap().len(), 199);
}

#[test]
fn a_resumed_run_is_one_run() {
    let dir = tempfile::tempdir().unwrap();
    let mut run = Run::create(&settings(dir.path())).unwrap();
    for position in 1..=6 {
        run.log(&row(position, position as f64)).unwrap();
    }
    run.print("before").unwrap();
    run.flush().unwrap();
    let (id, state, file) = (run.id().to_owned(), run.state(), file_of(&run));
    run.finish(1).unwrap();
    drop(run);
    // As if killed in a write.
    let log = file.with_file_name("files").join("output.log");
    fs::write(&log, "before\nto").unwrap();

    let mut run = Run::resume(&settings(dir.path()), &state, 4).unwrap();
    assert_eq!((run.id(), file_of(&run)), (id.as_str(), file.clone()));
    run.log(&row(5, 50.0)).unwrap();
    run.finish(0).unwrap();
    let found = history(&file).unwrap();
    let column = |name: &str| found.iter().map(|row| row[name].as_f64().unwrap()).collect::<Vec<_>>();
    assert_eq!(column("train/global_step"), [1.0, 2.0, 3.0, 4.0, 5.0]);
    assert_eq!(column("train/loss"), [1.0, 2.0, 3.0, 4.0, 50.0]);
    assert_eq!(column("_step"), [0.0, 1.0, 2.0, 3.0, 4.0]);
    assert!(column("_runtime").is_sorted(), "{:?}", column("_runtime"));
    assert_eq!(kinds(&file), [21, 17, 12, 12, 6, 2, 2, 2, 2, 13, 2, 3, 18], "one end");
    assert_eq!(fs::read_to_string(&log).unwrap(), "before\n");
    let left: Vec<_> =
        fs::read_dir(file.parent().unwrap()).unwrap().flatten().map(|e| e.file_name()).collect();
    assert_eq!(left.len(), 3, "{left:?}");
}

#[test]
fn a_run_whose_directory_is_gone_goes_on_under_its_identity() {
    let dir = tempfile::tempdir().unwrap();
    let run = Run::create(&settings(dir.path())).unwrap();
    let (id, state) = (run.id().to_owned(), run.state());
    fs::remove_dir_all(run.directory()).unwrap();
    let again = Run::resume(&settings(dir.path()), &state, 4).unwrap();
    assert_eq!(again.id(), id);
    let other = tempfile::tempdir().unwrap();
    let elsewhere = Run::resume(&settings(other.path()), &state, 4).unwrap();
    assert_eq!(elsewhere.id(), id);
    // A state that says nothing is a new run.
    assert_ne!(Run::resume(&settings(other.path()), &Map::new(), 4).unwrap().id(), id);
    // A name that leads elsewhere does not.
    let mut state = state;
    state.insert("directory".into(), json!("../../outside"));
    let inside = Run::resume(&settings(dir.path()), &state, 4).unwrap();
    assert!(inside.directory().starts_with(dir.path().join("wandb")));
}

#[test]
fn tables_are_files_that_rows_refer_to() {
    let dir = tempfile::tempdir().unwrap();
    let mut run = Run::create(&settings(dir.path())).unwrap();
    let columns = ["prompt", "answer"].map(String::from).to_vec();
    let table =
        Table { columns, rows: vec![vec![json!("Hello"), json!(1)], vec![json!("é\n"), json!(null)]] };
    run.tabulate(7, "samples", &table).unwrap();
    let found = history(&file_of(&run)).unwrap();
    let reference = &found[0]["samples"];
    assert_eq!(
        [&reference["_type"], &reference["nrows"], &reference["ncols"]],
        [&json!("table-file"), &json!(2), &json!(2)]
    );
    assert_eq!(found[0]["train/global_step"], 7);
    let path = run.directory().join("files").join(reference["path"].as_str().unwrap());
    let text = fs::read_to_string(&path).unwrap();
    assert_eq!(text.len() as u64, reference["size"].as_u64().unwrap());
    let read: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(read, json!({"columns": ["prompt", "answer"], "data": [["Hello", 1], ["é\n", null]]}));
    // The file is listed before the row that needs it.
    assert_eq!(kinds(&file_of(&run))[4..], [6, 6, 2]);
}

#[test]
fn places_that_cannot_be_written_are_errors() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("file"), "").unwrap();
    let error = Run::create(&settings(&dir.path().join("file"))).err().unwrap();
    assert!(error.to_string().contains("cannot create the directory"), "{error}");
    let run = Run::create(&settings(dir.path())).unwrap();
    fs::write(file_of(&run), "something else").unwrap();
    let error = Run::resume(&settings(dir.path()), &run.state(), 0).err().unwrap();
    assert!(matches!(error, crate::TrackingError::Damaged { .. }), "{error}");
    assert!(matches!(history(&dir.path().join("absent")), Err(crate::TrackingError::Io { .. })));
    let _ = items(b"\xff\xff");
}
