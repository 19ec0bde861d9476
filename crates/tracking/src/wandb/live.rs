//! A run on a server of Weights & Biases while it is trained: what its directory gets is told to the server too, by the
//! calls of their own client. Best effort: the directory has everything, and `wandb sync` can do the rest.
//!
//! `POST /graphql` with `upsertBucket` makes the run. `POST /files/ENTITY/PROJECT/RUN/file_stream` then takes lines of
//! its files (`wandb-history.jsonl`, `wandb-events.jsonl`, `output.log`, `wandb-summary.json`), each with its number,
//! and at last `complete` and `exitcode`.

use super::run::RunSettings;
use crate::courier::{Courier, Delivery, Outcome, Pace};
use crate::http::{Credentials, HttpClient, HttpError, encoded, shown};
use crate::json;
use serde_json::{Map, Value, json};
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Where the server is.
#[derive(Clone, Debug, PartialEq)]
pub struct ServerSettings {
    /// Its address, `http://` or `https://`.
    pub address: String,
    /// User `api` with the key as password.
    pub credentials: Credentials,
    /// How often to try.
    pub pace: Pace,
}

/// What is told.
#[derive(Debug)]
pub(super) enum Parcel {
    /// A row of history: names and JSON texts. (Not one text: `_step` is known when it is sent, and `NaN` is no JSON.)
    Row(Vec<(String, String)>),
    /// Metrics of the machine, as a JSON text.
    Event(String),
    /// A line of the console.
    Line(String),
    /// All figures of the run so far are other ones now.
    Summary,
    /// A file below `files/`.
    File(String),
    /// The run is over.
    Exit(u8),
}

/// Lines of one request: a server takes a few megabytes at once.
const LINES: usize = 2000;

/// All figures of the run so far, as a JSON text: the last ones only, however long the server is away.
#[derive(Debug, Default)]
struct Figures {
    text: String,
    /// A parcel that says so is on its way.
    is_announced: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The side of the run.
pub(super) struct Live {
    courier: Courier<Parcel>,
    figures: Arc<Mutex<Figures>>,
    place: Arc<Mutex<Option<String>>>,
    outcome: Option<Outcome>,
}

impl Live {
    /// Starts the thread that talks to the server. `goes_on`: the server may know the run already, and so many rows of
    /// it are kept.
    pub(super) fn start(
        server: &ServerSettings,
        settings: &RunSettings,
        id: &str,
        files: &Path,
        goes_on: Option<u64>,
    ) -> std::io::Result<Self> {
        let place = Arc::<Mutex<Option<String>>>::default();
        let figures = Arc::<Mutex<Figures>>::default();
        let stream = Stream {
            client: HttpClient::new(&server.address, &server.credentials),
            settings: settings.clone(),
            id: id.to_owned(),
            files: files.to_owned(),
            goes_on,
            known: None,
            figures: Arc::clone(&figures),
            place: Arc::clone(&place),
        };
        Ok(Self { courier: Courier::start(stream, server.pace)?, figures, place, outcome: None })
    }

    pub(super) fn send(&self, parcel: Parcel) {
        self.courier.send(parcel);
    }

    /// Tells all figures of the run so far, a JSON text, in place of those told before.
    pub(super) fn summarize(&self, text: String) {
        let mut figures = lock(&self.figures);
        figures.text = text;
        if !std::mem::replace(&mut figures.is_announced, true) {
            self.courier.send(Parcel::Summary);
        }
    }

    /// Tells the end, and waits a while for what is on its way.
    pub(super) fn finish(&mut self, exit_code: u8) {
        if self.outcome.is_none() {
            self.courier.send(Parcel::Exit(exit_code));
            self.outcome = Some(self.courier.close());
        }
    }

    /// The run's page, if everything arrived there; else why not.
    pub(super) fn result(&self) -> Result<String, String> {
        let place = lock(&self.place).clone();
        match (&self.outcome, place) {
            (Some(Outcome { left: 0, dropped: 0, .. }), Some(place)) => Ok(place),
            (Some(Outcome { left: 0, dropped, .. }), _) => {
                Err(format!("it was away for so long that {dropped} messages were given up"))
            }
            (Some(Outcome { error: Some(error), .. }), _) => Err(error.to_string()),
            _ => Err("the server did not answer in time".into()),
        }
    }
}

/// What the server knows of the run.
struct Known {
    /// `/files/ENTITY/PROJECT/RUN/file_stream`.
    path: String,
    entity: String,
    rows: u64,
    events: u64,
    lines: u64,
    /// Added to `_step` of every row: a server takes no step twice, so a resumed run's must be larger than all before.
    ahead: u64,
}

struct Stream {
    client: HttpClient,
    settings: RunSettings,
    id: String,
    files: PathBuf,
    goes_on: Option<u64>,
    known: Option<Known>,
    figures: Arc<Mutex<Figures>>,
    place: Arc<Mutex<Option<String>>>,
}

impl Delivery for Stream {
    type Parcel = Parcel;

