//! MLflow: experiments and runs on a tracking server, by its REST interface (2.0).
//!
//! The server draws the identity of a run. So that a run is found again whose identity nobody here knows (the server
//! was away until the last checkpoint, or its answer was lost), each run has a tag with an identity of ours.

mod server;
#[cfg(test)]
mod tests;

use crate::courier::{Courier, Outcome, Pace};
use crate::error::TrackingError;
use crate::http::{Credentials, wrong_address};
use crate::id;
use crate::tracker::{Row, Tracker};
use serde_json::{Map, Value};
use server::{Parcel, Server, milliseconds};
use std::sync::{Arc, Mutex, PoisonError};

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
    /// The run's identity here.
    mark: String,
    found: Arc<Mutex<Found>>,
    is_finished: bool,
    left: Option<String>,
}

/// What the thread finds out about the run.
#[derive(Clone, Debug, Default)]
struct Found {
    /// The run's identity on the server; empty until that has given one.
    run_id: String,
    /// Where the run can be looked at.
    place: Option<String>,
    /// Settings that the server did not take, and what it said.
    refused: Vec<String>,
    why: String,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl MlflowRun {
    /// Begins a run; nothing is asked of the server before this returns.
    pub fn create(settings: &MlflowSettings) -> Result<Self, TrackingError> {
        Self::begin(settings, id::fresh(), false)
    }

    /// `may_exist`: a run with this mark.
    fn begin(settings: &MlflowSettings, mark: String, may_exist: bool) -> Result<Self, TrackingError> {
        if let Some(what) = wrong_address(&settings.server) {
            return Err(TrackingError::Address { address: settings.server.clone(), what });
        }
        let found = Found { run_id: settings.run_id.clone(), ..Found::default() };
        let found = Arc::new(Mutex::new(found));
        let server = Server::new(settings, &mark, may_exist, Arc::clone(&found));
        let courier = Courier::start(server, settings.pace).map_err(TrackingError::Thread)?;
        courier.send(Parcel::Begin);
        Ok(Self { courier, mark, found, is_finished: false, left: None })
    }

    /// Goes on with the run whose [`Tracker::state`] is `state`. What the server knows of later positions stays there;
    /// values of positions that are taken again stand behind the earlier ones of the same position.
    pub fn resume(settings: &MlflowSettings, state: &Map<String, Value>) -> Result<Self, TrackingError> {
        let text = |key: &str| state.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
        let run_id = text("run_id").unwrap_or(&settings.run_id).to_owned();
        let mark = text("mark").map_or_else(id::fresh, str::to_owned);
        Self::begin(&MlflowSettings { run_id, ..settings.clone() }, mark, true)
    }

    /// What the user should know of what the server did not take.
    fn complaint(&self, outcome: Outcome) -> Option<String> {
        let why = || outcome.error.as_ref().map_or_else(|| "no answer in time".into(), ToString::to_string);
        let mut said = Vec::new();
        if outcome.left > 0 {
            said.push(format!("{} messages did not reach the server ({})", outcome.left, why()));
        }
        if outcome.dropped > 0 {
            said.push(format!(
                "the server was away for so long that {} messages were given up",
                outcome.dropped
            ));
        }
        let metrics = (!said.is_empty()).then_some("metrics.jsonl has all values");
        let found = lock(&self.found);
        if !found.refused.is_empty() {
            said.push(format!("the server refused {} ({})", found.refused.join(", "), found.why));
        }
        said.extend(metrics.map(str::to_owned));
        (!said.is_empty()).then(|| format!("MLflow: {}", said.join("; ")))
    }
}

impl Tracker for MlflowRun {
    fn name(&self) -> &'static str {
        "mlflow"
    }

    fn log(&mut self, row: &Row) -> Result<(), TrackingError> {
        if !row.values.is_empty() {
            self.courier.send(Parcel::Row { at: milliseconds(), row: row.clone() });
        }
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
        self.left = self.complaint(outcome);
        Ok(())
    }

    fn state(&self) -> Map<String, Value> {
        let run_id = lock(&self.found).run_id.clone();
        let run_id = (!run_id.is_empty()).then(|| ("run_id".to_owned(), run_id.into()));
        run_id.into_iter().chain([("mark".to_owned(), self.mark.clone().into())]).collect()
    }

    fn whereabouts(&self) -> Option<String> {
        let place = lock(&self.found).place.clone().map(|place| format!("MLflow: {place}"));
        match (&self.left, place) {
            (Some(left), Some(place)) => Some(format!("{place}\n{left}")),
            (left, place) => left.clone().or(place),
        }
    }
}
