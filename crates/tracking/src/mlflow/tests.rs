//! Runs on a small server that answers as MLflow's does.

use super::server::METRICS_OF_A_BATCH;
use super::*;
use crate::http::HttpError;
use crate::loopback::{Loopback, Request, nothing, quick};
use serde_json::json;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

fn mlflow(request: &Request) -> (u16, Value) {
    let path = request.path.strip_prefix("/api/2.0/mlflow/").unwrap_or_default();
    match path.split('?').next().unwrap_or_default() {
        "experiments/get-by-name" => (404, json!({ "error_code": "RESOURCE_DOES_NOT_EXIST" })),
        "experiments/create" => (200, json!({ "experiment_id": "7" })),
        "runs/create" => (200, json!({ "run": { "info": { "run_id": "abc" } } })),
        _ => (200, nothing()),
    }
}

fn settings(server: &str) -> MlflowSettings {
    MlflowSettings {
        server: server.to_owned(),
        credentials: Credentials::Bearer("token".into()),
        experiment: "an experiment".into(),
        name: "first".into(),
        params: (0..150).map(|n| (format!("param {n}"), n.to_string())).collect(),
        tags: vec![("a".into(), "b".into())],
        pace: quick(),
        ..MlflowSettings::default()
    }
}

fn row(position: u64, loss: f64) -> Row {
    Row { position, values: vec![("loss".into(), loss), ("learning_rate".into(), 1e-3)] }
}

/// Key, value and step of every metric that arrived.
fn metrics(server: &Loopback) -> Vec<(String, Value, u64)> {
    let requests = server.requests();
    let batches = requests.iter().filter(|request| request.path.ends_with("log-batch")).map(Request::json);
    let metrics = batches.flat_map(|body| body["metrics"].as_array().cloned().unwrap_or_default());
    let metric =
        |m: Value| (m["key"].as_str().unwrap().to_owned(), m["value"].clone(), m["step"].as_u64().unwrap());
    metrics.map(metric).collect()
}

fn paths(server: &Loopback) -> Vec<String> {
    let path = |request: &Request| request.path.trim_start_matches("/api/2.0/mlflow/").to_owned();
    server.requests().iter().map(path).collect()
}

#[test]
fn a_run_is_made_told_and_ended() {
    let server = Loopback::start(mlflow);
    let mut run = MlflowRun::create(&settings(&server.address)).unwrap();
    for position in 1..=3 {
        run.log(&row(position, position as f64)).unwrap();
    }
    run.log(&Row { position: 4, values: vec![("eval_loss".into(), f64::NAN), ("a@b".into(), 0.5)] }).unwrap();
    run.finish(0).unwrap();
    let paths = paths(&server);
    assert_eq!(paths[0], "experiments/get-by-name?experiment_name=an%20experiment");
    assert_eq!(paths[1..5], ["experiments/create", "runs/create", "runs/log-batch", "runs/log-batch"]);
    assert_eq!(paths.last().unwrap(), "runs/update");
    let requests = server.requests();
    let made = requests[2].json();
    assert_eq!([&made["experiment_id"], &made["run_name"]], ["7", "first"]);
    assert_eq!(requests[3].json()["params"].as_array().unwrap().len(), 100, "as many as a server takes");
    assert!(requests.iter().all(|request| request.authorization == "Bearer token"));
    let metrics = metrics(&server);
    assert_eq!(metrics.len(), 8);
    assert_eq!(metrics[0], ("loss".into(), json!(1.0), 1));
    assert_eq!(metrics[6], ("eval_loss".into(), json!("NaN"), 4));
    assert_eq!(metrics[7].0, "a_b", "characters that names may not hold");
    assert_eq!(requests.last().unwrap().json()["status"], "FINISHED");
    assert!(run.whereabouts().unwrap().ends_with("/#/experiments/7/runs/abc"));
    assert_eq!(run.state()["run_id"], "abc");
}

#[test]
fn a_resumed_run_is_the_same_run() {
    let server = Loopback::start(|request| {
        match request.path.ends_with("log-batch") && request.body.contains("params") {
            true => (400, json!({ "error_code": "INVALID_PARAMETER_VALUE" })),
            false => mlflow(request),
        }
    });
    let state = Map::from_iter([("run_id".to_owned(), json!("xyz"))]);
    let mut run = MlflowRun::resume(&settings(&server.address), &state).unwrap();
    run.log(&row(5, 1.0)).unwrap();
    run.finish(130).unwrap();
    assert!(!paths(&server).contains(&"runs/create".to_owned()));
    let requests = server.requests();
    assert_eq!(requests[0].json(), json!({ "run_id": "xyz", "status": "RUNNING" }));
    assert_eq!(run.whereabouts(), None, "settings that are other ones now are no mistake");
    assert_eq!(requests.last().unwrap().json()["status"], "KILLED");
    assert_eq!(metrics(&server).len(), 2, "settings that changed do not hinder the numbers");
}

