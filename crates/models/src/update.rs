//! What surrounds an optimiser's update: the parameters, zero gradients, fresh compute copies.

use crate::Decoder;
use crate::families::Family;
use crate::parameter::{Parameter, Weight};
use crate::{DecoderConfig, Tuning};
use foundry_kernels::{Backend, Dtype};

impl Decoder {
    /// Trained tensors, in the order of the modules.
    pub fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }

    /// The same, to be updated; call [`Decoder::after_update`] afterwards.
    pub fn parameters_mut(&mut self) -> &mut [Parameter] {
        &mut self.parameters
    }

    /// Sets all gradients to zero.
    pub fn zero_grad(&mut self, backend: &dyn Backend) {
        for parameter in &mut self.parameters {
            backend.fill(parameter.elements(), 0.0, &mut parameter.grad);
        }
    }

    /// Brings what kernels read up to date with the parameters (bf16: rounds their copies).
    pub fn after_update(&mut self, backend: &dyn Backend) {
        let (weights, parameters) = self.weights_mut();
        for weight in weights {
            weight.refresh(backend, parameters);
        }
        self.refresh_norms(backend);
        self.put_token_rows(backend);
    }

    /// Copies rows that are trained by themselves into the embedding.
    pub(crate) fn put_token_rows(&mut self, backend: &dyn Backend) {
        if let Some(rows) = &self.token_rows {
            rows.put(backend, &mut self.embed_tokens, &self.parameters);
        }
    }

    /// Shapes and constants.
    pub fn config(&self) -> &DecoderConfig {
        &self.config
    }

    /// The family's table.
    pub fn family(&self) -> &'static Family {
        self.config.family
    }

    /// What is trained.
    pub fn tuning(&self) -> &Tuning {
        &self.tuning
    }

    /// Format of the operands of products.
    pub fn compute(&self) -> Dtype {
        self.compute
    }

    /// Longest row.
    pub fn max_tokens(&self) -> usize {
        self.max_tokens
    }

    /// Every weight in the order of the modules.
    pub(crate) fn weights(&self) -> Vec<&Weight> {
        let mut weights = vec![&self.embed_tokens];
        weights.extend(self.token_rows.as_ref().map(|rows| &rows.values));
        weights.extend(self.blocks.iter().flat_map(|block| block.weights()));
        weights.push(&self.norm.weight);
        weights.extend(&self.lm_head);
        weights
    }

    /// The same to be written, beside the parameters.
    pub(crate) fn weights_mut(&mut self) -> (Vec<&mut Weight>, &mut [Parameter]) {
        let mut weights = vec![&mut self.embed_tokens];
        weights.extend(self.token_rows.as_mut().map(|rows| &mut rows.values));
        weights.extend(self.blocks.iter_mut().flat_map(|block| block.weights_mut()));
        weights.push(&mut self.norm.weight);
        weights.extend(&mut self.lm_head);
        (weights, &mut self.parameters)
    }
}
