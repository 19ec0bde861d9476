//! Which weights are trained.

use crate::families::Slot;
use crate::lora::{Bias, LoraSpec, Role, Roles, roles};
use crate::parameter::Naming;
use crate::{DecoderConfig, ModelError};

/// Which weights of a decoder are trained.
#[derive(Clone, Debug, PartialEq)]
pub enum Tuning {
    /// All of them.
    Full,
    /// A low-rank adapter (and the modules it names in full).
    Lora(LoraSpec),
    /// None: inference.
    Frozen,
    /// None, with an adapter in place: inference of base model and adapter.
    Adapted(LoraSpec),
}

/// The tuning, resolved for one model: what happens to each module.
pub(crate) struct Plan<'a> {
    tuning: &'a Tuning,
    roles: Option<Roles>,
    streams: u64,
}

impl<'a> Plan<'a> {
    /// Resolves names against the modules of the model.
    pub(crate) fn new(tuning: &'a Tuning, config: &DecoderConfig) -> Result<Self, ModelError> {
        let roles = match tuning {
            Tuning::Full | Tuning::Frozen => None,
            Tuning::Lora(spec) | Tuning::Adapted(spec) => Some(roles(config, spec)?),
        };
        Ok(Self { tuning, roles, streams: 0 })
    }

    /// The adapter's settings.
    pub(crate) fn lora(&self) -> Option<&'a LoraSpec> {
        match self.tuning {
            Tuning::Lora(spec) | Tuning::Adapted(spec) => Some(spec),
            Tuning::Full | Tuning::Frozen => None,
        }
    }

    /// Adapters have gradients.
    pub(crate) fn trains_branches(&self) -> bool {
        matches!(self.tuning, Tuning::Lora(_))
    }

    /// The role of a module under LoRA.
    pub(crate) fn role(&self, module: &str) -> Role {
        self.roles.as_ref().map_or(Role::Frozen, |roles| roles.of(module))
    }

    /// Anything has a gradient.
    pub(crate) fn trains(&self) -> bool {
        matches!(self.tuning, Tuning::Full | Tuning::Lora(_))
    }

    /// The largest rank of all branches; 0 without any.
    pub(crate) fn largest_rank(&self) -> usize {
        let Some((spec, roles)) = self.lora().zip(self.roles.as_ref()) else { return 0 };
        roles.adapted().map(|module| spec.rank_of(module)).max().unwrap_or(0)
    }

    /// Names of a module's own weight or bias.
    pub(crate) fn own(&self, module: &str, part: &str) -> Naming {
        let base = format!("{module}.{part}");
        let adapter = match self.role(module) {
            Role::Saved => Some(format!("base_model.model.{base}")),
            // PEFT puts the layer that it adapts one level down.
            Role::Adapted if part == "bias" && self.bias() != Bias::None => {
                Some(format!("base_model.model.{module}.base_layer.{part}"))
            }
            Role::Frozen if part == "bias" && self.bias() == Bias::All => {
                Some(format!("base_model.model.{base}"))
            }
            Role::Adapted | Role::Frozen => None,
        };
        let is_trained = match self.tuning {
            Tuning::Full => true,
            Tuning::Lora(_) => adapter.is_some(),
            Tuning::Frozen | Tuning::Adapted(_) => false,
        };
        Naming { base: Some(base), adapter, is_trained }
    }

    fn bias(&self) -> Bias {
        self.lora().map_or(Bias::None, |spec| spec.bias)
    }

    /// Names of a part of a module's low-rank branch.
    pub(crate) fn branch(&self, module: &str, part: &str) -> Naming {
        let adapter = Some(format!("base_model.model.{module}.{part}"));
        Naming { base: None, adapter, is_trained: self.trains_branches() }
    }

    /// Names and ids of the rows of the embedding that are trained by themselves.
    pub(crate) fn token_rows(&self, config: &DecoderConfig) -> Option<(Naming, &'a [u32])> {
        let indices = self.lora()?.trainable_token_indices.as_deref()?;
        let module = config.family.module(Slot::EmbedTokens, 0);
        let name = format!("base_model.model.{module}.token_adapter.trainable_tokens_delta");
        Some((Naming { base: None, adapter: Some(name), is_trained: self.trains_branches() }, indices))
    }

    /// Of embedding and head only one is trained, or each for itself: a tied head is then a tensor of its own. (PEFT
    /// 0.21 copies each module that `modules_to_save` names and leaves the other as it was.)
    pub(crate) fn unties_head(&self, config: &DecoderConfig) -> bool {
        [Slot::EmbedTokens, Slot::LmHead]
            .iter()
            .any(|slot| self.role(&config.family.module(*slot, 0)) == Role::Saved)
    }

    /// Numbers the branches.
    pub(crate) fn next_stream(&mut self) -> u64 {
        self.streams += 1;
        self.streams - 1
    }
}
