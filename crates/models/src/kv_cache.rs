//! Keys and values of the tokens seen so far, while generating.

use crate::{DecoderConfig, ModelError};
use foundry_kernels::{Allocator, Backend, Buffer, Dtype, MemoryClass};

/// The cache of one sequence.
pub struct KvCache {
    layers: Vec<(Buffer, Buffer)>,
    /// Rotation of every position up to the capacity.
    pub(crate) rope_table: Buffer,
    is_rope_ready: bool,
    /// The tokens whose keys and values are held.
    tokens: Vec<u32>,
    capacity: usize,
}

/// One layer's part, with room for the tokens at hand after the `len` that are in it.
pub(crate) struct LayerCache<'a> {
    /// `k_tkh`, operand.
    pub(crate) k: &'a mut Buffer,
    /// `v_tkh`, operand.
    pub(crate) v: &'a mut Buffer,
    pub(crate) len: usize,
}

impl KvCache {
    /// Room for `capacity` tokens of one sequence; `compute` must be the decoder's.
    pub fn allocate(alloc: &dyn Allocator, config: &DecoderConfig, compute: Dtype, capacity: usize) -> Self {
        let part = || alloc.alloc(MemoryClass::KvCache, compute, capacity * config.key_value_width());
        Self {
            layers: (0..config.num_hidden_layers).map(|_| (part(), part())).collect(),
            rope_table: alloc.alloc(MemoryClass::KvCache, Dtype::F32, capacity * config.head_dim),
            is_rope_ready: false,
            tokens: Vec::with_capacity(capacity),
            capacity,
        }
    }

    /// Computes the rotation of every position, once.
    pub(crate) fn prepare(&mut self, backend: &dyn Backend, config: &DecoderConfig) {
        if !self.is_rope_ready {
            backend.upload(&config.rope.table(config.head_dim, self.capacity), &mut self.rope_table, 0);
            self.is_rope_ready = true;
        }
    }

    /// Tokens in the cache.
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// No tokens in the cache.
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// Tokens the cache has room for.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Forgets all tokens after the first `len`; the memory stays.
    pub fn truncate(&mut self, len: usize) {
        self.tokens.truncate(len);
    }

    /// Forgets what is not the beginning of `prompt`, leaving at least its last token to be computed.
    pub(crate) fn keep_common(&mut self, prompt: &[u32]) {
        let common = self.tokens.iter().zip(prompt).take_while(|(held, wanted)| held == wanted).count();
        self.truncate(common.min(prompt.len().saturating_sub(1)));
    }

    /// Checks that `more` tokens fit.
    pub(crate) fn check_room(&self, more: usize) -> Result<(), ModelError> {
        let tokens = self.len() + more;
        if tokens > self.capacity {
            return Err(ModelError::CacheFull { tokens, capacity: self.capacity });
        }
        Ok(())
    }

    /// The rotation and one layer's part, side by side.
    pub(crate) fn table_and_layer(&mut self, layer: usize) -> (&Buffer, LayerCache<'_>) {
        let (k, v) = &mut self.layers[layer];
        (&self.rope_table, LayerCache { k, v, len: self.tokens.len() })
    }

    /// Notes that the keys and values of `tokens` were written.
    pub(crate) fn advance(&mut self, tokens: &[u32]) {
        self.tokens.extend_from_slice(tokens);
    }
}
