//! What a decoder keeps, and in which form: the knobs between memory and time.

use foundry_kernels::Quantization;

/// How a decoder stores what it computes with. Results do not depend on [`Storage::checkpointing`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Storage {
    /// What the blocks keep of a forward.
    pub checkpointing: Checkpointing,
    /// Trained matrices are kept in bfloat16 only, without a float32 master; needs bfloat16 operands.
    pub bf16_parameters: bool,
    /// Frozen weights of linear layers in few bits.
    pub quantization: Option<QuantizedWeights>,
}

/// Which weights are stored in few bits: those of all linear layers in the blocks that are not trained, as transformers
/// and bitsandbytes do it; embedding and head stay as they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuantizedWeights {
    /// How.
    pub kind: Quantization,
    /// Modules that stay as they are, by whole name, beginning, or ending (`llm_int8_skip_modules`).
    pub skip: Vec<String>,
}

impl QuantizedWeights {
    /// Whether the weight of `module` is among them (transformers 5.23 `should_convert_module`, plain names).
    pub(crate) fn covers(&self, module: &str) -> bool {
        !self.skip.iter().any(|name| {
            let begins = module
                .strip_prefix(name.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
            begins || module.ends_with(name.as_str())
        })
    }
}

/// What the blocks keep of a forward for the backward; the rest is computed again, with the same bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Checkpointing {
    /// Everything.
    #[default]
    None,
    /// Everything but the outputs of norms and of SwiGLU, which cost little to make again.
    Selective,
    /// The lowest blocks keep their inputs only, the others as [`Checkpointing::Selective`].
    Mixed {
        /// How many keep their inputs only.
        full: usize,
    },
    /// The inputs of the blocks only.
    Full,
}

/// What one block keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kept {
    /// Everything.
    All,
    /// What costs matrix products to make again.
    Products,
    /// Its input.
    Input,
    /// Nothing: there is no backward through this block.
    Nothing,
}

impl Checkpointing {
    /// What block `index` keeps, counted from the lowest with a backward.
    pub(crate) fn of(self, index: usize) -> Kept {
        match self {
            Checkpointing::None => Kept::All,
            Checkpointing::Selective => Kept::Products,
            Checkpointing::Mixed { full } if index >= full => Kept::Products,
            Checkpointing::Mixed { .. } | Checkpointing::Full => Kept::Input,
        }
    }
}

/// transformers' `gradient_checkpointing`.
impl From<bool> for Storage {
    fn from(is_on: bool) -> Self {
        if is_on { Checkpointing::Full.into() } else { Checkpointing::None.into() }
    }
}

impl From<Checkpointing> for Storage {
    fn from(checkpointing: Checkpointing) -> Self {
        Self { checkpointing, ..Self::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn skipped_modules_are_whole_names_beginnings_or_endings() {
        let skip =
            ["model.layers.1", "down_proj", "model.layers.0.self_attn.q_proj"].map(String::from).to_vec();
        let weights = QuantizedWeights { kind: Quantization::Int8, skip };
        for module in
            ["model.layers.1.mlp.up_proj", "model.layers.2.mlp.down_proj", "model.layers.0.self_attn.q_proj"]
        {
            assert!(!weights.covers(module), "{module}");
        }
        for module in ["model.layers.11.mlp.up_proj", "model.layers.0.self_attn.k_proj"] {
            assert!(weights.covers(module), "{module}");
        }
    }
}
