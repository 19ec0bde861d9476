//! Families of models as tables: where their sizes stand in config.json and what their tensors are called.

pub mod llama;
pub mod mistral;

use crate::{DecoderConfig, ModelError};
use foundry_formats::HfConfig;

/// A part of the decoder that holds weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slot {
    /// Token embedding `[V, D]`.
    EmbedTokens,
    /// Query projection `[N·H, D]`.
    QProj,
    /// Key projection `[K·H, D]`.
    KProj,
    /// Value projection `[K·H, D]`.
    VProj,
    /// Output projection of the attention `[D, N·H]`.
    OProj,
    /// Gate of the feed-forward layer `[F, D]`.
    GateProj,
    /// Up projection `[F, D]`.
    UpProj,
    /// Down projection `[D, F]`.
    DownProj,
    /// Norm before the attention `[D]`.
    InputLayernorm,
    /// Norm before the feed-forward layer `[D]`.
    PostAttentionLayernorm,
    /// Norm before the head `[D]`.
    Norm,
    /// Head `[V, D]`.
    LmHead,
}

/// One family: a row for each difference.
#[derive(Debug)]
pub struct Family {
    /// Name in messages.
    pub name: &'static str,
    /// Values of `architectures` in config.json.
    pub architectures: &'static [&'static str],
    /// Values of `model_type`, used when `architectures` is absent.
    pub model_types: &'static [&'static str],
    /// Reads the sizes.
    pub config: fn(&HfConfig) -> Result<DecoderConfig, ModelError>,
    /// Module of each slot (`{}` is the layer), in the order of the model's `named_modules`: read forwards to load and
    /// backwards to save. A tensor is a module's name and `.weight` or `.bias`.
    pub modules: &'static [(Slot, &'static str)],
    /// What LoRA adapts when `target_modules` is not given (PEFT 0.21,
    /// `TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING`).
    pub lora_target_modules: &'static [&'static str],
}

/// Every family with a table.
pub const FAMILIES: &[&Family] = &[&llama::FAMILY, &mistral::FAMILY];

impl PartialEq for Family {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Family {
    /// The module that holds `slot`, e.g. `model.layers.3.self_attn.q_proj`.
    pub fn module(&self, slot: Slot, layer: usize) -> String {
        let (_, pattern) = self
            .modules
            .iter()
            .find(|(named, _)| *named == slot)
            .unwrap_or_else(|| panic!("family {} names no {slot:?}", self.name));
        pattern.replace("{}", &layer.to_string())
    }
}
