//! Records of a run (`wandb_internal.proto` of Weights & Biases' client): what is written, and what of it is read again
//! when a run goes on.

use super::run::RunSettings;
use crate::protobuf::{Message, Wire, fields};
use serde_json::{Map, Value};
use std::time::Duration;

/// Fields of `Record`; each kind of record is one of them.
pub(super) const HISTORY: u32 = 2;
pub(super) const SUMMARY: u32 = 3;
const FILES: u32 = 6;
const STATS: u32 = 7;
const METRIC: u32 = 12;
const OUTPUT_RAW: u32 = 13;
const RUN: u32 = 17;
pub(super) const EXIT: u32 = 18;
const HEADER: u32 = 21;

/// Field of a value as JSON text, the same in all kinds of items.
const VALUE_JSON: u32 = 16;

/// What a record says, before it gets its number.
pub(super) struct Record {
    kind: u32,
    body: Message,
}

impl Record {
    /// The bytes of the record with this number.
    pub(super) fn numbered(&self, number: u64) -> Vec<u8> {
        Message::default().integer(1, number).message(self.kind, &self.body).encoded().to_vec()
    }

    /// The first record: who wrote the file, and the oldest client that can read it.
    pub(super) fn header(producer: &str) -> Self {
        let version = Message::default().text(1, producer).text(2, "0.70.0");
        Self { kind: HEADER, body: Message::default().message(1, &version) }
    }

    /// What the run is. `resumed`: there are earlier directories of the same run.
    pub(super) fn run(id: &str, settings: &RunSettings, started: Duration, resumed: bool) -> Self {
        let config = settings.config.iter().fold(Message::default(), |config, (key, value)| {
            config.message(1, &Message::default().text(1, key).text(VALUE_JSON, &value.to_string()))
        });
        let body = Message::default()
            .text(1, id)
            .text(2, &settings.entity)
            .text(3, &settings.project)
            .message(4, &config)
            .text(6, &settings.group)
            .text(7, &settings.job_type)
            .text(8, &settings.name)
            .text(9, &settings.notes);
        let body = settings.tags.iter().fold(body, |body, tag| body.text(10, tag));
        let body = body.text(13, &settings.host).message(17, &timestamp(started));
        Self { kind: RUN, body: body.integer(18, resumed.into()) }
    }

    /// The axis is a metric of its own.
    pub(super) fn axis(name: &str) -> Self {
        let defined = Message::default().integer(3, 1);
        Self { kind: METRIC, body: Message::default().text(1, name).message(6, &defined) }
    }

    /// All other metrics are drawn over the axis.
    pub(super) fn all_over(axis: &str) -> Self {
        let synced = Message::default().integer(1, 1).integer(3, 1);
        Self { kind: METRIC, body: Message::default().text(2, "*").text(4, axis).message(6, &synced) }
    }

    /// A row of history; values are JSON texts.
    pub(super) fn history<'a>(step: u64, items: impl IntoIterator<Item = (&'a str, String)>) -> Self {
        let body = items.into_iter().fold(Message::default(), |body, (name, json)| {
            body.message(1, &Message::default().text(2, name).text(VALUE_JSON, &json))
        });
        Self { kind: HISTORY, body: body.message(2, &Message::default().integer(1, step)) }
    }

    /// Figures of the whole run; values are JSON texts.
    pub(super) fn summary<'a>(items: impl IntoIterator<Item = (&'a str, String)>) -> Self {
        let body = items.into_iter().fold(Message::default(), |body, (name, json)| {
            body.message(1, &Message::default().text(1, name).text(VALUE_JSON, &json))
        });
        Self { kind: SUMMARY, body }
    }

    /// Metrics of the machine; values are JSON texts.
    pub(super) fn stats<'a>(at: Duration, items: impl IntoIterator<Item = (&'a str, String)>) -> Self {
        let body = Message::default().message(2, &timestamp(at));
        let body = items.into_iter().fold(body, |body, (name, json)| {
            body.message(3, &Message::default().text(1, name).text(VALUE_JSON, &json))
        });
        Self { kind: STATS, body }
    }

    /// A line of the console. (As standard output: lines of the other stream are shown as errors.)
    pub(super) fn output(at: Duration, line: &str) -> Self {
        let body = Message::default().integer(1, 1).message(2, &timestamp(at)).text(3, &format!("{line}\n"));
        Self { kind: OUTPUT_RAW, body }
    }

    /// A file below `files/` that belongs to the run.
    pub(super) fn file(path: &str) -> Self {
        Self { kind: FILES, body: Message::default().message(1, &Message::default().text(1, path)) }
    }

    /// The end.
    pub(super) fn exit(code: u8, runtime: f64) -> Self {
        Self {
            kind: EXIT,
            body: Message::default().integer(1, code.into()).integer(2, runtime.max(0.0) as u64),
        }
    }
}

fn timestamp(since_epoch: Duration) -> Message {
    Message::default().integer(1, since_epoch.as_secs()).integer(2, since_epoch.subsec_nanos().into())
}

/// Number, kind and body of an encoded record; `None` where it is none.
pub(super) fn parse(record: &[u8]) -> Option<(u64, u32, &[u8])> {
    let (mut number, mut found) = (0, None);
    for (field, value) in fields(record) {
        match (field, value) {
            (1, Wire::Integer(value)) => number = value,
            // Control and identifier, which stand beside what a record says.
            (16 | 19, _) => {}
            (kind, Wire::Bytes(body)) => found = Some((kind, body)),
            _ => {}
        }
    }
    found.map(|(kind, body)| (number, kind, body))
}

/// Names and values of a row of history, or of a summary.
pub(super) fn items(body: &[u8]) -> Map<String, Value> {
    let items = fields(body).filter(|(field, _)| *field == 1).filter_map(|(_, item)| item.bytes());
    items.filter_map(item).collect()
}

fn item(item: &[u8]) -> Option<(String, Value)> {
    let (mut name, mut json) = (None, None);
    for (field, value) in fields(item) {
        match field {
            1 | 2 => name = value.bytes(),
            VALUE_JSON => json = value.bytes(),
            _ => {}
        }
    }
    let text = std::str::from_utf8(json?).ok()?;
    // NaN and infinities are no JSON: as texts they are what they are.
    let value = serde_json::from_str(text).unwrap_or_else(|_| Value::from(text));
    Some((String::from_utf8(name?.to_vec()).ok()?, value))
}

/// The step of a row of history.
pub(super) fn step(history: &[u8]) -> u64 {
    let number = |bytes| match fields(bytes).find(|(field, _)| *field == 1) {
        Some((_, Wire::Integer(step))) => step,
        _ => 0,
    };
    fields(history).find(|(field, _)| *field == 2).and_then(|(_, step)| step.bytes()).map_or(0, number)
}
