//! DoRA (Liu et al. 2024; PEFT 0.21 `tuners/lora/dora.py`): the adapter turns the rows of W, and their lengths `m_o`
//! are trained by themselves.
//!
//! `y = f∘(x·Wᵀ + s·z·Bᵀ) + b` with `f_o = m_o / ‖W_o + s·(B·A)_o‖`; the norm is a constant for the gradient, as in
//! PEFT. With dropout PEFT drops the input of the base as well, but only in what is added to the plain layer:
//! `y = x·Wᵀ + b + (f-1)∘(d·Wᵀ) + f∘(s·z·Bᵀ)`, `d = dropout(x)`.
//!
//! The product `u = d·Wᵀ + s·z·Bᵀ`, which the gradient of `m` needs, is made again in the backward: one product more
//! instead of a buffer as large as the outputs of all layers.

use super::{Branch, BranchScratch};
use crate::linear::Linear;
use crate::parameter::{Parameter, Weight, WeightMaker};
use crate::pass::Pass;
use crate::tuning::Plan;
use foundry_kernels::{Allocator, Backend, Buffer, Dtype, Matmul, MemoryClass, Rescale};

/// The magnitudes of one module.
pub(crate) struct Dora {
    /// `m_o`, f32.
    pub(crate) magnitude: Weight,
    /// `1 / ‖W_o + s·(B·A)_o‖`, f32.
    inverse_norm: Buffer,
    /// `‖W_o‖²`; empty until it is needed, and again when W changes.
    row_squares: Vec<f64>,
}

/// Scratch of all modules.
pub(crate) struct DoraScratch {
    /// `u_to`, f32.
    u: Buffer,
    /// `f∘dy`, operand.
    g: Option<Buffer>,
    /// `A·Wᵀ` `[r, outputs]` and `A·Aᵀ` `[r, r]`, f32.
    projected: Buffer,
    gram: Buffer,
}

impl DoraScratch {
    pub(super) fn allocate(
        alloc: &dyn Allocator,
        dtype: Dtype,
        [max_tokens, width, rank]: [usize; 3],
        is_trained: bool,
    ) -> Self {
        let workspace = |dtype: Dtype, len: usize| alloc.alloc(MemoryClass::Workspace, dtype, len);
        Self {
            u: workspace(Dtype::F32, max_tokens * width),
            g: is_trained.then(|| workspace(dtype, max_tokens * width)),
            projected: workspace(Dtype::F32, rank * width),
            gram: workspace(Dtype::F32, rank * rank),
        }
    }
}

impl Dora {
    pub(super) fn allocate(
        maker: &mut WeightMaker<'_>,
        plan: &Plan<'_>,
        module: &str,
        outputs: usize,
    ) -> Self {
        let inverse_norm = maker.alloc.alloc(MemoryClass::Weights, Dtype::F32, outputs);
        let magnitude = maker.vector(plan.branch(module, "lora_magnitude_vector"), outputs);
        Self { magnitude, inverse_norm, row_squares: Vec::new() }
    }

    /// The base weights have changed.
    pub(crate) fn forget_base(&mut self) {
        self.row_squares.clear();
    }

    fn rescale<'a>(
        &'a self,
        parameters: &'a [Parameter],
        [rows, width]: [usize; 2],
        shift: f32,
        accumulate: bool,
    ) -> Rescale<'a> {
        let magnitude = self.magnitude.operand(parameters);
        Rescale { rows, width, magnitude, inverse_norm: &self.inverse_norm, shift, accumulate }
    }
}

impl Linear {
    /// [`Linear::forward`] with magnitudes.
    pub(crate) fn forward_dora(
        &self,
        pass: &Pass<'_>,
        parameters: &[Parameter],
        (lora, dora): (&Branch, &Dora),
        x: &Buffer,
        z: &mut Buffer,
        scratch: &mut BranchScratch,
        y: &mut Buffer,
        accumulate: bool,
    ) {
        let (backend, shape) = (pass.backend, [pass.tokens, self.outputs]);
        self.project_down(pass, parameters, x, z, scratch);
        let BranchScratch { dropped, ones, dora: Some(DoraScratch { u, .. }), .. } = scratch else {
            unreachable!("a decoder with magnitudes has scratch for them");
        };
        let is_plain = !lora.drops(pass);
        if is_plain {
            self.base_product(backend, pass.tokens, parameters, x, u, false);
            lora.project_up(pass, parameters, self.outputs, z, ones, u, true);
            backend.rescale(&dora.rescale(parameters, shape, 0.0, accumulate), u, y);
        } else {
            // What `project_down` dropped is still there.
            let dropped = dropped.as_ref().expect("a decoder with dropout has room for it");
            self.base_product(backend, pass.tokens, parameters, x, y, accumulate);
            self.base_product(backend, pass.tokens, parameters, dropped, u, false);
            backend.rescale(&dora.rescale(parameters, shape, -1.0, true), u, y);
            lora.project_up(pass, parameters, self.outputs, z, ones, u, false);
            backend.rescale(&dora.rescale(parameters, shape, 0.0, true), u, y);
        }
        if let Some(bias) = &self.bias {
            backend.add_bias(pass.tokens, self.outputs, bias.operand(parameters), y);
        }
    }

