//! Documents of tasks: files of the user's (`--data-dir`), files that the task names, or the hub.

mod columns;
mod layout;

use crate::failure::{Failure, Outcome};
use crate::hub::{Fetch, HubSettings, Part, fetch_dataset, is_hub_id};
use crate::model_source::expand_home;
use foundry_eval::{Documents, Selection, TaskSpec};
use layout::{Wanted, chosen, data_files, plain};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// Formats that `dataset_path` may be, with the files in `dataset_kwargs`, as in datasets.
const FORMATS: [&str; 5] = ["json", "csv", "parquet", "text", "arrow"];

/// How addresses of files on the hub begin, as in datasets.
const HUB: &str = "hf://datasets/";

/// Where the documents of each task are.
pub(crate) struct TaskData {
    /// The option that gave the paths.
    option: &'static str,
    /// A task (or group, or data set) and a path, or a path for all.
    given: Vec<(Option<String>, PathBuf)>,
    /// The groups that each task came by.
    groups: HashMap<String, Vec<String>>,
    /// All tasks have one data set, so that its files need not be told from others'.
    is_only: bool,
    settings: HubSettings,
    quiet: bool,
    /// Splits that were read, by their files.
    read: HashMap<Vec<PathBuf>, Vec<Value>>,
}

impl TaskData {
    /// `given` by `option`, for the tasks of `selection`.
    pub(crate) fn new(
        option: &'static str,
        given: &[String],
        selection: &Selection,
        quiet: bool,
    ) -> Outcome<Self> {
        let groups = groups_of(selection);
        let mut all = Vec::new();
        for text in given {
            let whole = expand_home(text);
            let (key, path) = match text.split_once('=') {
                Some((key, path)) if !whole.exists() => (Some(key.to_owned()), expand_home(path)),
                _ => (None, whole),
            };
            if !path.exists() {
                return Err(Failure::Input(format!(
                    "{option} {text}: there is no {}\n  give TASK=PATH or PATH, a directory or a file",
                    path.display()
                )));
            }
            let fits = |task: &TaskSpec| key.as_ref().is_none_or(|key| labels(task, &groups).contains(key));
            if !selection.tasks.iter().any(fits) {
                let names: Vec<&str> =
                    selection.tasks.iter().map(|task| task.name.as_str()).take(5).collect();
                return Err(Failure::Input(format!(
                    "{option} {text}: no task, group or data set of this evaluation is called `{}`\n  its tasks are {}",
                    key.unwrap_or_default(),
                    names.join(", ")
                )));
            }
            all.push((key, path));
        }
        let settings = HubSettings::from_env(|variable| std::env::var(variable).ok());
        let mut sets = selection.tasks.iter().map(|task| &task.dataset_path);
        let first = sets.next();
        let is_only = sets.all(|set| Some(set) == first);
        Ok(Self { option, given: all, groups, is_only, settings, quiet, read: HashMap::new() })
    }

    /// The path that was given for a task, and under which name; of several the most particular.
    fn given(&self, task: &TaskSpec) -> Option<(&Path, Option<&str>)> {
        let labels = labels(task, &self.groups);
        let rank = |key: &str| labels.iter().position(|label| label == key);
        let named = self.given.iter().filter_map(|(key, path)| Some((rank(key.as_ref()?)?, key, path)));
        if let Some((_, key, path)) = named.min_by_key(|(rank, ..)| *rank) {
            return Some((path, key.as_deref()));
        }
        self.given.iter().find(|(key, _)| key.is_none()).map(|(_, path)| (path.as_path(), None))
    }

    /// Files of the user's for a split; `None`: none were given.
    fn own_files(&self, task: &TaskSpec, split: &str) -> Option<Result<Vec<PathBuf>, String>> {
        let (path, key) = self.given(task)?;
        if path.is_file() {
            if task.evaluated_split() == Some(split) {
                return Some(Ok(vec![path.to_path_buf()]));
            }
            return Some(Err(format!(
                "its examples come from split `{split}`, and {} is one file, for the questions; give a directory with a \
                 file for each split, or --num-fewshot 0",
                path.display()
            )));
        }
        let labels = labels(task, &self.groups);
        let wanted = Wanted {
            split,
            config: task.dataset_name.as_deref(),
            labels: if key.is_some() { &[] } else { &labels },
            needs_config: key != Some(task.name.as_str()) && is_by_config(task),
        };
        let files = match data_files(path) {
            Ok(files) => files,
            Err(problem) => return Some(Err(problem)),
        };
        let found = chosen(&files, &wanted);
        let found = match found {
            Err(_) if key.is_none() && self.is_only => chosen(&files, &Wanted { labels: &[], ..wanted }),
            found => found,
        };
        let found = found.map(|names| names.into_iter().map(|name| path.join(name)).collect());
        let problem = |problem| format!("{} {}: {problem}", self.option, path.display());
        Some(found.map_err(problem))
    }

    fn files(&self, task: &TaskSpec, split: &str) -> Result<Vec<PathBuf>, String> {
        // A directory for all tasks need not have the data of those that name their own.
        let has_own =
            FORMATS.contains(&task.dataset_path.as_str()) || expand_home(&task.dataset_path).is_dir();
        match self.own_files(task, split) {
            Some(Ok(files)) => return Ok(files),
            Some(Err(problem)) if !has_own || self.given(task).is_some_and(|(_, key)| key.is_some()) => {
                return Err(problem);
            }
            _ => {}
        }
        if FORMATS.contains(&task.dataset_path.as_str()) {
            return self.named_files(task, split);
        }
        let local = expand_home(&task.dataset_path);
        if local.is_dir() {
            let config = task.dataset_name.as_deref();
            let wanted = Wanted { split, config, labels: &[], needs_config: is_by_config(task) };
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
            files: None,
        };
        self.fetched(task, &task.dataset_path, &part)
    }

