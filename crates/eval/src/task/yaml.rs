//! A task's YAML files: `include`, `!function`, and the line of each key.

use crate::EvalError;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// How a value that calls Python begins after reading; no other text begins with it.
const FUNCTION: &str = "\u{1}!function ";
/// How deep files may include each other.
const DEEPEST: usize = 16;

/// The merged content of a file and what it includes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Config {
    /// Keys and values; the file's own come after included ones and win.
    pub(crate) fields: Map<String, Value>,
    /// File and line of each key.
    places: BTreeMap<String, String>,
    /// The file.
    pub(crate) path: PathBuf,
}

/// Where files come from: the disk, or the binary.
pub(crate) type ReadText<'a> = &'a dyn Fn(&Path) -> Result<String, EvalError>;

impl Config {
    /// Nothing, of a file.
    pub(crate) fn empty(path: &Path) -> Self {
        Self { path: path.to_path_buf(), ..Self::default() }
    }

    /// Reads a file and what it includes.
    pub(crate) fn read(path: &Path, read: ReadText<'_>) -> Result<Self, EvalError> {
        Self::read_at(path, read, 0)
    }

    fn read_at(path: &Path, read: ReadText<'_>, depth: usize) -> Result<Self, EvalError> {
        let text = read(path)?;
        let mut own = parse(&text, path)?;
        let mut config = Self::empty(path);
        let includes = own.shift_remove("include");
        for include in names(includes.as_ref()) {
            if depth == DEEPEST {
                return Err(definition(
                    format!("{}:{}", path.display(), line_of(&text, "include")),
                    format!("files include each other more than {DEEPEST} deep"),
                    "take one `include` away".into(),
                ));
            }
            let file = path.parent().unwrap_or(Path::new("")).join(include);
            let mut included = Self::read_at(&file, read, depth + 1)?;
            included.fields.shift_remove("task_list");
            config.fields.extend(included.fields);
            config.places.extend(included.places);
        }
        for key in own.keys() {
            config.places.insert(key.clone(), format!("{}:{}", path.display(), line_of(&text, key)));
        }
        config.fields.extend(own);
        Ok(config)
    }

    /// Keys that are set over the file's, such as those of a group for its tasks.
    pub(crate) fn overridden(mut self, overrides: &Map<String, Value>, place: &str) -> Self {
        for (key, value) in overrides {
            self.places.insert(key.clone(), place.to_owned());
            self.fields.insert(key.clone(), value.clone());
        }
        self
    }

    /// File and line of a key, or the file.
    pub(crate) fn place(&self, key: &str) -> String {
        self.places.get(key).cloned().unwrap_or_else(|| self.path.display().to_string())
    }

    /// A text; null is none.
    pub(crate) fn text(&self, key: &str) -> Result<Option<String>, EvalError> {
        match self.fields.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(other) => Err(self.wrong(key, other, "a text")),
        }
    }

    /// An error about a key's value.
    pub(crate) fn wrong(&self, key: &str, found: &Value, expected: &str) -> EvalError {
        let mut shown = found.to_string();
        if let Some(end) = shown.char_indices().nth(60).map(|(at, _)| at) {
            shown.truncate(end);
            shown.push('…');
        }
        definition(self.place(key), format!("`{key}` is {shown}"), format!("it must be {expected}"))
    }
}

pub(crate) fn definition(place: String, problem: String, remedy: String) -> EvalError {
    EvalError::Definition { place, problem, remedy }
}

/// A setting of an item that may be missing or null; a value that `read` does not take is an error, made by `wrong`
/// from a problem and a remedy.
pub(crate) fn typed<'v, T>(
    item: &'v Value,
    key: &str,
    read: impl Fn(&'v Value) -> Option<T>,
    expected: &str,
    wrong: &dyn Fn(String, String) -> EvalError,
) -> Result<Option<T>, EvalError> {
    match item.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => {
            let found = read(value)
                .ok_or_else(|| wrong(format!("`{key}` is {value}"), format!("it must be {expected}")));
            found.map(Some)
        }
    }
}

/// What Python iterates over: a list's texts, or a text's characters.
pub(crate) fn iterated(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::String(text) => Some(text.chars().map(String::from).collect()),
        Value::Array(items) => items.iter().map(|item| item.as_str().map(str::to_owned)).collect(),
        _ => None,
    }
}

/// The Python function that a value stands for.
pub(crate) fn function(value: &Value) -> Option<&str> {
    value.as_str().and_then(|text| text.strip_prefix(FUNCTION))
}

/// The first Python function in a value that is not `built_in`.
pub(crate) fn foreign_function<'v>(value: &'v Value, built_in: &dyn Fn(&str) -> bool) -> Option<&'v str> {
    match value {
        Value::String(_) => function(value).filter(|name| !built_in(name)),
        Value::Array(items) => items.iter().find_map(|item| foreign_function(item, built_in)),
        Value::Object(fields) => fields.values().find_map(|item| foreign_function(item, built_in)),
        _ => None,
    }
}

