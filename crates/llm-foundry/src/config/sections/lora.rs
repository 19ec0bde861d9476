//! Section `lora`.

use crate::config::values::Modules;
use foundry_models::{Bias, LoraSpec, TargetModules};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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
    /// Which biases are trained. Only `none` (default) is possible.
    pub(crate) bias: BiasKind,
    /// Modules trained in full and saved with the adapter, such as `[embed_tokens, lm_head]`. Default: none.
    pub(crate) modules_to_save: Option<Vec<String>>,
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
            adapter: None,
        }
    }
}

impl LoraSection {
    /// What the model is told.
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
            },
            init_lora_weights: true,
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
}