    fn deliver(&mut self, waiting: &mut VecDeque<Parcel>) -> Result<(), HttpError> {
        if self.known.is_none() {
            self.known = Some(self.begin()?);
        }
        while let Some(known) = &mut self.known {
            let mut batch = Batch::default();
            let count =
                waiting.iter().take(LINES).take_while(|parcel| batch.take(parcel, known.ahead)).count();
            if count > 0 {
                batch.summary = batch.has_summary.then(|| {
                    let mut figures = lock(&self.figures);
                    // What comes from now on is a message of its own again.
                    figures.is_announced = false;
                    figures.text.clone()
                });
                self.client.post(&known.path, &batch.body(known).to_string())?;
                known.rows += batch.rows.len() as u64;
                known.events += batch.events.len() as u64;
                known.lines += batch.lines.len() as u64;
            } else {
                let Some(Parcel::File(name)) = waiting.front() else { return Ok(()) };
                let entity = known.entity.clone();
                match self.upload(&entity, name) {
                    // A file less is no reason to send no numbers.
                    Err(HttpError::Refused(..)) | Ok(()) => {}
                    Err(error) => return Err(error),
                }
            }
            waiting.drain(..count.max(1));
        }
        Ok(())
    }
}

/// Lines that go into one request.
#[derive(Default)]
struct Batch {
    rows: Vec<String>,
    events: Vec<String>,
    lines: Vec<String>,
    has_summary: bool,
    summary: Option<String>,
    exit_code: Option<u8>,
}

impl Batch {
    /// Whether the parcel is a part of this request.
    fn take(&mut self, parcel: &Parcel, ahead: u64) -> bool {
        match parcel {
            Parcel::File(_) => return false,
            Parcel::Row(json) => self.rows.push(moved_on(json, ahead)),
            Parcel::Event(json) => self.events.push(json.clone()),
            Parcel::Line(line) => self.lines.push(line.clone()),
            Parcel::Summary => self.has_summary = true,
            Parcel::Exit(code) => self.exit_code = Some(*code),
        }
        true
    }

    fn body(&self, known: &Known) -> Value {
        let mut files = Map::new();
        let streams = [
            ("wandb-history.jsonl", known.rows, &self.rows),
            ("wandb-events.jsonl", known.events, &self.events),
            ("output.log", known.lines, &self.lines),
        ];
        for (name, offset, content) in streams.into_iter().filter(|(_, _, content)| !content.is_empty()) {
            files.insert(name.into(), json!({ "offset": offset, "content": content }));
        }
        if let Some(summary) = &self.summary {
            files.insert("wandb-summary.json".into(), json!({ "offset": 0, "content": [summary] }));
        }
        let mut body = json!({ "files": files, "dropped": 0 });
        if let Some(code) = self.exit_code {
            body["complete"] = json!(true);
            body["exitcode"] = json!(code);
        }
        body
    }
}

/// A row as a JSON text, with a `_step` that is larger by `ahead`.
fn moved_on(row: &[(String, String)], ahead: u64) -> String {
    let moved = |(name, json): &(String, String)| {
        let step = (name == "_step").then(|| json.parse::<u64>().ok()).flatten();
        (name.clone(), step.map_or_else(|| json.clone(), |step| (step + ahead).to_string()))
    };
    let row: Vec<(String, String)> = row.iter().map(moved).collect();
    json::object(row.iter().map(|(name, json)| (name.as_str(), json.as_str())))
}

/// The number after `"_step":` in a row as Python writes it, which need not be JSON: there may be a `NaN` in it.
fn step_of(line: &str) -> Option<u64> {
    let rest = line.split_once("\"_step\"")?.1.trim_start().strip_prefix(':')?.trim_start();
    rest[..rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len())].parse().ok()
}

