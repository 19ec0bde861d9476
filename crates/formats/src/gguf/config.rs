//! A GGUF's metadata as Hugging Face's `config.json` and `generation_config.json`.

use serde_json::{Map, Value, json};

use super::{Gguf, MetaArray, MetaValue, rope};
use crate::{FormatError, HfConfig};

/// The `general.architecture` that is understood. llama.cpp's converter writes Mistral models as `llama` too.
pub(super) const ARCHITECTURE: &str = "llama";

/// The metadata key `llama.<name>`.
pub(super) fn key(name: &str) -> String {
    format!("{ARCHITECTURE}.{name}")
}

pub(super) fn build(gguf: &Gguf) -> Result<HfConfig, FormatError> {
    let architecture = gguf.required("general.architecture", "a string", MetaValue::as_str)?;
    if architecture != ARCHITECTURE {
        let problem = format!(
            "GGUF architecture `{architecture}` is not supported; supported is `{ARCHITECTURE}` \
             (Llama, Mistral, SmolLM2, TinyLlama)"
        );
        return Err(gguf.unsupported(problem));
    }
    if let Some(experts) =
        gguf.optional(&key("expert_count"), "a count", MetaValue::as_u64)?.filter(|&n| n > 0)
    {
        return Err(
            gguf.unsupported(format!("mixture-of-experts models ({experts} experts) are not supported"))
        );
    }
    let shape = Shape::read(gguf)?;
    let mistral = gguf
        .optional("general.name", "a string", MetaValue::as_str)?
        .is_some_and(|name| name.to_lowercase().contains("mistral"))
        // Only Mistral has a window among the models of this architecture.
        || gguf.metadata(&key("attention.sliding_window")).is_some();
    let mut config = Map::new();
    let mut set = |name: &str, value: Value| config.insert(name.to_owned(), value);
    let class = if mistral { "MistralForCausalLM" } else { "LlamaForCausalLM" };
    set("architectures", json!([class]));
    set("model_type", json!(if mistral { "mistral" } else { "llama" }));
    set("attention_dropout", json!(0.0));
    set("hidden_act", json!("silu"));
    set("initializer_range", json!(0.02));
    set("use_cache", json!(true));
    if mistral {
        // Mistral's class default is 4096; the converter drops the window, and 0.2 and later have none.
        let window = gguf.optional(&key("attention.sliding_window"), "a length", MetaValue::as_u64)?;
        set("sliding_window", json!(window.filter(|&w| w > 0)));
    } else {
        let (attention_bias, mlp_bias) = biases(gguf)?;
        set("attention_bias", json!(attention_bias));
        set("mlp_bias", json!(mlp_bias));
        set("pretraining_tp", json!(1));
    }
    shape.write(&mut set);
    let eps = key("attention.layer_norm_rms_epsilon");
    set("rms_norm_eps", json!(gguf.required(&eps, "a number", MetaValue::as_f64)?));
    set("rope_parameters", rope::parameters(gguf, shape.head_dim)?);
    // llama.cpp writes the head only where it is not the embedding.
    set("tie_word_embeddings", json!(!has_tensor(gguf, "output.weight")));
    for (role, id) in special_ids(gguf) {
        set(role, json!(id));
    }
    Ok(HfConfig::new(config, gguf.path()))
}

/// `generation_config.json`: the special tokens, with every token that ends a turn.
pub(super) fn generation(gguf: &Gguf) -> Option<Value> {
    let ids = special_ids(gguf);
    let id = |role: &str| ids.iter().find(|(r, _)| *r == role).map(|(_, id)| *id);
    let mut ends: Vec<u32> = id("eos_token_id").into_iter().collect();
    for extra in ["tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"] {
        let id = gguf.metadata(extra).and_then(MetaValue::as_u64).and_then(|id| u32::try_from(id).ok());
        ends.extend(id.filter(|id| !ends.contains(id)));
    }
    let mut config = Map::new();
    config.insert("_from_model_config".to_owned(), json!(true));
    for role in ["bos_token_id", "pad_token_id"] {
        if let Some(id) = id(role) {
            config.insert(role.to_owned(), json!(id));
        }
    }
    match ends.as_slice() {
        [] => {}
        [one] => drop(config.insert("eos_token_id".to_owned(), json!(one))),
        several => drop(config.insert("eos_token_id".to_owned(), json!(several))),
    }
    (config.len() > 1).then_some(Value::Object(config))
}

/// Ids of special tokens under Hugging Face's keys.
fn special_ids(gguf: &Gguf) -> Vec<(&'static str, u32)> {
    let roles = [
        ("bos_token_id", "tokenizer.ggml.bos_token_id"),
        ("eos_token_id", "tokenizer.ggml.eos_token_id"),
        ("pad_token_id", "tokenizer.ggml.padding_token_id"),
        ("unk_token_id", "tokenizer.ggml.unknown_token_id"),
    ];
    let id = |key: &str| gguf.metadata(key).and_then(MetaValue::as_u64).and_then(|id| u32::try_from(id).ok());
    roles.into_iter().filter_map(|(role, key)| Some((role, id(key)?))).collect()
}

