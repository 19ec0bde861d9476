//! Mistral 7B and its relatives (transformers 5.23 `MistralForCausalLM`): Llama with a sliding window and no biases.

use super::Family;
use super::llama::{MODULES, head_dim};
use crate::config::{flag, only};
use crate::rope::Rope;
use crate::{DecoderConfig, ModelError};
use foundry_formats::HfConfig;
use serde_json::{Value, json};

/// The table.
pub static FAMILY: Family = Family {
    name: "mistral",
    architectures: &["MistralForCausalLM"],
    model_types: &["mistral"],
    config,
    modules: MODULES,
    lora_target_modules: &["q_proj", "v_proj"],
};

/// Keys and defaults of transformers' `MistralConfig`.
fn config(hf: &HfConfig) -> Result<DecoderConfig, ModelError> {
    only(hf, "hidden_act", &json!("silu"), "choose a model with SwiGLU")?;
    only(hf, "attention_dropout", &json!(0.0), "set it to 0.0 in config.json to train without it")?;
    let max_position_embeddings = hf.opt_usize("max_position_embeddings")?.unwrap_or(4096 * 32);
    let (hidden_size, heads) = (hf.usize("hidden_size")?, hf.usize("num_attention_heads")?);
    // Present and null means none, as in Mistral v0.2 and later; absent means transformers' default.
    let sliding_window = match hf.0.get("sliding_window") {
        None => Some(4096),
        Some(Value::Null) => None,
        Some(_) => hf.opt_usize("sliding_window")?,
    };
    Ok(DecoderConfig {
        family: &FAMILY,
        vocab_size: hf.usize("vocab_size")?,
        hidden_size,
        intermediate_size: hf.usize("intermediate_size")?,
        num_hidden_layers: hf.usize("num_hidden_layers")?,
        num_attention_heads: heads,
        num_key_value_heads: match hf.0.get("num_key_value_heads") {
            None => 8,
            Some(Value::Null) => heads,
            Some(_) => hf.usize("num_key_value_heads")?,
        },
        head_dim: head_dim(hf, hidden_size, heads)?,
        rms_norm_eps: hf.opt_f64("rms_norm_eps")?.unwrap_or(1e-6) as f32,
        rope: Rope::from_config(hf, max_position_embeddings)?,
        max_position_embeddings,
        tie_word_embeddings: flag(hf, "tie_word_embeddings", false)?,
        attention_bias: false,
        mlp_bias: false,
        sliding_window,
        initializer_range: hf.opt_f64("initializer_range")?.unwrap_or(0.02),
    })
}