    /// [`Linear::backward`] with magnitudes; the base weight is frozen.
    pub(crate) fn backward_dora(
        &self,
        pass: &Pass<'_>,
        parameters: &mut [Parameter],
        (lora, dora): (&Branch, &Dora),
        x: &Buffer,
        z: &Buffer,
        dy: &Buffer,
        scratch: &mut BranchScratch,
        mut dx: Option<(&mut Buffer, bool)>,
    ) {
        let (backend, tokens, outputs) = (pass.backend, pass.tokens, self.outputs);
        let shape = [tokens, outputs];
        let mut own = scratch.dora.take().expect("a decoder with magnitudes has scratch for them");
        let g = own.g.as_mut().expect("a trained decoder has scratch for its branches");
        {
            let input = lora.dropped(pass, self.inputs, x, &mut scratch.dropped);
            self.base_product(backend, tokens, parameters, input, &mut own.u, false);
        }
        lora.project_up(pass, parameters, outputs, z, &mut scratch.ones, &mut own.u, true);
        if let (magnitude, Some(dm)) = dora.magnitude.operand_and_grad(parameters) {
            let inverse_norm = &dora.inverse_norm;
            let (rows, width) = (tokens, outputs);
            let op = Rescale { rows, width, magnitude, inverse_norm, shift: 0.0, accumulate: true };
            backend.rescale_backward(&op, dy, &own.u, dm);
        }
        let is_plain = !lora.drops(pass);
        if let Some((dx, accumulate)) = &mut dx {
            if is_plain {
                backend.rescale(&dora.rescale(parameters, shape, 0.0, false), dy, g);
                self.base_product_backward(backend, tokens, parameters, g, dx, *accumulate);
            } else {
                self.base_product_backward(backend, tokens, parameters, dy, dx, *accumulate);
                backend.rescale(&dora.rescale(parameters, shape, -1.0, false), dy, g);
                let [begun, _] = scratch.dx.as_mut().expect("a decoder with dropout has room for it");
                self.base_product_backward(backend, tokens, parameters, g, begun, false);
            }
        }
        if !is_plain || dx.is_none() {
            backend.rescale(&dora.rescale(parameters, shape, 0.0, false), dy, g);
        }
        let dx = dx.map(|(dx, _)| dx);
        lora.backward(pass, parameters, [outputs, self.inputs], x, z, g, scratch, true, dx);
        scratch.dora = Some(own);
    }

    /// Brings the norms of `W + s·B·A` up to date. `begin`: the magnitudes become those norms.
    ///
    /// `‖W_o + s·B_o·A‖² = ‖W_o‖² + B_o·(2s·A·W_oᵀ + s²·A·Aᵀ·B_oᵀ)`: two narrow products instead of the whole matrix.
    pub(crate) fn refresh_norms(
        &mut self,
        backend: &dyn Backend,
        parameters: &mut [Parameter],
        scratch: &mut BranchScratch,
        begin: bool,
    ) {
        let (Some(lora), Some(own)) = (&self.lora, &mut scratch.dora) else { return };
        let (Some(dora), r, outputs, inputs) = (&lora.dora, lora.rank, self.outputs, self.inputs) else {
            return;
        };
        let row_squares =
            if dora.row_squares.is_empty() { self.row_squares(backend, parameters) } else { Vec::new() };
        let a = lora.a.operand(parameters);
        self.base_product(backend, r, parameters, a, &mut own.projected, false);
        backend.matmul(Matmul::nt(r, r, inputs), a, a, &mut own.gram);
        let mut projected = vec![0.0; r * outputs];
        backend.download(&own.projected, 0, &mut projected);
        let mut gram = vec![0.0; r * r];
        backend.download(&own.gram, 0, &mut gram);
        let mut b = vec![0.0; outputs * r];
        backend.download(lora.b.operand(parameters), 0, &mut b);
        let scale = f64::from(lora.scale);
        let Some(Branch { dora: Some(dora), .. }) = &mut self.lora else { unreachable!("seen above") };
        if !row_squares.is_empty() {
            dora.row_squares = row_squares;
        }
        let norms: Vec<f64> = b
            .chunks_exact(r)
            .enumerate()
            .map(|(o, b)| {
                let added: f64 = (0..r)
                    .map(|i| {
                        f64::from(b[i]) * {
                            let turned: f32 = gram[i * r..][..r].iter().zip(b).map(|(m, b)| m * b).sum();
                            2.0 * scale * f64::from(projected[i * outputs + o])
                                + scale * scale * f64::from(turned)
                        }
                    })
                    .sum();
                (dora.row_squares[o] + added).max(0.0).sqrt()
            })
            .collect();
        // A row of zeros stays one.
        let inverse: Vec<f32> = norms.iter().map(|n| if *n > 0.0 { (1.0 / n) as f32 } else { 0.0 }).collect();
        backend.upload(&inverse, &mut dora.inverse_norm, 0);
        if begin {
            let magnitudes: Vec<f32> = norms.iter().map(|n| *n as f32).collect();
            dora.magnitude.write(backend, parameters, &magnitudes, 0);
        }
    }

    /// `‖W_o‖²` of every row.
    fn row_squares(&self, backend: &dyn Backend, parameters: &[Parameter]) -> Vec<f64> {
        let mut row = vec![0.0; self.inputs];
        (0..self.outputs)
            .map(|o| {
                self.weight.read(backend, parameters, o * self.inputs, &mut row);
                row.iter().map(|w| f64::from(*w).powi(2)).sum()
            })
            .collect()
    }
}
