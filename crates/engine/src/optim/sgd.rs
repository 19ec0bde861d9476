//! Stochastic gradient descent, as torch 2.15; the arithmetic is the kernel's ([`foundry_kernels::Sgd`]). 4 bytes
//! of state per trained number with momentum, none without.

use super::{Optimizer, StateTensor, Update, alike, check_count, factors, shapes};
use crate::arguments::{SgdArgs, TrainingArgs};
use foundry_kernels::{Allocator, Backend, Buffer, Dtype, MemoryClass};
use foundry_models::Parameter;

/// torch's name of the state.
const KIND: &str = "momentum_buffer";

/// SGD.
pub struct Sgd {
    args: SgdArgs,
    weight_decay: f64,
    /// `None`: no momentum.
    momentum: Option<Vec<Buffer>>,
    /// Factor on the learning rate of each parameter.
    factors: Vec<f64>,
    shapes: Vec<Vec<usize>>,
}

impl Sgd {
    /// State for `parameters`, all zero.
    pub fn allocate(alloc: &dyn Allocator, parameters: &[Parameter], args: &TrainingArgs) -> Self {
        let zeros = |p: &Parameter| alloc.alloc(MemoryClass::Optimizer, Dtype::F32, p.elements());
        Self {
            args: args.sgd,
            weight_decay: args.weight_decay,
            momentum: (args.sgd.momentum != 0.0).then(|| parameters.iter().map(zeros).collect()),
            factors: factors(parameters, args),
            shapes: shapes(parameters),
        }
    }
}

impl Optimizer for Sgd {
    fn name(&self) -> &'static str {
        "sgd"
    }

    fn update(&mut self, backend: &dyn Backend, update: &Update, parameters: &mut [Parameter]) {
        check_count(parameters, self.shapes.len());
        for (index, parameter) in parameters.iter_mut().enumerate() {
            let op = foundry_kernels::Sgd {
                lr: update.learning_rate * self.factors[index],
                momentum: self.args.momentum,
                dampening: self.args.dampening,
                nesterov: self.args.nesterov,
                weight_decay: if parameter.decay { self.weight_decay } else { 0.0 },
                step: update.step,
                grad_scale: update.grad_scale,
                rounding: update.rounding(index, parameter),
            };
            let momentum = self.momentum.as_mut().map(|buffers| &mut buffers[index]);
            backend.sgd(parameter.elements(), &op, &parameter.grad, &mut parameter.value, momentum);
        }
    }

    fn state(&self) -> Vec<StateTensor<&Buffer>> {
        alike(KIND, &self.shapes, self.momentum.iter().flatten()).collect()
    }

    fn state_mut(&mut self) -> Vec<StateTensor<&mut Buffer>> {
        alike(KIND, &self.shapes, self.momentum.iter_mut().flatten()).collect()
    }
}
