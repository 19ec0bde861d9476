//! What a decoder keeps, and in which form: the knobs between memory and time.

/// How a decoder stores what it computes with. Results do not depend on [`Storage::checkpointing`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Storage {
    /// What the blocks keep of a forward.
    pub checkpointing: Checkpointing,
    /// Trained matrices are kept in bfloat16 only, without a float32 master; needs bfloat16 operands.
    pub bf16_parameters: bool,
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
