//! `config.resolved.yaml`: the whole configuration, every default filled in and marked. It can be run again as it is.

use super::{Resolved, yaml};
use serde_json::Value;
use std::fmt::Write;

impl Resolved {
    /// The defaults that were filled in, as (path, value), in the order of the sections.
    pub(crate) fn defaults(&self) -> Vec<(String, String)> {
        self.lines()
            .into_iter()
            .filter(|line| !line.written)
            .map(|line| (line.path.join("."), line.value))
            .collect()
    }

    /// The configuration as YAML; filled-in values carry the comment `# default`.
    pub(crate) fn to_yaml(&self) -> String {
        let mut text = String::from(
            "# Written by llm-foundry. Values marked `default` were not in the configuration.\n",
        );
        let mut section = String::new();
        for line in self.lines() {
            let mark = if line.written { "" } else { "  # default" };
            let key = line.path.last().map_or("", String::as_str);
            let indent = if line.path.len() > 1 {
                if section != line.path[0] {
                    section.clone_from(&line.path[0]);
                    let _ = writeln!(text, "{section}:");
                }
                "  "
            } else {
                ""
            };
            let _ = writeln!(text, "{indent}{key}: {}{mark}", line.value);
        }
        text
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
        let written = self.written.at(&keys).is_some();
        Line { path, value: flow(value), written }
    }
}

struct Line {
    path: Vec<String>,
    value: String,
    written: bool,
}

/// A value on one line. JSON is YAML, except that plain texts read better without quotes.
fn flow(value: &Value) -> String {
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