/// A text or a list of texts.
pub(crate) fn names(value: Option<&Value>) -> Vec<&str> {
    match value {
        Some(Value::String(name)) => vec![name],
        Some(Value::Array(items)) => items.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

fn parse(text: &str, path: &Path) -> Result<Map<String, Value>, EvalError> {
    let options = serde_saphyr::options! {
        with_snippet: false,
        duplicate_keys: serde_saphyr::options::DuplicateKeyPolicy::LastWins,
    };
    let read = serde_saphyr::from_str_with_options(&marked(text), options);
    let value: Value = read.map_err(|error| {
        let line = error.location().map_or(1, |location| location.line());
        let full = error.without_snippet().to_string();
        let message = full.split(" at line ").next().unwrap_or(&full).replace('\n', " ");
        definition(
            format!("{}:{line}", path.display()),
            format!("no valid YAML: {message}"),
            "correct it there".into(),
        )
    })?;
    match value {
        Value::Object(fields) => Ok(fields),
        _ => Err(definition(
            path.display().to_string(),
            "a task's file must hold keys and values".into(),
            "see docs/evaluation.md for an example".into(),
        )),
    }
}

/// `!function name`, also with the name in quotes, becomes a text that begins with [`FUNCTION`]; serde knows no tags.
fn marked(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        let tag = line.find("!function ").filter(|&at| {
            line[..at].trim_end().ends_with([':', '-', ',', '[', '{']) && !line.trim_start().starts_with('#')
        });
        let Some(at) = tag else {
            out.push_str(line);
            continue;
        };
        let rest = line[at + "!function ".len()..].trim_start();
        let name = rest.trim_start_matches(['"', '\'']);
        let end = name.find(|c: char| !(c.is_alphanumeric() || "._".contains(c))).unwrap_or(name.len());
        let quote = &rest[..rest.len() - name.len()];
        out.push_str(&line[..at]);
        out.push_str("\"\\x01!function ");
        out.push_str(&name[..end]);
        out.push('"');
        out.push_str(name[end..].strip_prefix(quote).unwrap_or(&name[end..]));
    }
    out
}

/// The line that a top-level key is on, from 1.
fn line_of(text: &str, key: &str) -> usize {
    let begins = |line: &str| {
        let name = line.trim_start_matches(['"', '\'']);
        name.strip_prefix(key)
            .is_some_and(|rest| rest.trim_start_matches(['"', '\'']).trim_start().starts_with(':'))
    };
    text.lines().position(begins).map_or(1, |index| index + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::collections::HashMap;

    fn config(files: &[(&str, &str)]) -> Result<Config, EvalError> {
        let files: HashMap<PathBuf, String> = files.iter().map(|(n, t)| (n.into(), t.to_string())).collect();
        let read = |path: &Path| match files.get(path) {
            Some(text) => Ok(text.clone()),
            None => Err(EvalError::Read { path: path.into(), source: std::io::ErrorKind::NotFound.into() }),
        };
        Config::read(Path::new("d/a.yaml"), &read)
    }

    #[test]
    fn included_keys_are_overridden_by_the_files_own() {
        let base =
            "\n\"doc_to_text\": x\ntask_list: []\nprocess_docs: !function utils.process\nnum_fewshot: 1\n";
        let own = "task: a\ninclude: base\nnum_fewshot: 2 # !function no\n";
        let config = config(&[("d/a.yaml", own), ("d/base", base)]).unwrap();
        assert_eq!(config.fields["num_fewshot"], json!(2));
        assert_eq!(function(&config.fields["process_docs"]), Some("utils.process"));
        assert!(!config.fields.contains_key("task_list") && !config.fields.contains_key("include"));
        for quoted in ["'utils.process'", "\"utils.process\""] {
            let text = format!("a: !function {quoted} # why\nb: [!function {quoted}, 1]\n");
            let quoted = self::config(&[("d/a.yaml", &text)]).unwrap();
            assert_eq!(function(&quoted.fields["a"]), Some("utils.process"));
            assert_eq!(function(&quoted.fields["b"][0]), Some("utils.process"));
        }
        assert_eq!(config.place("doc_to_text"), "d/base:2");
        assert_eq!(config.place("num_fewshot"), "d/a.yaml:3");
    }

    #[test]
    fn what_is_wrong_is_said_with_file_and_line() {
        let said = |files: &[(&str, &str)]| config(files).unwrap_err().to_string();
        assert!(said(&[("d/a.yaml", "a: 1\nb: [1\n")]).starts_with("d/a.yaml:"));
        assert!(said(&[("d/a.yaml", "- a\n")]).contains("must hold keys and values"));
        assert!(said(&[("d/a.yaml", "include: a.yaml\n")]).contains("include each other"));
        assert!(said(&[("d/a.yaml", "include: gone\n")]).contains("d/gone: cannot be read"));
        let config = config(&[("d/a.yaml", "x: 1\ndescription: [1]\n")]).unwrap();
        let error = config.text("description").unwrap_err().to_string();
        assert_eq!(error, "d/a.yaml:2: `description` is [1]; it must be a text");
    }
}
