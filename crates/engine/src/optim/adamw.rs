//! AdamW (Loshchilov & Hutter 2019) in torch 2.15's order of operations; the arithmetic is the kernel's
//! ([`foundry_kernels::AdamW`]). 8 bytes of state per trained number.

use super::{Optimizer, StateTensor, Update, alike, check_count, factors, shapes};
use crate::arguments::TrainingArgs;
use foundry_kernels::{Allocator, Backend, Buffer, Dtype, MemoryClass};
use foundry_models::Parameter;

/// AdamW over f32 parameters.
pub struct AdamW {
    beta1: f64,
    beta2: f64,
    eps: f64,
    weight_decay: f64,
    /// Factor on the learning rate of each parameter.
    factors: Vec<f64>,
    /// First and second moment of each parameter.
    moments: Vec<[Buffer; 2]>,
    shapes: Vec<Vec<usize>>,
}

impl AdamW {
    /// State for `parameters`, all zero. A plan calls this with a [`foundry_kernels::Meter`] to learn its size.
    pub fn allocate(alloc: &dyn Allocator, parameters: &[Parameter], args: &TrainingArgs) -> Self {
        let zeros = |parameter: &Parameter| {
            [0, 1].map(|_| alloc.alloc(MemoryClass::Optimizer, Dtype::F32, parameter.elements()))
        };
        Self {
            beta1: args.adam_beta1,
            beta2: args.adam_beta2,
            eps: args.adam_epsilon,
            weight_decay: args.weight_decay,
            factors: factors(parameters, args),
            moments: parameters.iter().map(zeros).collect(),
            shapes: shapes(parameters),
        }
    }
}

/// torch's names of the two moments.
const KINDS: [&str; 2] = ["exp_avg", "exp_avg_sq"];