pub(super) fn has_tensor(gguf: &Gguf, name: &str) -> bool {
    gguf.tensors().iter().any(|t| t.name == name)
}

/// (attention_bias, mlp_bias). Hugging Face's Llama has biases on all four attention projections or on none.
fn biases(gguf: &Gguf) -> Result<(bool, bool), FormatError> {
    let all_or_none =
        |modules: &[&str]| {
            let count = modules.iter().filter(|m| has_tensor(gguf, &format!("blk.0.{m}.bias"))).count();
            match count {
                0 => Ok(false),
                n if n == modules.len() => Ok(true),
                _ => Err(gguf
                    .unsupported(format!("biases on some of {modules:?} but not on all are not supported"))),
            }
        };
    let attention = all_or_none(&["attn_q", "attn_k", "attn_v", "attn_output"])?;
    Ok((attention, all_or_none(&["ffn_gate", "ffn_up", "ffn_down"])?))
}

/// The sizes of the model.
pub(super) struct Shape {
    vocab_size: u64,
    hidden_size: u64,
    intermediate_size: u64,
    num_hidden_layers: u64,
    pub(super) num_attention_heads: u64,
    pub(super) num_key_value_heads: u64,
    pub(super) head_dim: u64,
    max_position_embeddings: u64,
}

impl Shape {
    pub(super) fn read(gguf: &Gguf) -> Result<Self, FormatError> {
        let size =
            |name: &str| gguf.required(&key(name), "a positive integer", |v| per_layer(v).filter(|&n| n > 0));
        let optional =
            |name: &str| gguf.optional(&key(name), "a positive integer", |v| per_layer(v).filter(|&n| n > 0));
        let hidden_size = size("embedding_length")?;
        let num_attention_heads = size("attention.head_count")?;
        let num_key_value_heads = optional("attention.head_count_kv")?.unwrap_or(num_attention_heads);
        if !num_attention_heads.is_multiple_of(num_key_value_heads) {
            let problem =
                format!("{num_attention_heads} heads cannot share {num_key_value_heads} key/value heads");
            return Err(gguf.bad_key(&key("attention.head_count_kv"), problem));
        }
        let rotary = optional("rope.dimension_count")?;
        let stated = optional("attention.key_length")?.or(rotary);
        let head_dim = match stated {
            Some(head_dim) => head_dim,
            None if hidden_size.is_multiple_of(num_attention_heads) => hidden_size / num_attention_heads,
            None => {
                let problem =
                    format!("{hidden_size} dimensions cannot be split over {num_attention_heads} heads");
                return Err(gguf.bad_key(&key("attention.head_count"), problem));
            }
        };
        if rotary.is_some_and(|rotary| rotary != head_dim) {
            return Err(
                gguf.unsupported(format!("rotary embedding on a part of the {head_dim} head dimensions"))
            );
        }
        Ok(Self {
            vocab_size: vocab_size(gguf, hidden_size)?,
            hidden_size,
            intermediate_size: size("feed_forward_length")?,
            num_hidden_layers: size("block_count")?,
            num_attention_heads,
            num_key_value_heads,
            head_dim,
            max_position_embeddings: size("context_length")?,
        })
    }

    fn write(&self, set: &mut impl FnMut(&str, Value) -> Option<Value>) {
        set("vocab_size", json!(self.vocab_size));
        set("hidden_size", json!(self.hidden_size));
        set("intermediate_size", json!(self.intermediate_size));
        set("num_hidden_layers", json!(self.num_hidden_layers));
        set("num_attention_heads", json!(self.num_attention_heads));
        set("num_key_value_heads", json!(self.num_key_value_heads));
        set("head_dim", json!(self.head_dim));
        set("max_position_embeddings", json!(self.max_position_embeddings));
    }
}

/// A size that may be stated per layer, if all layers agree.
fn per_layer(value: &MetaValue) -> Option<u64> {
    let agreed = |values: &[u64]| values.first().copied().filter(|first| values.iter().all(|v| v == first));
    match value {
        MetaValue::Array(MetaArray::Unsigned(values)) => agreed(values),
        MetaValue::Array(MetaArray::Signed(values)) => {
            agreed(&values.iter().map(|&v| u64::try_from(v).ok()).collect::<Option<Vec<_>>>()?)
        }
        single => single.as_u64(),
    }
}

/// Rows of the embedding; `llama.vocab_size` is missing in some files and wrong in others.
fn vocab_size(gguf: &Gguf, hidden_size: u64) -> Result<u64, FormatError> {
    let name = "token_embd.weight";
    let embedding = gguf.tensors().iter().find(|t| t.name == name);
    let embedding = embedding.ok_or_else(|| gguf.unsupported(format!("there is no tensor `{name}`")))?;
    match embedding.shape[..] {
        [rows, width] if width as u64 == hidden_size => Ok(rows as u64),
        _ => {
            let problem = format!("is {hidden_size}, but `{name}` has the shape {:?}", embedding.shape);
            Err(gguf.bad_key(&key("embedding_length"), problem))
        }
    }
}
