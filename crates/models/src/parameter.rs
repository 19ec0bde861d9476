//! Trained values, and weights that are either frozen or trained.

use crate::quantized;
use crate::saved::Numbers;
use crate::storage::QuantizedWeights;
use foundry_kernels::{Allocator, Backend, Buffer, Dtype, Matmul, MemoryClass, QuantizedMatrix};

/// One trained tensor: what an optimiser sees.
pub struct Parameter {
    /// Name in the file it is saved to: Hugging Face's for a model, PEFT's for an adapter.
    pub name: String,
    /// Dimensions, row-major.
    pub shape: Vec<usize>,
    /// The value, f32; bf16 where the decoder keeps no master ([`Storage`](crate::Storage)).
    pub value: Buffer,
    /// Sum of gradients since [`zero_grad`](crate::Decoder::zero_grad), f32.
    pub grad: Buffer,
    /// Weight decay applies (see [`decays`]).
    pub decay: bool,
}

impl Parameter {
    /// Number of elements.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }
}

/// Whether weight decay applies to a parameter of this name: transformers 5.23 `Trainer.get_decay_parameter_names`
/// leaves out `bias|layernorm|rmsnorm|(^|\.)norm($|\.)|_norm($|\.)`, case-insensitively.
pub fn decays(name: &str) -> bool {
    let name = name.to_lowercase();
    let excluded = ["bias", "layernorm", "rmsnorm"].iter().any(|part| name.contains(part))
        || name.split('.').any(|part| part == "norm" || part.ends_with("_norm"));
    !excluded
}

/// A weight of the model. In the compute dtype it is what kernels read; when it is trained, its f32 value is a
/// [`Parameter`].
pub(crate) struct Weight {
    /// Name in a checkpoint of the whole model; branches of an adapter have none.
    pub(crate) base: Option<String>,
    /// Name in an adapter file, for what belongs to the adapter.
    pub(crate) adapter: Option<String>,
    pub(crate) shape: Vec<usize>,
    place: Place,
}

enum Place {
    Frozen(Buffer),
    /// Frozen, in few bits; only ever multiplied with.
    Quantized(QuantizedMatrix),
    /// `compute` is a copy in the compute dtype; without one the kernels read the parameter itself.
    Trained {
        index: usize,
        compute: Option<Buffer>,
    },
}

/// What a weight is called in files, and whether it is trained.
pub(crate) struct Naming {
    pub(crate) base: Option<String>,
    pub(crate) adapter: Option<String>,
    pub(crate) is_trained: bool,
}

/// Allocates weights and collects the parameters among them, in the order of their modules.
pub(crate) struct WeightMaker<'a> {
    pub(crate) alloc: &'a dyn Allocator,
    pub(crate) compute: Dtype,
    /// Trained matrices have no f32 master.
    pub(crate) bf16_parameters: bool,
    /// Frozen weights of linear layers in few bits.
    pub(crate) quantization: Option<QuantizedWeights>,
    pub(crate) parameters: Vec<Parameter>,
}

impl WeightMaker<'_> {
    /// A matrix that takes part in products, in the compute dtype.
    pub(crate) fn matrix(&mut self, naming: Naming, shape: [usize; 2]) -> Weight {
        self.weight(naming, shape.to_vec(), self.compute)
    }

    /// The weight of a linear layer: in few bits if it is frozen and the storage says so.
    pub(crate) fn linear(&mut self, module: &str, naming: Naming, shape: [usize; 2]) -> Weight {
        let covers = |weights: &&QuantizedWeights| !naming.is_trained && weights.covers(module);
        let Some(kind) = self.quantization.as_ref().filter(covers).map(|weights| weights.kind) else {
            return self.matrix(naming, shape);
        };
        let [outputs, inputs] = shape;
        let matrix = QuantizedMatrix::allocate(self.alloc, MemoryClass::Weights, kind, outputs, inputs);
        let Naming { base, adapter, .. } = naming;
        Weight { base, adapter, shape: shape.to_vec(), place: Place::Quantized(matrix) }
    }

    /// A vector (norm or bias), always f32.
    pub(crate) fn vector(&mut self, naming: Naming, len: usize) -> Weight {
        self.weight(naming, vec![len], Dtype::F32)
    }

    /// A vector that takes part in products, in the compute dtype.
    pub(crate) fn operand_vector(&mut self, naming: Naming, len: usize) -> Weight {
        self.weight(naming, vec![len], self.compute)
    }

    /// Rows of a table, always f32.
    pub(crate) fn rows(&mut self, naming: Naming, shape: [usize; 2]) -> Weight {
        self.weight(naming, shape.to_vec(), Dtype::F32)
    }

    fn weight(&mut self, naming: Naming, shape: Vec<usize>, dtype: Dtype) -> Weight {
        let len = shape.iter().product();
        let Naming { base, adapter, is_trained } = naming;
        if !is_trained {
            let place = Place::Frozen(self.alloc.alloc(MemoryClass::Weights, dtype, len));
            return Weight { base, adapter, shape, place };
        }
        let name = adapter.clone().or_else(|| base.clone()).expect("every weight is saved somewhere");
        let master = if self.bf16_parameters { dtype } else { Dtype::F32 };
        let compute = (dtype != master).then(|| self.alloc.alloc(MemoryClass::Weights, dtype, len));
        let place = Place::Trained { index: self.parameters.len(), compute };
        self.parameters.push(Parameter {
            decay: decays(&name),
            name,
            shape: shape.clone(),
            value: self.alloc.alloc(MemoryClass::Trainable, master, len),
            grad: self.alloc.alloc(MemoryClass::Gradients, Dtype::F32, len),
        });
        Weight { base, adapter, shape, place }
    }
}

