//! First values of an adapter, bit for bit those of PEFT 0.21 on PyTorch's CPU generator.

use super::decomposition::{self, Workspace, largest_triplets, leading_q};
use super::{Branch, BranchScratch, InitLora};
use crate::Decoder;
use crate::linear::Linear;
use crate::parameter::Parameter;
use foundry_formats::torch_rng::Mt19937;
use foundry_kernels::Backend;

impl Decoder {
    /// Draws a new adapter as `torch.manual_seed(seed)` followed by `get_peft_model` does: module by module in the
    /// order of `named_modules`, `nn.Linear` draws A, then B (and B's bias); then A is drawn again and B is set to
    /// zero, unless `init_lora_weights` says otherwise. With B zero the adapter changes nothing yet. PiSSA and OLoRA
    /// take their matrices out of the base weights, which must be loaded; DoRA's magnitudes are the norms of the rows.
    pub fn init_lora(&mut self, backend: &dyn Backend, seed: u64) {
        let (crate::Tuning::Lora(spec) | crate::Tuning::Adapted(spec)) = &self.tuning else { return };
        let init = spec.init_lora_weights;
        let mut rng = Mt19937::seeded(seed);
        let mut space = init.changes_base().then(|| self.workspace(backend));
        let Self { blocks, parameters, buffers, embed_tokens, token_rows, .. } = self;
        if let Some(rows) = token_rows {
            rows.begin(backend, embed_tokens, parameters);
        }
        for linear in blocks.iter_mut().flat_map(|block| block.linears_mut()) {
            let Some(lora) = &mut linear.lora else { continue };
            draw(backend, parameters, lora, [linear.outputs, linear.inputs], init, &mut rng);
            if let Some(space) = &mut space {
                take_out(backend, space, parameters, linear, init);
            }
            linear.refresh_norms(backend, parameters, &mut buffers.scratch, true);
        }
    }

    /// Takes out of the base weights what an adapter that PiSSA or OLoRA began has in its stead.
    pub(super) fn change_base(&mut self, backend: &dyn Backend, init: InitLora) {
        let mut space = self.workspace(backend);
        let Self { blocks, parameters, .. } = self;
        for linear in blocks.iter_mut().flat_map(|block| block.linears_mut()) {
            if linear.lora.is_some() {
                take_out(backend, &mut space, parameters, linear, init);
            }
        }
    }

    fn workspace(&self, backend: &dyn Backend) -> Workspace {
        let adapted = || self.blocks.iter().flat_map(|b| b.linears()).filter(|linear| linear.lora.is_some());
        let largest = |of: fn(&Linear) -> usize| adapted().map(of).max().unwrap_or(0);
        let columns = decomposition::columns(largest(|linear| linear.rank().unwrap_or(0)));
        let longest = largest(|linear| linear.inputs.max(linear.outputs));
        Workspace::allocate(backend, largest(|linear| linear.inputs * linear.outputs), longest, columns)
    }

    /// Brings the norms that DoRA divides by up to date.
    pub(crate) fn refresh_norms(&mut self, backend: &dyn Backend) {
        let Self { blocks, parameters, buffers, .. } = self;
        refresh_all(
            backend,
            blocks.iter_mut().flat_map(|b| b.linears_mut()),
            parameters,
            &mut buffers.scratch,
        );
    }
}

fn refresh_all<'a>(
    backend: &dyn Backend,
    linears: impl Iterator<Item = &'a mut Linear>,
    parameters: &mut [Parameter],
    scratch: &mut BranchScratch,
) {
    if scratch.dora.is_some() {
        linears.for_each(|linear| linear.refresh_norms(backend, parameters, scratch, false));
    }
}

/// What PyTorch draws for one branch.
fn draw(
    backend: &dyn Backend,
    parameters: &mut [Parameter],
    lora: &mut Branch,
    shape: [usize; 2],
    init: InitLora,
    rng: &mut Mt19937,
) {
    let [a, b, bias] = drawn(shape, lora.rank, lora.bias.is_some(), init, rng);
    lora.a.write(backend, parameters, &a, 0);
    lora.b.write(backend, parameters, &b, 0);
    if let Some(slot) = &mut lora.bias {
        slot.write(backend, parameters, &bias, 0);
    }
}

