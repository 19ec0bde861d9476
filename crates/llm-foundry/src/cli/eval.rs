//! Arguments of `eval`.

use super::adapters::parse_adapter;
use super::{WeightedAdapter, parse_count};
use clap::Args;
use foundry_eval::Limit;
use serde_json::{Map, Value};
use std::path::PathBuf;

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  llm-foundry eval --list-tasks\n  \
    llm-foundry eval HuggingFaceTB/SmolLM2-135M-Instruct --tasks arc_easy --data-dir bench")]
pub(crate) struct EvalArgs {
    /// Directory, .gguf file or hub id
    #[arg(value_name = "MODEL", required_unless_present = "list_tasks")]
    pub(crate) model: Option<String>,
    /// Directory of a LoRA adapter in PEFT's format; several times, each perhaps with a weight: their sum
    #[arg(long, value_name = "DIR[:WEIGHT]", value_parser = parse_adapter)]
    pub(crate) adapter: Vec<WeightedAdapter>,
    /// Branch, tag or commit of a hub id
    #[arg(long, default_value = "main", value_name = "NAME")]
    pub(crate) revision: String,
    /// Number format: auto, float32 or bfloat16
    #[arg(long, default_value = "auto", value_name = "NAME", value_parser = ["auto", "float32", "bfloat16"])]
    pub(crate) dtype: String,
    /// Most tokens of a prompt and its answer; longer prompts lose their beginning [default: the model's]
    #[arg(long, value_name = "TOKENS", value_parser = parse_count)]
    pub(crate) max_length: Option<usize>,
    /// Chat template: path of a Jinja file, or the name of a built-in one, such as chatml [default: the model's]
    #[arg(long, value_name = "FILE", requires = "apply_chat_template")]
    pub(crate) chat_template: Option<PathBuf>,
    /// Start even if memory seems too small
    #[arg(long)]
    pub(crate) no_memory_check: bool,
    /// Tasks, groups or tags, with commas between them; `*` stands for anything. Or paths of lm_eval's YAML files
    #[arg(long, value_name = "NAMES", value_delimiter = ',', required_unless_present = "list_tasks")]
    pub(crate) tasks: Vec<String>,
    /// Print all names of tasks, groups and tags
    #[arg(long)]
    pub(crate) list_tasks: bool,
    /// A folder with tasks in lm_eval's YAML, or one such file; several times
    #[arg(long, value_name = "PATH")]
    pub(crate) include_path: Vec<PathBuf>,
    /// Where the data is: TASK=PATH for a task, group or data set, or PATH for all; a directory with a file for each
    /// split (JSONL, JSON, CSV, Parquet), or one file. Without it the hub's data is used
    #[arg(long, value_name = "[TASK=]PATH")]
    pub(crate) data_dir: Vec<String>,
    /// Examples before each question [default: the task's]
    #[arg(long, value_name = "N")]
    pub(crate) num_fewshot: Option<usize>,
    /// Only the first N documents of each task, or, below 1, this share of them
    #[arg(long, value_name = "N", value_parser = parse_limit)]
    pub(crate) limit: Option<Limit>,
    /// Ask in the form of a conversation, through the model's chat template
    #[arg(long)]
    pub(crate) apply_chat_template: bool,
    /// With a chat template: each example is a turn of its own [default: true]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", requires = "apply_chat_template")]
    pub(crate) fewshot_as_multiturn: Option<bool>,
    /// What the model is told before the task's description
    #[arg(long, value_name = "TEXT")]
    pub(crate) system_instruction: Option<String>,
    /// Generation settings over the tasks': max_gen_toks=64,temperature=0.5,do_sample=true
    #[arg(long, value_name = "KEY=VALUE,…", value_parser = parse_kwargs)]
    pub(crate) gen_kwargs: Option<Kwargs>,
    /// Samples for standard errors that have no formula; 0: no standard errors
    #[arg(long, default_value_t = 100_000, value_name = "N")]
    pub(crate) bootstrap_iters: usize,
    /// One seed, or four as in lm_eval: random, numpy, torch, examples
    #[arg(long, default_value = "0,1234,1234,1234", value_name = "N[,N,N,N]", value_parser = parse_seeds)]
    pub(crate) seed: Seeds,
    /// Keep every document with its prompt and answer (needs --output)
    #[arg(long, requires = "output")]
    pub(crate) log_samples: bool,
    /// Directory for results in lm_eval's format (or a name ending in .json)
    #[arg(long, short, value_name = "PATH")]
    pub(crate) output: Option<String>,
    /// Show the difference to an earlier evaluation (its results_….json or directory), or to `base`, the model without
    /// the adapter, which is evaluated too
    #[arg(long, value_name = "RESULTS|base")]
    pub(crate) compare: Option<String>,
    /// Print the results as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// `--gen-kwargs`.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Kwargs(pub(crate) Map<String, Value>);

/// `--seed`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seeds {
    pub(crate) random: u64,
    pub(crate) numpy: u64,
    pub(crate) torch: u64,
    pub(crate) fewshot: u64,
}

fn parse_limit(text: &str) -> Result<Limit, String> {
    match text.trim().parse::<f64>() {
        Ok(share) if share > 0.0 && share < 1.0 => Ok(Limit::Fraction(share)),
        _ => parse_count(text)
            .map(Limit::Count)
            .map_err(|_| "must be a whole number, 1 or more, or a share between 0 and 1".into()),
    }
}

fn parse_seeds(text: &str) -> Result<Seeds, String> {
    let wrong = || "must be a whole number, or four with commas between them".to_owned();
    let numbers: Vec<u64> =
        text.split(',').map(|part| part.trim().parse()).collect::<Result<_, _>>().map_err(|_| wrong())?;
    match numbers[..] {
        [all] => Ok(Seeds { random: all, numpy: all, torch: all, fewshot: all }),
        [random, numpy, torch, fewshot] => Ok(Seeds { random, numpy, torch, fewshot }),
        _ => Err(wrong()),
    }
}

fn parse_kwargs(text: &str) -> Result<Kwargs, String> {
    let mut kwargs = Map::new();
    for part in text.split(',').filter(|part| !part.trim().is_empty()) {
        let (key, value) = part.split_once('=').ok_or_else(|| format!("`{part}` is not KEY=VALUE"))?;
        let value = match value.trim() {
            "True" | "true" => Value::Bool(true),
            "False" | "false" => Value::Bool(false),
            other => serde_json::from_str(other).unwrap_or_else(|_| other.into()),
        };
        kwargs.insert(key.trim().to_owned(), value);
    }
    Ok(Kwargs(kwargs))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn limits_seeds_and_settings_are_lm_evals() {
        assert_eq!(parse_limit("40"), Ok(Limit::Count(40)));
        assert_eq!(parse_limit("0.25"), Ok(Limit::Fraction(0.25)));
        assert!(parse_limit("0").is_err() && parse_limit("1.5").is_err() && parse_limit("-1").is_err());
        assert_eq!(parse_seeds("7").map(|s| s.fewshot), Ok(7));
        assert_eq!(parse_seeds("0,1,2,3").map(|s| (s.random, s.fewshot)), Ok((0, 3)));
        assert!(parse_seeds("1,2").is_err());
        let kwargs = parse_kwargs("max_gen_toks=64,do_sample=True,temperature=0.5,until=x").expect("sound");
        assert_eq!(
            json!(kwargs.0),
            json!({"max_gen_toks": 64, "do_sample": true, "temperature": 0.5, "until": "x"})
        );
    }
}