impl Weight {
    /// Number of elements.
    pub(crate) fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// Has a gradient.
    pub(crate) fn is_trained(&self) -> bool {
        matches!(self.place, Place::Trained { .. })
    }

    /// The buffer of a frozen weight.
    pub(crate) fn frozen_mut(&mut self) -> Option<&mut Buffer> {
        match &mut self.place {
            Place::Frozen(buffer) => Some(buffer),
            Place::Quantized(_) | Place::Trained { .. } => None,
        }
    }

    /// Position among the parameters.
    pub(crate) fn index(&self) -> Option<usize> {
        match self.place {
            Place::Frozen(_) | Place::Quantized(_) => None,
            Place::Trained { index, .. } => Some(index),
        }
    }

    /// What kernels read.
    pub(crate) fn operand<'a>(&'a self, parameters: &'a [Parameter]) -> &'a Buffer {
        match &self.place {
            Place::Frozen(buffer) => buffer,
            Place::Quantized(_) => panic!("{:?} is quantised and can only be multiplied with", self.base),
            Place::Trained { compute: Some(copy), .. } => copy,
            Place::Trained { index, compute: None } => &parameters[*index].value,
        }
    }

    /// The weight in few bits, if it is stored so.
    pub(crate) fn quantized(&self) -> Option<&QuantizedMatrix> {
        match &self.place {
            Place::Quantized(matrix) => Some(matrix),
            _ => None,
        }
    }

    /// The same, to be filled.
    pub(crate) fn quantized_mut(&mut self) -> Option<&mut QuantizedMatrix> {
        match &mut self.place {
            Place::Quantized(matrix) => Some(matrix),
            _ => None,
        }
    }

    /// A product whose `B` is this weight.
    pub(crate) fn multiply(
        &self,
        backend: &dyn Backend,
        parameters: &[Parameter],
        op: Matmul,
        x: &Buffer,
        y: &mut Buffer,
    ) {
        match &self.place {
            Place::Quantized(matrix) => backend.matmul_quantized(op, x, matrix, y),
            _ => backend.matmul(op, x, self.operand(parameters), y),
        }
    }

    /// What kernels read, and where the gradient goes.
    pub(crate) fn operand_and_grad<'a>(
        &'a self,
        parameters: &'a mut [Parameter],
    ) -> (&'a Buffer, Option<&'a mut Buffer>) {
        match &self.place {
            Place::Frozen(buffer) => (buffer, None),
            Place::Quantized(_) => panic!("{:?} is quantised and has no gradient", self.base),
            Place::Trained { index, compute } => {
                let Parameter { value, grad, .. } = &mut parameters[*index];
                (compute.as_ref().unwrap_or(value), Some(grad))
            }
        }
    }

    /// Where the gradient goes, if there is one.
    pub(crate) fn grad<'a>(&self, parameters: &'a mut [Parameter]) -> Option<&'a mut Buffer> {
        self.index().map(|index| &mut parameters[index].grad)
    }

    /// Writes elements from `offset` on, to the value if it is trained.
    pub(crate) fn write(
        &mut self,
        backend: &dyn Backend,
        parameters: &mut [Parameter],
        values: &[f32],
        offset: usize,
    ) {
        match &mut self.place {
            Place::Frozen(buffer) => backend.upload(values, buffer, offset),
            Place::Quantized(matrix) => {
                assert_eq!(
                    (offset, values.len()),
                    (0, matrix.rows() * matrix.cols()),
                    "quantised as a whole"
                );
                backend.quantize(values, matrix);
            }
            Place::Trained { index, compute } => {
                backend.upload(values, &mut parameters[*index].value, offset);
                if let Some(copy) = compute {
                    backend.upload(values, copy, offset);
                }
            }
        }
    }

    /// Reads elements from `offset` on: the f32 value if it is trained.
    pub(crate) fn read(
        &self,
        backend: &dyn Backend,
        parameters: &[Parameter],
        offset: usize,
        into: &mut [f32],
    ) {
        match &self.place {
            Place::Frozen(buffer) => backend.download(buffer, offset, into),
            Place::Quantized(matrix) => {
                quantized::dequantize(&backend.download_quantized(matrix), matrix.cols(), offset, into);
            }
            Place::Trained { index, .. } => backend.download(&parameters[*index].value, offset, into),
        }
    }

    /// What [`Weight::read`] reads, for another thread.
    pub(crate) fn share(&self, backend: &dyn Backend, parameters: &[Parameter]) -> Numbers {
        match &self.place {
            Place::Frozen(buffer) => Numbers::Dense(backend.share(buffer)),
            Place::Quantized(matrix) => Numbers::Quantized(backend.share_quantized(matrix)),
            Place::Trained { index, .. } => Numbers::Dense(backend.share(&parameters[*index].value)),
        }
    }

    /// Copies the trained value into the compute dtype.
    pub(crate) fn refresh(&mut self, backend: &dyn Backend, parameters: &[Parameter]) {
        let len = self.elements();
        if let Place::Trained { index, compute: Some(copy) } = &mut self.place {
            backend.copy(len, &parameters[*index].value, 0, copy, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::decays;

    #[test]
    fn norms_and_biases_do_not_decay() {
        for name in [
            "model.layers.0.input_layernorm.weight",
            "model.norm.weight",
            "model.layers.1.self_attn.q_norm.weight",
            "model.layers.1.self_attn.q_proj.bias",
            "model.LayerNorm.weight",
            "norm",
        ] {
            assert!(!decays(name), "{name}");
        }
        for name in [
            "model.embed_tokens.weight",
            "lm_head.weight",
            "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight",
            "model.normal.weight",
            "model.normalize_me.weight",
        ] {
            assert!(decays(name), "{name}");
        }
    }
}
