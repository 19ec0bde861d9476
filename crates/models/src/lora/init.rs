//! First values of an adapter, bit for bit those of PEFT 0.21 on PyTorch's CPU generator.

use crate::Decoder;
use foundry_formats::torch_rng::Mt19937;
use foundry_kernels::Backend;

impl Decoder {
    /// Draws a new adapter as `torch.manual_seed(seed)` followed by `get_peft_model` does: module by module in the
    /// order of `named_modules`, `nn.Linear` draws A, then B; then A is drawn again and B is set to zero (unless
    /// `init_lora_weights` is false). With B zero the adapter changes nothing yet.
    pub fn init_lora(&mut self, backend: &dyn Backend, seed: u64) {
        let redraw = match &self.tuning {
            crate::Tuning::Lora(spec) | crate::Tuning::Adapted(spec) => spec.init_lora_weights,
            crate::Tuning::Full | crate::Tuning::Frozen => return,
        };
        let mut rng = Mt19937::seeded(seed);
        let Self { blocks, parameters, .. } = self;
        for linear in blocks.iter_mut().flat_map(|block| block.linears_mut()) {
            let (inputs, outputs) = (linear.inputs, linear.outputs);
            let Some(lora) = &mut linear.lora else { continue };
            let mut a = vec![0.0; lora.rank * inputs];
            let mut b = vec![0.0; outputs * lora.rank];
            kaiming_uniform(&mut rng, inputs, &mut a);
            kaiming_uniform(&mut rng, lora.rank, &mut b);
            if redraw {
                kaiming_uniform(&mut rng, inputs, &mut a);
                b.fill(0.0);
            }
            lora.a.write(backend, parameters, &a, 0);
            lora.b.write(backend, parameters, &b, 0);
        }
    }
}

/// `nn.init.kaiming_uniform_(a=√5)` (torch 2.15 `nn/init.py`), in its order of float64 operations.
fn kaiming_uniform(rng: &mut Mt19937, fan_in: usize, values: &mut [f32]) {
    let slope = 5f64.sqrt();
    let gain = (2.0 / (1.0 + slope * slope)).sqrt();
    let bound = 3f64.sqrt() * (gain / (fan_in as f64).sqrt());
    rng.fill_uniform_f32(values, -bound as f32, bound as f32);
}
