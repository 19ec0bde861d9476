//! Rules of `training.report_to` and what belongs to it.

use super::Rules;
use crate::config::{Config, TrackerKind};

/// Characters that Weights & Biases does not take in the name of a project, nor in the identity of a run.
const NOT_IN_PROJECTS: &str = "/\\#?%:";

/// The longest name that people give a run or a project, in characters.
pub(crate) const LONGEST_NAME: usize = 128;

/// What is wrong with the name of a project, a user or a run's identity; `None`: nothing.
pub(crate) fn wrong_project(name: &str) -> Option<String> {
    if let Some(what) = wrong_name(name) {
        return Some(what);
    }
    let letter = name.chars().find(|letter| NOT_IN_PROJECTS.contains(*letter))?;
    Some(format!("contains `{letter}`, which such a name may not"))
}

/// What is wrong with a name for people; `None`: nothing.
pub(crate) fn wrong_name(name: &str) -> Option<String> {
    let is_wrong =
        name.trim().is_empty() || name.chars().any(char::is_control) || name.chars().count() > LONGEST_NAME;
    is_wrong.then(|| format!("is empty, longer than {LONGEST_NAME} characters, or has a line break"))
}

impl Rules<'_> {
    pub(super) fn tracking(&mut self, config: &Config) {
        let training = &config.training;
        if training.logging_dir.is_some() && !training.report_to.names(TrackerKind::Tensorboard) {
            self.wrong(
                "training.logging_dir",
                "`training.logging_dir` is given, but no TensorBoard files are written",
                "add `report_to: tensorboard`, or remove `logging_dir`",
            );
        }
        if training.logging_dir.as_ref().is_some_and(|dir| dir.trim().is_empty() || dir.contains('\0')) {
            self.wrong("training.logging_dir", "`training.logging_dir` is no path", "name a directory");
        }
        let names = [("project", &training.project), ("run_name", &training.run_name)];
        for (key, name) in names {
            let Some(name) = name else { continue };
            let path = format!("training.{key}");
            if let Some(what) = wrong_name(name) {
                self.wrong(&path, format!("`{path}` {what}"), "write a short name");
            } else if training.report_to.is_none() {
                let message = format!("`{path}` is given, but the run is reported to no tracker");
                self.wrong(&path, message, format!("add `report_to: wandb`, or remove `{key}`"));
            } else if key == "project"
                && let Some(what) = wrong_project(name)
            {
                self.wrong(&path, format!("`{path}` {what}"), "write letters, digits, - and _");
            }
        }
    }
}
