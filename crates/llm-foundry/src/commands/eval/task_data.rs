//! Documents of tasks: files of the user's (`--data-dir`), files that the task names, or the hub.

mod layout;

use crate::failure::{Failure, Outcome};
use crate::hub::{Fetch, HubSettings, Part, fetch_dataset, is_hub_id};
use crate::model_source::expand_home;
use foundry_eval::{Documents, TaskSpec};
use layout::{Wanted, chosen, data_files};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// Formats that `dataset_path` may be, with the files in `dataset_kwargs`, as in datasets.
const FORMATS: [&str; 5] = ["json", "csv", "parquet", "text", "arrow"];

/// Where the documents of each task are.
pub(crate) struct TaskData {
    /// What `--data-dir` gave: a task (or group, or data set) and a path, or a path for all.
    given: Vec<(Option<String>, PathBuf)>,
    settings: HubSettings,
    quiet: bool,
    /// Splits that were read, by their files.
    read: HashMap<Vec<PathBuf>, Vec<Value>>,
}

impl TaskData {
    pub(crate) fn new(given: &[String], quiet: bool) -> Outcome<Self> {
        let mut all = Vec::new();
        for text in given {
            let whole = expand_home(text);
            let (key, path) = match text.split_once('=') {
                Some((key, path)) if !whole.exists() => (Some(key.to_owned()), expand_home(path)),
                _ => (None, whole),
            };
            if !path.exists() {
                return Err(Failure::Input(format!(
                    "--data-dir {text}: there is no {}\n  give TASK=PATH or PATH, a directory or a file",
                    path.display()
                )));
            }
            all.push((key, path));
        }
        let settings = HubSettings::from_env(|variable| std::env::var(variable).ok());
        Ok(Self { given: all, settings, quiet, read: HashMap::new() })
    }

    /// The path that was given for a task; of several the most particular.
    fn given(&self, task: &TaskSpec) -> Option<(&Path, bool)> {
        let labels = labels(task);
        let rank = |key: &str| labels.iter().position(|label| label == key);
        let named = self.given.iter().filter_map(|(key, path)| Some((rank(key.as_ref()?)?, path)));
        if let Some((_, path)) = named.min_by_key(|(rank, _)| *rank) {
            return Some((path, true));
        }
        self.given.iter().find(|(key, _)| key.is_none()).map(|(_, path)| (path.as_path(), false))
    }

    fn files(&self, task: &TaskSpec, split: &str) -> Result<Vec<PathBuf>, String> {
        if let Some((path, is_own)) = self.given(task) {
            if path.is_file() {
                if task.evaluated_split() != Some(split) {
                    return Err(format!(
                        "its examples come from split `{split}`, and {} is one file, for the questions; give a directory \
                         with a file for each split, or --num-fewshot 0",
                        path.display()
                    ));
                }
                return Ok(vec![path.to_path_buf()]);
            }
            let labels = labels(task);
            let wanted = Wanted {
                split,
                config: task.dataset_name.as_deref(),
                labels: if is_own { &[] } else { &labels },
            };
            let found = chosen(&data_files(path)?, &wanted);
            match found {
                Ok(names) => return Ok(names.into_iter().map(|name| path.join(name)).collect()),
                Err(problem) if is_own => return Err(format!("{}: {problem}", path.display())),
                Err(_) => {}
            }
        }
        if FORMATS.contains(&task.dataset_path.as_str()) {
            return named_files(task, split);
        }
        let local = expand_home(&task.dataset_path);
        if local.is_dir() {
            let wanted = Wanted { split, config: task.dataset_name.as_deref(), labels: &[] };
            let names =
                chosen(&data_files(&local)?, &wanted).map_err(|e| format!("{}: {e}", local.display()))?;
            return Ok(names.into_iter().map(|name| local.join(name)).collect());
        }
        if !is_hub_id(&task.dataset_path) {
            return Err(format!(
                "its data set `{}` is neither a directory nor a name of the hub; give the data with --data-dir {}=PATH",
                task.dataset_path, task.name
            ));
        }
        let part = Part {
            name: task.dataset_name.clone(),
            split: split.to_owned(),
            revision: task
                .dataset_kwargs
                .get("revision")
                .and_then(Value::as_str)
                .unwrap_or("main")
                .to_owned(),
        };
        let files = fetch_dataset(&self.settings, &task.dataset_path, &part, Fetch::unless_quiet(self.quiet));
        files.map_err(|error| {
            format!(
                "split `{split}`: {error}\n  or give a file of that split with --data-dir {}=PATH",
                task.name
            )
        })
    }
}

