//! Rules of `training.report_to` and what belongs to it.

use super::Rules;
use crate::config::{Config, TrackerKind};

/// Characters that Weights & Biases does not take in the name of a project.
const NOT_IN_PROJECTS: &str = "/\\#?%:";

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
            if name.trim().is_empty() || name.chars().any(char::is_control) || name.chars().count() > 128 {
                let message = format!("`{path}` is empty, longer than 128 characters, or has a line break");
                self.wrong(&path, message, "write a short name");
            } else if training.report_to.is_none() {
                let message = format!("`{path}` is given, but the run is reported to no tracker");
                self.wrong(&path, message, format!("add `report_to: wandb`, or remove `{key}`"));
            } else if key == "project"
                && let Some(letter) = name.chars().find(|letter| NOT_IN_PROJECTS.contains(*letter))
            {
                let message = format!("`{path}` contains `{letter}`, which the name of a project may not");
                self.wrong(&path, message, "write letters, digits, - and _");
            }
        }
    }
}
