//! From a checkpoint's tensors to a decoder's weights.

use crate::lora::Dora;
use crate::parameter::{Parameter, Weight};
use crate::quantized::{dequantize, is_beside, is_quantized, kind_of, read_parts};
use crate::{Decoder, ModelError};
use foundry_formats::TensorSource;
use foundry_formats::torch_rng::Mt19937;
use foundry_kernels::{Backend, Dtype, Quantization};

/// Elements read at a time: a few MB of host memory whatever the tensor's size.
const PIECE: usize = 1 << 20;

impl Decoder {
    /// Reads the base model's weights, whatever number format they are stored in. An adapter is not touched.
    ///
    /// # Errors
    /// Tensors that are missing, have another shape, or have no place in this model; unreadable files.
    pub fn load(&mut self, backend: &dyn Backend, weights: &dyn TensorSource) -> Result<(), ModelError> {
        let head = format!("{}.weight", self.config.family.module(crate::families::Slot::LmHead, 0));
        let embedding = self.embed_tokens.base.clone().expect("the embedding is part of the base model");
        let is_tied = self.config.tie_word_embeddings;
        self.refuse_unexpected(weights, &head)?;
        let compute = self.compute;
        let (slots, parameters) = self.weights_mut();
        for slot in slots {
            let Some(name) = slot.base.clone() else { continue };
            // A tied head may be stored or not; it is the embedding in any case.
            let stored = if is_tied && name == head { &embedding } else { &name };
            match (is_quantized(weights, stored), slot.quantized().is_some()) {
                (false, false) => read_into(backend, weights, stored, slot, parameters)?,
                (false, true) => quantize_into(backend, weights, stored, slot, parameters, compute)?,
                (true, _) => read_quantized_into(backend, weights, stored, slot, parameters)?,
            }
        }
        for linear in self.blocks.iter_mut().flat_map(|block| block.linears_mut()) {
            linear.lora.iter_mut().filter_map(|lora| lora.dora.as_mut()).for_each(Dora::forget_base);
        }
        Ok(())
    }

    /// That dense `weights` are this model's, by names and shapes: no number is read.
    ///
    /// # Errors
    /// As [`Decoder::load`], but for files that cannot be read.
    pub fn check_names(&self, weights: &dyn TensorSource) -> Result<(), ModelError> {
        let head = format!("{}.weight", self.config.family.module(crate::families::Slot::LmHead, 0));
        self.refuse_unexpected(weights, &head)?;
        for slot in self.weights() {
            let Some(name) = slot.base.as_deref() else { continue };
            let is_copy = self.config.tie_word_embeddings && name == head;
            if !is_copy {
                check_shape(weights, name, slot)?;
            }
        }
        Ok(())
    }

    /// Tensors that would be left out. Rotary frequencies, which older checkpoints store, are computed.
    fn refuse_unexpected(&self, weights: &dyn TensorSource, head: &str) -> Result<(), ModelError> {
        let known: std::collections::HashSet<&str> =
            self.weights().into_iter().filter_map(|weight| weight.base.as_deref()).collect();
        let unexpected: Vec<&str> = weights
            .tensors()
            .iter()
            .map(|tensor| tensor.name.as_str())
            .filter(|name| !known.contains(name) && !name.ends_with("rotary_emb.inv_freq"))
            .filter(|name| !is_beside(name, |weight| known.contains(weight)))
            .filter(|name| !(self.config.tie_word_embeddings && *name == head))
            .collect();
        if unexpected.is_empty() {
            return Ok(());
        }
        let more = unexpected.len().saturating_sub(5);
        let shown = unexpected[..unexpected.len() - more].join(", ");
        let names = if more == 0 { shown } else { format!("{shown} and {more} more") };
        Err(ModelError::UnexpectedTensors { names })
    }

