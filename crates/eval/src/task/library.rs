//! Where tasks are found by name: built in, or in a folder of the user's such as lm_eval's own.

use super::broken::Broken;
use super::builtin;
use super::spec::TaskSpec;
use super::yaml::{Config, definition, names, typed};
use crate::{EvalError, Results, Row};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// How deep groups may hold each other.
const DEEPEST: usize = 16;
/// Names that are offered in place of an unknown one.
const NEAR: usize = 3;

/// All tasks, groups and tags that can be asked for.
#[derive(Debug, Clone, Default)]
pub struct Library {
    entries: BTreeMap<String, Entry>,
    /// Files that cannot be read, with the names and tags that they would have, and why.
    broken: Vec<Broken>,
}

#[derive(Debug, Clone)]
enum Entry {
    Task(Config),
    Group(Config),
    Tag(BTreeSet<String>),
}

/// A metric of a group: the mean of its tasks'.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AggregateMetric {
    /// The tasks' metric.
    pub metric: String,
    /// Which filters; `None`: all there are.
    pub filters: Option<Vec<String>>,
    /// A task counts by its documents; else each counts the same.
    pub weight_by_size: bool,
}

/// What a group holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Member {
    /// A task, by name.
    Task(String),
    /// A group, by name.
    Group(String),
}

impl Member {
    /// Its name.
    pub fn name(&self) -> &str {
        match self {
            Self::Task(name) | Self::Group(name) => name,
        }
    }
}

/// Tasks under one name.
#[derive(Debug, Clone, PartialEq)]
pub struct Group {
    /// Its name.
    pub name: String,
    /// Its name in tables.
    pub alias: String,
    /// What it holds, in order.
    pub members: Vec<Member>,
    /// Its own numbers.
    pub metrics: Vec<AggregateMetric>,
    /// Of its definition.
    pub version: String,
}

/// What was asked for: each task once, and the groups they came by.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// Tasks in the order of the question.
    pub tasks: Vec<TaskSpec>,
    /// Groups, inner ones before those that hold them.
    pub groups: Vec<Group>,
}

impl Selection {
    /// The rows that its results will have, with NaN for every number.
    pub fn rows(&self) -> Vec<Row> {
        let tasks = self.tasks.iter().map(TaskSpec::without_results).collect();
        Results::new(tasks, self.groups.clone()).rows()
    }
}

impl Library {
    /// The tasks that come with the program.
    ///
    /// # Errors
    /// None in a released program: a test reads them all.
    pub fn builtin() -> Result<Self, EvalError> {
        let mut library = Self::default();
        for (path, text) in builtin::FILES {
            let read = |wanted: &Path| read_builtin(wanted, path, text);
            library.add(Config::read(Path::new(path), &read)?);
        }
        for (group, subjects) in builtin::MMLU_GROUPS {
            for subject in subjects.split(' ') {
                let text = builtin::MMLU
                    .replace("SUBJECT_WORDS", &subject.replace('_', " "))
                    .replace("SUBJECT", subject)
                    .replace("GROUP", group);
                let path = Path::new("mmlu/subject.yaml");
                library.add(Config::read(path, &|_| Ok(text.clone()))?);
            }
            let tasks = format!("task: [mmlu_{group}_tasks]");
            library.add_mmlu_group(&format!("mmlu_{group}"), &group.replace('_', " "), &tasks)?;
        }
        let groups: Vec<String> =
            builtin::MMLU_GROUPS.iter().map(|(group, _)| format!("mmlu_{group}")).collect();
        library.add_mmlu_group("mmlu", "mmlu", &format!("task: [{}]", groups.join(", ")))?;
        Ok(library)
    }

    fn add_mmlu_group(&mut self, name: &str, alias: &str, tasks: &str) -> Result<(), EvalError> {
        let text = format!(
            "group: {name}\ngroup_alias: {alias}\n{tasks}\n\
             aggregate_metric_list: [{{metric: acc, weight_by_size: true}}]\nmetadata: {{version: 2}}\n"
        );
        self.add(Config::read(Path::new("mmlu/group.yaml"), &|_| Ok(text.clone()))?);
        Ok(())
    }

