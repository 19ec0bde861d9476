//! Results under the key names of lm_eval 0.4.13's `results_*.json`, so that its readers can read them.

use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};
use std::collections::BTreeMap;

/// One number about a task.
#[derive(Debug, Clone, PartialEq)]
pub struct Metric {
    /// lm_eval's name, such as `acc_norm`.
    pub name: String,
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
    /// Rows evaluated.
    pub samples: usize,
    /// The numbers, in the order of the task.
    pub metrics: Vec<Metric>,
}

impl Serialize for TaskResult {
    /// `{"alias", "sample_len", "acc,none", "acc_stderr,none", …}`; a missing standard error is "N/A", as in lm_eval.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("alias", &self.task)?;
        map.serialize_entry("sample_len", &self.samples)?;
        for metric in &self.metrics {
            map.serialize_entry(&format!("{},none", metric.name), &metric.value)?;
            let key = format!("{}_stderr,none", metric.name);
            match metric.stderr {
                Some(stderr) => map.serialize_entry(&key, &stderr)?,
                None => map.serialize_entry(&key, "N/A")?,
            }
        }
        map.end()
    }
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct Samples {
    original: usize,
    effective: usize,
}

/// Several tasks together: the top level of a results file.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Results {
    results: BTreeMap<String, TaskResult>,
    higher_is_better: BTreeMap<String, BTreeMap<String, bool>>,
    #[serde(rename = "n-samples")]
    n_samples: BTreeMap<String, Samples>,
    #[serde(rename = "n-shot")]
    n_shot: BTreeMap<String, usize>,
}

impl Results {
    /// Adds a task that had `num_fewshot` examples before each question and `original` rows before any limit.
    pub fn add(&mut self, result: TaskResult, num_fewshot: usize, original: usize) {
        let task = result.task.clone();
        let directions = result.metrics.iter().map(|m| (m.name.clone(), m.higher_is_better)).collect();
        self.higher_is_better.insert(task.clone(), directions);
        self.n_samples.insert(task.clone(), Samples { original, effective: result.samples });
        self.n_shot.insert(task.clone(), num_fewshot);
        self.results.insert(task, result);
    }

    /// The tasks, by name.
    pub fn tasks(&self) -> impl Iterator<Item = &TaskResult> {
        self.results.values()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn keys_are_those_of_lm_eval() {
        let metric =
            |name: &str, stderr| Metric { name: name.into(), value: 0.5, stderr, higher_is_better: true };
        let task = TaskResult {
            task: "piqa".into(),
            samples: 4,
            metrics: vec![metric("acc", Some(0.25)), metric("acc_norm", None)],
        };
        let mut results = Results::default();
        results.add(task, 5, 10);
        let expected = json!({
            "results": {"piqa": {"alias": "piqa", "sample_len": 4, "acc,none": 0.5, "acc_stderr,none": 0.25,
                                 "acc_norm,none": 0.5, "acc_norm_stderr,none": "N/A"}},
            "higher_is_better": {"piqa": {"acc": true, "acc_norm": true}},
            "n-samples": {"piqa": {"original": 10, "effective": 4}},
            "n-shot": {"piqa": 5},
        });
        assert_eq!(serde_json::to_value(&results).unwrap(), expected);
    }
}
