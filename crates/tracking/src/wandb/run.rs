//! A run that is written into a directory.

use super::directory::{RunDirectory, named};
use super::framing::RecordWriter;
use super::live::{Live, Parcel, ServerSettings};
use super::records::Record;
use super::resume::{cut, mark, mend_console, unmark};
use crate::error::TrackingError;
use crate::http::wrong_address;
use crate::id;
use crate::json;
use crate::table::Table;
use crate::tracker::{Row, Tracker};
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

/// What a run is called and where it belongs. Empty texts mean: not given.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RunSettings {
    /// The folder that gets a folder `wandb`.
    pub parent: PathBuf,
    /// Identity of the run; one is drawn where none is given.
    pub id: String,
    /// Name of the program that writes, with its version.
    pub producer: String,
    /// Project that the run belongs to.
    pub project: String,
    /// User or team.
    pub entity: String,
    /// Group of runs.
    pub group: String,
    /// Kind of work within the group.
    pub job_type: String,
    /// Name of the run for people.
    pub name: String,
    /// Free text.
    pub notes: String,
    /// Words to find the run by.
    pub tags: Vec<String>,
    /// Name of the machine.
    pub host: String,
    /// Name of the axis over which all curves are drawn; its values are the positions of rows.
    pub axis: String,
    /// Settings of the run, to be searched and compared by.
    pub config: Map<String, Value>,
    /// Circumstances: command, machine, versions.
    pub metadata: Map<String, Value>,
    /// A server to tell while the run goes on; `None`: only the directory is written.
    pub server: Option<ServerSettings>,
}

/// A run in the making. Each record is in the hands of the operating system when a method returns, so that a killed
/// process leaves a readable file, which lacks its end only.
pub struct Run {
    directory: RunDirectory,
    id: String,
    axis: String,
    writer: RecordWriter,
    console: File,
    /// Number of the last record.
    number: u64,
    /// Rows of history so far.
    rows: u64,
    began: Instant,
    /// Seconds the run took before it was resumed.
    earlier: f64,
    /// The last value of each curve and figure, as JSON texts.
    summary: BTreeMap<String, String>,
    live: Option<Live>,
    is_finished: bool,
}

impl Run {
    /// Begins a run in a new directory.
    pub fn create(settings: &RunSettings) -> Result<Self, TrackingError> {
        let id = if settings.id.is_empty() { id::fresh() } else { settings.id.clone() };
        Self::begin(settings, &id, false)
    }

    /// Goes on with the run whose [`Tracker::state`] is `state`, as it was at `position`: what its file says of later
    /// positions is taken out. Where its directory is gone, the run goes on in a new one under the same identity.
    pub fn resume(
        settings: &RunSettings,
        state: &Map<String, Value>,
        position: u64,
    ) -> Result<Self, TrackingError> {
        let text = |key: &str| state.get(key).and_then(Value::as_str).unwrap_or_default();
        let id = text("id");
        if id.is_empty() {
            return Self::create(settings);
        }
        let Some(directory) = RunDirectory::find(&settings.parent, text("directory"), id) else {
            return Self::begin(settings, id, true);
        };
        let (writer, remains) = cut(&directory.records(), &settings.axis, position)?;
        mend_console(&directory.file("output.log"))?;
        let mut run = Self {
            console: directory.console()?,
            directory,
            id: id.to_owned(),
            axis: settings.axis.clone(),
            writer,
            number: remains.number,
            rows: remains.rows,
            began: Instant::now(),
            earlier: remains.runtime,
            summary: remains.values.into_iter().collect(),
            live: None,
            is_finished: false,
        };
        run.directory.describe(settings)?;
        run.write_summary()?;
        run.go_live(settings, Some(run.rows))?;
        Ok(run)
    }