/// A server that was away when the last checkpoint was written has a run that the checkpoint does not name.
#[test]
fn a_run_whose_identity_was_not_known_yet_is_found_again() {
    let away = Loopback::start(|_| (503, nothing()));
    let run = MlflowRun::create(&settings(&away.address)).unwrap();
    let state = run.state();
    assert!(!state.contains_key("run_id"), "{state:?}");
    let mark = state["mark"].as_str().unwrap().to_owned();
    let expected = format!("tags.`llm-foundry.run` = '{mark}'");
    let server = Loopback::start(move |request| {
        let is_search =
            request.path.ends_with("runs/search") && request.json()["filter"] == expected.as_str();
        match is_search {
            true => (200, json!({ "runs": [{ "info": { "run_id": "made before" } }] })),
            false => mlflow(request),
        }
    });
    let mut run = MlflowRun::resume(&settings(&server.address), &state).unwrap();
    run.log(&row(5, 1.0)).unwrap();
    run.finish(0).unwrap();
    assert!(!paths(&server).contains(&"runs/create".to_owned()), "{:?}", paths(&server));
    assert_eq!(run.state()["run_id"], "made before");
    // A server that knows of none makes it, with the mark.
    let empty = Loopback::start(mlflow);
    let mut run = MlflowRun::resume(&settings(&empty.address), &state).unwrap();
    run.finish(0).unwrap();
    let made = empty.requests().into_iter().find(|request| request.path.ends_with("runs/create")).unwrap();
    let tags = made.json()["tags"].clone();
    assert_eq!(tags[1], json!({ "key": "llm-foundry.run", "value": mark }));
    assert_eq!(run.state()["mark"], mark.as_str());
}

#[test]
fn settings_that_a_server_refuses_are_told_one_by_one() {
    let server = Loopback::start(|request| {
        let refuses = request.path.ends_with("log-batch") && request.body.contains("\"param 120\"");
        match refuses {
            true => (400, json!({ "message": "too long for me" })),
            false => mlflow(request),
        }
    });
    let mut run = MlflowRun::create(&settings(&server.address)).unwrap();
    run.finish(0).unwrap();
    let batches = server.requests().into_iter().filter(|request| request.path.ends_with("log-batch"));
    let told: Vec<Value> = batches
        .flat_map(|request| request.json()["params"].as_array().cloned().unwrap_or_default())
        .collect();
    // A hundred, fifty in vain, and those one by one.
    assert_eq!(told.len(), 100 + 50 + 50);
    let said = run.whereabouts().unwrap();
    assert!(said.contains("refused the setting param 120 (") && said.contains("too long for me"), "{said}");
    assert!(said.contains("/runs/abc") && !said.contains("metrics.jsonl"), "{said}");
}

/// A row is one parcel, whatever it holds.
#[test]
fn rows_are_sent_whole_and_in_batches() {
    let server = Loopback::start(mlflow);
    let wide = |position, count: usize| Row {
        position,
        values: (0..count).map(|n| (format!("m{n}"), n as f64)).collect(),
    };
    let found = Arc::<Mutex<Found>>::default();
    let mut thread = Server::new(&settings(&server.address), "mark", false, found);
    let rows = [wide(1, 600), wide(2, 600), wide(3, 2500), wide(4, 1), wide(5, 1)];
    let mut waiting: VecDeque<Parcel> = rows.into_iter().map(|row| Parcel::Row { at: 1, row }).collect();
    let delivered: Result<(), HttpError> = crate::courier::Delivery::deliver(&mut thread, &mut waiting);
    delivered.unwrap();
    assert!(waiting.is_empty());
    let requests = server.requests();
    let count = |request: &Request| request.json()["metrics"].as_array().map_or(0, Vec::len);
    let counts: Vec<usize> = requests.iter().map(count).filter(|count| *count > 0).collect();
    assert_eq!(counts, [600, 600, 1000, 1000, 500, 2]);
}

#[test]
fn a_server_that_comes_back_gets_everything() {
    let refusals = AtomicU32::new(6);
    let server = Loopback::start(move |request| {
        let is_away =
            refusals.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1)).is_ok();
        if is_away { (503, nothing()) } else { mlflow(request) }
    });
    let mut run = MlflowRun::create(&settings(&server.address)).unwrap();
    let began = Instant::now();
    for position in 1..=2500 {
        run.log(&row(position, 1.0)).unwrap();
    }
    assert!(began.elapsed() < Duration::from_secs(1), "telling waits for nobody");
    server.wait_for(|requests| requests.len() > 6);
    run.finish(0).unwrap();
    let metrics = metrics(&server);
    assert!(metrics.len() >= 5000);
    assert!((1..=2500).all(|step| metrics.iter().any(|metric| metric.2 == step)));
    let batch = |request: &Request| request.json()["metrics"].as_array().map_or(0, Vec::len);
    assert!(server.requests().iter().map(batch).max().unwrap() <= METRICS_OF_A_BATCH);
}

#[test]
fn a_server_that_stays_away_hinders_nobody() {
    let pace = Pace { patience: Duration::from_millis(100), ..quick() };
    // Nothing listens at port 1.
    let mut run = MlflowRun::create(&MlflowSettings { pace, ..settings("http://127.0.0.1:1") }).unwrap();
    run.log(&row(1, 1.0)).unwrap();
    let began = Instant::now();
    run.finish(0).unwrap();
    assert!(began.elapsed() < Duration::from_secs(5));
    let said = run.whereabouts().unwrap();
    assert!(said.contains("did not reach the server") && said.contains("metrics.jsonl"), "{said}");
    // A key that is wrong is not tried again.
    let server = Loopback::start(|_| (401, json!({ "message": "who are you?" })));
    let mut run = MlflowRun::create(&settings(&server.address)).unwrap();
    server.wait_for(|requests| !requests.is_empty());
    run.log(&row(1, 1.0)).unwrap();
    run.finish(0).unwrap();
    assert_eq!(server.requests().len(), 1);
    assert!(
        run.whereabouts().unwrap().contains("401: {\"message\":\"who are you?\"}"),
        "{:?}",
        run.whereabouts()
    );
}

#[test]
fn addresses_that_are_none_are_refused() {
    for address in ["localhost:5000", "", "/mlruns", "ftp://x"] {
        let error = MlflowRun::create(&settings(address)).err().unwrap();
        assert!(matches!(error, TrackingError::Address { .. }), "{error}");
    }
}