    /// Files of the hub.
    fn fetched(&self, task: &TaskSpec, id: &str, part: &Part) -> Result<Vec<PathBuf>, String> {
        let files = fetch_dataset(&self.settings, id, part, Fetch::unless_quiet(self.quiet));
        files.map_err(|error| {
            format!(
                "split `{}`: {error}\n  or give a file of that split with --data-dir {}=PATH",
                part.split, task.name
            )
        })
    }

    /// `dataset_kwargs.data_files`: one name, several, or some for each split.
    fn named_files(&self, task: &TaskSpec, split: &str) -> Result<Vec<PathBuf>, String> {
        let mut files = Vec::new();
        for name in names_of_files(task, split)? {
            match name.strip_prefix(HUB) {
                Some(address) => {
                    let (id, part) = of_address(address, split).ok_or_else(|| {
                        format!(
                            "data_files: {name} is not {HUB}OWNER/NAME/FILE or {HUB}OWNER/NAME@REVISION/FILE"
                        )
                    })?;
                    files.extend(self.fetched(task, &id, &part)?);
                }
                None => files.extend(local_files(&name)?),
            }
        }
        Ok(files)
    }
}

/// Names of `dataset_kwargs.data_files` for a split.
fn names_of_files(task: &TaskSpec, split: &str) -> Result<Vec<String>, String> {
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
    match of_split {
        Value::String(name) => Ok(vec![name.clone()]),
        Value::Array(names) => Ok(names.iter().filter_map(Value::as_str).map(str::to_owned).collect()),
        other => Err(format!("`data_files` is {other}; it must be names of files")),
    }
}

/// What follows [`HUB`]: the data set, and which of its files.
fn of_address(address: &str, split: &str) -> Option<(String, Part)> {
    let (owner, rest) = address.split_once('/')?;
    let (name, path) = rest.split_once('/').filter(|(_, path)| !path.is_empty())?;
    let (name, revision) = name.split_once('@').unwrap_or((name, "main"));
    let id = format!("{owner}/{name}");
    let part = Part {
        name: None,
        split: split.to_owned(),
        revision: revision.to_owned(),
        files: Some(path.to_owned()),
    };
    is_hub_id(&id).then_some((id, part))
}

/// Files of this machine by name or pattern.
fn local_files(name: &str) -> Result<Vec<PathBuf>, String> {
    let path = expand_home(name);
    if path.is_file() {
        return Ok(vec![path]);
    }
    if let Some((scheme, _)) = name.split_once("://") {
        return Err(format!(
            "data_files: {name}: files by `{scheme}://` are not fetched; fetch it and give it with --data-dir TASK=PATH"
        ));
    }
    let found = glob::glob(&path.to_string_lossy()).map_err(|e| format!("data_files: {name}: {}", e.msg))?;
    let mut files: Vec<PathBuf> = found.flatten().filter(|path| path.is_file()).collect();
    files.sort();
    if files.is_empty() {
        return Err(format!(
            "data_files: no file {name} (relative paths are relative to the working directory)"
        ));
    }
    Ok(files)
}

/// The groups that hold each task, directly or in other groups.
fn groups_of(selection: &Selection) -> HashMap<String, Vec<String>> {
    let mut groups: HashMap<String, Vec<String>> = HashMap::new();
    // Inner groups come before those that hold them, so that from the outside in all is known.
    for group in selection.groups.iter().rev() {
        let mut names = vec![group.name.clone()];
        names.extend(groups.get(&group.name).cloned().unwrap_or_default());
        for member in &group.members {
            groups.entry(member.name().to_owned()).or_default().extend(names.clone());
        }
    }
    groups
}

/// What a task's data may be called, the most particular first.
fn labels(task: &TaskSpec, groups: &HashMap<String, Vec<String>>) -> Vec<String> {
    let mut labels = vec![task.name.clone()];
    labels.extend(groups.get(&task.name).cloned().unwrap_or_default());
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

/// The task is one of several of its data set, told apart by their configurations (`mmlu_anatomy`, `arc_easy`): a file
/// that is not named after the configuration may be another task's.
fn is_by_config(task: &TaskSpec) -> bool {
    task.dataset_name.as_ref().is_some_and(|config| plain(&task.name).contains(&plain(config)))
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
                    let mut rows = foundry_data::read_rows(file).map_err(|error| error.to_string())?;
                    if layout::is_of_texts(file) {
                        columns::typed(&mut rows);
                    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_the_hub_are_taken_apart() {
        let of =
            |address: &str| of_address(address, "test").map(|(id, part)| (id, part.revision, part.files));
        let file = |path: &str| Some(path.to_owned());
        assert_eq!(of("org/set/data/a.jsonl"), Some(("org/set".into(), "main".into(), file("data/a.jsonl"))));
        assert_eq!(of("org/set@v1/*.csv"), Some(("org/set".into(), "v1".into(), file("*.csv"))));
        assert_eq!(of("org/set/"), None);
        assert_eq!(of("org/../a.csv"), None);
        assert!(local_files("https://x/y.csv").expect_err("not fetched").contains("--data-dir"));
    }
}
