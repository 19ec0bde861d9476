//! Sections `model` and `tokenizer`.

use foundry_kernels::Quantization;
use foundry_models::QuantizedWeights;
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
    /// Keep the frozen weights of all linear layers but the head in 4 bits (QLoRA; needs a section `lora`).
    /// transformers:
    /// `BitsAndBytesConfig.load_in_4bit`. Default false. A checkpoint that bitsandbytes stored so is recognised by
    /// itself.
    pub(crate) load_in_4bit: bool,
    /// Only with `load_in_4bit`: the code, `nf4` (default; bitsandbytes' own default `fp4` is not offered: it is
    /// worse).
    pub(crate) bnb_4bit_quant_type: FourBitKind,
    /// Only with `load_in_4bit`: the scales of blocks in 8 bits as well, 4.13 bits a weight instead of 4.5. Default
    /// false, as transformers.
    pub(crate) bnb_4bit_use_double_quant: bool,
    /// Keep the frozen weights of all linear layers but the head in 8 bits, one scale a row (needs a section `lora`).
    /// Activations are not rounded to 8 bits, unlike LLM.int8()'s. Default false.
    pub(crate) load_in_8bit: bool,
    /// Modules that `load_in_4bit` or `load_in_8bit` leaves as they are, by name, beginning or ending. Default:
    /// none but embedding and head.
    pub(crate) llm_int8_skip_modules: Vec<String>,
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
            load_in_4bit: false,
            bnb_4bit_quant_type: FourBitKind::Nf4,
            bnb_4bit_use_double_quant: false,
            load_in_8bit: false,
            llm_int8_skip_modules: Vec::new(),
            init: WeightInit::Pretrained,
            config: None,
        }
    }
}

impl ModelSection {
    /// The quantisation that is asked for.
    pub(crate) fn quantization(&self) -> Option<QuantizedWeights> {
        let kind = match (self.load_in_4bit, self.load_in_8bit) {
            (true, _) => Quantization::Nf4 { double_quant: self.bnb_4bit_use_double_quant },
            (false, true) => Quantization::Int8,
            (false, false) => return None,
        };
        Some(QuantizedWeights { kind, skip: self.llm_int8_skip_modules.clone() })
    }
}

/// `model.bnb_4bit_quant_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum FourBitKind {
    /// Levels of a normal distribution.
    Nf4,
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
    /// Tokens to add to the vocabulary, matched whole in texts. Embedding and head get a row for each, which begins as
    /// the mean of the others (`lora.trainable_token_indices: added` trains them). One that is there already stays as
    /// it is. Default: none. transformers: `tokenizer.add_tokens`.
    pub(crate) add_tokens: Vec<String>,
    /// The same for special tokens, which decoded text leaves out, such as `[<|tool|>]`. Default: none. transformers:
    /// `tokenizer.add_special_tokens`.
    pub(crate) add_special_tokens: Vec<String>,
    /// Token that ends a text, for example `<|im_end|>`. Default: the tokenizer's. TRL: `eos_token`.
    pub(crate) eos_token: Option<String>,
}
