//! Section `eval`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Section `eval`: benchmarks and sample answers during training and after the last step. (The loss on held-out data is
/// `training.eval_strategy`'s.)
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct EvalSection {
    /// Tasks, groups or tags of `llm-foundry eval`, such as `[arc_easy, gsm8k]`. Default: none.
    pub(crate) tasks: Vec<String>,
    /// Prompts whose answers are written into `samples.jsonl`, each a question to the chat template if there is one.
    /// Default: none.
    pub(crate) prompts: Vec<String>,
    /// Tasks and prompts every this many steps, and after the last one. Default: only after the last.
    pub(crate) steps: Option<u64>,
    /// Examples before each question. Default: the task's number.
    pub(crate) num_fewshot: Option<usize>,
    /// The first N documents of each task, or, below 1, this share of them. Default: all.
    pub(crate) limit: Option<f64>,
    /// Where the tasks' data is, as `llm-foundry eval --data-dir`: `TASK=PATH` or `PATH`. Default: the hub.
    pub(crate) data_dir: Vec<String>,
    /// Folders with tasks in lm_eval's YAML. Default: the built-in tasks only.
    pub(crate) include_path: Vec<String>,
    /// Ask tasks through the chat template. Default false.
    pub(crate) apply_chat_template: bool,
    /// Most tokens of an answer to one of `prompts`. Default 64.
    pub(crate) max_new_tokens: usize,
}

impl Default for EvalSection {
    fn default() -> Self {
        Self {
            tasks: Vec::new(),
            prompts: Vec::new(),
            steps: None,
            num_fewshot: None,
            limit: None,
            data_dir: Vec::new(),
            include_path: Vec::new(),
            apply_chat_template: false,
            max_new_tokens: 64,
        }
    }
}
