//! Runs on a small server that answers as Weights & Biases' does.

use super::*;
use crate::loopback::{Loopback, Request, nothing, quick};
use crate::{Credentials, Row, Table, Tracker};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

fn settings(parent: &Path, address: &str) -> RunSettings {
    let credentials = Credentials::Basic("api".into(), "key".into());
    RunSettings {
        parent: parent.to_owned(),
        id: "run1".into(),
        project: "p".into(),
        name: "n".into(),
        axis: "train/global_step".into(),
        config: Map::from_iter([("lr".to_owned(), json!(0.1))]),
        server: Some(ServerSettings { address: address.to_owned(), credentials, pace: quick() }),
        ..RunSettings::default()
    }
}

/// Answers of a server that knows `known` rows already.
fn answers(address: &str, known: u64) -> impl Fn(&Request) -> (u16, Value) + Send + Sync + 'static {
    let address = address.to_owned();
    move |request| {
        if request.path != "/graphql" {
            return (200, nothing());
        }
        let body = request.json();
        let query = body["query"].as_str().unwrap_or_default();
        let data = if query.contains("upsertBucket") {
            let project = json!({ "name": "p", "entity": { "name": "me" } });
            json!({ "upsertBucket": { "bucket": { "id": "x", "name": "run1", "project": project }, "inserted": true } })
        } else if query.contains("createRunFiles") {
            let name = body["variables"]["files"][0].as_str().unwrap_or_default();
            json!({ "createRunFiles": { "files": [{ "name": name, "uploadUrl": format!("{address}/put/{name}") }] } })
        } else {
            // As Python writes it.
            let tail = json!([format!("{{\"train/loss\": NaN, \"_step\": {}}}", known.saturating_sub(1))])
                .to_string();
            json!({ "model": { "bucket": { "historyLineCount": known, "eventsLineCount": 2, "logLineCount": 3,
                "historyTail": tail } } })
        };
        (200, json!({ "data": data }))
    }
}

fn server(known: u64) -> Loopback {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    Loopback::on(listener, answers(&address, known))
}

fn row(position: u64, loss: f64) -> Row {
    Row { position, values: vec![("train/loss".into(), loss)] }
}

/// The lines of one file of the stream as they arrived, by number.
fn stream(requests: &[Request], file: &str) -> BTreeMap<u64, String> {
    let mut lines = BTreeMap::new();
    for part in requests.iter().filter(|request| request.path.ends_with("file_stream")) {
        let part = &part.json()["files"][file];
        let content = part["content"].as_array().cloned().unwrap_or_default();
        for (index, line) in content.iter().enumerate() {
            lines.insert(part["offset"].as_u64().unwrap() + index as u64, line.as_str().unwrap().to_owned());
        }
    }
    lines
}

#[test]
fn the_server_is_told_what_the_directory_gets() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(0);
    let mut run = Run::create(&settings(dir.path(), &server.address)).unwrap();
    let name = run.directory().file_name().unwrap().to_string_lossy().into_owned();
    assert!(name.starts_with("offline-run-"), "{name}");
    for position in 1..=5 {
        run.log(&row(position, position as f64)).unwrap();
    }
    run.print("hello").unwrap();
    run.measure(&[("cpu".into(), 50.0)]).unwrap();
    run.tabulate(5, "samples", &Table { columns: vec!["a".into()], rows: vec![vec![json!("x")]] }).unwrap();
    run.summarize(&Row { position: 5, values: vec![("train_loss".into(), 3.0)] }).unwrap();
    run.finish(0).unwrap();

    let requests = server.requests();
    let upsert = requests[0].json();
    assert_eq!([&upsert["variables"]["name"], &upsert["variables"]["project"]], ["run1", "p"]);
    assert_eq!(upsert["variables"]["config"], r#"{"lr":{"value":0.1}}"#);
    // "api:key" in base64.
    assert_eq!(requests[0].authorization, "Basic YXBpOmtleQ==");
    let history = stream(&requests, "wandb-history.jsonl");
    let local = history_of(&run);
    assert_eq!(history.len(), 6);
    for (number, line) in &history {
        let line: Map<String, Value> = serde_json::from_str(line).unwrap();
        assert_eq!(line, local[*number as usize], "the rows are those of the directory");
    }
    assert!(stream(&requests, "output.log")[&0].ends_with(" hello"));
    assert!(stream(&requests, "wandb-events.jsonl")[&0].contains("\"system.cpu\": 50"));
    let summary: Value = serde_json::from_str(&stream(&requests, "wandb-summary.json")[&0]).unwrap();
    assert_eq!([&summary["train_loss"], &summary["train/loss"]], [3.0, 5.0]);
    let last = requests.iter().rfind(|request| request.path.ends_with("file_stream")).unwrap();
    assert_eq!(last.path, "/files/me/p/run1/file_stream");
    assert_eq!([&last.json()["complete"], &last.json()["exitcode"]], [&json!(true), &json!(0)]);
    let put: Vec<&Request> = requests.iter().filter(|request| request.method == "PUT").collect();
    assert_eq!(put.len(), 3, "metadata, configuration, table");
    assert!(
        put[2].path.starts_with("/put/media/table/samples_") && put[2].body.contains("\"data\":[[\"x\"]]")
    );
    assert!(put.iter().all(|request| request.authorization.is_empty()), "storage is not told the key");
    assert_eq!(run.whereabouts().unwrap(), format!("Weights & Biases: {}/me/p/runs/run1", server.address));
}

