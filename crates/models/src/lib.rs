//! Decoder models: one decoder, families as tables, LoRA, loading and saving under Hugging Face names.
//!
//! A family ([`families`]) maps config.json to a [`DecoderConfig`] and names the tensors; [`Decoder`] holds the only
//! forward and the only backward. This crate does not know where a row of tokens comes from nor who updates weights.
//!
//! Shape letters are those of `foundry_kernels`: `T` tokens, `D` width, `N` query heads, `K` key/value heads, `H` head
//! width, `F` feed-forward width, `V` vocabulary, `R` rank. A micro-batch is one packed row ([`Batch`]): no batch
//! axis, no padding.

mod acts;
mod attention_block;
mod block;
mod config;
mod decoder;
mod dequantized;
mod error;
pub mod families;
mod finite;
mod flops;
mod head;
pub mod inference;
mod linear;
mod load;
mod lora;
mod mlp_block;
mod norm;
mod objective;
mod parameter;
mod pass;
mod quantized;
mod rope;
pub mod sampling;
mod save;
mod saved;
mod seeds;
mod storage;
mod tuning;
mod update;
mod vocabulary;
mod write_model;

pub use config::{DecoderConfig, decoder_config};
pub use decoder::Decoder;
pub use dequantized::Dequantized;
pub use error::ModelError;
pub use families::Family;
pub use finite::Finite;
pub use flops::Flops;
pub use inference::{Inference, InferenceOptions};
pub use lora::{
    Bias, Combination, CombineOptions, CombinedAdapter, InitLora, LoraSpec, MajoritySign, MergedWeights,
    TargetModules,
};
pub use objective::{Batch, Objective};
pub use parameter::{Parameter, decays};
pub use quantized::{quantized_weights, stored_quantization};
pub use rope::{Rope, RopeScaling};
pub use sampling::Sampling;
pub use save::SaveOptions;
pub use saved::WriteFiles;
pub use storage::{Checkpointing, QuantizedWeights, Storage};
pub use tuning::Tuning;
pub use vocabulary::{adapter_vocabulary, with_vocabulary};
pub use write_model::{WeightFormat, kept_dtype, model_bytes, write_model};

#[cfg(test)]
pub(crate) fn test_config() -> DecoderConfig {
    DecoderConfig {
        family: &families::llama::FAMILY,
        vocab_size: 32,
        hidden_size: 8,
        intermediate_size: 12,
        num_hidden_layers: 2,
        num_attention_heads: 2,
        num_key_value_heads: 1,
        head_dim: 4,
        rms_norm_eps: 1e-6,
        rope: Rope { theta: 10_000.0, scaling: RopeScaling::Default },
        max_position_embeddings: 64,
        tie_word_embeddings: false,
        attention_bias: false,
        mlp_bias: false,
        sliding_window: None,
        initializer_range: 0.02,
    }
}
