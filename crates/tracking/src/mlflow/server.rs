//! The server, as the thread that talks to it sees it.

use super::{Found, MlflowSettings, lock};
use crate::courier::Delivery;
use crate::http::{HttpClient, HttpError, encoded, shown};
use crate::tracker::Row;
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

/// The server's limits of one `log-batch`.
pub(super) const METRICS_OF_A_BATCH: usize = 1000;
const PARAMS_OF_A_BATCH: usize = 100;
/// Longer values are refused by the server.
const LONGEST_PARAM: usize = 6000;
/// The tag that holds our identity of a run.
const MARK: &str = "llm-foundry.run";
/// Of refused settings so many are named.
const NAMED: usize = 3;

/// What is told.
pub(super) enum Parcel {
    /// Make or find the run, even if there is nothing more to tell.
    Begin,
    /// Values, at a time in milliseconds since 1970.
    Row { at: u64, row: Row },
    /// The run is over, with this status.
    End(&'static str),
}

pub(super) struct Server {
    client: HttpClient,
    settings: MlflowSettings,
    mark: String,
    /// A run with our mark may be there: an earlier process made it, or an earlier try whose answer was lost.
    may_exist: bool,
    /// The run had settings before this process told any: the server keeps the first ones.
    goes_on: bool,
    is_begun: bool,
    found: Arc<Mutex<Found>>,
}

impl Server {
    pub(super) fn new(
        settings: &MlflowSettings,
        mark: &str,
        may_exist: bool,
        found: Arc<Mutex<Found>>,
    ) -> Self {
        Self {
            client: HttpClient::new(&settings.server, &settings.credentials),
            settings: settings.clone(),
            mark: mark.to_owned(),
            may_exist,
            goes_on: !settings.run_id.is_empty(),
            is_begun: false,
            found,
        }
    }

    fn run_id(&self) -> String {
        lock(&self.found).run_id.clone()
    }

    fn ask(&self, what: &str, body: &Value) -> Result<Value, HttpError> {
        self.client.post(&format!("/api/2.0/mlflow/{what}"), &body.to_string())
    }

    /// Finds or makes the run, and tells its settings.
    fn begin(&mut self) -> Result<(), HttpError> {
        if self.run_id().is_empty() {
            let experiment = self.experiment()?;
            let earlier = if self.may_exist { self.marked(&experiment)? } else { None };
            self.goes_on |= earlier.is_some();
            let run_id = match earlier {
                Some(run_id) => run_id,
                None => {
                    self.may_exist = true;
                    self.create(&experiment)?
                }
            };
            let mut found = lock(&self.found);
            found.place = Some(self.place(&experiment, &run_id));
            found.run_id = run_id;
        }
        if self.goes_on {
            let run_id = self.run_id();
            let answer = self.ask("runs/update", &json!({ "run_id": run_id, "status": "RUNNING" }))?;
            if let Some(experiment) = answer["run_info"]["experiment_id"].as_str() {
                lock(&self.found).place = Some(self.place(experiment, &run_id));
            }
        }
        self.tell_settings()
    }

    /// Where people look at it.
    fn place(&self, experiment: &str, run_id: &str) -> String {
        format!("{}/#/experiments/{experiment}/runs/{run_id}", shown(&self.settings.server))
    }

    fn create(&self, experiment: &str) -> Result<String, HttpError> {
        let mark = (MARK.to_owned(), self.mark.clone());
        let tags: Vec<(String, String)> = self.settings.tags.iter().cloned().chain([mark]).collect();
        let body = json!({
            "experiment_id": experiment,
            "run_name": self.settings.name,
            "start_time": milliseconds(),
            "tags": pairs(&tags),
        });
        text(&self.ask("runs/create", &body)?["run"]["info"]["run_id"])
    }

    /// The run with our mark, if there is one.
    fn marked(&self, experiment: &str) -> Result<Option<String>, HttpError> {
        let filter = format!("tags.`{MARK}` = '{}'", self.mark);
        let body = json!({ "experiment_ids": [experiment], "filter": filter, "max_results": 1 });
        let answer = self.ask("runs/search", &body)?;
        Ok(answer["runs"][0]["info"]["run_id"].as_str().map(str::to_owned))
    }

    /// The identity of the experiment.
    fn experiment(&self) -> Result<String, HttpError> {
        let name = &self.settings.experiment;
        let found = self
            .client
            .get(&format!("/api/2.0/mlflow/experiments/get-by-name?experiment_name={}", encoded(name)));
        match found {
            Ok(found) => text(&found["experiment"]["experiment_id"]),
            Err(HttpError::Refused(404, _)) => {
                text(&self.ask("experiments/create", &json!({ "name": name }))?["experiment_id"])
            }
            Err(error) => Err(error),
        }
    }

