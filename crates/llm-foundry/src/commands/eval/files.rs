//! Files under lm_eval's names and keys: `DIR/MODEL/results_DATE.json` and `samples_TASK_DATE.jsonl`.

use super::Evaluation;
use super::model::Examinee;
use crate::console::say;
use crate::failure::{Failure, Outcome};
use foundry_eval::{Conventions, sha256};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Numbers of an earlier evaluation: task or group, then metric and filter, then value and standard error.
pub(super) struct Earlier {
    pub(super) name: String,
    numbers: BTreeMap<String, BTreeMap<String, (f64, Option<f64>)>>,
}

impl Earlier {
    /// Of a results file, or of the latest in a directory.
    pub(super) fn read(path: &Path) -> Outcome<Self> {
        let file = if path.is_dir() { latest(path)? } else { path.to_path_buf() };
        let text = std::fs::read_to_string(&file).map_err(|e| Failure::io("read", &file, &e))?;
        let top: Value = serde_json::from_str(&text)
            .map_err(|e| Failure::Input(format!("--compare {}: broken JSON: {e}", file.display())))?;
        match top {
            Value::Object(top) if top.contains_key("results") => Ok(Self::of(&top)),
            _ => Err(Failure::Input(format!(
                "--compare {}: it has no `results`\n  give a results_….json of lm_eval or of `llm-foundry eval -o`",
                file.display()
            ))),
        }
    }

    pub(super) fn of(top: &Map<String, Value>) -> Self {
        let name = top.get("model_name").and_then(Value::as_str).unwrap_or("before").to_owned();
        let mut numbers = BTreeMap::new();
        for (task, metrics) in top.get("results").and_then(Value::as_object).into_iter().flatten() {
            let mut own = BTreeMap::new();
            for (key, value) in metrics.as_object().into_iter().flatten() {
                let Some((metric, filter)) =
                    key.split_once(',').filter(|(metric, _)| !metric.ends_with("_stderr"))
                else {
                    continue;
                };
                let stderr = metrics.get(format!("{metric}_stderr,{filter}")).and_then(Value::as_f64);
                if let Some(value) = value.as_f64() {
                    own.insert(key.clone(), (value, stderr));
                }
            }
            numbers.insert(task.clone(), own);
        }
        Self { name, numbers }
    }

    /// Value and standard error.
    pub(super) fn number(&self, task: &str, metric: &str, filter: &str) -> Option<(f64, Option<f64>)> {
        self.numbers.get(task)?.get(&format!("{metric},{filter}")).copied()
    }
}

fn latest(dir: &Path) -> Outcome<PathBuf> {
    let mut found = Vec::new();
    let mut waiting = vec![dir.to_path_buf()];
    while let Some(dir) = waiting.pop() {
        for entry in std::fs::read_dir(&dir).map_err(|e| Failure::io("list", &dir, &e))?.flatten() {
            let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
            if path.is_dir() {
                waiting.push(path);
            } else if name.starts_with("results_") && name.ends_with(".json") {
                found.push((name, path));
            }
        }
    }
    found.sort();
    found
        .pop()
        .map(|(_, path)| path)
        .ok_or_else(|| Failure::Input(format!("--compare {}: no results_….json in there", dir.display())))
}

/// Adds what lm_eval says about model and run.
pub(super) fn describe(
    top: &mut Map<String, Value>,
    examinee: &Examinee,
    conventions: &Conventions,
    run: &Value,
) {
    let tokenizer = &examinee.tokenizer;
    let token = |text: Option<&str>| {
        let id =
            text.and_then(|text| tokenizer.token_to_id(text)).map_or(Value::Null, |id| id.to_string().into());
        json!([text, id])
    };
    let hash = |text: &Value| text.as_str().map(sha256);
    for config in top.get_mut("configs").and_then(Value::as_object_mut).into_iter().flat_map(Map::values_mut)
    {
        let Some(metadata) = config["metadata"].as_object_mut() else { continue };
        let source = metadata.shift_remove("config_source").unwrap_or_default();
        metadata.extend(examinee.arguments.clone());
        metadata.insert("config_source".into(), source);
    }
    top.insert(
        "config".into(),
        json!({
            "model": "llm-foundry",
            "model_args": &examinee.arguments,
            "model_num_parameters": examinee.parameters,
            "model_dtype": examinee.dtype,
            "model_revision": examinee.revision,
            "model_sha": "",
            "batch_size": null,
            "batch_sizes": [],
            "device": "cpu",
            "use_cache": null,
            "limit": run["limit"],
            "bootstrap_iters": run["bootstrap_iters"],
            "gen_kwargs": run["gen_kwargs"].as_object().cloned().unwrap_or_default(),
            "random_seed": run["random_seed"],
            "numpy_seed": run["numpy_seed"],
            "torch_seed": run["torch_seed"],
            "fewshot_seed": run["fewshot_seed"],
        }),
    );
    let more = json!({
        "git_hash": null,
        "date": run["date"],
        "pretty_env_info": format!("llm-foundry {}", env!("CARGO_PKG_VERSION")),
        "transformers_version": null,
        "lm_eval_version": null,
        "upper_git_hash": null,
        "tokenizer_pad_token": token(tokenizer.pad_token()),
        "tokenizer_eos_token": token(tokenizer.eos_token()),
        "tokenizer_bos_token": token(tokenizer.bos_token()),
        "eot_token_id": tokenizer.eos_token_id(),
        "max_length": conventions.max_length,
        "model_source": "llm-foundry",
        "model_name": examinee.name,
        "model_name_sanitized": sanitized(&examinee.name),
        "system_instruction": run["system_instruction"],
        "system_instruction_sha": hash(&run["system_instruction"]),
        "fewshot_as_multiturn": run["fewshot_as_multiturn"],
        "chat_template": run["chat_template"],
        "chat_template_sha": hash(&run["chat_template"]),
        "total_evaluation_time_seconds": run["seconds"].to_string(),
    });
    if let Value::Object(more) = more {
        top.extend(more);
    }
}

