//! The sections of a configuration file, one file each. Every field is one key: its documentation comment is what
//! `llm-foundry schema` hands to editors, and its default is what [`Default`] says.

mod card;
mod data;
mod eval;
mod lora;
mod model;
mod sources;
mod tracking;
mod training;

pub(crate) use card::CardSection;
pub(crate) use data::{DataFormat, DataSection, PackingKind};
pub(crate) use eval::EvalSection;
pub(crate) use lora::LoraSection;
pub(crate) use model::{ComputeDtype, ModelSection, TokenizerSection, WeightInit};
pub(crate) use sources::{SourceSection, Stopping};
pub(crate) use tracking::{ReportTo, TrackerKind};
pub(crate) use training::{EvalWhen, LossKind, OptimKind, SaveWhen, TrainingSection};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Names of choices, and other names that are read for them: serde's aliases, which the JSON schema does not see by
/// itself.
pub(crate) const SYNONYMS: [(&str, &[&str]); 9] = [
    ("float32", &["fp32"]),
    ("bfloat16", &["bf16"]),
    ("adamw_torch_fused", &["adamw_torch", "paged_adamw_32bit", "paged_adamw"]),
    ("adamw_bnb_8bit", &["adamw_8bit", "paged_adamw_8bit"]),
    ("lion_32bit", &["lion", "paged_lion_32bit"]),
    ("loss", &["eval_loss"]),
    ("perplexity", &["eval_perplexity"]),
    ("mean_token_accuracy", &["eval_mean_token_accuracy"]),
    ("entropy", &["eval_entropy"]),
];

/// A run of llm-foundry: which model, on which data, how, and where the result goes.
///
/// Key names are Hugging Face's. Relative paths are relative to the directory the command is started in.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(title = "llm-foundry configuration")]
pub(crate) struct Config {
    /// The model to adapt.
    pub(crate) model: ModelSection,
    /// Tokenizer, where it is not the model's own.
    pub(crate) tokenizer: TokenizerSection,
    /// Training and evaluation data.
    pub(crate) data: DataSection,
    /// Low-rank adapters (PEFT `LoraConfig`). Without this section every weight is trained (full fine-tuning).
    pub(crate) lora: Option<LoraSection>,
    /// How to train (transformers `TrainingArguments`, TRL `SFTConfig`).
    pub(crate) training: TrainingSection,
    /// Benchmarks and sample answers during training.
    pub(crate) eval: EvalSection,
    /// The model card beside the result.
    pub(crate) card: CardSection,
    /// Directory of the run: the adapter or model, `metrics.jsonl`, `config.resolved.yaml` and `checkpoint-N/`.
    /// Required for `train`.
    pub(crate) output_dir: Option<String>,
}
