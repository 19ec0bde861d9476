//! Results of tasks and groups, under the key names of lm_eval 0.4.13's `results_*.json`, so that its readers can read
//! them.

use crate::sample::{Sample, sha256};
use crate::task::{Group, Member};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// One number about a task or a group.
#[derive(Debug, Clone, PartialEq)]
pub struct Metric {
    /// lm_eval's name, such as `acc_norm`.
    pub name: String,
    /// The chain of filters that the answers went through; `none` for log-likelihoods.
    pub filter: String,
    /// The number.
    pub value: f64,
    /// Its standard error, where there is one.
    pub stderr: Option<f64>,
    /// Which way is up.
    pub higher_is_better: bool,
}

/// What a task found.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskResult {
    /// Name of the task.
    pub task: String,
    /// Its name in tables.
    pub alias: String,
    /// Of its definition.
    pub version: Value,
    /// Examples before each question.
    pub num_fewshot: usize,
    /// Documents evaluated.
    pub samples: usize,
    /// Documents there are.
    pub original: usize,
    /// Requests that were too long and lost their beginning; a question with four choices makes four.
    pub truncated: usize,
    /// Questions whose right answer is none of their choices: they cannot be answered rightly.
    pub unanswerable: usize,
    /// The numbers, in the order of the task.
    pub metrics: Vec<Metric>,
    /// Documents with prompts and answers, if they were to be kept.
    pub logged: Vec<Sample>,
    /// The task's definition.
    pub config: Value,
}

impl TaskResult {
    /// What a reader of the numbers should know. `max_length`: the most tokens that the model takes.
    pub fn remarks(&self, max_length: usize) -> Vec<String> {
        let mut remarks = Vec::new();
        if self.truncated > 0 {
            remarks.push(format!(
                "{}: {} requests were longer than the model takes ({max_length} tokens, with what is to be generated) and \
                 lost their beginning",
                self.task, self.truncated
            ));
        }
        if self.unanswerable > 0 {
            remarks.push(format!(
                "{}: the right answer of {} of {} questions is none of their choices, so that they count as wrong",
                self.task, self.unanswerable, self.samples
            ));
        }
        remarks
    }
}

/// Several tasks and groups together.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Results {
    tasks: Vec<TaskResult>,
    groups: Vec<Group>,
}

/// One line of a table.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// Task or group.
    pub name: String,
    /// Its name in tables.
    pub alias: String,
    /// How deep in groups it is.
    pub depth: usize,
    /// Of its definition.
    pub version: String,
    /// Examples before each question, where the tasks of a group agree.
    pub num_fewshot: Option<usize>,
    /// The number; a group without own numbers has none.
    pub metric: Option<Metric>,
}

impl Results {
    /// Tasks, in the order of the question, and groups, inner ones first. A group's number is that of all its tasks:
    /// groups that lack a task's result are left out.
    pub fn new(tasks: Vec<TaskResult>, groups: Vec<Group>) -> Self {
        let mut whole: Vec<Group> = Vec::with_capacity(groups.len());
        for group in groups {
            let is_there = |member: &Member| match member {
                Member::Task(name) => tasks.iter().any(|task| task.task == *name),
                Member::Group(name) => whole.iter().any(|group| group.name == *name),
            };
            if group.members.iter().all(is_there) {
                whole.push(group);
            }
        }
        Self { tasks, groups: whole }
    }

    /// The tasks.
    pub fn tasks(&self) -> &[TaskResult] {
        &self.tasks
    }

    fn task(&self, name: &str) -> Option<&TaskResult> {
        self.tasks.iter().find(|task| task.task == name)
    }

    fn group(&self, name: &str) -> Option<&Group> {
        self.groups.iter().find(|group| group.name == name)
    }

    /// The tasks in a group and its groups.
    fn leaves<'a>(&'a self, group: &'a Group) -> Vec<&'a TaskResult> {
        let mut leaves = Vec::new();
        for member in &group.members {
            match member {
                Member::Task(name) => leaves.extend(self.task(name)),
                Member::Group(name) => {
                    leaves.extend(self.group(name).map(|g| self.leaves(g)).unwrap_or_default())
                }
            }
        }
        leaves
    }

