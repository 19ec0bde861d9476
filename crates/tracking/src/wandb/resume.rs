//! Going on with a run that was interrupted: its file is cut after the position from which the run goes on.

use super::directory::replace;
use super::framing::{RecordWriter, records};
use super::records::{EXIT, HISTORY, SUMMARY, items, parse, step};
use crate::error::TrackingError;
use serde_json::{Map, Value};
use std::fs::{self, OpenOptions};
use std::path::Path;

/// What a cut file still says.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Remains {
    /// Number of the last record.
    pub(super) number: u64,
    /// Rows of history.
    pub(super) rows: u64,
    /// Seconds the run had taken at its last row.
    pub(super) runtime: f64,
    /// The last value of each curve, as JSON text.
    pub(super) values: Vec<(String, String)>,
}

/// Takes out what the run will say again: rows of history behind `position`, summaries and the end. A torn end goes
/// too.
pub(super) fn cut(path: &Path, axis: &str, position: u64) -> Result<(RecordWriter, Remains), TrackingError> {
    let bytes = fs::read(path).map_err(TrackingError::io("read", path))?;
    let damaged =
        || TrackingError::Damaged { path: path.to_owned(), what: "it is no file of Weights & Biases" };
    let mut remains = Remains::default();
    let mut kept = Vec::new();
    for record in records(&bytes).ok_or_else(damaged)? {
        let Some((number, kind, body)) = parse(&record) else { continue };
        if matches!(kind, SUMMARY | EXIT) || (kind == HISTORY && !remains.take_row(body, axis, position)) {
            continue;
        }
        remains.number = remains.number.max(number);
        kept.push(record);
    }
    let write = || -> std::io::Result<RecordWriter> {
        let partial = path.with_extension("wandb.partial");
        let file = OpenOptions::new().create(true).truncate(true).write(true).open(&partial)?;
        let mut writer = RecordWriter::begin(file)?;
        kept.iter().try_for_each(|record| writer.append(record))?;
        writer.flush()?;
        // The open file stays the same under its new name.
        fs::rename(&partial, path)?;
        unmark(path)?;
        Ok(writer)
    };
    Ok((write().map_err(TrackingError::io("cut", path))?, remains))
}

/// Takes away the mark by which `wandb sync` knows what it has uploaded: it would pass over what is new.
pub(super) fn unmark(path: &Path) -> std::io::Result<()> {
    match fs::remove_file(mark(path)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The mark beside the file of a run.
pub(super) fn mark(path: &Path) -> std::path::PathBuf {
    path.with_extension("wandb.synced")
}

impl Remains {
    /// Whether a row is not behind `position`; then its values are remembered.
    fn take_row(&mut self, body: &[u8], axis: &str, position: u64) -> bool {
        let row = items(body);
        if row.get(axis).and_then(Value::as_u64).is_some_and(|at| at > position) {
            return false;
        }
        self.rows = self.rows.max(step(body) + 1);
        for (name, value) in row {
            if name == "_runtime" {
                self.runtime = value.as_f64().unwrap_or(self.runtime);
            }
            let json = match &value {
                Value::String(number) if number.parse::<f64>().is_ok() => number.clone(),
                value => value.to_string(),
            };
            match self.values.iter_mut().find(|(known, _)| *known == name) {
                Some((_, old)) => *old = json,
                None => self.values.push((name, json)),
            }
        }
        true
    }
}

/// Cuts a console log to its last whole line.
pub(super) fn mend_console(path: &Path) -> Result<(), TrackingError> {
    let Ok(bytes) = fs::read(path) else { return Ok(()) };
    let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    if whole == bytes.len() {
        return Ok(());
    }
    replace(path, &bytes[..whole]).map_err(TrackingError::io("cut", path))
}

/// The rows of history in a run's file up to its end, or to where it is torn: names and values, not finite ones as
/// texts.
pub fn history(path: &Path) -> Result<Vec<Map<String, Value>>, TrackingError> {
    let bytes = fs::read(path).map_err(TrackingError::io("read", path))?;
    let damaged =
        || TrackingError::Damaged { path: path.to_owned(), what: "it is no file of Weights & Biases" };
    let records = records(&bytes).ok_or_else(damaged)?;
    let rows = records.iter().filter_map(|record| parse(record)).filter(|(_, kind, _)| *kind == HISTORY);
    Ok(rows.map(|(_, _, body)| items(body)).collect())
}
