//! What a run has left in its directory, as far as a report shows it.

use crate::data_report::DATA_REPORT;
use crate::failure::Outcome;
use crate::history::History;
use crate::names;
use serde::Deserialize;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// Answers of the model to prompts that were chosen before the run, at several steps.
pub(super) const SAMPLES: &str = "samples.jsonl";
/// The configuration with the origin of each value.
pub(super) const CONFIG: &str = "config.resolved.yaml";

/// A run.
#[derive(Clone, Debug, Default)]
pub(super) struct Run {
    /// Last part of its path, or more where that is not enough to tell runs apart.
    pub(super) name: String,
    pub(super) dir: PathBuf,
    pub(super) history: History,
    pub(super) config: Vec<Setting>,
    pub(super) data: Option<Value>,
    pub(super) samples: Vec<Sample>,
}

/// A value of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Setting {
    /// `section.key`.
    pub(super) path: String,
    /// As YAML.
    pub(super) value: String,
    /// Where it was written; `None`: nowhere, it is the default.
    pub(super) origin: Option<String>,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(super) struct Sample {
    pub(super) step: u64,
    pub(super) prompt: String,
    pub(super) text: String,
}

impl Run {
    /// Reads the directory. Only the metrics must be there.
    pub(super) fn read(dir: &Path) -> Outcome<Self> {
        let history = History::read(dir)?;
        let text = |name: &str| {
            std::fs::read(dir.join(name)).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        };
        let samples = text(SAMPLES).unwrap_or_default();
        Ok(Self {
            name: names::last_part(dir).unwrap_or_else(|| "run".into()),
            dir: dir.to_owned(),
            history,
            config: text(CONFIG).map_or_else(|_| Vec::new(), |text| settings(&text)),
            data: text(DATA_REPORT).ok().and_then(|text| serde_json::from_str(&text).ok()),
            // A line may be torn, as the run may be going on.
            samples: samples.lines().filter_map(|line| serde_json::from_str(line).ok()).collect(),
        })
    }

    /// How far it is, in words.
    pub(super) fn state(&self) -> String {
        let (step, total) = (self.history.steps().unwrap_or(0), self.history.total_steps().unwrap_or(0));
        let is = |key: &str| self.history.end.as_ref().and_then(|end| end.get(key)?.as_bool()) == Some(true);
        match &self.history.end {
            None => format!("not ended: step {step} of {total}"),
            Some(_) if is("stopped") => format!("interrupted after step {step} of {total}"),
            Some(_) if is("finished_early") => format!("done, early: {step} of {total} steps"),
            Some(_) => format!("done: {total} steps"),
        }
    }

    /// It has reached its end.
    pub(super) fn is_done(&self) -> bool {
        self.history.end.as_ref().is_some_and(|end| end.get("stopped").and_then(Value::as_bool) != Some(true))
    }

    /// The value of a key.
    pub(super) fn setting(&self, path: &str) -> Option<&Setting> {
        self.config.iter().find(|setting| setting.path == path)
    }
}

/// Reads what `config.resolved.yaml` holds: sections, `key: value`, and a comment with the origin.
fn settings(text: &str) -> Vec<Setting> {
    let mut section = String::new();
    let mut settings = Vec::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (line, origin) = match line.rsplit_once("  # ") {
            Some((line, "default")) => (line, None),
            Some((line, origin)) => (line, Some(origin.to_owned())),
            // Written by a version that had no origins.
            None => (line, Some(String::new())),
        };
        let Some((key, value)) = line.split_once(':') else { continue };
        let value = value.trim();
        match (key.strip_prefix("  "), value.is_empty()) {
            (None, true) => section = key.to_owned(),
            (None, false) => settings.push(Setting { path: key.to_owned(), value: value.to_owned(), origin }),
            (Some(key), _) => {
                settings.push(Setting { path: format!("{section}.{key}"), value: value.to_owned(), origin });
            }
        }
    }
    settings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_what_the_resolved_configuration_holds() {
        let text = "model: {name_or_path: 'a # b', dtype: auto}\ndata:\n  train: x.jsonl\nlora:\n  r: 4\n";
        let resolved =
            crate::config::from_text("my.yaml", text.into(), &["training.seed=7".into()]).expect("valid");
        let settings = settings(&resolved.to_file("float32"));
        let find =
            |path: &str| settings.iter().find(|s| s.path == path).unwrap_or_else(|| panic!("no {path}"));
        assert_eq!(find("model.name_or_path").value, "\"a # b\"");
        assert_eq!(find("model.name_or_path").origin.as_deref(), Some("my.yaml:1"));
        assert_eq!(find("data.train").origin.as_deref(), Some("my.yaml:3"));
        assert_eq!(
            (find("lora.r").value.as_str(), find("lora.r").origin.as_deref()),
            ("4", Some("my.yaml:5"))
        );
        assert_eq!(find("training.seed").origin.as_deref(), Some("command line: training.seed=7"));
        assert_eq!(find("training.learning_rate").origin, None);
        assert_eq!(find("model.dtype").value, "float32", "what the machine chose for `auto`");
        assert!(settings.len() > 40, "{}", settings.len());
    }
}
