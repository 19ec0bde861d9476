//! The directory of a run: its name, and the files in it that are texts.

use super::run::RunSettings;
use crate::error::TrackingError;
use crate::json;
use serde_json::{Map, Value};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

/// `wandb/offline-run-DATE_TIME-ID` and what belongs into it.
#[derive(Clone, Debug)]
pub(super) struct RunDirectory {
    pub(super) path: PathBuf,
    id: String,
}

impl RunDirectory {
    /// Makes the directory of a run that starts now, with `files/` and `logs/`.
    pub(super) fn create(parent: &Path, id: &str, mode: &str) -> Result<Self, TrackingError> {
        let parent = parent.join("wandb");
        let named = |seconds: i64| {
            let at = jiff::Zoned::now().saturating_add(jiff::Span::new().seconds(seconds));
            parent.join(format!("{mode}-{}-{id}", at.strftime("%Y%m%d_%H%M%S")))
        };
        // The same run twice within a second is called by the next one.
        let path = (0..).map(named).find(|path| !path.exists()).expect("some second is free");
        for folder in ["files", "logs"] {
            let folder = path.join(folder);
            fs::create_dir_all(&folder).map_err(TrackingError::io("create the directory", &folder))?;
        }
        Ok(Self { path, id: id.to_owned() })
    }

    /// The directory of this name, if it is still there.
    pub(super) fn find(parent: &Path, name: &str, id: &str) -> Option<Self> {
        let path = parent.join("wandb").join(Path::new(name).file_name()?);
        let directory = Self { path, id: id.to_owned() };
        directory.records().is_file().then_some(directory)
    }

    /// Its name.
    pub(super) fn name(&self) -> String {
        self.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// `run-ID.wandb`.
    pub(super) fn records(&self) -> PathBuf {
        self.path.join(format!("run-{}.wandb", self.id))
    }

    /// A path below `files/`.
    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.path.join("files").join(name)
    }

    /// Opens `output.log` to be gone on with.
    pub(super) fn console(&self) -> Result<File, TrackingError> {
        let path = self.file("output.log");
        let opened = OpenOptions::new().create(true).append(true).open(&path);
        opened.map_err(TrackingError::io("open", &path))
    }

    /// Writes `config.yaml` and `wandb-metadata.json`.
    pub(super) fn describe(&self, settings: &RunSettings) -> Result<(), TrackingError> {
        self.write("config.yaml", &config_yaml(&settings.config))?;
        let metadata = Value::Object(settings.metadata.clone());
        self.write("wandb-metadata.json", &format!("{metadata:#}\n"))
    }

    /// Writes a file below `files/`, whole or not at all.
    pub(super) fn write(&self, name: &str, text: &str) -> Result<(), TrackingError> {
        let path = self.file(name);
        let write = || -> io::Result<()> {
            let folder = path.parent().unwrap_or(&self.path);
            fs::create_dir_all(folder)?;
            replace(&path, text.as_bytes())
        };
        write().map_err(TrackingError::io("write", &path))
    }
}

/// Puts a file in the place of another, by way of a third: a crash meanwhile leaves one of the two.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let partial = path.with_file_name(format!(".{name}.partial"));
    let mut file = File::create(&partial)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&partial, path)
}

/// The configuration as Weights & Biases writes it: each value under a key `value`. (JSON is YAML.)
fn config_yaml(config: &Map<String, Value>) -> String {
    let entry =
        |(key, value): (&String, &Value)| format!("{}:\n    value: {value}\n", Value::from(key.as_str()));
    config.iter().map(entry).collect()
}

/// A number as JSON text, with its name.
pub(super) fn named(values: &[(String, f64)]) -> impl Iterator<Item = (&str, String)> {
    values.iter().map(|(name, value)| (name.as_str(), json::number(*value)))
}