    /// A group's own numbers: means of its tasks' (lm_eval 0.4.13 `api/group.py::Group.aggregate`).
    pub fn aggregated(&self, group: &Group) -> Vec<Metric> {
        let leaves = self.leaves(group);
        let mut metrics = Vec::new();
        for wanted in &group.metrics {
            let of_name = leaves.iter().flat_map(|task| &task.metrics).filter(|m| m.name == wanted.metric);
            let found: BTreeSet<&str> = of_name.map(|metric| metric.filter.as_str()).collect();
            let filters: Vec<String> = match &wanted.filters {
                Some(filters) => filters.clone(),
                None => found.into_iter().map(str::to_owned).collect(),
            };
            for filter in filters {
                let parts: Vec<(&Metric, f64)> = leaves
                    .iter()
                    .filter_map(|task| {
                        let metric =
                            task.metrics.iter().find(|m| m.name == wanted.metric && m.filter == filter)?;
                        Some((metric, task.samples as f64))
                    })
                    .collect();
                metrics.extend(combined(&parts, wanted.weight_by_size));
            }
        }
        metrics
    }

    /// Every number in lm_eval's order of a table: groups before what they hold, then the other tasks.
    pub fn rows(&self) -> Vec<Row> {
        let inner: BTreeSet<&str> =
            self.groups.iter().flat_map(|group| group.members.iter().map(Member::name)).collect();
        let mut rows = Vec::new();
        let mut roots: Vec<&Group> =
            self.groups.iter().filter(|g| !inner.contains(g.name.as_str())).collect();
        roots.sort_by(|a, b| a.name.cmp(&b.name));
        for group in roots {
            self.group_rows(group, 0, &mut rows);
        }
        let mut others: Vec<&TaskResult> =
            self.tasks.iter().filter(|task| !inner.contains(task.task.as_str())).collect();
        others.sort_by(|a, b| a.task.cmp(&b.task));
        for task in others {
            task_rows(task, 0, &mut rows);
        }
        rows
    }

    fn group_rows(&self, group: &Group, depth: usize, rows: &mut Vec<Row>) {
        let shots: BTreeSet<usize> = self.leaves(group).iter().map(|task| task.num_fewshot).collect();
        let num_fewshot = if shots.len() == 1 { shots.first().copied() } else { None };
        let mut metrics: Vec<Option<Metric>> = self.aggregated(group).into_iter().map(Some).collect();
        if metrics.is_empty() {
            metrics.push(None);
        }
        for metric in metrics {
            rows.push(Row {
                name: group.name.clone(),
                alias: group.alias.clone(),
                depth,
                version: group.version.clone(),
                num_fewshot,
                metric,
            });
        }
        let mut members: Vec<&Member> = group.members.iter().collect();
        members.sort_by(|a, b| a.name().cmp(b.name()));
        for member in members {
            match member {
                Member::Task(name) => {
                    if let Some(task) = self.task(name) {
                        task_rows(task, depth + 1, rows);
                    }
                }
                Member::Group(name) => {
                    if let Some(group) = self.group(name) {
                        self.group_rows(group, depth + 1, rows);
                    }
                }
            }
        }
    }

    /// The top level of a results file, as far as this crate knows it.
    pub fn json(&self) -> Map<String, Value> {
        let (mut results, mut groups, mut subtasks) = (Map::new(), Map::new(), Map::new());
        let (mut versions, mut shots, mut higher) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let (mut configs, mut counts, mut hashes) = (BTreeMap::new(), Map::new(), Map::new());
        for task in &self.tasks {
            let name = &task.task;
            results.insert(name.clone(), task_json(task));
            versions.insert(name.clone(), task.version.clone());
            shots.insert(name.clone(), json!(task.num_fewshot));
            let directions: Map<String, Value> =
                task.metrics.iter().map(|m| (m.name.clone(), m.higher_is_better.into())).collect();
            higher.insert(name.clone(), Value::from(directions));
            configs.insert(name.clone(), task.config.clone());
            counts.insert(name.clone(), json!({"original": task.original, "effective": task.samples}));
            if !task.logged.is_empty() {
                let all: String = task.logged.iter().map(Sample::hashes).collect();
                hashes.insert(name.clone(), sha256(&all).into());
            }
        }
        for group in &self.groups {
            let own = self.group_json(group);
            if !group.metrics.is_empty() {
                groups.insert(group.name.clone(), own.clone());
            }
            results.insert(group.name.clone(), own);
            subtasks.insert(group.name.clone(), group.members.iter().map(Member::name).collect());
            versions.insert(group.name.clone(), json!(group.version));
            let agreed: BTreeSet<usize> = self.leaves(group).iter().map(|task| task.num_fewshot).collect();
            if agreed.len() == 1 {
                shots.insert(group.name.clone(), json!(agreed.first()));
            }
            let directions: Map<String, Value> = self
                .leaves(group)
                .iter()
                .flat_map(|task| &task.metrics)
                .map(|m| (m.name.clone(), m.higher_is_better.into()))
                .collect();
            higher.insert(group.name.clone(), directions.into());
        }
        let mut top = Map::new();
        top.insert("results".into(), results.into());
        if !groups.is_empty() {
            top.insert("groups".into(), groups.into());
        }
        top.insert("group_subtasks".into(), subtasks.into());
        top.insert("configs".into(), json!(configs));
        top.insert("versions".into(), json!(versions));
        top.insert("n-shot".into(), json!(shots));
        top.insert("higher_is_better".into(), json!(higher));
        top.insert("n-samples".into(), counts.into());
        top.insert("task_hashes".into(), hashes.into());
        // Not of lm_eval, which counts neither.
        let counted = |count: &dyn Fn(&TaskResult) -> usize| -> Map<String, Value> {
            self.tasks.iter().map(|task| (task.task.clone(), count(task).into())).collect()
        };
        top.insert("truncated".into(), counted(&|task| task.truncated).into());
        top.insert("unanswerable".into(), counted(&|task| task.unanswerable).into());
        top
    }