fn history_of(run: &Run) -> Vec<Map<String, Value>> {
    history(&run.directory().join("run-run1.wandb")).unwrap()
}

#[test]
fn a_server_that_comes_back_gets_every_row() {
    let dir = tempfile::tempdir().unwrap();
    let is_away = Arc::new(AtomicBool::new(true));
    let flag = Arc::clone(&is_away);
    let answer = answers("http://127.0.0.1:1", 0);
    let server =
        Loopback::start(
            move |request| {
                if flag.load(Ordering::Relaxed) { (502, nothing()) } else { answer(request) }
            },
        );
    let mut run = Run::create(&settings(dir.path(), &server.address)).unwrap();
    let began = Instant::now();
    for position in 1..=3000 {
        run.log(&row(position, 1.0 / position as f64)).unwrap();
    }
    assert!(began.elapsed() < Duration::from_secs(5), "telling waits for nobody");
    server.wait_for(|requests| requests.len() > 2);
    is_away.store(false, Ordering::Relaxed);
    run.finish(0).unwrap();
    let history = stream(&server.requests(), "wandb-history.jsonl");
    assert!(history.keys().copied().eq(0..3000), "{} lines, from {:?}", history.len(), history.keys().next());
}

#[test]
fn a_server_that_stays_away_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = settings(dir.path(), "http://127.0.0.1:1");
    settings.server.as_mut().unwrap().pace.patience = Duration::from_millis(50);
    let mut run = Run::create(&settings).unwrap();
    (1..=10).for_each(|position| run.log(&row(position, 1.0)).unwrap());
    let began = Instant::now();
    run.finish(0).unwrap();
    assert!(began.elapsed() < Duration::from_secs(5));
    assert_eq!(history_of(&run).len(), 10);
    let said = run.whereabouts().unwrap();
    assert!(said.contains("did not get all") && said.contains("wandb sync"), "{said}");
    // A server that refuses the key is asked once.
    let refusing = Loopback::start(|_| (200, json!({ "errors": [{ "message": "permission denied" }] })));
    let mut run = Run::create(&self::settings(&dir.path().join("other"), &refusing.address)).unwrap();
    refusing.wait_for(|requests| !requests.is_empty());
    run.finish(0).unwrap();
    assert!(run.whereabouts().unwrap().contains("permission denied"), "{:?}", run.whereabouts());
    assert_eq!(refusing.requests().len(), 1);
}

/// All figures so far are one message, however often they change while the server is away.
#[test]
fn figures_are_told_once_and_the_last_ones_arrive() {
    let dir = tempfile::tempdir().unwrap();
    let is_away = Arc::new(AtomicBool::new(true));
    let flag = Arc::clone(&is_away);
    let answer = answers("http://127.0.0.1:1", 0);
    let server =
        Loopback::start(
            move |request| {
                if flag.load(Ordering::Relaxed) { (502, nothing()) } else { answer(request) }
            },
        );
    let mut run = Run::create(&settings(dir.path(), &server.address)).unwrap();
    for position in 1..=500 {
        let values = vec![("figure".into(), position as f64)];
        run.summarize(&Row { position, values }).unwrap();
    }
    is_away.store(false, Ordering::Relaxed);
    run.finish(0).unwrap();
    let requests = server.requests();
    let told: Vec<Value> = requests.iter().map(|r| r.json()["files"]["wandb-summary.json"].clone()).collect();
    let told: Vec<&Value> = told.iter().filter(|part| part.is_object()).collect();
    assert!((1..=3).contains(&told.len()), "{told:?}");
    let last = told.last().unwrap()["content"][0].as_str().unwrap();
    assert!(last.contains("\"figure\": 500"), "{last}");
}

#[test]
fn a_resumed_run_goes_on_where_the_server_is() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(6);
    let settings = settings(dir.path(), &server.address);
    let mut run = Run::create(&RunSettings { server: None, ..settings.clone() }).unwrap();
    (1..=6).for_each(|position| run.log(&row(position, 1.0)).unwrap());
    let state = run.state();
    fs::write(run.directory().join("run-run1.wandb.synced"), "").unwrap();
    drop(run);
    // The server has rows of steps 5 and 6 that the checkpoint of step 4 knows nothing of.
    let mut run = Run::resume(&settings, &state, 4).unwrap();
    assert!(!run.directory().join("run-run1.wandb.synced").exists(), "what was uploaded is not all any more");
    run.log(&row(5, 2.0)).unwrap();
    run.log(&row(6, f64::NAN)).unwrap();
    fs::write(run.directory().join("run-run1.wandb.synced"), "").unwrap();
    run.finish(0).unwrap();
    assert!(!run.directory().join("run-run1.wandb.synced").exists(), "there is more than was uploaded");
    let requests = server.requests();
    let history = stream(&requests, "wandb-history.jsonl");
    assert_eq!(history.keys().copied().collect::<Vec<_>>(), [6, 7]);
    assert!(
        history[&7].contains("\"train/loss\": NaN") && history[&7].contains("\"_step\": 7"),
        "{history:?}"
    );
    let row: Value = serde_json::from_str(&history[&6]).unwrap();
    assert_eq!([&row["_step"], &row["train/global_step"]], [6, 5], "no step of the server's twice");
    assert_eq!(history_of(&run)[4]["_step"], 4);
}
