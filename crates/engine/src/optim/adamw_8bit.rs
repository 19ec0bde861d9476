//! AdamW with moments of eight bits (Dettmers et al. 2022), as bitsandbytes 0.50 `AdamW8bit`; the arithmetic is the
//! kernel's. 2 bytes of state per trained number and 8 for each block of 256.
//!
//! As in transformers, small parameters (below 4096 elements) and embeddings keep moments of 32 bits.

use super::{Optimizer, StateTensor, Update, check_count, factors};
use crate::arguments::TrainingArgs;
use foundry_kernels::{Allocator, Backend, BlockwiseState, Buffer, Dtype, MemoryClass};
use foundry_models::Parameter;

/// bitsandbytes' `min_8bit_size`.
const SMALLEST: usize = 4096;

/// Elements that share a scale.
const BLOCK: usize = 256;

/// AdamW in eight bits.
pub struct AdamW8Bit {
    beta1: f64,
    beta2: f64,
    eps: f64,
    weight_decay: f64,
    moments: Vec<Moments>,
    /// Factor on the learning rate of each parameter.
    factors: Vec<f64>,
    shapes: Vec<Vec<usize>>,
}

/// First and second moment of one parameter.
enum Moments {
    Wide([Buffer; 2]),
    Blockwise([Codes; 2]),
}

struct Codes {
    codes: Buffer,
    absmax: Buffer,
}

/// bitsandbytes' names.
const KINDS: [[&str; 2]; 2] = [["state1", "absmax1"], ["state2", "absmax2"]];

impl AdamW8Bit {
    /// State for `parameters`, all zero.
    pub fn allocate(alloc: &dyn Allocator, parameters: &[Parameter], args: &TrainingArgs) -> Self {
        let zeros = |dtype: Dtype, len: usize| alloc.alloc(MemoryClass::Optimizer, dtype, len);
        let moments = |parameter: &Parameter| {
            let len = parameter.elements();
            // transformers registers every `nn.Embedding` with bitsandbytes' override for 32 bits.
            if len < SMALLEST || parameter.name.ends_with("embed_tokens.weight") {
                return Moments::Wide([0, 1].map(|_| zeros(Dtype::F32, len)));
            }
            Moments::Blockwise([0, 1].map(|_| Codes {
                codes: zeros(Dtype::U8, len),
                absmax: zeros(Dtype::F32, len.div_ceil(BLOCK)),
            }))
        };
        Self {
            beta1: args.adam_beta1,
            beta2: args.adam_beta2,
            eps: args.adam_epsilon,
            weight_decay: args.weight_decay,
            moments: parameters.iter().map(moments).collect(),
            factors: factors(parameters, args),
            shapes: super::shapes(parameters),
        }
    }
}

impl Optimizer for AdamW8Bit {
    fn name(&self) -> &'static str {
        "adamw_8bit"
    }

    fn update(&mut self, backend: &dyn Backend, update: &Update, parameters: &mut [Parameter]) {
        check_count(parameters, self.moments.len());
        for (index, (parameter, moments)) in parameters.iter_mut().zip(&mut self.moments).enumerate() {
            let op = foundry_kernels::AdamW {
                lr: update.learning_rate * self.factors[index],
                beta1: self.beta1,
                beta2: self.beta2,
                eps: self.eps,
                weight_decay: if parameter.decay { self.weight_decay } else { 0.0 },
                step: update.step,
                grad_scale: update.grad_scale,
                rounding: update.rounding(index, parameter),
            };
            let (n, grad, value) = (parameter.elements(), &parameter.grad, &mut parameter.value);
            match moments {
                Moments::Wide([m, v]) => backend.adamw(n, &op, grad, value, m, v),
                Moments::Blockwise(moments) => {
                    let [m, v] =
                        moments.each_mut().map(|Codes { codes, absmax }| BlockwiseState { codes, absmax });
                    backend.adamw_8bit(n, &op, grad, value, m, v);
                }
            }
        }
    }

    fn state(&self) -> Vec<StateTensor<&Buffer>> {
        let mut tensors = Vec::new();
        for (parameter, (moments, shape)) in self.moments.iter().zip(&self.shapes).enumerate() {
            let mut add = |kind, shape: &[usize], buffer| {
                tensors.push(StateTensor { kind, parameter, shape: shape.to_vec(), buffer });
            };
            for which in [0, 1] {
                let [state, absmax] = KINDS[which];
                match moments {
                    Moments::Wide(wide) => add(state, shape, &wide[which]),
                    Moments::Blockwise(codes) => {
                        add(state, shape, &codes[which].codes);
                        add(absmax, &[codes[which].absmax.len()], &codes[which].absmax);
                    }
                }
            }
        }
        tensors
    }

    fn state_mut(&mut self) -> Vec<StateTensor<&mut Buffer>> {
        let mut tensors = Vec::new();
        for (parameter, (moments, shape)) in self.moments.iter_mut().zip(&self.shapes).enumerate() {
            let mut add = |kind, shape: &[usize], buffer| {
                tensors.push(StateTensor { kind, parameter, shape: shape.to_vec(), buffer });
            };
            match moments {
                Moments::Wide(wide) => {
                    for (wide, [state, _]) in wide.iter_mut().zip(KINDS) {
                        add(state, shape, wide);
                    }
                }
                Moments::Blockwise(codes) => {
                    for (Codes { codes, absmax }, [state, scale]) in codes.iter_mut().zip(KINDS) {
                        add(state, shape, codes);
                        add(scale, &[absmax.len()], absmax);
                    }
                }
            }
        }
        tensors
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use foundry_kernels::Meter;

    #[test]
    fn small_parameters_and_embeddings_keep_32_bits() {
        let meter = Meter::default();
        let parameter = |name: &str, len: usize| Parameter {
            name: name.into(),
            shape: vec![len],
            value: meter.alloc(MemoryClass::Trainable, Dtype::F32, len),
            grad: meter.alloc(MemoryClass::Gradients, Dtype::F32, len),
            decay: true,
        };
        let parameters = [
            parameter("q_proj.lora_A.weight", 4096),
            parameter("q_proj.lora_B.weight", 4095),
            parameter("model.embed_tokens.weight", 8192),
        ];
        let optimizer = AdamW8Bit::allocate(&meter, &parameters, &TrainingArgs::default());
        let state: Vec<(&str, usize, Dtype, usize)> = optimizer
            .state()
            .iter()
            .map(|tensor| (tensor.kind, tensor.parameter, tensor.buffer.dtype(), tensor.shape[0]))
            .collect();
        assert_eq!(
            state,
            [
                ("state1", 0, Dtype::U8, 4096),
                ("absmax1", 0, Dtype::F32, 16),
                ("state2", 0, Dtype::U8, 4096),
                ("absmax2", 0, Dtype::F32, 16),
                ("state1", 1, Dtype::F32, 4095),
                ("state2", 1, Dtype::F32, 4095),
                ("state1", 2, Dtype::F32, 8192),
                ("state2", 2, Dtype::F32, 8192),
            ]
        );
        let bytes = meter.allocated().into_iter().find(|(class, _)| *class == MemoryClass::Optimizer);
        assert_eq!(bytes.unwrap().1, 2 * (4096 + 64) + 2 * 4 * 4096 + 2 * 4 * 8192);
    }
}
