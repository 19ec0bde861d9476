//! Section `lora`.

use crate::config::values::{Modules, TokenChoice};
use foundry_models::{Bias, InitLora, LoraSpec, TargetModules};
use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The schema of `init_lora_weights`.
#[derive(JsonSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "only its schema is used")]
enum OneOrFlag {
    /// True or false.
    Flag(bool),
    /// gaussian, pissa, pissa_niter_N or olora.
    Name(String),
}

/// Section `lora` (PEFT `LoraConfig`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct LoraSection {
    /// Rank. Default 16 (common practice and TRL's command line; PEFT's own is 8).
    pub(crate) r: usize,
    /// Scale: the adapter's product is multiplied by `lora_alpha / r`. Default 32 (TRL's command line; PEFT's own
    /// is 8).
    pub(crate) lora_alpha: f64,
    /// Probability of dropping an input of the adapter, 0 (default, as PEFT) to below 1.
    pub(crate) lora_dropout: f64,
    /// `all-linear` (default; every linear layer but the head), a list of names or last parts of names
    /// (`[q_proj, v_proj]`), or a regular expression for the whole name. PEFT's own default is q_proj and v_proj.
    pub(crate) target_modules: Modules,
    /// Modules that get no adapter although `target_modules` names them. Default: none.
    pub(crate) exclude_modules: Option<Modules>,
    /// Scale by `lora_alpha / √r` instead (rank-stabilised LoRA). Default false.
    pub(crate) use_rslora: bool,
    /// Which biases of the model are trained and saved with the adapter: `none` (default), `lora_only` (those of
    /// adapted layers) or `all`.
    pub(crate) bias: BiasKind,
    /// Modules trained in full and saved with the adapter, such as `[embed_tokens, lm_head]`. Default: none.
    pub(crate) modules_to_save: Option<Vec<String>>,
    /// Beginning of a new adapter: `true` (default: A as PyTorch draws it, B zero), `false` (both drawn), `gaussian`,
    /// `pissa` (the largest singular directions of the weights move into the adapter), `pissa_niter_N` (the same,
    /// approximated by N rounds), `olora` (QR). What PiSSA and OLoRA train is saved as a plain adapter of twice the
    /// rank, which belongs to the unchanged model.
    #[schemars(with = "OneOrFlag")]
    pub(crate) init_lora_weights: InitLora,
    /// Train direction and magnitude apart (DoRA). Default false.
    pub(crate) use_dora: bool,
    /// Train a bias of the adapter's second matrix. Default false.
    pub(crate) lora_bias: bool,
    /// Ranks of single modules, by a regular expression for the end of their name: `{down_proj: 32}`. Default: none.
    #[schemars(with = "BTreeMap<String, usize>")]
    pub(crate) rank_pattern: IndexMap<String, usize>,
    /// `lora_alpha` of single modules, by a regular expression for the end of their name. Default: none.
    #[schemars(with = "BTreeMap<String, f64>")]
    pub(crate) alpha_pattern: IndexMap<String, f64>,
    /// Adapt only these layers, counted from 0. Default: all.
    pub(crate) layers_to_transform: Option<Vec<usize>>,
    /// Tokens whose rows of the embedding (and of a tied head) are trained, while the others stay: a list of ids or of
    /// tokens, or `added` for those of `tokenizer.add_tokens` and `add_special_tokens`. Default: none.
    pub(crate) trainable_token_indices: Option<TokenChoice>,
    /// Directory of an adapter in PEFT's format to continue from; its `adapter_config.json` decides the other keys of
    /// this section. Default: a new adapter.
    pub(crate) adapter: Option<String>,
}

impl Default for LoraSection {
    fn default() -> Self {
        Self {
            r: 16,
            lora_alpha: 32.0,
            lora_dropout: 0.0,
            target_modules: Modules::Pattern("all-linear".into()),
            exclude_modules: None,
            use_rslora: false,
            bias: BiasKind::None,
            modules_to_save: None,
            init_lora_weights: InitLora::Default,
            use_dora: false,
            lora_bias: false,
            rank_pattern: IndexMap::new(),
            alpha_pattern: IndexMap::new(),
            layers_to_transform: None,
            trainable_token_indices: None,
            adapter: None,
        }
    }
}

impl LoraSection {
    /// What the model is told; of the tokens to train only those that are given as ids.
    pub(crate) fn spec(&self) -> LoraSpec {
        LoraSpec {
            r: self.r,
            lora_alpha: self.lora_alpha,
            lora_dropout: self.lora_dropout,
            target_modules: Some(targets(&self.target_modules)),
            exclude_modules: self.exclude_modules.as_ref().map(targets),
            modules_to_save: self.modules_to_save.clone(),
            use_rslora: self.use_rslora,
            bias: match self.bias {
                BiasKind::None => Bias::None,
                BiasKind::LoraOnly => Bias::LoraOnly,
                BiasKind::All => Bias::All,
            },
            init_lora_weights: self.init_lora_weights,
            use_dora: self.use_dora,
            lora_bias: self.lora_bias,
            rank_pattern: self.rank_pattern.clone(),
            alpha_pattern: self.alpha_pattern.clone(),
            layers_to_transform: self.layers_to_transform.clone(),
            layers_pattern: None,
            trainable_token_indices: self.trainable_token_indices.as_ref().and_then(TokenChoice::ids),
        }
    }
}

fn targets(modules: &Modules) -> TargetModules {
    match modules {
        Modules::Pattern(text) if text.eq_ignore_ascii_case("all-linear") => TargetModules::AllLinear,
        Modules::Pattern(text) => TargetModules::Regex(text.clone()),
        Modules::Suffixes(names) => TargetModules::List(names.clone()),
    }
}

/// `lora.bias`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum BiasKind {
    /// No bias is trained.
    None,
    /// Those of adapted layers.
    LoraOnly,
    /// All of them.
    All,
}