/// A model's name as a directory's.
fn sanitized(name: &str) -> String {
    let mut out = String::new();
    let mut is_inside = false;
    for c in name.chars() {
        let is_bad = "\"<>:/|\\?*[]".contains(c);
        match (is_bad, is_inside) {
            (true, false) => out.push_str("__"),
            (true, true) => {}
            (false, _) => out.push(c),
        }
        is_inside = is_bad;
    }
    out
}

/// Writes results and, where they were kept, samples.
pub(super) fn write(output: &Path, evaluation: &Evaluation, quiet: bool) -> Outcome {
    let date = date_of_now();
    let (dir, results) = match output.extension().is_some_and(|end| end == "json") {
        true => {
            let dir = output.parent().unwrap_or(Path::new("")).to_path_buf();
            let stem = output.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
            (dir.clone(), dir.join(format!("{stem}_{date}.json")))
        }
        false => {
            let dir = output.join(sanitized(&evaluation.name));
            (dir.clone(), dir.join(format!("results_{date}.json")))
        }
    };
    if !dir.as_os_str().is_empty() {
        std::fs::create_dir_all(&dir).map_err(|e| Failure::io("make", &dir, &e))?;
    }
    for task in evaluation.results.tasks().iter().filter(|task| !task.logged.is_empty()) {
        let name = task.task.replace(['/', ':'], "_");
        let lines: String =
            task.logged.iter().map(|sample| format!("{}\n", Value::Object(sample.fields.clone()))).collect();
        whole(&dir.join(format!("samples_{name}_{date}.jsonl")), &lines)?;
    }
    let text = serde_json::to_string_pretty(&evaluation.top).map_err(Failure::run)?;
    whole(&results, &text)?;
    say(quiet, format!("written: {}", results.display()));
    Ok(())
}

/// A file that is whole or not there.
fn whole(path: &Path, text: &str) -> Outcome {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let failed = |e: &std::io::Error| Failure::io("write", path, e);
    let mut file = tempfile::NamedTempFile::new_in(dir).map_err(|e| failed(&e))?;
    file.write_all(text.as_bytes()).map_err(|e| failed(&e))?;
    file.persist(path).map_err(|e| failed(&e.error))?;
    Ok(())
}

/// `2026-11-30T23-26-17.123456`, UTC.
fn date_of_now() -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let (days, seconds) = (now.as_secs() / 86_400, now.as_secs() % 86_400);
    // Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", civil_from_days.
    let shifted = days + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}-{minute:02}-{second:02}.{:06}", now.subsec_micros())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_directories() {
        assert_eq!(sanitized("/a/b:c"), "__a__b__c");
        assert_eq!(sanitized("org//name"), "org__name");
    }

    #[test]
    fn earlier_numbers_are_read_with_their_errors() {
        let top = json!({"results": {"t": {"acc,none": 0.5, "acc_stderr,none": 0.1, "f1,none": 0.2,
                         "f1_stderr,none": "N/A", "alias": "t"}}, "model_name": "m"});
        let earlier = Earlier::of(top.as_object().expect("an object"));
        assert_eq!(earlier.number("t", "acc", "none"), Some((0.5, Some(0.1))));
        assert_eq!(earlier.number("t", "f1", "none"), Some((0.2, None)));
        assert_eq!((earlier.number("t", "acc", "x"), earlier.name.as_str()), (None, "m"));
    }
}
