//! Llama 2, 3, 3.1, 3.2, 3.3, SmolLM2, TinyLlama (transformers 5.23 `LlamaForCausalLM`).

use super::{Family, Slot};
use crate::config::{flag, only};
use crate::rope::Rope;
use crate::{DecoderConfig, ModelError};
use foundry_formats::HfConfig;
use serde_json::json;

/// The table.
pub static FAMILY: Family = Family {
    name: "llama",
    architectures: &["LlamaForCausalLM"],
    model_types: &["llama"],
    config,
    modules: MODULES,
    lora_target_modules: &["q_proj", "v_proj"],
};

/// Shared by every family that names its modules as Llama does.
pub(super) const MODULES: &[(Slot, &str)] = &[
    (Slot::EmbedTokens, "model.embed_tokens"),
    (Slot::QProj, "model.layers.{}.self_attn.q_proj"),
    (Slot::KProj, "model.layers.{}.self_attn.k_proj"),
    (Slot::VProj, "model.layers.{}.self_attn.v_proj"),
    (Slot::OProj, "model.layers.{}.self_attn.o_proj"),
    (Slot::GateProj, "model.layers.{}.mlp.gate_proj"),
    (Slot::UpProj, "model.layers.{}.mlp.up_proj"),
    (Slot::DownProj, "model.layers.{}.mlp.down_proj"),
    (Slot::InputLayernorm, "model.layers.{}.input_layernorm"),
    (Slot::PostAttentionLayernorm, "model.layers.{}.post_attention_layernorm"),
    (Slot::Norm, "model.norm"),
    (Slot::LmHead, "lm_head"),
];

/// Keys and defaults of transformers' `LlamaConfig`.
fn config(hf: &HfConfig) -> Result<DecoderConfig, ModelError> {
    only(hf, "hidden_act", &json!("silu"), "choose a model with SwiGLU")?;
    only(hf, "attention_dropout", &json!(0.0), "set it to 0.0 in config.json to train without it")?;
    let max_position_embeddings = hf.opt_usize("max_position_embeddings")?.unwrap_or(2048);
    let (hidden_size, heads) = (hf.usize("hidden_size")?, hf.usize("num_attention_heads")?);
    Ok(DecoderConfig {
        family: &FAMILY,
        vocab_size: hf.usize("vocab_size")?,
        hidden_size,
        intermediate_size: hf.usize("intermediate_size")?,
        num_hidden_layers: hf.usize("num_hidden_layers")?,
        num_attention_heads: heads,
        num_key_value_heads: hf.opt_usize("num_key_value_heads")?.unwrap_or(heads),
        head_dim: head_dim(hf, hidden_size, heads)?,
        rms_norm_eps: hf.opt_f64("rms_norm_eps")?.unwrap_or(1e-6) as f32,
        rope: Rope::from_config(hf, max_position_embeddings)?,
        max_position_embeddings,
        tie_word_embeddings: flag(hf, "tie_word_embeddings", false)?,
        attention_bias: flag(hf, "attention_bias", false)?,
        mlp_bias: flag(hf, "mlp_bias", false)?,
        sliding_window: None,
        initializer_range: hf.opt_f64("initializer_range")?.unwrap_or(0.02),
    })
}

/// `head_dim`, or the hidden size split evenly over the heads.
pub(super) fn head_dim(hf: &HfConfig, hidden_size: usize, heads: usize) -> Result<usize, ModelError> {
    match hf.opt_usize("head_dim")? {
        Some(width) => Ok(width),
        None if heads > 0 && hidden_size.is_multiple_of(heads) => Ok(hidden_size / heads),
        None => Err(ModelError::ConfigValue {
            key: "num_attention_heads".into(),
            found: heads.to_string(),
            expected: format!("a divisor of hidden_size = {hidden_size} (or a `head_dim`)"),
        }),
    }
}