/// What a task's data may be called, the most particular first.
fn labels(task: &TaskSpec) -> Vec<String> {
    let mut labels = vec![task.name.clone()];
    let mut rest = task.name.as_str();
    while let Some((shorter, _)) = rest.rsplit_once('_') {
        labels.push(shorter.to_owned());
        rest = shorter;
    }
    labels.push(task.dataset_path.clone());
    if let Some((_, short)) = task.dataset_path.rsplit_once('/') {
        labels.push(short.to_owned());
    }
    labels
}

/// `dataset_kwargs.data_files`: one name, several, or some for each split.
fn named_files(task: &TaskSpec, split: &str) -> Result<Vec<PathBuf>, String> {
    let files = task.dataset_kwargs.get("data_files").ok_or("`dataset_kwargs` names no `data_files`")?;
    let of_split = match files {
        Value::Object(splits) => splits.get(split).ok_or_else(|| {
            let names: Vec<&str> = splits.keys().map(String::as_str).collect();
            format!("`data_files` has no split `{split}`, only {}", names.join(", "))
        })?,
        all if split == "train" => all,
        _ => {
            return Err(format!(
                "`data_files` is not by split, so that there is only `train`, not `{split}`"
            ));
        }
    };
    let names: Vec<String> = match of_split {
        Value::String(name) => vec![name.clone()],
        Value::Array(names) => names.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        other => return Err(format!("`data_files` is {other}; it must be names of files")),
    };
    let mut files = Vec::new();
    for name in &names {
        let path = expand_home(name);
        if path.is_file() {
            files.push(path);
            continue;
        }
        let found =
            glob::glob(&path.to_string_lossy()).map_err(|e| format!("data_files: {name}: {}", e.msg))?;
        let before = files.len();
        files.extend(found.flatten().filter(|path| path.is_file()));
        files[before..].sort();
        if files.len() == before {
            return Err(format!(
                "data_files: no file {name} (relative paths are relative to the working directory)"
            ));
        }
    }
    Ok(files)
}

impl Documents for TaskData {
    fn split(&mut self, task: &TaskSpec, split: &str) -> Result<Vec<Value>, String> {
        if split.contains('[') {
            return Err(format!("`{split}`: parts of a split are not supported; name the split"));
        }
        let files = self.files(task, split)?;
        if let Some(documents) = self.read.get(&files) {
            return Ok(documents.clone());
        }
        let mut documents = Vec::new();
        for file in &files {
            match layout::original_mmlu(file)? {
                Some(rows) => {
                    let subject = task.dataset_name.as_deref().unwrap_or_default();
                    documents.extend(rows.into_iter().map(|row| mmlu_document(row, subject)));
                }
                None => {
                    let rows = foundry_data::read_rows(file).map_err(|error| error.to_string())?;
                    documents.extend(rows.into_iter().map(Value::Object));
                }
            }
        }
        // Some tasks share a split; few share more than one.
        self.read.clear();
        self.read.insert(files, documents.clone());
        Ok(documents)
    }
}

/// A row of the original files in the form of the hub's.
fn mmlu_document(row: [String; 6], subject: &str) -> Value {
    let [question, a, b, c, d, answer] = row;
    let index = match answer.trim().bytes().next() {
        Some(digit @ b'0'..=b'3') => digit - b'0',
        letter => letter.map_or(0, |letter| letter.saturating_sub(b'A')),
    };
    json!({"question": question, "subject": subject, "choices": [a, b, c, d], "answer": index})
}