    /// Adds all tasks in a folder, or of a file; they win over those that are there. Files of a folder that cannot be
    /// understood are left aside until one is asked for.
    ///
    /// # Errors
    /// A folder or a file that cannot be read.
    pub fn add_path(&mut self, path: &Path) -> Result<(), EvalError> {
        let mut files = Vec::new();
        if path.is_file() {
            self.add(Config::read(path, &read_file)?);
            return Ok(());
        }
        yaml_files(path, &mut files, 0)?;
        files.sort();
        for file in files {
            match Config::read(&file, &read_file) {
                Ok(config) => self.add(config),
                Err(error) => self.broken.push(Broken::new(file, error)),
            }
        }
        Ok(())
    }

    fn add(&mut self, config: Config) {
        let name = |key: &str| config.fields.get(key).and_then(Value::as_str).map(str::to_owned);
        if let Some(name) = name("group") {
            self.entries.insert(name, Entry::Group(config));
        } else if let Some(name) = name("task") {
            for tag in names(config.fields.get("tag")) {
                let tasks = self.entries.entry(tag.to_owned()).or_insert_with(|| Entry::Tag(BTreeSet::new()));
                if let Entry::Tag(tasks) = tasks {
                    tasks.insert(name.clone());
                }
            }
            self.entries.insert(name, Entry::Task(config));
        }
    }

    /// Names of all tasks, groups and tags, with what each is.
    pub fn names(&self) -> impl Iterator<Item = (&str, &'static str)> {
        self.entries.iter().map(|(name, entry)| {
            let kind = match entry {
                Entry::Task(_) => "task",
                Entry::Group(_) => "group",
                Entry::Tag(_) => "tag",
            };
            (name.as_str(), kind)
        })
    }

    /// What is wrong with each file that could not be read.
    pub fn unreadable(&self) -> impl Iterator<Item = &EvalError> {
        self.broken.iter().map(|broken| broken.problem.as_ref())
    }

    /// The tasks of `wanted`: names of tasks, groups or tags, patterns with `*`, or paths of YAML files.
    ///
    /// # Errors
    /// Unknown names, broken definitions, tasks that need Python.
    pub fn select(&mut self, wanted: &[String]) -> Result<Selection, EvalError> {
        let mut selection = Selection::default();
        for name in wanted {
            if (name.ends_with(".yaml") || name.ends_with(".yml")) && !self.entries.contains_key(name) {
                let config = Config::read(Path::new(name), &read_file)?;
                let named = ["group", "task"].iter().find_map(|key| config.fields.get(*key)?.as_str());
                let own = named.map(str::to_owned).ok_or_else(|| {
                    let problem = "neither `task` nor `group` gives it a name".to_owned();
                    definition(config.path.display().to_string(), problem, "add `task: name`".into())
                })?;
                self.add(config);
                self.collect(&own, &Map::new(), "", &mut selection, 0)?;
            } else if name.contains('*') {
                let readable = self.entries.keys().filter(|entry| matches(name, entry)).cloned();
                let broken = self.broken.iter().flat_map(|broken| &broken.names);
                let mut matching: Vec<String> =
                    readable.chain(broken.filter(|own| matches(name, own)).cloned()).collect();
                matching.sort();
                matching.dedup();
                if matching.is_empty() {
                    return Err(self.unknown(name));
                }
                for name in matching {
                    self.collect(&name, &Map::new(), "", &mut selection, 0)?;
                }
            } else {
                self.collect(name, &Map::new(), "", &mut selection, 0)?;
            }
        }
        Ok(selection)
    }