    fn group_json(&self, group: &Group) -> Value {
        let mut own = Map::new();
        own.insert("alias".into(), group.alias.clone().into());
        own.insert("name".into(), group.name.clone().into());
        if group.metrics.is_empty() {
            return own.into();
        }
        let leaves = self.leaves(group);
        let total = |tasks: &[&TaskResult]| tasks.iter().map(|task| task.samples).sum::<usize>();
        own.insert("sample_len".into(), total(&leaves).into());
        let mut counts = Map::new();
        for metric in self.aggregated(group) {
            put(&mut own, &metric);
            let having: Vec<&TaskResult> = leaves
                .iter()
                .filter(|task| {
                    task.metrics.iter().any(|m| m.name == metric.name && m.filter == metric.filter)
                })
                .copied()
                .collect();
            counts.insert(format!("{},{}", metric.name, metric.filter), total(&having).into());
        }
        own.insert("sample_count".into(), counts.into());
        own.into()
    }
}

fn task_rows(task: &TaskResult, depth: usize, rows: &mut Vec<Row>) {
    let mut metrics = task.metrics.clone();
    metrics.sort_by(|a, b| (&a.name, &a.filter).cmp(&(&b.name, &b.filter)));
    for metric in metrics {
        rows.push(Row {
            name: task.task.clone(),
            alias: task.alias.clone(),
            depth,
            version: crate::python::text::str_of(&task.version),
            num_fewshot: Some(task.num_fewshot),
            metric: Some(metric),
        });
    }
}

/// The mean of tasks' numbers, each with its documents.
fn combined(parts: &[(&Metric, f64)], weight_by_size: bool) -> Option<Metric> {
    let (first, _) = parts.first()?;
    let weight = |size: f64| if weight_by_size { size } else { 1.0 };
    let total: f64 = parts.iter().map(|(_, size)| weight(*size)).sum();
    let value = parts.iter().map(|(metric, size)| metric.value * weight(*size)).sum::<f64>() / total;
    let errors: Option<Vec<(f64, f64)>> =
        parts.iter().map(|(metric, size)| metric.stderr.map(|stderr| (stderr, *size))).collect();
    let stderr = errors.map(|errors| match weight_by_size {
        true => {
            let pooled: f64 = errors.iter().map(|(stderr, size)| (size - 1.0) * stderr.powi(2) * size).sum();
            (pooled / (total - errors.len() as f64) / total).sqrt()
        }
        false => errors.iter().map(|(stderr, _)| stderr.powi(2)).sum::<f64>().sqrt() / errors.len() as f64,
    });
    Some(Metric { value, stderr, ..(*first).clone() })
}

/// `"acc,none"` and `"acc_stderr,none"`; a missing standard error is "N/A".
fn put(map: &mut Map<String, Value>, metric: &Metric) {
    map.insert(format!("{},{}", metric.name, metric.filter), number(metric.value));
    let stderr = metric.stderr.map_or("N/A".into(), number);
    map.insert(format!("{}_stderr,{}", metric.name, metric.filter), stderr);
}

/// JSON has no NaN and no infinity; they are written as texts.
fn number(value: f64) -> Value {
    if value.is_finite() { json!(value) } else { crate::python::text::float_repr(value).into() }
}

