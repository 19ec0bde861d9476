//! `config.resolved.yaml`: the whole configuration, every default filled in and marked. It can be run again as it is.

use super::{Resolved, yaml};
use crate::names;
use serde_json::Value;
use std::fmt::Write;

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
        let head =
            "# Written by llm-foundry. Behind each value is where it was written; `default`: nowhere.\n";
        let mut lines = self.lines();
        let dtype = lines.iter_mut().find(|line| line.path == ["model", "dtype"]);
        dtype.into_iter().for_each(|line| line.value = compute.into());
        format!("{head}{}", yaml_of(&lines, with_origin))
    }

    /// The configuration as YAML for a model card: filled-in values carry the comment `# default`, and of paths of this
    /// machine there is the last part.
    pub(crate) fn to_card(&self) -> String {
        let head = "# Written by llm-foundry. Values marked `default` were not in the configuration.\n";
        let mark = |line: &Line| if line.origin.is_some() { String::new() } else { "  # default".into() };
        let mut lines = self.lines();
        for line in &mut lines {
            names::without_places(&mut line.value);
        }
        format!("{head}{}", yaml_of(&lines, mark))
    }

    /// The configuration as YAML, each value with the place that it comes from.
    pub(crate) fn to_yaml_with_origins(&self) -> String {
        yaml_of(&self.lines(), with_origin)
    }

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
