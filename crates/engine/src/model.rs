//! What the training loop needs of a model.

use crate::error::BoxedError;
use foundry_kernels::{Backend, LossSums};
use foundry_models::{Batch, Decoder, Objective, Parameter};
use std::path::Path;

/// A model that can be trained. Gradients add up in [`Parameter::grad`] until [`Trainable::zero_grad`].
pub trait Trainable {
    /// The trained tensors, always in the same order.
    fn parameters(&self) -> &[Parameter];

    /// The trained tensors, to be updated.
    fn parameters_mut(&mut self) -> &mut [Parameter];

    /// Sets every gradient to 0.
    fn zero_grad(&mut self, backend: &dyn Backend);

    /// Forward and backward over one packed row. Gradients are multiplied by `grad_scale`, the sums are not. `seed`
    /// decides over dropout and noise.
    fn forward_backward(
        &mut self,
        backend: &dyn Backend,
        batch: &Batch<'_>,
        objective: &Objective,
        grad_scale: f32,
        seed: u64,
    ) -> Result<LossSums, BoxedError>;

    /// Cross-entropy of one packed row, without dropout and noise.
    fn forward_loss(&mut self, backend: &dyn Backend, batch: &Batch<'_>) -> Result<LossSums, BoxedError>;

    /// The values of the parameters have changed: refresh what was derived from them.
    fn after_update(&mut self, backend: &dyn Backend);

    /// The decoder that it is, for who wants to ask it something. `None`: it is none.
    fn decoder_mut(&mut self) -> Option<&mut Decoder> {
        None
    }

    /// Gathers the model (or its adapter) as other programs read it.
    fn gather(&self, backend: &dyn Backend) -> Result<WriteFiles, BoxedError>;

    /// Writes the model (or its adapter) into `dir`, in the files that other programs read.
    fn save(&self, backend: &dyn Backend, dir: &Path) -> Result<(), BoxedError> {
        self.gather(backend)?(dir)
    }
}

/// Writes what was gathered into a directory, on whatever thread. The numbers are not copied but shared
/// ([`Backend::share`]): until it has run or was dropped, the parameters' values must not be changed.
pub type WriteFiles = Box<dyn FnOnce(&Path) -> Result<(), BoxedError> + Send>;

/// Gathers a decoder and what belongs to it (configuration, tokenizer).
pub type GatherDecoder<'a> = Box<dyn Fn(&Decoder, &dyn Backend) -> Result<WriteFiles, BoxedError> + 'a>;

/// A decoder, and how it is saved: the engine knows neither its base model nor its tokenizer.
pub struct DecoderModel<'a> {
    /// The model.
    pub decoder: &'a mut Decoder,
    /// Gathers what is saved.
    pub gather: GatherDecoder<'a>,
}

impl Trainable for DecoderModel<'_> {
    fn parameters(&self) -> &[Parameter] {
        self.decoder.parameters()
    }

    fn parameters_mut(&mut self) -> &mut [Parameter] {
        self.decoder.parameters_mut()
    }

    fn zero_grad(&mut self, backend: &dyn Backend) {
        self.decoder.zero_grad(backend);
    }

    fn forward_backward(
        &mut self,
        backend: &dyn Backend,
        batch: &Batch<'_>,
        objective: &Objective,
        grad_scale: f32,
        seed: u64,
    ) -> Result<LossSums, BoxedError> {
        let mut sums = None;
        backend.row_of_operations(&mut || {
            sums = Some(self.decoder.forward_backward(backend, batch, objective, grad_scale, seed));
        });
        Ok(sums.expect("the row of operations was run")?)
    }

    fn forward_loss(&mut self, backend: &dyn Backend, batch: &Batch<'_>) -> Result<LossSums, BoxedError> {
        let mut sums = None;
        backend.row_of_operations(&mut || sums = Some(self.decoder.forward_loss(backend, batch, None)));
        Ok(sums.expect("the row of operations was run")?)
    }

    fn after_update(&mut self, backend: &dyn Backend) {
        self.decoder.after_update(backend);
    }

    fn decoder_mut(&mut self) -> Option<&mut Decoder> {
        Some(self.decoder)
    }

    fn gather(&self, backend: &dyn Backend) -> Result<WriteFiles, BoxedError> {
        (self.gather)(self.decoder, backend)
    }
}
