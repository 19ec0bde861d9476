//! Sections `model` and `tokenizer`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Section `model`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ModelSection {
    /// Directory with `config.json` and safetensors, a `.gguf` file, or a hub id such as
    /// `HuggingFaceTB/SmolLM2-135M-Instruct` (looked up in the hub cache, then downloaded). transformers:
    /// `pretrained_model_name_or_path`. Required unless `init: random` and `config` are given.
    pub(crate) name_or_path: Option<String>,
    /// Branch, tag or commit of a hub id. Default `main`. transformers: `revision`.
    pub(crate) revision: String,
    /// Number format of matrix products and activations. `auto` (default): bfloat16 where the processor multiplies it
    /// fast, else float32. Trained weights, gradients and optimiser state are float32 in any case (TRL: float32
    /// weights with `bf16` autocast).
    pub(crate) dtype: ComputeDtype,
    /// `pretrained` (default) loads weights; `random` draws them from N(0, `initializer_range`) as transformers does
    /// for a model made from a config, to pre-train from scratch.
    pub(crate) init: WeightInit,
    /// Only with `init: random`: path of a `config.json` that says the architecture. Default: that of `name_or_path`.
    pub(crate) config: Option<String>,
}

impl Default for ModelSection {
    fn default() -> Self {
        Self {
            name_or_path: None,
            revision: "main".into(),
            dtype: ComputeDtype::Auto,
            init: WeightInit::Pretrained,
            config: None,
        }
    }
}

/// `model.dtype`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ComputeDtype {
    /// bfloat16 where the processor multiplies it fast, else float32.
    Auto,
    /// IEEE 754 binary32. Also written `fp32`.
    #[serde(alias = "fp32")]
    Float32,
    /// The upper half of a float32. Also written `bf16`.
    #[serde(alias = "bf16")]
    Bfloat16,
}

/// `model.init`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum WeightInit {
    /// Weights are read from the model's files.
    Pretrained,
    /// Weights are drawn at random.
    Random,
}

/// Section `tokenizer`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct TokenizerSection {
    /// Directory, `tokenizer.json`, `.gguf` file or hub id to take the tokenizer from. Default: the model's.
    pub(crate) name_or_path: Option<String>,
    /// Chat template: path of a Jinja file or of a tokenizer's directory, the template itself (recognised by `{{` or
    /// `{%`), or one of the names `alpaca`, `chatml`, `gemma`, `hermes`, `llama2`, `llama3`, `mistral`, `phi3`, `phi4`,
    /// `qwen3`, `smollm2`, `vicuna`, `zephyr`. Default: the tokenizer's. TRL: `chat_template_path`.
    pub(crate) chat_template: Option<String>,
    /// Token that ends a text, for example `<|im_end|>`. Default: the tokenizer's. TRL: `eos_token`.
    pub(crate) eos_token: Option<String>,
}
