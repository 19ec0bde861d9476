//! Adafactor, as transformers' Trainer runs it (5.23: no scaling by the parameter, no relative steps, no first moment);
//! the arithmetic is the kernel's ([`foundry_kernels::Adafactor`]). A matrix has one number for each row and column.

use super::{Optimizer, StateTensor, Update, check_count, factors};
use crate::arguments::TrainingArgs;
use foundry_kernels::{Allocator, Backend, Buffer, Dtype, MemoryClass, SquaredMeans};
use foundry_models::Parameter;
use std::borrow::Borrow;

/// Adafactor.
pub struct Adafactor {
    weight_decay: f64,
    /// Factor on the learning rate of each parameter.
    factors: Vec<f64>,
    means: Vec<Means>,
}

/// Means of squared gradients of one parameter.
enum Means {
    Matrix { row: Buffer, column: Buffer, shape: [usize; 2] },
    Vector(Buffer),
}

impl Adafactor {
    /// State for `parameters`, all zero.
    pub fn allocate(alloc: &dyn Allocator, parameters: &[Parameter], args: &TrainingArgs) -> Self {
        let zeros = |len: usize| alloc.alloc(MemoryClass::Optimizer, Dtype::F32, len);
        let means = |parameter: &Parameter| match parameter.shape[..] {
            [rows, columns] => {
                Means::Matrix { row: zeros(rows), column: zeros(columns), shape: [rows, columns] }
            }
            _ => Means::Vector(zeros(parameter.elements())),
        };
        Self {
            weight_decay: args.weight_decay,
            factors: factors(parameters, args),
            means: parameters.iter().map(means).collect(),
        }
    }
}

impl Optimizer for Adafactor {
    fn name(&self) -> &'static str {
        "adafactor"
    }

    fn update(&mut self, backend: &dyn Backend, update: &Update, parameters: &mut [Parameter]) {
        check_count(parameters, self.means.len());
        for (index, (parameter, means)) in parameters.iter_mut().zip(&mut self.means).enumerate() {
            // eps, clip_threshold and decay_rate are transformers' defaults, which its Trainer does not change.
            let op = foundry_kernels::Adafactor {
                lr: update.learning_rate * self.factors[index],
                eps: 1e-30,
                clip_threshold: 1.0,
                decay_rate: -0.8,
                weight_decay: if parameter.decay { self.weight_decay } else { 0.0 },
                step: update.step,
                grad_scale: update.grad_scale,
                rounding: update.rounding(index, parameter),
            };
            let (shape, means) = match means {
                Means::Matrix { row, column, shape } => (*shape, SquaredMeans::Matrix { row, column }),
                Means::Vector(v) => ([1, parameter.elements()], SquaredMeans::Vector(v)),
            };
            backend.adafactor(shape, &op, &parameter.grad, &mut parameter.value, means);
        }
    }

    fn state(&self) -> Vec<StateTensor<&Buffer>> {
        let tensors = self.means.iter().enumerate().flat_map(|(parameter, means)| match means {
            Means::Matrix { row, column, .. } => {
                vec![tensor("exp_avg_sq_row", parameter, row), tensor("exp_avg_sq_col", parameter, column)]
            }
            Means::Vector(v) => vec![tensor("exp_avg_sq", parameter, v)],
        });
        tensors.collect()
    }

    fn state_mut(&mut self) -> Vec<StateTensor<&mut Buffer>> {
        let tensors = self.means.iter_mut().enumerate().flat_map(|(parameter, means)| match means {
            Means::Matrix { row, column, .. } => {
                vec![tensor("exp_avg_sq_row", parameter, row), tensor("exp_avg_sq_col", parameter, column)]
            }
            Means::Vector(v) => vec![tensor("exp_avg_sq", parameter, v)],
        });
        tensors.collect()
    }
}

fn tensor<B: Borrow<Buffer>>(kind: &'static str, parameter: usize, buffer: B) -> StateTensor<B> {
    let shape = vec![buffer.borrow().len()];
    StateTensor { kind, parameter, shape, buffer }
}
