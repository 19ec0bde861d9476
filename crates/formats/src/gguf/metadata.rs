//! A Hugging Face `config.json` as GGUF metadata: the inverse of `config.rs` and `rope.rs`, with the keys that
//! llama.cpp's converter writes for Llama and Mistral (`conversion/llama.py`).

use serde_json::Value;

use super::MetaValue;
use super::config::key;
use super::recipe::ModelSizes;
use super::rope::Llama3;
use crate::{FormatError, HfConfig};

/// What a model's configuration says to the writer.
pub(super) struct Description {
    pub(super) metadata: Vec<(String, MetaValue)>,
    pub(super) sizes: ModelSizes,
    pub(super) vocab_size: usize,
    /// `rope_freqs.weight`, where Llama 3's scaling needs it.
    pub(super) rope_factors: Option<Vec<f32>>,
    pub(super) warnings: Vec<String>,
}

/// Architectures that llama.cpp calls `llama`.
const ARCHITECTURES: [&str; 2] = ["LlamaForCausalLM", "MistralForCausalLM"];

pub(super) fn describe(config: &HfConfig) -> Result<Description, FormatError> {
    let is_mistral = check_architecture(config)?;
    let hidden = config.usize("hidden_size")?;
    let heads = config.usize("num_attention_heads")?.max(1);
    let key_value_heads =
        config.opt_usize("num_key_value_heads")?.unwrap_or(if is_mistral { 8 } else { heads });
    let head_dim = config.opt_usize("head_dim")?.unwrap_or(hidden / heads);
    let layers = config.usize("num_hidden_layers")?;
    let context =
        config.opt_usize("max_position_embeddings")?.unwrap_or(if is_mistral { 4096 * 32 } else { 2048 });
    let vocab_size = config.usize("vocab_size")?;
    let mut metadata = Vec::new();
    let mut set = |name: &str, value: MetaValue| metadata.push((key(name), value));
    let count = |n: usize| MetaValue::Unsigned(n as u64);
    set("block_count", count(layers));
    set("context_length", count(context));
    set("embedding_length", count(hidden));
    set("feed_forward_length", count(config.usize("intermediate_size")?));
    set("attention.head_count", count(heads));
    set("attention.head_count_kv", count(key_value_heads));
    if head_dim * heads != hidden {
        set("attention.key_length", count(head_dim));
        set("attention.value_length", count(head_dim));
    }
    let eps = config.opt_f64("rms_norm_eps")?.unwrap_or(1e-6);
    set("attention.layer_norm_rms_epsilon", MetaValue::F32(eps as f32));
    set("rope.dimension_count", count(head_dim));
    set("vocab_size", count(vocab_size));
    let mut warnings = Vec::new();
    let window = match config.0.get("sliding_window") {
        None if is_mistral => Some(4096), // transformers' default for Mistral
        _ => config.opt_usize("sliding_window")?,
    };
    if let Some(window) = window.filter(|&window| is_mistral && window < context) {
        set("attention.sliding_window", count(window));
        warnings.push(format!(
            "the model attends to the last {window} tokens only; llama.cpp ignores that for this architecture, so texts \
             longer than {window} tokens may read differently there"
        ));
    }
    let rope_factors = rope(config, head_dim, &mut metadata)?;
    let tied = config.opt_bool("tie_word_embeddings")?.unwrap_or(false);
    let sizes = ModelSizes { layers, heads, key_value_heads, tied };
    Ok(Description { metadata, sizes, vocab_size, rope_factors, warnings })
}

/// True for Mistral.
fn check_architecture(config: &HfConfig) -> Result<bool, FormatError> {
    let named = config.opt_strings("architectures")?.unwrap_or_default();
    let kind = config.opt_str("model_type")?.unwrap_or_default();
    let is_known = match named.first() {
        Some(name) => ARCHITECTURES.contains(name),
        None => matches!(kind, "llama" | "mistral"),
    };
    if !is_known {
        let found = named.first().copied().unwrap_or(kind);
        return Err(unsupported(
            config,
            format!("`{found}` cannot be written as GGUF ({} can)", ARCHITECTURES.join(" and ")),
        ));
    }
    Ok(named.first().map_or(kind == "mistral", |name| name.starts_with("Mistral")))
}

/// Rotary embedding: base and scaling; Llama 3's factors are a tensor.
fn rope(
    config: &HfConfig,
    head_dim: usize,
    metadata: &mut Vec<(String, MetaValue)>,
) -> Result<Option<Vec<f32>>, FormatError> {
    let section = if config.get("rope_parameters").is_some() { "rope_parameters" } else { "rope_scaling" };
    let number = |name: &str| config.opt_f64(&format!("{section}.{name}"));
    let theta = match number("rope_theta")? {
        Some(theta) => theta,
        None => config.opt_f64("rope_theta")?.unwrap_or(10_000.0),
    };
    let mut set = |name: &str, value: MetaValue| metadata.push((key(name), value));
    set("rope.freq_base", MetaValue::F32(theta as f32));
    let kind = match config.opt_str(&format!("{section}.rope_type"))? {
        Some(kind) => Some(kind),
        None => config.opt_str(&format!("{section}.type"))?,
    };
    let needed = |name: &str| -> Result<f64, FormatError> {
        number(name)?.ok_or_else(|| FormatError::ConfigKeyMissing {
            path: config.path().to_owned(),
            key: format!("{section}.{name}"),
        })
    };
    match kind.unwrap_or("default") {
        "default" => Ok(None),
        "linear" => {
            set("rope.scaling.type", MetaValue::String("linear".to_owned()));
            set("rope.scaling.factor", MetaValue::F32(needed("factor")? as f32));
            Ok(None)
        }
        "llama3" => {
            let parameters = Llama3 {
                factor: needed("factor")?,
                low: needed("low_freq_factor")?,
                high: needed("high_freq_factor")?,
                original: needed("original_max_position_embeddings")?,
            };
            let divisor = |i: usize| parameters.divisor(theta, i, head_dim as u64) as f32;
            Ok(Some((0..head_dim / 2).map(divisor).collect()))
        }
        "yarn" => {
            let extra =
                ["attention_factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim", "truncate"];
            if let Some(extra) = extra.iter().find(|k| config.get(&format!("{section}.{k}")).is_some()) {
                return Err(unsupported(
                    config,
                    format!("`{section}.{extra}` has no equal in GGUF's yarn scaling"),
                ));
            }
            set("rope.scaling.type", MetaValue::String("yarn".to_owned()));
            set("rope.scaling.factor", MetaValue::F32(needed("factor")? as f32));
            let original = needed("original_max_position_embeddings")?;
            set("rope.scaling.original_context_length", MetaValue::Unsigned(original as u64));
            Ok(None)
        }
        other => {
            Err(unsupported(config, format!("rope scaling of type `{other}` cannot be written as GGUF")))
        }
    }
}

pub(super) fn unsupported(config: &HfConfig, problem: String) -> FormatError {
    FormatError::ExportUnsupported { path: config.path().to_owned(), problem }
}

/// Special tokens that end a turn beside the tokenizer's own: `eot` and `eom` (generation_config.json).
pub(super) fn turn_ends(generation: Option<&Value>, eos: Option<u32>) -> Vec<(String, MetaValue)> {
    let ids =
        generation.and_then(|g| g.get("eos_token_id")).and_then(crate::config::token_ids).unwrap_or_default();
    let others = ids.into_iter().filter(|id| Some(*id) != eos);
    let keys = ["tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"];
    keys.iter().zip(others).map(|(key, id)| ((*key).to_owned(), MetaValue::Unsigned(u64::from(id)))).collect()
}
