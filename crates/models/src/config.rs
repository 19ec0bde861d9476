//! A decoder described by numbers: every difference between families is a field.

use crate::ModelError;
use crate::families::{FAMILIES, Family};
use crate::quantized::stored_quantization;
use crate::rope::Rope;
use foundry_formats::HfConfig;
use foundry_kernels::Attention;
use serde_json::Value;

/// Shapes and constants of one decoder, under Hugging Face's names.
#[derive(Clone, Debug, PartialEq)]
pub struct DecoderConfig {
    /// The family's table.
    pub family: &'static Family,
    /// Rows of the embedding, `V`.
    pub vocab_size: usize,
    /// Width of the residual stream, `D`.
    pub hidden_size: usize,
    /// Width of the feed-forward layer, `F`.
    pub intermediate_size: usize,
    /// Number of blocks.
    pub num_hidden_layers: usize,
    /// Query heads, `N`.
    pub num_attention_heads: usize,
    /// Key/value heads, `K`, a divisor of `N`.
    pub num_key_value_heads: usize,
    /// Width of one head, `H`.
    pub head_dim: usize,
    /// Added to the mean square in RMSNorm.
    pub rms_norm_eps: f32,
    /// Rotary position embedding.
    pub rope: Rope,
    /// Longest sequence the model was made for.
    pub max_position_embeddings: usize,
    /// The head is the embedding.
    pub tie_word_embeddings: bool,
    /// `q_proj`, `k_proj`, `v_proj`, `o_proj` have a bias.
    pub attention_bias: bool,
    /// `gate_proj`, `up_proj`, `down_proj` have a bias.
    pub mlp_bias: bool,
    /// A query sees this many keys, itself included.
    pub sliding_window: Option<usize>,
    /// Standard deviation of the weights of a new model.
    pub initializer_range: f64,
}

impl DecoderConfig {
    /// The attention of every block.
    pub fn attention(&self) -> Attention {
        Attention {
            heads: self.num_attention_heads,
            kv_heads: self.num_key_value_heads,
            head_dim: self.head_dim,
            scale: 1.0 / (self.head_dim as f32).sqrt(),
            window: self.sliding_window,
            softcap: None,
        }
    }

    /// Width of all query heads together, `N·H`.
    pub fn query_width(&self) -> usize {
        self.num_attention_heads * self.head_dim
    }

    /// Width of all key (or value) heads together, `K·H`.
    pub fn key_value_width(&self) -> usize {
        self.num_key_value_heads * self.head_dim
    }
}

/// The family and the shapes that a config.json describes.
///
/// # Errors
/// An architecture without a table (the message lists those with one), missing keys, values that no decoder can have,
/// and features that this program does not compute.
pub fn decoder_config(hf: &HfConfig) -> Result<(&'static Family, DecoderConfig), ModelError> {
    let family = family_of(hf)?;
    stored_quantization(hf)?;
    let config = (family.config)(hf)?;
    check(&config)?;
    Ok((family, config))
}

fn family_of(hf: &HfConfig) -> Result<&'static Family, ModelError> {
    let named = hf.opt_strings("architectures")?.unwrap_or_default();
    let model_type = hf.opt_str("model_type")?;
    let by_name = FAMILIES.iter().find(|f| named.iter().any(|name| f.architectures.contains(name)));
    let family = match (named.is_empty(), model_type) {
        (true, Some(kind)) => FAMILIES.iter().find(|f| f.model_types.contains(&kind)),
        _ => by_name,
    };
    family.copied().ok_or_else(|| ModelError::UnsupportedArchitecture {
        found: match (named.first(), model_type) {
            (Some(name), _) => format!("{name:?}"),
            (None, Some(kind)) => format!("of model_type {kind:?}"),
            (None, None) => "(neither `architectures` nor `model_type` is given)".into(),
        },
        supported: FAMILIES.iter().flat_map(|f| f.architectures).copied().collect::<Vec<_>>().join(", "),
    })
}

fn check(config: &DecoderConfig) -> Result<(), ModelError> {
    let bad = |key: &str, found: usize, expected: String| {
        Err(ModelError::ConfigValue { key: key.into(), found: found.to_string(), expected })
    };
    // Far above any model, and small enough for the bytes of every tensor to fit 64 bits.
    for (key, value, limit) in [
        ("vocab_size", config.vocab_size, 28),
        ("hidden_size", config.hidden_size, 24),
        ("intermediate_size", config.intermediate_size, 24),
        ("num_hidden_layers", config.num_hidden_layers, 12),
        ("num_attention_heads", config.num_attention_heads, 16),
        ("num_key_value_heads", config.num_key_value_heads, 16),
        ("max_position_embeddings", config.max_position_embeddings, 40),
        ("num_attention_heads × head_dim", config.num_attention_heads.saturating_mul(config.head_dim), 24),
    ] {
        if value == 0 || value >= 1 << limit {
            return bad(key, value, format!("a positive number below 2^{limit}"));
        }
    }
    if !config.num_attention_heads.is_multiple_of(config.num_key_value_heads) {
        let expected = format!("a divisor of num_attention_heads = {}", config.num_attention_heads);
        return bad("num_key_value_heads", config.num_key_value_heads, expected);
    }
    if config.head_dim == 0 || !config.head_dim.is_multiple_of(2) || config.head_dim >= 1 << 16 {
        return bad("head_dim", config.head_dim, "a positive even number below 65536".into());
    }
    // Not `< 0`: NaN must not pass.
    if !(config.rms_norm_eps >= 0.0 && config.rms_norm_eps.is_finite()) {
        let (key, found) = ("rms_norm_eps".into(), config.rms_norm_eps.to_string());
        return Err(ModelError::ConfigValue { key, found, expected: "zero or a positive number".into() });
    }
    if config.sliding_window == Some(0) {
        return bad("sliding_window", 0, "null or a positive number".into());
    }
    Ok(())
}

/// A truth value, or its default.
pub(crate) fn flag(hf: &HfConfig, key: &str, default: bool) -> Result<bool, ModelError> {
    Ok(hf.opt_bool(key)?.unwrap_or(default))
}

/// Refuses a key (dotted where nested) that has another value than the one this program computes.
pub(crate) fn only(hf: &HfConfig, key: &str, supported: &Value, remedy: &str) -> Result<(), ModelError> {
    let equal =
        |value: &Value| value == supported || (value.is_number() && value.as_f64() == supported.as_f64());
    match hf.get(key) {
        Some(value) if !equal(value) => {
            Err(ModelError::Unsupported { what: format!("`{key}` = {value}"), remedy: remedy.into() })
        }
        _ => Ok(()),
    }
}
