//! Lion (Chen et al. 2023), as bitsandbytes 0.50 `Lion32bit`; the arithmetic is the kernel's
//! ([`foundry_kernels::Lion`]). 4 bytes of state per trained number.

use super::{Optimizer, StateTensor, Update, alike, check_count, factors, shapes};
use crate::arguments::TrainingArgs;
use foundry_kernels::{Allocator, Backend, Buffer, Dtype, MemoryClass};
use foundry_models::Parameter;

/// bitsandbytes' name of the momentum.
const KIND: &str = "state1";

/// Lion.
pub struct Lion {
    beta1: f64,
    beta2: f64,
    weight_decay: f64,
    momentum: Vec<Buffer>,
    /// Factor on the learning rate of each parameter.
    factors: Vec<f64>,
    shapes: Vec<Vec<usize>>,
}

impl Lion {
    /// State for `parameters`, all zero.
    pub fn allocate(alloc: &dyn Allocator, parameters: &[Parameter], args: &TrainingArgs) -> Self {
        let zeros = |p: &Parameter| alloc.alloc(MemoryClass::Optimizer, Dtype::F32, p.elements());
        Self {
            beta1: args.adam_beta1,
            beta2: args.adam_beta2,
            weight_decay: args.weight_decay,
            momentum: parameters.iter().map(zeros).collect(),
            factors: factors(parameters, args),
            shapes: shapes(parameters),
        }
    }
}

impl Optimizer for Lion {
    fn name(&self) -> &'static str {
        "lion"
    }

    fn update(&mut self, backend: &dyn Backend, update: &Update, parameters: &mut [Parameter]) {
        check_count(parameters, self.momentum.len());
        for (index, (parameter, m)) in parameters.iter_mut().zip(&mut self.momentum).enumerate() {
            let op = foundry_kernels::Lion {
                lr: update.learning_rate * self.factors[index],
                beta1: self.beta1,
                beta2: self.beta2,
                weight_decay: if parameter.decay { self.weight_decay } else { 0.0 },
                grad_scale: update.grad_scale,
                rounding: update.rounding(index, parameter),
            };
            backend.lion(parameter.elements(), &op, &parameter.grad, &mut parameter.value, m);
        }
    }

    fn state(&self) -> Vec<StateTensor<&Buffer>> {
        alike(KIND, &self.shapes, self.momentum.iter()).collect()
    }

    fn state_mut(&mut self) -> Vec<StateTensor<&mut Buffer>> {
        alike(KIND, &self.shapes, self.momentum.iter_mut()).collect()
    }
}