/// A `[rank, inputs]`, B `[outputs, rank]` and the bias of B (empty without one) of a new branch: `nn.Linear` draws
/// them, PEFT's `reset_lora_parameters` draws A again.
pub(super) fn drawn(
    [outputs, inputs]: [usize; 2],
    rank: usize,
    has_bias: bool,
    init: InitLora,
    rng: &mut Mt19937,
) -> [Vec<f32>; 3] {
    let mut a = vec![0.0; rank * inputs];
    let mut b = vec![0.0; outputs * rank];
    let mut bias = vec![0.0; if has_bias { outputs } else { 0 }];
    kaiming_uniform(rng, inputs, &mut a);
    kaiming_uniform(rng, rank, &mut b);
    if has_bias {
        let bound = 1.0 / (rank as f64).sqrt();
        rng.fill_uniform_f32(&mut bias, -bound as f32, bound as f32);
    }
    match init {
        InitLora::Default => kaiming_uniform(rng, inputs, &mut a),
        InitLora::Gaussian => rng.fill_normal_f32(&mut a, 0.0, (1.0 / rank as f64) as f32),
        InitLora::Random | InitLora::Pissa | InitLora::PissaIterations(_) | InitLora::Olora => {}
    }
    if matches!(init, InitLora::Default | InitLora::Gaussian) {
        b.fill(0.0);
        bias.fill(0.0);
    }
    [a, b, bias]
}

/// `W ← W - s·B·A` with the A and B that stand for the largest part of W; they are kept as the branch's first values.
fn take_out(
    backend: &dyn Backend,
    space: &mut Workspace,
    parameters: &mut [Parameter],
    linear: &mut Linear,
    init: InitLora,
) {
    let shape @ [outputs, inputs] = [linear.outputs, linear.inputs];
    let Some(lora) = &mut linear.lora else { return };
    let (r, scale) = (lora.rank, f64::from(lora.scale));
    let mut w = vec![0.0; outputs * inputs];
    linear.weight.read(backend, parameters, 0, &mut w);
    let (mut a, mut b) = (vec![0.0f32; r * inputs], vec![0.0f32; outputs * r]);
    if init == InitLora::Olora {
        for (k, q) in leading_q(&w, shape, r).iter().enumerate() {
            let mut row = vec![0.0f64; inputs];
            for (o, q) in q.iter().enumerate() {
                b[o * r + k] = *q as f32;
                row.iter_mut().zip(&w[o * inputs..]).for_each(|(x, w)| *x += q * f64::from(*w));
            }
            a[k * inputs..][..inputs].iter_mut().zip(&row).for_each(|(a, x)| *a = *x as f32);
        }
    } else {
        let rounds = if let InitLora::PissaIterations(rounds) = init { Some(rounds) } else { None };
        let found = largest_triplets(backend, space, &w, shape, r, rounds);
        for (k, ((u, s), v)) in found.u.iter().zip(&found.s).zip(&found.v).enumerate() {
            let root = (s / scale).sqrt();
            a[k * inputs..][..inputs].iter_mut().zip(v).for_each(|(a, v)| *a = (root * v) as f32);
            u.iter().enumerate().for_each(|(o, u)| b[o * r + k] = (root * u) as f32);
        }
    }
    for (o, row) in w.chunks_exact_mut(inputs).enumerate() {
        for k in 0..r {
            let factor = lora.scale * b[o * r + k];
            row.iter_mut().zip(&a[k * inputs..]).for_each(|(w, a)| *w -= factor * a);
        }
    }
    linear.weight.write(backend, parameters, &w, 0);
    lora.a.write(backend, parameters, &a, 0);
    lora.b.write(backend, parameters, &b, 0);
    if let Some([first_a, first_b]) = &mut lora.initial {
        backend.upload(&a, first_a, 0);
        backend.upload(&b, first_b, 0);
    }
    if let Some(dora) = &mut lora.dora {
        dora.forget_base();
    }
}

/// `nn.init.kaiming_uniform_(a=√5)` (torch 2.15 `nn/init.py`), in its order of float64 operations.
fn kaiming_uniform(rng: &mut Mt19937, fan_in: usize, values: &mut [f32]) {
    let slope = 5f64.sqrt();
    let gain = (2.0 / (1.0 + slope * slope)).sqrt();
    let bound = 3f64.sqrt() * (gain / (fan_in as f64).sqrt());
    rng.fill_uniform_f32(values, -bound as f32, bound as f32);
}
