//! MLflow: experiments and runs on a tracking server, by its REST interface (2.0).

#[cfg(test)]
mod tests;

use crate::courier::{Courier, Delivery, Pace};
use crate::error::TrackingError;
use crate::http::{Credentials, HttpClient, HttpError, encoded, shown, wrong_address};
use crate::tracker::{Row, Tracker};
use serde_json::{Map, Value, json};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

/// The server's limits of one `log-batch`.
const METRICS_OF_A_BATCH: usize = 1000;
const PARAMS_OF_A_BATCH: usize = 100;
/// Longer values are refused by the server.
const LONGEST_PARAM: usize = 6000;

/// What a run is called and where it belongs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MlflowSettings {
    /// Address of the server, `http://` or `https://`.
    pub server: String,
    /// How to prove who asks.
    pub credentials: Credentials,
    /// Name of the experiment; it is made where it does not exist.
    pub experiment: String,
    /// Name of the run for people.
    pub name: String,
    /// A run of the server to go on with; empty: a new one.
    pub run_id: String,
    /// Settings of the run, by name.
    pub params: Vec<(String, String)>,
    /// Words to find the run by, by name.
    pub tags: Vec<(String, String)>,
    /// How often to try.
    pub pace: Pace,
}

/// A run on a server. Values are sent on a thread of its own; what a server that is away does not get is kept for it
/// until the end of the run.
pub struct MlflowRun {
    courier: Courier<Parcel>,
    /// The run's identity, once the server has given one.
    run_id: Arc<Mutex<String>>,
    /// Where the run can be looked at, once that is known.
    place: Arc<Mutex<Option<String>>>,
    is_finished: bool,
    left: Option<String>,
}

impl MlflowRun {
    /// Begins a run; nothing is asked of the server before this returns.
    pub fn create(settings: &MlflowSettings) -> Result<Self, TrackingError> {
        if let Some(what) = wrong_address(&settings.server) {
            return Err(TrackingError::Address { address: settings.server.clone(), what });
        }
        let run_id = Arc::new(Mutex::new(settings.run_id.clone()));
        let place = Arc::<Mutex<Option<String>>>::default();
        let server = Server {
            client: HttpClient::new(&settings.server, &settings.credentials),
            settings: settings.clone(),
            run_id: Arc::clone(&run_id),
            place: Arc::clone(&place),
            is_begun: false,
        };
        let courier = Courier::start(server, settings.pace).map_err(TrackingError::Thread)?;
        courier.send(Parcel::Begin);
        let run = Self { courier, run_id, place, is_finished: false, left: None };
        Ok(run)
    }

    /// Goes on with the run whose [`Tracker::state`] is `state`. What the server knows of later positions stays there,
    /// and is written over by the next values of the same position.
    pub fn resume(settings: &MlflowSettings, state: &Map<String, Value>) -> Result<Self, TrackingError> {
        let run_id = state.get("run_id").and_then(Value::as_str).unwrap_or(&settings.run_id);
        Self::create(&MlflowSettings { run_id: run_id.to_owned(), ..settings.clone() })
    }
}

