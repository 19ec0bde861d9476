//! `trainable_token_indices`: some rows of the embedding are trained, the others stay (PEFT 0.21
//! `TrainableTokensLayer`). A tied head reads the trained rows too, and has a part in their gradient.
//!
//! The rows live in a parameter of their own and are copied into the table after each update, so that the forward knows
//! nothing of them.

use crate::DecoderConfig;
use crate::parameter::{Naming, Parameter, Weight, WeightMaker};
use foundry_kernels::{Backend, Buffer, Dtype, MemoryClass};
use std::collections::HashMap;

/// The trained rows.
pub(crate) struct TokenRows {
    /// `[n, D]`, f32.
    pub(crate) values: Weight,
    indices: Vec<u32>,
    /// What only training needs.
    gradients: Option<RowGradients>,
}

struct RowGradients {
    /// Place of a token among the rows.
    places: HashMap<u32, u32>,
    /// For each token of the row at hand its place, or `n`.
    local: Vec<u32>,
    local_ids: Buffer,
    /// The rows' own ids (U32).
    ids: Buffer,
    /// `[n+1, D]`, f32; the last row takes what belongs to frozen tokens.
    table: Buffer,
    /// `[V, D]`, f32: the gradient of a tied head, whole.
    head: Option<Buffer>,
    /// `[n, D]`, f32.
    gathered: Buffer,
}

impl TokenRows {
    pub(crate) fn allocate(
        maker: &mut WeightMaker<'_>,
        naming: Naming,
        indices: &[u32],
        config: &DecoderConfig,
        max_tokens: usize,
        is_tied: bool,
    ) -> Self {
        let (n, d) = (indices.len(), config.hidden_size);
        let is_trained = naming.is_trained;
        let values = maker.rows(naming, [n, d]);
        let scratch = |dtype: Dtype, len: usize| maker.alloc.alloc(MemoryClass::Workspace, dtype, len);
        let gradients = is_trained.then(|| RowGradients {
            places: indices.iter().zip(0..).map(|(id, place)| (*id, place)).collect(),
            local: Vec::with_capacity(max_tokens),
            local_ids: scratch(Dtype::U32, max_tokens),
            ids: scratch(Dtype::U32, n),
            table: scratch(Dtype::F32, (n + 1) * d),
            head: is_tied.then(|| scratch(Dtype::F32, config.vocab_size * d)),
            gathered: scratch(Dtype::F32, n * d),
        });
        Self { values, indices: indices.to_vec(), gradients }
    }

    /// Finds the places of a row's tokens.
    pub(crate) fn lay_out(&mut self, backend: &dyn Backend, tokens: &[u32]) {
        let frozen = self.indices.len() as u32;
        let Some(RowGradients { places, local, local_ids, ids, .. }) = &mut self.gradients else { return };
        local.clear();
        local.extend(tokens.iter().map(|token| places.get(token).copied().unwrap_or(frozen)));
        backend.upload_u32(local, local_ids);
        backend.upload_u32(&self.indices, ids);
    }

    /// The rows begin as those of the table.
    pub(crate) fn begin(&mut self, backend: &dyn Backend, table: &Weight, parameters: &mut [Parameter]) {
        let width = self.values.shape[1];
        let mut row = vec![0.0; width];
        for (place, index) in self.indices.iter().enumerate() {
            table.read(backend, parameters, *index as usize * width, &mut row);
            self.values.write(backend, parameters, &row, place * width);
        }
    }

    /// Copies the rows into the table.
    pub(crate) fn put(&self, backend: &dyn Backend, table: &mut Weight, parameters: &[Parameter]) {
        let width = self.values.shape[1];
        let Some(table) = table.frozen_mut() else { return };
        for (place, index) in self.indices.iter().enumerate() {
            let values = self.values.operand(parameters);
            backend.copy(width, values, place * width, table, *index as usize * width);
        }
    }

    /// Where a tied head's gradient goes, cleared.
    pub(crate) fn head_gradient(&mut self, backend: &dyn Backend) -> Option<&mut Buffer> {
        let head = self.gradients.as_mut()?.head.as_mut()?;
        backend.fill(head.len(), 0.0, head);
        Some(head)
    }

    /// Adds the rows' gradient: from the embedding's output `dx_td`, and from a tied head.
    pub(crate) fn collect(
        &mut self,
        backend: &dyn Backend,
        tokens: usize,
        dx: &Buffer,
        parameters: &mut [Parameter],
    ) {
        let [n, width] = [self.values.shape[0], self.values.shape[1]];
        let (Some(own), Some(grad)) = (&mut self.gradients, self.values.grad(parameters)) else { return };
        backend.fill(own.table.len(), 0.0, &mut own.table);
        backend.embedding_backward(tokens, width, &own.local_ids, dx, &mut own.table);
        backend.add(n * width, &own.table, grad);
        if let Some(head) = &own.head {
            backend.embedding_forward(n, width, &own.ids, head, &mut own.gathered);
            backend.add(n * width, &own.gathered, grad);
        }
    }
}