    fn begin(settings: &RunSettings, id: &str, resumed: bool) -> Result<Self, TrackingError> {
        // `wandb sync` passes over directories that are called `run-…`: of those it believes that the server has all.
        let directory = RunDirectory::create(&settings.parent, id, "offline-run")?;
        directory.describe(settings)?;
        let path = directory.records();
        let begun = File::create_new(&path).and_then(RecordWriter::begin);
        let mut run = Self {
            writer: begun.map_err(TrackingError::io("create", &path))?,
            console: directory.console()?,
            directory,
            id: id.to_owned(),
            axis: settings.axis.clone(),
            number: 0,
            rows: 0,
            began: Instant::now(),
            earlier: 0.0,
            summary: BTreeMap::new(),
            live: None,
            is_finished: false,
        };
        run.append(&Record::header(&settings.producer))?;
        run.append(&Record::run(id, settings, now(), resumed))?;
        run.append(&Record::axis(&settings.axis))?;
        run.append(&Record::all_over(&settings.axis))?;
        run.append(&Record::file("wandb-metadata.json"))?;
        run.sync()?;
        run.go_live(settings, resumed.then_some(0))?;
        Ok(run)
    }

    /// Begins to tell the server, if there is one. `goes_on`: it may know so many rows of the run already.
    fn go_live(&mut self, settings: &RunSettings, goes_on: Option<u64>) -> Result<(), TrackingError> {
        let Some(server) = &settings.server else { return Ok(()) };
        if let Some(what) = wrong_address(&server.address) {
            return Err(TrackingError::Address { address: server.address.clone(), what });
        }
        let files = self.directory.file("");
        let live = Live::start(server, settings, &self.id, &files, goes_on).map_err(TrackingError::Thread)?;
        self.live = Some(live);
        self.tell(|| Parcel::File("wandb-metadata.json".into()));
        self.tell(|| Parcel::File("config.yaml".into()));
        Ok(())
    }

    fn tell(&self, parcel: impl FnOnce() -> Parcel) {
        if let Some(live) = &self.live {
            live.send(parcel());
        }
    }

    /// The directory that holds the run.
    pub fn directory(&self) -> &Path {
        &self.directory.path
    }

    /// The run's identity.
    pub fn id(&self) -> &str {
        &self.id
    }

    fn append(&mut self, record: &Record) -> Result<(), TrackingError> {
        self.number += 1;
        let bytes = record.numbered(self.number);
        self.writer.append(&bytes).map_err(TrackingError::io("write", &self.directory.records()))
    }

    fn runtime(&self) -> f64 {
        self.earlier + self.began.elapsed().as_secs_f64()
    }

    /// A row of history: `items` are names and JSON texts.
    fn add_row(&mut self, position: u64, items: Vec<(&str, String)>) -> Result<(), TrackingError> {
        let axis = self.axis.clone();
        let own = [
            (axis.as_str(), position.to_string()),
            ("_step", self.rows.to_string()),
            ("_timestamp", json::number(now().as_secs_f64())),
            ("_runtime", json::number(self.runtime())),
        ];
        let items: Vec<(&str, String)> =
            items.into_iter().filter(|(name, _)| *name != axis).chain(own).collect();
        self.append(&Record::history(self.rows, items.iter().cloned()))?;
        self.tell(|| {
            Parcel::Row(items.iter().map(|(name, json)| ((*name).to_owned(), json.clone())).collect())
        });
        self.rows += 1;
        self.summary.extend(items.into_iter().map(|(name, json)| (name.to_owned(), json)));
        self.tell_summary();
        Ok(())
    }

    fn tell_summary(&self) {
        if let Some(live) = &self.live {
            live.summarize(self.summary_text());
        }
    }

    fn summary_text(&self) -> String {
        json::object(self.summary.iter().map(|(name, json)| (name.as_str(), json.as_str())))
    }

    /// All figures so far, as a record.
    fn append_summary(&mut self) -> Result<(), TrackingError> {
        self.write_summary()?;
        let summary = Record::summary(self.summary.iter().map(|(name, json)| (name.as_str(), json.clone())));
        self.append(&summary)
    }

    /// What was written is on the disk.
    fn sync(&mut self) -> Result<(), TrackingError> {
        self.writer.flush().map_err(TrackingError::io("flush", &self.directory.records()))?;
        // `wandb sync` during the run marks it as uploaded, and would pass over what has come since.
        let records = self.directory.records();
        unmark(&records).map_err(TrackingError::io("remove", &mark(&records)))?;
        self.write_summary()
    }