impl Optimizer for AdamW {
    fn name(&self) -> &'static str {
        "adamw"
    }

    fn update(&mut self, backend: &dyn Backend, update: &Update, parameters: &mut [Parameter]) {
        check_count(parameters, self.moments.len());
        for (index, (parameter, [m, v])) in parameters.iter_mut().zip(&mut self.moments).enumerate() {
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
            backend.adamw(parameter.elements(), &op, &parameter.grad, &mut parameter.value, m, v);
        }
    }

    fn state(&self) -> Vec<StateTensor<&Buffer>> {
        let of =
            |which: usize| alike(KINDS[which], &self.shapes, self.moments.iter().map(move |m| &m[which]));
        of(0).chain(of(1)).collect()
    }

    fn state_mut(&mut self) -> Vec<StateTensor<&mut Buffer>> {
        let (m, v): (Vec<_>, Vec<_>) = self.moments.iter_mut().map(|[m, v]| (m, v)).unzip();
        let first = alike(KINDS[0], &self.shapes, m.into_iter());
        first.chain(alike(KINDS[1], &self.shapes, v.into_iter())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use foundry_kernels::{Meter, ReferenceBackend};

    fn parameter(alloc: &dyn Allocator, name: &str, len: usize, decay: bool) -> Parameter {
        let value = alloc.alloc(MemoryClass::Trainable, Dtype::F32, len);
        let grad = alloc.alloc(MemoryClass::Gradients, Dtype::F32, len);
        Parameter { name: name.into(), shape: vec![len], value, grad, decay }
    }

    #[test]
    fn decay_spares_excluded_parameters() {
        let backend = ReferenceBackend::default();
        let args = TrainingArgs { weight_decay: 0.5, ..TrainingArgs::default() };
        let mut parameters =
            [parameter(&backend, "linear.weight", 1, true), parameter(&backend, "norm.weight", 1, false)];
        for parameter in &mut parameters {
            backend.upload(&[2.0], &mut parameter.value, 0);
        }
        let mut adamw = AdamW::allocate(&backend, &parameters, &args);
        let update = Update { step: 1, learning_rate: 0.1, grad_scale: 1.0, seed: 0 };
        adamw.update(&backend, &update, &mut parameters);
        let value = |i: usize| {
            let mut value = [0.0];
            backend.download(&parameters[i].value, 0, &mut value);
            value[0]
        };
        assert_eq!(value(1), 2.0, "no gradient, no decay: no change");
        assert!((value(0) - 1.9).abs() < 1e-6, "2·(1 - 0.1·0.5) = 1.9, got {}", value(0));
    }

    #[test]
    fn matrices_b_and_embeddings_have_learning_rates_of_their_own() {
        let backend = ReferenceBackend::default();
        let args = TrainingArgs {
            learning_rate: 0.1,
            loraplus_lr_ratio: Some(4.0),
            embedding_learning_rate: Some(0.01),
            ..TrainingArgs::default()
        };
        // PEFT 0.21: B's and one-dimensional parameters are LoRA+'s second group.
        let cases = [
            ("base_model.model.model.layers.0.mlp.up_proj.lora_A.weight", vec![1, 1], 0.1),
            ("base_model.model.model.layers.0.mlp.up_proj.lora_B.weight", vec![1, 1], 0.4),
            ("base_model.model.model.layers.0.mlp.up_proj.lora_B.bias", vec![1], 0.4),
            ("base_model.model.model.norm.weight", vec![1], 0.4),
            ("base_model.model.model.embed_tokens.weight", vec![1, 1], 0.01),
            ("base_model.model.lm_head.weight", vec![1, 1], 0.01),
        ];
        let mut parameters: Vec<Parameter> = cases
            .iter()
            .map(|(name, shape, _)| Parameter { shape: shape.clone(), ..parameter(&backend, name, 1, true) })
            .collect();
        for parameter in &mut parameters {
            backend.upload(&[0.5], &mut parameter.grad, 0);
        }
        let mut adamw = AdamW::allocate(&backend, &parameters, &args);
        adamw.update(
            &backend,
            &Update { step: 1, learning_rate: 0.1, grad_scale: 1.0, seed: 0 },
            &mut parameters,
        );
        for (parameter, (name, _, rate)) in parameters.iter().zip(cases) {
            let mut value = [0.0];
            backend.download(&parameter.value, 0, &mut value);
            // The first step of Adam is the learning rate, whatever the gradient.
            assert!((f64::from(value[0]) + rate).abs() < 1e-6, "{name}: {value:?}");
        }
    }

    #[test]
    fn three_steps_equal_torch() {
        // torch.optim.AdamW([p], lr=0.1, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01), p = [1, -2],
        // in float64: each step's gradient, and p after it.
        let torch = [
            ([0.5f32, -1.0], [0.899000002, -1.898000001]),
            ([0.1f32, 0.2], [0.8177969063826518, -1.8449993939894944]),
            ([-0.3f32, 0.0], [0.7959078148551255, -1.8036519313891806]),
        ];
        let backend = ReferenceBackend::default();
        let args = TrainingArgs { weight_decay: 0.01, ..TrainingArgs::default() };
        let mut parameters = [parameter(&backend, "w", 2, true)];
        backend.upload(&[1.0, -2.0], &mut parameters[0].value, 0);
        let mut adamw = AdamW::allocate(&backend, &parameters, &args);
        for (index, (gradient, expected)) in torch.into_iter().enumerate() {
            // Clipping enters as a factor: halving a doubled gradient changes nothing.
            backend.upload(&gradient.map(|g| 2.0 * g), &mut parameters[0].grad, 0);
            let update = Update { step: index as u64 + 1, learning_rate: 0.1, grad_scale: 0.5, seed: 0 };
            adamw.update(&backend, &update, &mut parameters);
            let mut value = [0.0f32; 2];
            backend.download(&parameters[0].value, 0, &mut value);
            for (got, expected) in value.iter().zip(expected) {
                // f32 against f64: some roundings of 6e-8 relative.
                assert!((*got as f64 - expected).abs() < 1e-6, "step {}: {got}, torch {expected}", index + 1);
            }
        }
    }

    #[test]
    fn a_plan_counts_eight_bytes_per_trained_number() {
        let meter = Meter::default();
        let parameters = [parameter(&meter, "a", 1024, true), parameter(&meter, "b", 64, true)];
        let adamw = AdamW::allocate(&meter, &parameters, &TrainingArgs::default());
        let optimizer = meter.allocated().into_iter().find(|(class, _)| *class == MemoryClass::Optimizer);
        assert_eq!(optimizer, Some((MemoryClass::Optimizer, 8 * (1024 + 64))));
        let names: Vec<(&str, usize)> = adamw.state().iter().map(|t| (t.kind, t.parameter)).collect();
        assert_eq!(names, [("exp_avg", 0), ("exp_avg", 1), ("exp_avg_sq", 0), ("exp_avg_sq", 1)]);
    }
}