    /// A server refuses a hundred settings for one of them; then they are told one by one.
    fn tell_settings(&self) -> Result<(), HttpError> {
        let mut refused: Vec<(String, String)> = Vec::new();
        for params in pairs(&self.settings.params).chunks(PARAMS_OF_A_BATCH) {
            match self.tell_params(params) {
                Ok(()) => continue,
                Err(HttpError::Refused(400, _)) => {}
                Err(error) => return Err(error),
            }
            for param in params {
                match self.tell_params(std::slice::from_ref(param)) {
                    Ok(()) => {}
                    // What a run was told first stays: a resumed run may differ (max_steps), and that is no mistake.
                    Err(HttpError::Refused(400, _)) if self.goes_on => {}
                    Err(HttpError::Refused(400, why)) => {
                        refused.push((param["key"].as_str().unwrap_or_default().to_owned(), why));
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        let Some((_, why)) = refused.first() else { return Ok(()) };
        let mut found = lock(&self.found);
        found.why.clone_from(why);
        found.refused = refused.iter().take(NAMED).map(|(key, _)| format!("the setting {key}")).collect();
        if refused.len() > NAMED {
            found.refused.push(format!("{} more", refused.len() - NAMED));
        }
        Ok(())
    }

    fn tell_params(&self, params: &[Value]) -> Result<(), HttpError> {
        self.ask("runs/log-batch", &json!({ "run_id": self.run_id(), "params": params })).map(|_| ())
    }
}

impl Delivery for Server {
    type Parcel = Parcel;

    fn deliver(&mut self, waiting: &mut VecDeque<Parcel>) -> Result<(), HttpError> {
        if !self.is_begun {
            self.begin()?;
            self.is_begun = true;
        }
        while let Some(first) = waiting.front() {
            let delivered = match first {
                Parcel::Begin => 1,
                Parcel::End(status) => {
                    let body =
                        json!({ "run_id": self.run_id(), "status": status, "end_time": milliseconds() });
                    self.ask("runs/update", &body)?;
                    1
                }
                Parcel::Row { .. } => {
                    let (rows, metrics) = batch(waiting);
                    // One row alone may have more than a batch holds.
                    for metrics in metrics.chunks(METRICS_OF_A_BATCH) {
                        let body = json!({ "run_id": self.run_id(), "metrics": metrics });
                        self.ask("runs/log-batch", &body)?;
                    }
                    rows
                }
            };
            waiting.drain(..delivered);
        }
        Ok(())
    }
}

/// How many rows of those that wait first go into one request, and their values. At least one, if the first parcel is
/// a row.
fn batch(waiting: &VecDeque<Parcel>) -> (usize, Vec<Value>) {
    let (mut rows, mut metrics) = (0, Vec::new());
    for parcel in waiting {
        let Parcel::Row { at, row } = parcel else { break };
        if rows > 0 && metrics.len() + row.values.len() > METRICS_OF_A_BATCH {
            break;
        }
        rows += 1;
        metrics.extend(row.values.iter().map(
            |(name, value)| json!({ "key": key(name), "value": number(*value), "timestamp": at, "step": row.position }),
        ));
    }
    (rows, metrics)
}

fn text(value: &Value) -> Result<String, HttpError> {
    let text = value.as_str().filter(|text| !text.is_empty()).map(str::to_owned);
    text.ok_or_else(|| HttpError::Unreachable("the answer is not one of MLflow's".into()))
}

fn pairs(entries: &[(String, String)]) -> Vec<Value> {
    let pair = |(name, value): &(String, String)| {
        let value: String = value.chars().take(LONGEST_PARAM).collect();
        json!({ "key": key(name), "value": value })
    };
    entries.iter().map(pair).collect()
}

/// Names may hold letters, digits and `_-. /:` only.
fn key(name: &str) -> String {
    let is_allowed = |c: char| c.is_alphanumeric() || "_-. /:".contains(c);
    name.chars().map(|c| if is_allowed(c) { c } else { '_' }).take(250).collect()
}

/// Numbers that JSON does not have are texts in protobuf's JSON.
fn number(value: f64) -> Value {
    if value.is_finite() { json!(value) } else { json!(crate::json::number(value)) }
}

/// Time since 1970.
pub(super) fn milliseconds() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}