    fn write_summary(&mut self) -> Result<(), TrackingError> {
        let runtime = json!({ "runtime": self.runtime() as u64 }).to_string();
        self.summary.insert("_wandb".into(), runtime);
        self.directory.write("wandb-summary.json", &format!("{}\n", self.summary_text()))
    }
}

impl Tracker for Run {
    fn name(&self) -> &'static str {
        "wandb"
    }

    fn log(&mut self, row: &Row) -> Result<(), TrackingError> {
        self.add_row(row.position, named(&row.values).collect())
    }

    fn summarize(&mut self, row: &Row) -> Result<(), TrackingError> {
        self.summary.extend(named(&row.values).map(|(name, json)| (name.to_owned(), json)));
        self.tell_summary();
        self.append(&Record::summary(named(&row.values)))
    }

    fn measure(&mut self, values: &[(String, f64)]) -> Result<(), TrackingError> {
        self.append(&Record::stats(now(), named(values)))?;
        self.tell(|| {
            let values = named(values).map(|(name, json)| (format!("system.{name}"), json));
            let own = [
                ("_wandb".to_owned(), "true".to_owned()),
                ("_timestamp".to_owned(), json::number(now().as_secs_f64())),
                ("_runtime".to_owned(), json::number(self.runtime())),
            ];
            let all: Vec<(String, String)> = values.chain(own).collect();
            Parcel::Event(json::object(all.iter().map(|(name, json)| (name.as_str(), json.as_str()))))
        });
        Ok(())
    }

    fn print(&mut self, line: &str) -> Result<(), TrackingError> {
        let path = self.directory.file("output.log");
        self.console.write_all(format!("{line}\n").as_bytes()).map_err(TrackingError::io("write", &path))?;
        self.append(&Record::output(now(), line))?;
        self.tell(|| {
            let at = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S%.6f");
            Parcel::Line(format!("{at} {line}"))
        });
        Ok(())
    }

    fn tabulate(&mut self, position: u64, name: &str, table: &Table) -> Result<(), TrackingError> {
        let text = table.to_json().to_string();
        let digest: String = Sha256::digest(&text).iter().map(|byte| format!("{byte:02x}")).collect();
        let path = format!("media/table/{name}_{}_{}.table.json", self.rows, &digest[..20]);
        self.directory.write(&path, &text)?;
        self.append(&Record::file(&path))?;
        self.tell(|| Parcel::File(path.clone()));
        let reference = json!({
            "_type": "table-file",
            "ncols": table.columns.len(),
            "nrows": table.rows.len(),
            "path": path,
            "sha256": digest,
            "size": text.len(),
        });
        self.add_row(position, vec![(name, reference.to_string())])
    }

    /// The figures so far are written too: a run that is killed later has those of its last checkpoint.
    fn flush(&mut self) -> Result<(), TrackingError> {
        if self.rows > 0 && !self.is_finished {
            self.append_summary()?;
        }
        self.sync()
    }

    fn finish(&mut self, exit_code: u8) -> Result<(), TrackingError> {
        if std::mem::replace(&mut self.is_finished, true) {
            return Ok(());
        }
        self.append_summary()?;
        self.append(&Record::exit(exit_code, self.runtime()))?;
        self.sync()?;
        self.tell_summary();
        if let Some(live) = &mut self.live {
            live.finish(exit_code);
        }
        Ok(())
    }

    fn state(&self) -> Map<String, Value> {
        let entries = [("id", self.id.clone()), ("directory", self.directory.name())];
        entries.map(|(key, value)| (key.to_owned(), Value::from(value))).into_iter().collect()
    }

    fn whereabouts(&self) -> Option<String> {
        let path = self.directory.path.display();
        Some(match self.live.as_ref().map(Live::result) {
            Some(Ok(page)) => format!("Weights & Biases: {page}"),
            Some(Err(why)) => format!(
                "Weights & Biases: the server did not get all of this run ({why}); to upload it, type `wandb sync {path}`"
            ),
            None => format!("Weights & Biases: to upload this run, type `wandb sync {path}`"),
        })
    }
}

/// Time since 1970.
fn now() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}