    /// Draws new weights for pre-training from scratch: matrices `N(0, initializer_range²)`, norms one, biases zero
    /// (transformers 5.23 `PreTrainedModel._init_weights`, though not PyTorch's order of drawing).
    pub fn init_random(&mut self, backend: &dyn Backend, seed: u64, initializer_range: f64) {
        let mut rng = Mt19937::seeded(seed);
        let (slots, parameters) = self.weights_mut();
        let mut values = Vec::new();
        for slot in slots {
            let Some(name) = &slot.base else { continue };
            values.clear();
            match (slot.shape.len(), name.ends_with(".bias")) {
                (1, is_bias) => values.resize(slot.elements(), if is_bias { 0.0 } else { 1.0 }),
                _ => {
                    values.resize(slot.elements(), 0.0);
                    rng.fill_normal_f32(&mut values, 0.0, initializer_range as f32);
                }
            }
            slot.write(backend, parameters, &values, 0);
        }
    }
}

/// Reads one tensor and stores it in few bits.
fn quantize_into(
    backend: &dyn Backend,
    source: &dyn TensorSource,
    name: &str,
    slot: &mut Weight,
    parameters: &mut [Parameter],
    compute: Dtype,
) -> Result<(), ModelError> {
    check_shape(source, name, slot)?;
    let mut values = vec![0.0; slot.elements()];
    source.read_f32(name, 0, &mut values)?;
    if let Some(matrix) = slot.quantized() {
        rounded_for(matrix.kind(), compute, &mut values);
    }
    slot.write(backend, parameters, &values, 0);
    Ok(())
}

/// Values as they are quantised: transformers loads the weights in the compute format before; LLM.int8() in float16.
pub(crate) fn rounded_for(kind: Quantization, compute: Dtype, values: &mut [f32]) {
    match kind {
        Quantization::Int8 => {
            values.iter_mut().for_each(|value| *value = half::f16::from_f32(*value).to_f32());
        }
        _ if compute == Dtype::Bf16 => {
            values.iter_mut().for_each(|value| *value = half::bf16::from_f32(*value).to_f32());
        }
        Quantization::Nf4 { .. } => {}
    }
}

/// Reads a weight that is stored in few bits: as it is, or widened where this decoder keeps it so.
fn read_quantized_into(
    backend: &dyn Backend,
    source: &dyn TensorSource,
    name: &str,
    slot: &mut Weight,
    parameters: &mut [Parameter],
) -> Result<(), ModelError> {
    let &[outputs, inputs] = slot.shape.as_slice() else {
        return Err(ModelError::QuantizedWeight { name: name.into(), what: "it is no matrix".into() });
    };
    let parts = read_parts(source, name, [outputs, inputs])?;
    if let Some(matrix) = slot.quantized_mut() {
        if kind_of(&parts) != matrix.kind() {
            let what = "it is quantised otherwise than `quantization_config` of config.json says".into();
            return Err(ModelError::QuantizedWeight { name: name.into(), what });
        }
        backend.upload_quantized(&parts, matrix);
        return Ok(());
    }
    let elements = slot.elements();
    let mut piece = vec![0.0; elements.min(PIECE)];
    for start in (0..elements).step_by(PIECE) {
        let piece = &mut piece[..PIECE.min(elements - start)];
        dequantize(&parts, inputs, start, piece);
        slot.write(backend, parameters, piece, start);
    }
    Ok(())
}

/// The tensor is there and has the slot's shape.
fn check_shape(source: &dyn TensorSource, name: &str, slot: &Weight) -> Result<(), ModelError> {
    let info = source.find(name).ok_or_else(|| ModelError::MissingTensor { name: name.into() })?;
    if info.shape == slot.shape {
        return Ok(());
    }
    let (found, expected) = (info.shape.clone(), slot.shape.clone());
    Err(ModelError::TensorShape { name: name.into(), found, expected })
}

/// Reads one tensor in pieces after checking that it is there and has the right shape.
pub(crate) fn read_into(
    backend: &dyn Backend,
    source: &dyn TensorSource,
    name: &str,
    slot: &mut Weight,
    parameters: &mut [Parameter],
) -> Result<(), ModelError> {
    check_shape(source, name, slot)?;
    let elements = slot.elements();
    let mut piece = vec![0.0; elements.min(PIECE)];
    for start in (0..elements).step_by(PIECE) {
        let piece = &mut piece[..PIECE.min(elements - start)];
        source.read_f32(name, start, piece)?;
        slot.write(backend, parameters, piece, start);
    }
    Ok(())
}
