//! Every task that is built in asks what lm_eval asks: prompts, continuations and targets of documents of our own, from
//! `goldens/make_builtin.py`.

use foundry_eval::{
    Conventions, Documents, EvalError, GenerateRequest, LanguageModel, Library, LogLikelihood, RunOptions,
    ScoreRequest, TaskSpec, evaluate_task,
};
use serde_json::Value;
use std::collections::BTreeSet;

/// Characters as tokens, and the same answer to everything: only questions count here.
struct Indifferent;

impl LanguageModel for Indifferent {
    fn encode(&mut self, text: &str, _: bool) -> Result<Vec<u32>, EvalError> {
        Ok(text.chars().map(u32::from).collect())
    }
    fn log_likelihood(&mut self, requests: &[ScoreRequest]) -> Result<Vec<LogLikelihood>, EvalError> {
        Ok(vec![LogLikelihood { log_prob: -1.0, is_greedy: false }; requests.len()])
    }
    fn generate_until(&mut self, requests: &[GenerateRequest]) -> Result<Vec<String>, EvalError> {
        Ok(vec!["text".into(); requests.len()])
    }
}

struct Splits<'a>(&'a Value);

impl Documents for Splits<'_> {
    fn split(&mut self, _: &TaskSpec, split: &str) -> Result<Vec<Value>, String> {
        self.0[split].as_array().cloned().ok_or_else(|| format!("no split {split}"))
    }
}

#[test]
fn builtin_tasks_ask_what_lm_eval_asks() {
    let golden: Value = serde_json::from_str(include_str!("goldens/builtin.json")).unwrap();
    let conventions =
        Conventions { max_length: 10_000, prefix_token: 94, prefix_text: "^".into(), eos_text: None };
    let mut library = Library::builtin().unwrap();
    let mut seen = BTreeSet::new();
    for run in golden.as_array().unwrap() {
        let name = run["task"].as_str().unwrap();
        seen.insert(name.to_owned());
        let task = library.select(&[name.to_owned()]).unwrap().tasks.remove(0);
        let options = RunOptions {
            num_fewshot: run["shots"].as_u64().map(|shots| shots as usize),
            log_samples: true,
            bootstrap_iterations: 0,
            ..RunOptions::default()
        };
        let result =
            evaluate_task(&task, &mut Indifferent, &conventions, &mut Splits(&run["documents"]), &options);
        let result = result.unwrap_or_else(|error| panic!("{name}: {error}"));
        let expected = run["samples"].as_array().unwrap();
        // A task with several filters logs each document as often.
        assert_eq!(result.logged.len() % expected.len(), 0);
        for (sample, expected) in result.logged.iter().zip(expected.iter().cycle()) {
            let arguments = sample.fields["arguments"].as_object().unwrap().values();
            let texts = |arguments: &Value| -> Value {
                arguments.as_object().unwrap().values().filter(|one| one.is_string()).cloned().collect()
            };
            let asked: Value = arguments.map(texts).collect();
            assert_eq!(asked, expected["arguments"], "{name}, {} shots", run["shots"]);
            assert_eq!(sample.fields["target"], expected["target"], "{name}");
        }
    }
    let tasks = library.names().filter(|(name, kind)| *kind == "task" && !name.starts_with("mmlu_"));
    let missing: Vec<&str> = tasks.map(|(name, _)| name).filter(|name| !seen.contains(*name)).collect();
    assert!(missing.is_empty() && seen.iter().any(|name| name.starts_with("mmlu_")), "{missing:?}");
}