fn task_json(task: &TaskResult) -> Value {
    let mut map = Map::new();
    map.insert("name".into(), task.task.clone().into());
    map.insert("alias".into(), task.alias.clone().into());
    map.insert("sample_len".into(), task.samples.into());
    for metric in &task.metrics {
        put(&mut map, metric);
    }
    map.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::AggregateMetric;

    fn task(name: &str, samples: usize, value: f64, stderr: Option<f64>) -> TaskResult {
        let metric =
            Metric { name: "acc".into(), filter: "none".into(), value, stderr, higher_is_better: true };
        TaskResult {
            task: name.into(),
            alias: name.into(),
            version: json!(1.0),
            num_fewshot: 5,
            samples,
            original: 10,
            truncated: 7,
            unanswerable: 1,
            metrics: vec![metric],
            logged: vec![],
            config: json!({}),
        }
    }

    fn results(weight_by_size: bool) -> Results {
        let metrics = vec![AggregateMetric { metric: "acc".into(), filters: None, weight_by_size }];
        let members = ["b", "a"].map(|name| Member::Task(name.into())).to_vec();
        let group = Group { name: "g".into(), alias: "G".into(), members, metrics, version: "2".into() };
        Results::new(
            vec![task("b", 3, 1.0, Some(0.2)), task("a", 1, 0.0, Some(0.1)), task("z", 2, 0.5, None)],
            vec![group],
        )
    }

    #[test]
    fn groups_are_means_of_their_tasks() {
        // lm_eval.api.metrics: aggregate_subtask_metrics, pooled_sample_stderr, unweighted_mean_stderr
        let weighted = results(true);
        let metric = &weighted.aggregated(&weighted.groups[0])[0];
        assert_eq!(metric.value, 0.75);
        assert!((metric.stderr.unwrap() - (2.0f64 * 0.04 * 3.0 / 2.0 / 4.0).sqrt()).abs() < 1e-12);
        let plain = results(false);
        let metric = &plain.aggregated(&plain.groups[0])[0];
        assert_eq!(metric.value, 0.5);
        assert!((metric.stderr.unwrap() - 0.05f64.sqrt() / 2.0).abs() < 1e-12);
    }

    #[test]
    fn a_group_without_all_its_tasks_is_left_out() {
        let group = |name: &str, members: Vec<Member>| Group {
            name: name.into(),
            alias: name.into(),
            members,
            metrics: vec![AggregateMetric { metric: "acc".into(), filters: None, weight_by_size: true }],
            version: "1".into(),
        };
        let (of_task, of_group) = (|n: &str| Member::Task(n.into()), |n: &str| Member::Group(n.into()));
        let groups = vec![
            group("whole", vec![of_task("a")]),
            group("torn", vec![of_task("a"), of_task("failed")]),
            group("outer", vec![of_group("whole"), of_group("torn")]),
        ];
        let rows = Results::new(vec![task("a", 1, 0.5, None), task("b", 1, 0.25, None)], groups).rows();
        let names: Vec<&str> = rows.iter().map(|row| row.name.as_str()).collect();
        assert_eq!(names, ["whole", "a", "b"]);
    }

    #[test]
    fn keys_and_rows_are_those_of_lm_eval() {
        let results = results(true);
        let json = Value::Object(results.json());
        assert_eq!(
            json["results"]["z"],
            json!({"name": "z", "alias": "z", "sample_len": 2, "acc,none": 0.5, "acc_stderr,none": "N/A"})
        );
        assert_eq!(json["groups"]["g"]["sample_len"], 4);
        assert_eq!(json["groups"]["g"]["sample_count"], json!({"acc,none": 4}));
        assert_eq!(json["group_subtasks"], json!({"g": ["b", "a"]}));
        assert_eq!(json["n-samples"]["b"], json!({"original": 10, "effective": 3}));
        assert_eq!((&json["n-shot"]["g"], &json["versions"]["g"]), (&json!(5), &json!("2")));
        assert_eq!(json["higher_is_better"]["g"], json!({"acc": true}));
        assert_eq!(json["truncated"], json!({"b": 7, "a": 7, "z": 7}));
        assert_eq!(json["unanswerable"], json!({"b": 1, "a": 1, "z": 1}));
        let rows = results.rows();
        let names: Vec<(&str, usize)> = rows.iter().map(|row| (row.name.as_str(), row.depth)).collect();
        assert_eq!(names, [("g", 0), ("a", 1), ("b", 1), ("z", 0)]);
    }
}