    /// Adds what `name` stands for; returns what it is to a group.
    fn collect(
        &self,
        name: &str,
        overrides: &Map<String, Value>,
        place: &str,
        selection: &mut Selection,
        depth: usize,
    ) -> Result<Vec<Member>, EvalError> {
        if let Some(broken) = self.broken.iter().find(|broken| broken.concerns(name)) {
            return Err(broken.refusal(name));
        }
        match self.entries.get(name) {
            None => Err(self.unknown(name)),
            Some(Entry::Tag(tasks)) => {
                let mut members = Vec::new();
                for task in tasks {
                    members.extend(self.collect(task, overrides, place, selection, depth)?);
                }
                Ok(members)
            }
            Some(Entry::Task(config)) => {
                let mut overrides = overrides.clone();
                overrides.shift_remove("task");
                let config = config.clone().overridden(&overrides, place);
                match selection.tasks.iter().find(|task| task.name == name) {
                    Some(known) if known.config.fields != config.fields => {
                        return Err(definition(
                            config.path.display().to_string(),
                            format!("the task `{name}` is asked for twice, with different settings"),
                            "ask for it in two evaluations, or give one of the two a name of its own".into(),
                        ));
                    }
                    Some(_) => {}
                    None => selection.tasks.push(TaskSpec::read(name, config)?),
                }
                Ok(vec![Member::Task(name.to_owned())])
            }
            Some(Entry::Group(config)) => {
                self.collect_group(name, config, overrides, selection, depth)?;
                Ok(vec![Member::Group(name.to_owned())])
            }
        }
    }

    fn collect_group(
        &self,
        name: &str,
        config: &Config,
        overrides: &Map<String, Value>,
        selection: &mut Selection,
        depth: usize,
    ) -> Result<(), EvalError> {
        if depth == DEEPEST {
            let problem = format!("groups hold each other more than {DEEPEST} deep");
            return Err(definition(config.place("task"), problem, "take one away".into()));
        }
        let place = config.place("task");
        let mut for_tasks: Map<String, Value> = Map::new();
        for (key, value) in &config.fields {
            if !["group", "group_alias", "task", "aggregate_metric_list", "metadata", "tag"]
                .contains(&key.as_str())
            {
                for_tasks.insert(key.clone(), value.clone());
            }
        }
        for_tasks.extend(overrides.clone());
        let mut members = Vec::new();
        let listed = match config.fields.get("task") {
            Some(Value::Array(items)) => items.clone(),
            Some(single @ Value::String(_)) => vec![single.clone()],
            _ => Vec::new(),
        };
        for item in &listed {
            let (own, extra) = match item {
                Value::String(own) => (own.clone(), Map::new()),
                Value::Object(fields) => {
                    let own = ["group", "task"].iter().find_map(|key| fields.get(*key)?.as_str());
                    let own =
                        own.ok_or_else(|| config.wrong("task", item, "a name, or have `task` or `group`"))?;
                    (own.to_owned(), fields.clone())
                }
                other => return Err(config.wrong("task", other, "a name, or have `task` or `group`")),
            };
            let mut all = for_tasks.clone();
            all.extend(extra);
            let is_known = self.entries.contains_key(&own);
            if is_known || self.broken.iter().any(|broken| broken.concerns(&own)) {
                all.shift_remove("group");
                all.shift_remove("task");
                members.extend(self.collect(&own, &all, &place, selection, depth + 1)?);
            } else if item.get("task").is_some_and(Value::is_string)
                || item.get("task").is_some_and(Value::is_array)
            {
                members.push(self.inline(name, &own, config, all, selection, depth)?);
            } else {
                return Err(self.unknown(&own));
            }
        }
        members.dedup();
        selection.groups.retain(|group| group.name != name);
        selection.groups.push(Group {
            name: name.to_owned(),
            alias: config.text("group_alias")?.unwrap_or_else(|| name.to_owned()),
            members,
            metrics: aggregates(config)?,
            version: config
                .fields
                .get("metadata")
                .and_then(|m| m.get("version"))
                .map_or("N/A".into(), crate::python::text::str_of),
        });
        Ok(())
    }

    /// A task or group that is written inside of a group.
    fn inline(
        &self,
        group: &str,
        own: &str,
        config: &Config,
        fields: Map<String, Value>,
        selection: &mut Selection,
        depth: usize,
    ) -> Result<Member, EvalError> {
        let name = format!("{group}::{own}");
        let inner = Config::empty(&config.path).overridden(&fields, &config.place("task"));
        if fields.get("task").is_some_and(Value::is_array) {
            self.collect_group(&name, &inner, &Map::new(), selection, depth + 1)?;
            return Ok(Member::Group(name));
        }
        selection.tasks.push(TaskSpec::read(&name, inner)?);
        Ok(Member::Task(name))
    }