const UPSERT: &str = "mutation UpsertBucket($name: String, $project: String, $entity: String, $groupName: String, \
    $displayName: String, $notes: String, $config: JSONString, $host: String, $tags: [String!], $jobType: String, \
    $summaryMetrics: JSONString) { upsertBucket(input: { name: $name, modelName: $project, entityName: $entity, \
    groupName: $groupName, displayName: $displayName, notes: $notes, config: $config, host: $host, tags: $tags, \
    jobType: $jobType, summaryMetrics: $summaryMetrics }) { bucket { id name displayName \
    project { name entity { name } } } inserted } }";

const STATUS: &str = "query RunResumeStatus($project: String, $entity: String, $name: String!) { \
    model(name: $project, entityName: $entity) { bucket(name: $name, missingOk: true) { id name historyLineCount \
    eventsLineCount logLineCount historyTail } } }";

const FILES: &str = "mutation CreateRunFiles($entity: String!, $project: String!, $run: String!, $files: [String!]!) { \
    createRunFiles(input: { entityName: $entity, projectName: $project, runName: $run, files: $files }) { runID \
    files { name uploadUrl } } }";

impl Stream {
    fn ask(&self, query: &str, variables: &Value) -> Result<Value, HttpError> {
        let body = json!({ "query": query, "variables": variables }).to_string();
        let mut answer = self.client.post("/graphql", &body)?;
        match answer["errors"][0]["message"].as_str() {
            // What a server says in words is a no: the key, the project or the query is not to its liking.
            Some(message) => Err(HttpError::Refused(400, message.to_owned())),
            None => Ok(answer["data"].take()),
        }
    }

    /// Makes the run, or finds it.
    fn begin(&self) -> Result<Known, HttpError> {
        let settings = &self.settings;
        let given = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let config: Map<String, Value> =
            settings.config.iter().map(|(key, value)| (key.clone(), json!({ "value": value }))).collect();
        let upserted = self.ask(
            UPSERT,
            &json!({
                "name": self.id,
                "project": settings.project,
                "entity": given(&settings.entity),
                "groupName": given(&settings.group),
                "displayName": given(&settings.name),
                "notes": given(&settings.notes),
                "config": Value::Object(config).to_string(),
                "host": given(&settings.host),
                "tags": settings.tags,
                "jobType": given(&settings.job_type),
            }),
        )?;
        let project = &upserted["upsertBucket"]["bucket"]["project"];
        let (Some(entity), Some(project)) = (project["entity"]["name"].as_str(), project["name"].as_str())
        else {
            return Err(HttpError::Unreachable("the answer is not one of Weights & Biases".into()));
        };
        let id = encoded(&self.id);
        let run = |between: &str| format!("{}/{}{between}{id}", encoded(entity), encoded(project));
        let place = format!("{}/{}", shown(self.client.base()).replacen("://api.", "://", 1), run("/runs/"));
        *lock(&self.place) = Some(place);
        let mut known = Known {
            path: format!("/files/{}/file_stream", run("/")),
            entity: entity.to_owned(),
            rows: 0,
            events: 0,
            lines: 0,
            ahead: 0,
        };
        if let Some(rows) = self.goes_on {
            self.find(&mut known, rows)?;
        }
        Ok(known)
    }

    /// Asks how much of the run the server has already.
    fn find(&self, known: &mut Known, rows: u64) -> Result<(), HttpError> {
        let variables = json!({ "name": self.id, "project": self.settings.project, "entity": known.entity });
        let answer = self.ask(STATUS, &variables)?;
        let bucket = &answer["model"]["bucket"];
        let count = |name: &str| bucket[name].as_u64().unwrap_or(0);
        known.rows = count("historyLineCount");
        known.events = count("eventsLineCount");
        known.lines = count("logLineCount");
        // The last lines of the history, as a JSON text of JSON texts.
        let tail: Vec<String> = bucket["historyTail"]
            .as_str()
            .and_then(|tail| serde_json::from_str(tail).ok())
            .unwrap_or_default();
        if let Some(last) = tail.iter().filter_map(|line| step_of(line)).max() {
            known.ahead = (last + 1).saturating_sub(rows);
        }
        Ok(())
    }

    fn upload(&self, entity: &str, name: &str) -> Result<(), HttpError> {
        let Ok(content) = std::fs::read(self.files.join(name)) else { return Ok(()) };
        let variables =
            json!({ "entity": entity, "project": self.settings.project, "run": self.id, "files": [name] });
        let answer = self.ask(FILES, &variables)?;
        if let Some(url) = answer["createRunFiles"]["files"][0]["uploadUrl"].as_str() {
            // Storage is another server: where it is away, the numbers behind the file need not wait. The directory
            // has the file.
            let _ = self.client.put(url, &content);
        }
        Ok(())
    }
}
