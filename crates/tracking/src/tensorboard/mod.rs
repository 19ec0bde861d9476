//! TensorBoard: event files, which its server reads while they grow.
//!
//! `events.out.tfevents.SECONDS.HOST.N` is a sequence of TFRecords (length as `u64`, masked CRC-32C of the length,
//! data, masked CRC-32C of the data), each an `Event` of TensorFlow's `event.proto`. When a run goes on, it does so in
//! a new file of the same folder, which says from which position on older events do not count.

mod events;
#[cfg(test)]
mod tests;

use crate::error::TrackingError;
use crate::tracker::{Row, Tracker};
use events::Event;
use serde_json::{Map, Value};
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// What an event file is called and where it belongs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EventSettings {
    /// The folder of the run's event files.
    pub directory: PathBuf,
    /// Name of the machine, a part of the file's name.
    pub host: String,
    /// Texts that describe the run: names and Markdown.
    pub texts: Vec<(String, String)>,
}

/// Where PyTorch's writer puts the files of a run that begins now: `runs/MonthDay_HH-MM-SS_HOST` below `parent`.
pub fn default_directory(parent: &Path, host: &str) -> PathBuf {
    let now = jiff::Zoned::now().strftime("%b%d_%H-%M-%S").to_string();
    let host = if host.is_empty() { "localhost" } else { host };
    parent.join("runs").join(format!("{now}_{host}"))
}

/// An event file in the making. Each event is in the hands of the operating system when a method returns.
pub struct Events {
    path: PathBuf,
    file: File,
}

impl Events {
    /// Begins a run.
    pub fn create(settings: &EventSettings) -> Result<Self, TrackingError> {
        let mut events = Self::open(settings, &settings.directory)?;
        for (name, text) in &settings.texts {
            events.append(&Event::now().text(name, text))?;
        }
        Ok(events)
    }

    /// Goes on with the run whose [`Tracker::state`] is `state`, as it was at `position`: what its files say of later
    /// positions does not count any more.
    pub fn resume(
        settings: &EventSettings,
        state: &Map<String, Value>,
        position: u64,
    ) -> Result<Self, TrackingError> {
        let name =
            state.get("directory").and_then(Value::as_str).and_then(|name| Path::new(name).file_name());
        let earlier = name.map(|name| settings.directory.with_file_name(name)).filter(|path| path.is_dir());
        let Some(earlier) = earlier else { return Self::create(settings) };
        let mut events = Self::open(settings, &earlier)?;
        events.append(&Event::now().start_at(position + 1))?;
        Ok(events)
    }

    fn open(settings: &EventSettings, directory: &Path) -> Result<Self, TrackingError> {
        fs::create_dir_all(directory).map_err(TrackingError::io("create the directory", directory))?;
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let host = if settings.host.is_empty() { "localhost" } else { &settings.host };
        let named = |n: u32| directory.join(format!("events.out.tfevents.{}.{host}.{n}", now.as_secs()));
        // Read in the order of their names.
        let path = (0..).map(named).find(|path| !path.exists()).expect("some number is free");
        let file = File::create_new(&path).map_err(TrackingError::io("create", &path))?;
        let mut events = Self { path, file };
        events.append(&Event::now().version())?;
        Ok(events)
    }

    /// The event file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn append(&mut self, event: &Event) -> Result<(), TrackingError> {
        self.file.write_all(&event.framed()).map_err(TrackingError::io("write", &self.path))
    }
}

impl Tracker for Events {
    fn name(&self) -> &'static str {
        "tensorboard"
    }

    fn log(&mut self, row: &Row) -> Result<(), TrackingError> {
        self.append(&Event::now().scalars(row.position, &row.values))
    }

    fn summarize(&mut self, row: &Row) -> Result<(), TrackingError> {
        self.log(row)
    }

    fn flush(&mut self) -> Result<(), TrackingError> {
        self.file.sync_data().map_err(TrackingError::io("flush", &self.path))
    }

    fn finish(&mut self, _exit_code: u8) -> Result<(), TrackingError> {
        self.flush()
    }

    fn state(&self) -> Map<String, Value> {
        let name = self.path.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy();
        Map::from_iter([("directory".to_owned(), Value::from(name))])
    }

    fn whereabouts(&self) -> Option<String> {
        let directory = self.path.parent()?.display();
        Some(format!("TensorBoard: to look at this run, type `tensorboard --logdir {directory}`"))
    }
}
