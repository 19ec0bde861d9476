//! A linear layer with an optional low-rank branch: `y = x·Wᵀ (+ b) + s·(dropout(x)·Aᵀ)·Bᵀ`.

use crate::lora::{Branch, BranchScratch, Dora, Role};
use crate::parameter::{Parameter, Weight, WeightMaker};
use crate::pass::Pass;
use crate::tuning::Plan;
use foundry_kernels::{Backend, Buffer, Matmul};

/// Weight `[outputs, inputs]`, bias and branch of one module.
pub(crate) struct Linear {
    pub(crate) inputs: usize,
    pub(crate) outputs: usize,
    pub(crate) weight: Weight,
    pub(crate) bias: Option<Weight>,
    pub(crate) lora: Option<Branch>,
}

impl Linear {
    /// Allocates the module as the plan of the tuning says.
    pub(crate) fn allocate(
        maker: &mut WeightMaker<'_>,
        plan: &mut Plan<'_>,
        module: String,
        [outputs, inputs]: [usize; 2],
        has_bias: bool,
    ) -> Self {
        let weight = maker.linear(&module, plan.own(&module, "weight"), [outputs, inputs]);
        let bias = has_bias.then(|| maker.vector(plan.own(&module, "bias"), outputs));
        let lora = (plan.role(&module) == Role::Adapted)
            .then(|| Branch::allocate(maker, plan, &module, [outputs, inputs]));
        Self { inputs, outputs, weight, bias, lora }
    }

    /// Anything in here has a gradient.
    pub(crate) fn is_trained(&self) -> bool {
        self.weight.is_trained()
            || self.bias.as_ref().is_some_and(Weight::is_trained)
            || self.lora.as_ref().is_some_and(|lora| lora.a.is_trained())
    }

    /// Weight, bias and the branch's, as far as they exist.
    pub(crate) fn weights(&self) -> impl Iterator<Item = &Weight> {
        let branch = self.lora.iter().flat_map(Branch::weights);
        std::iter::once(&self.weight).chain(&self.bias).chain(branch)
    }

    /// The same, to be written.
    pub(crate) fn weights_mut(&mut self) -> impl Iterator<Item = &mut Weight> {
        let branch = self.lora.iter_mut().flat_map(Branch::weights_mut);
        std::iter::once(&mut self.weight).chain(&mut self.bias).chain(branch)
    }

    /// The branch with its magnitudes, where it has some (DoRA).
    fn magnitudes(&self) -> Option<(&Branch, &Dora)> {
        let lora = self.lora.as_ref()?;
        Some((lora, lora.dora.as_ref()?))
    }

    /// Rank of the branch, if there is one.
    pub(crate) fn rank(&self) -> Option<usize> {
        self.lora.as_ref().map(|lora| lora.rank)
    }

    /// `y = x·Wᵀ` or `+=`, for `rows` rows of `x`.
    pub(crate) fn base_product(
        &self,
        backend: &dyn Backend,
        rows: usize,
        parameters: &[Parameter],
        x: &Buffer,
        y: &mut Buffer,
        accumulate: bool,
    ) {
        let product = Matmul { accumulate, ..Matmul::nt(rows, self.outputs, self.inputs) };
        self.weight.multiply(backend, parameters, product, x, y);
    }

    /// `dx = dy·W` or `+=`.
    pub(crate) fn base_product_backward(
        &self,
        backend: &dyn Backend,
        rows: usize,
        parameters: &[Parameter],
        dy: &Buffer,
        dx: &mut Buffer,
        accumulate: bool,
    ) {
        let product = Matmul { accumulate, ..Matmul::nn(rows, self.inputs, self.outputs) };
        self.weight.multiply(backend, parameters, product, dy, dx);
    }

    /// `y = …`, or `y += …`. `x_ti` operand, `z_tr` operand, `y_to` operand or f32.
    pub(crate) fn forward(
        &self,
        pass: &Pass<'_>,
        parameters: &[Parameter],
        x: &Buffer,
        z: &mut Option<Buffer>,
        scratch: &mut BranchScratch,
        y: &mut Buffer,
        accumulate: bool,
    ) {
        let (backend, tokens) = (pass.backend, pass.tokens);
        if let Some((lora, dora)) = self.magnitudes() {
            let z = z.as_mut().expect("activations have room for every branch");
            return self.forward_dora(pass, parameters, (lora, dora), x, z, scratch, y, accumulate);
        }
        self.base_product(backend, tokens, parameters, x, y, accumulate);
        if let Some(bias) = &self.bias {
            backend.add_bias(tokens, self.outputs, bias.operand(parameters), y);
        }
        if let Some(lora) = &self.lora {
            let z = z.as_mut().expect("activations have room for every branch");
            self.project_down(pass, parameters, x, z, scratch);
            lora.project_up(pass, parameters, self.outputs, z, &mut scratch.ones, y, true);
        }
    }

    /// `z = dropout(x)·Aᵀ`: the part of the forward that the backward reads.
    pub(crate) fn project_down(
        &self,
        pass: &Pass<'_>,
        parameters: &[Parameter],
        x: &Buffer,
        z: &mut Buffer,
        scratch: &mut BranchScratch,
    ) {
        let Some(lora) = &self.lora else { return };
        let x = lora.dropped(pass, self.inputs, x, &mut scratch.dropped);
        let product = Matmul::nt(pass.tokens, lora.rank, self.inputs);
        pass.backend.matmul(product, x, lora.a.operand(parameters), z);
    }

    /// Adds the gradients of the trained parts, and writes (or adds, if `accumulate`) `dx_ti` where it is wanted.
    pub(crate) fn backward(
        &self,
        pass: &Pass<'_>,
        parameters: &mut [Parameter],
        x: &Buffer,
        z: Option<&Buffer>,
        dy: &Buffer,
        scratch: &mut BranchScratch,
        dx: Option<(&mut Buffer, bool)>,
    ) {
        let (backend, tokens) = (pass.backend, pass.tokens);
        if let Some(dw) = self.weight.grad(parameters) {
            backend.matmul(Matmul::tn(self.outputs, self.inputs, tokens).accumulated(), dy, x, dw);
        }
        if let Some(db) = self.bias.as_ref().and_then(|bias| bias.grad(parameters)) {
            backend.add_bias_backward(tokens, self.outputs, dy, db);
        }
        if let Some((lora, dora)) = self.magnitudes() {
            let z = z.expect("activations have room for every branch");
            return self.backward_dora(pass, parameters, (lora, dora), x, z, dy, scratch, dx);
        }
        let dx = dx.map(|(dx, accumulate)| {
            self.base_product_backward(backend, tokens, parameters, dy, dx, accumulate);
            dx
        });
        if let Some(lora) = &self.lora {
            let z = z.expect("activations have room for every branch");
            lora.backward(pass, parameters, [self.outputs, self.inputs], x, z, dy, scratch, false, dx);
        }
    }
}
