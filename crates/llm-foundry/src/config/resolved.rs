//! `config.resolved.yaml`: the whole configuration, every default filled in and marked. It can be run again as it is.

use super::{Resolved, yaml};
use crate::names;
use serde_json::Value;
use std::fmt::Write;

/// How files begin that were written here: in them alone `# default` is a mark, and not a person's remark.
pub(super) const WRITTEN: &str = "# Written by llm-foundry.";

impl Resolved {
    /// The defaults that were filled in, as (path, value), in the order of the sections.
    pub(crate) fn defaults(&self) -> Vec<(String, String)> {
        self.lines()
            .into_iter()
            .filter(|line| line.origin.is_none())
            .map(|line| (line.path.join("."), flow(&line.value)))
            .collect()
    }

    /// What a run leaves as `config.resolved.yaml`: each value with its origin; it can be run again as it is. In place
    /// of `model.dtype: auto` stands the number format that this machine has chosen, so that another one does the same.
    pub(crate) fn to_file(&self, compute: &'static str) -> String {
        let head = format!("{WRITTEN} Behind each value is where it was written; `default`: nowhere.\n");
        let mut lines = self.lines_to_read();
        let dtype = lines.iter_mut().find(|line| line.path == ["model", "dtype"]);
        dtype.into_iter().for_each(|line| line.value = compute.into());
        format!("{head}{}", yaml_of(&lines, with_origin))
    }

    /// The configuration as YAML for a model card: filled-in values carry the comment `# default`, and of paths of this
    /// machine there is the last part.
    pub(crate) fn to_card(&self) -> String {
        let head = format!("{WRITTEN} Values marked `default` were not in the configuration.\n");
        let mark = |line: &Line| if line.origin.is_some() { String::new() } else { "  # default".into() };
        let mut lines = self.lines_to_read();
        for line in &mut lines {
            names::without_places(&mut line.value);
        }
        format!("{head}{}", yaml_of(&lines, mark))
    }

    /// The configuration as YAML, each value with the place that it comes from.
    pub(crate) fn to_yaml_with_origins(&self) -> String {
        yaml_of(&self.lines(), with_origin)
    }

    /// Without `lora: null`: such a line is refused where no other file has a section to turn off.
    fn lines_to_read(&self) -> Vec<Line> {
        let mut lines = self.lines();
        lines.retain(|line| line.path != ["lora"]);
        lines
    }

    /// Every value; a section that is not there has a line only where one was turned off.
    fn lines(&self) -> Vec<Line> {
        let json = serde_json::to_value(&self.config).expect("a configuration is plain data");
        let Value::Object(sections) = json else { unreachable!("a struct is an object") };
        let mut lines = Vec::new();
        for (section, value) in sections {
            match value {
                Value::Object(keys) => {
                    lines.extend(
                        keys.iter().map(|(key, value)| self.line(vec![section.clone(), key.clone()], value)),
                    );
                }
                value => lines.push(self.line(vec![section], &value)),
            }
        }
        lines.retain(|line| line.path != ["lora"] || line.origin.is_some());
        lines
    }

    fn line(&self, path: Vec<String>, value: &Value) -> Line {
        let keys: Vec<&str> = path.iter().map(String::as_str).collect();
        let origin = self.written.entry(&keys).map(|entry| self.sources.describe(&entry.key_place));
        Line { path, value: value.clone(), origin }
    }
}

struct Line {
    path: Vec<String>,
    value: Value,
    /// Where it was written; `None`: nowhere, it is the default.
    origin: Option<String>,
}

/// Every value on a line of its own, followed by its mark.
fn yaml_of(lines: &[Line], mark: impl Fn(&Line) -> String) -> String {
    let mut text = String::new();
    let mut section = "";
    for line in lines {
        let key = line.path.last().map_or("", String::as_str);
        let indent = if line.path.len() > 1 {
            if section != line.path[0] {
                section = &line.path[0];
                let _ = writeln!(text, "{section}:");
            }
            "  "
        } else {
            ""
        };
        let _ = writeln!(text, "{indent}{key}: {}{}", flow(&line.value), mark(line));
    }
    text
}

/// The place that a value comes from, as a comment.
fn with_origin(line: &Line) -> String {
    match &line.origin {
        // A line break of an argument would end the comment.
        Some(origin) => format!("  # {}", origin.replace(char::is_control, " ").replace("  # ", " # ")),
        None => "  # default".into(),
    }
}

/// A value on one line. JSON is YAML, except that plain texts read better without quotes.
pub(crate) fn flow(value: &Value) -> String {
    match value {
        Value::String(text) => yaml::scalar(text),
        Value::Array(items) => format!("[{}]", items.iter().map(flow).collect::<Vec<_>>().join(", ")),
        Value::Object(entries) => {
            let entries: Vec<String> =
                entries.iter().map(|(k, v)| format!("{}: {}", yaml::scalar(k), flow(v))).collect();
            format!("{{{}}}", entries.join(", "))
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use crate::config;

    const FILE: &str = "model: {name_or_path: m}\ndata: {train: a.jsonl}\n";

    /// What a run leaves is a configuration, and the same one; also where there is no adapter, or it was turned off.
    #[test]
    fn what_a_run_leaves_can_be_run_again() {
        let adapted = format!("{FILE}lora: {{r: 4}}\n");
        for (text, more) in [(FILE, ""), (&adapted, ""), (&adapted, "lora=null")] {
            let overrides: Vec<String> =
                Some(more.to_owned()).into_iter().filter(|more| !more.is_empty()).collect();
            let first = config::from_text("c.yaml", text.into(), &overrides).expect("right");
            for kept in [first.to_file("float32"), first.to_card()] {
                let again = config::from_text("config.resolved.yaml", kept.clone(), &[]);
                let again = again.unwrap_or_else(|error| panic!("{error:?}\n{kept}"));
                assert_eq!(again.config.lora, first.config.lora, "{kept}");
                assert_eq!(again.config.training, first.config.training, "{kept}");
                assert_eq!(again.config.data.given, first.config.data.given, "{kept}");
            }
        }
    }

    #[test]
    fn a_remark_of_a_person_is_no_mark() {
        let text = "model: {name_or_path: m}\ndata:\n  train: a.jsonl\n  split: train  # default\n";
        let given =
            |text: &str| config::from_text("c.yaml", text.to_owned(), &[]).expect("right").config.data.given;
        assert!(given(text).contains("split"));
        let written = format!("{}\n{text}", super::WRITTEN);
        assert!(!given(&written).contains("split"));
    }
}