    fn unknown(&self, name: &str) -> EvalError {
        let mut near: Vec<(f64, &String)> = self
            .entries
            .keys()
            .map(|entry| (strsim::jaro_winkler(&name.to_lowercase(), &entry.to_lowercase()), entry))
            .filter(|(likeness, _)| *likeness > 0.84)
            .collect();
        near.sort_by(|a, b| b.0.total_cmp(&a.0));
        EvalError::UnknownTask {
            name: name.to_owned(),
            near: near.into_iter().take(NEAR).map(|(_, entry)| entry.clone()).collect(),
            remedy: format!(
                "`llm-foundry eval --list-tasks` shows what there is, --include-path adds a folder of tasks{}",
                match self.broken.as_slice() {
                    [] => String::new(),
                    [first, ..] => format!(
                        " ({} files of --include-path could not be read, such as {})",
                        self.broken.len(),
                        first.file.display()
                    ),
                }
            ),
        }
    }
}

/// `aggregate_metric_list`.
fn aggregates(config: &Config) -> Result<Vec<AggregateMetric>, EvalError> {
    let key = "aggregate_metric_list";
    let items = match config.fields.get(key) {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Array(items)) => items.clone(),
        Some(single) => vec![single.clone()],
    };
    let read = |item: &Value| {
        let metric = item.get("metric").and_then(Value::as_str);
        let metric =
            metric.ok_or_else(|| config.wrong(key, item, "made of `metric` and what else it needs"))?;
        if let Some(other) = item.get("aggregation").filter(|value| value.as_str() != Some("mean")) {
            return Err(config.wrong(key, other, "`aggregation: mean`, the only one of groups"));
        }
        Ok(AggregateMetric {
            metric: metric.to_owned(),
            filters: item
                .get("filter_list")
                .filter(|list| !list.is_null())
                .map(|list| names(Some(list)).into_iter().map(str::to_owned).collect()),
            weight_by_size: typed(
                item,
                "weight_by_size",
                Value::as_bool,
                "true or false",
                &|problem, remedy| definition(config.place(key), problem, remedy),
            )?
            .unwrap_or(true),
        })
    };
    items.iter().map(read).collect()
}

fn yaml_files(dir: &Path, files: &mut Vec<PathBuf>, depth: usize) -> Result<(), EvalError> {
    if depth > DEEPEST {
        return Ok(());
    }
    let unreadable = |source| EvalError::Read { path: dir.to_path_buf(), source };
    for entry in std::fs::read_dir(dir).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        if path.is_dir() {
            yaml_files(&path, files, depth + 1)?;
        } else if path.extension().is_some_and(|end| end == "yaml") {
            files.push(path);
        }
    }
    Ok(())
}

pub(super) fn read_file(path: &Path) -> Result<String, EvalError> {
    std::fs::read_to_string(path).map_err(|source| EvalError::Read { path: path.to_path_buf(), source })
}

/// A file of the program, or one in its folder that it includes.
fn read_builtin(wanted: &Path, path: &str, text: &str) -> Result<String, EvalError> {
    if wanted == Path::new(path) {
        return Ok(text.to_owned());
    }
    let found = builtin::FILES.iter().find(|(path, _)| Path::new(path) == wanted);
    found.map(|(_, text)| (*text).to_owned()).ok_or_else(|| EvalError::Read {
        path: wanted.to_path_buf(),
        source: std::io::ErrorKind::NotFound.into(),
    })
}

/// Whether a name fits a pattern in which `*` stands for anything.
fn matches(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((start, rest)) => name.strip_prefix(start).is_some_and(|name| {
            (0..=name.len()).filter(|&at| name.is_char_boundary(at)).any(|at| matches(rest, &name[at..]))
        }),
    }
}

#[cfg(test)]
#[path = "library_tests.rs"]
mod tests;