impl Tracker for MlflowRun {
    fn name(&self) -> &'static str {
        "mlflow"
    }

    fn log(&mut self, row: &Row) -> Result<(), TrackingError> {
        let at = milliseconds();
        let metric = |(name, value): &(String, f64)| json!({ "key": key(name), "value": number(*value), "timestamp": at, "step": row.position });
        row.values.iter().for_each(|value| self.courier.send(Parcel::Metric(metric(value))));
        Ok(())
    }

    fn summarize(&mut self, row: &Row) -> Result<(), TrackingError> {
        self.log(row)
    }

    /// Nothing of this run is on this machine's disk.
    fn flush(&mut self) -> Result<(), TrackingError> {
        Ok(())
    }

    fn finish(&mut self, exit_code: u8) -> Result<(), TrackingError> {
        if std::mem::replace(&mut self.is_finished, true) {
            return Ok(());
        }
        let status = match exit_code {
            0 => "FINISHED",
            130 => "KILLED",
            _ => "FAILED",
        };
        self.courier.send(Parcel::End(status));
        let outcome = self.courier.close();
        self.left = (outcome.left > 0).then(|| {
            let why = outcome.error.map_or_else(|| "no answer in time".into(), |error| error.to_string());
            format!(
                "MLflow: {} values did not reach the server ({why}); metrics.jsonl has them",
                outcome.left
            )
        });
        Ok(())
    }

    fn state(&self) -> Map<String, Value> {
        let run_id = self.run_id.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if run_id.is_empty() { Map::new() } else { Map::from_iter([("run_id".to_owned(), run_id.into())]) }
    }

    fn whereabouts(&self) -> Option<String> {
        let place = || self.place.lock().unwrap_or_else(PoisonError::into_inner).clone();
        self.left.clone().or_else(|| place().map(|place| format!("MLflow: {place}")))
    }
}

enum Parcel {
    Begin,
    Metric(Value),
    End(&'static str),
}

/// The server, as the thread sees it.
struct Server {
    client: HttpClient,
    settings: MlflowSettings,
    run_id: Arc<Mutex<String>>,
    place: Arc<Mutex<Option<String>>>,
    is_begun: bool,
}

impl Delivery for Server {
    type Parcel = Parcel;

    fn deliver(&mut self, waiting: &mut VecDeque<Parcel>) -> Result<(), HttpError> {
        if !self.is_begun {
            self.begin()?;
            self.is_begun = true;
        }
        loop {
            let metrics: Vec<&Value> = waiting
                .iter()
                .take(METRICS_OF_A_BATCH)
                .map_while(|parcel| match parcel {
                    Parcel::Metric(metric) => Some(metric),
                    Parcel::Begin | Parcel::End(_) => None,
                })
                .collect();
            let delivered = match (metrics.len(), waiting.front()) {
                (0, None) => return Ok(()),
                (0, Some(Parcel::End(status))) => {
                    let body =
                        json!({ "run_id": self.run_id(), "status": status, "end_time": milliseconds() });
                    self.ask("runs/update", &body)?;
                    1
                }
                (0, Some(_)) => 1,
                (count, _) => {
                    self.ask("runs/log-batch", &json!({ "run_id": self.run_id(), "metrics": metrics }))?;
                    count
                }
            };
            waiting.drain(..delivered);
        }
    }
}

impl Server {
    fn run_id(&self) -> String {
        self.run_id.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn ask(&self, what: &str, body: &Value) -> Result<Value, HttpError> {
        self.client.post(&format!("/api/2.0/mlflow/{what}"), &body.to_string())
    }

    /// Finds or makes the experiment and the run, and tells its settings.
    fn begin(&mut self) -> Result<(), HttpError> {
        if self.run_id().is_empty() {
            let experiment = self.experiment()?;
            let body = json!({
                "experiment_id": experiment,
                "run_name": self.settings.name,
                "start_time": milliseconds(),
                "tags": pairs(&self.settings.tags),
            });
            let made = self.ask("runs/create", &body)?;
            let run_id = text(&made["run"]["info"]["run_id"])?;
            *self.place.lock().unwrap_or_else(PoisonError::into_inner) =
                Some(format!("{}/#/experiments/{experiment}/runs/{run_id}", shown(&self.settings.server)));
            *self.run_id.lock().unwrap_or_else(PoisonError::into_inner) = run_id;
        } else {
            self.ask("runs/update", &json!({ "run_id": self.run_id(), "status": "RUNNING" }))?;
        }
        for params in pairs(&self.settings.params).chunks(PARAMS_OF_A_BATCH) {
            match self.ask("runs/log-batch", &json!({ "run_id": self.run_id(), "params": params })) {
                // Parameters of a run cannot be changed: those of a resumed run may differ (max_steps).
                Err(HttpError::Refused(400, _)) | Ok(_) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
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
fn milliseconds() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}
