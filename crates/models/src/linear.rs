//! A linear layer with an optional low-rank branch: `y = x·Wᵀ (+ b) + s·(dropout(x)·Aᵀ)·Bᵀ`.

use crate::lora::Role;
use crate::parameter::{Parameter, Weight, WeightMaker};
use crate::pass::Pass;
use crate::seeds::mix;
use crate::tuning::Plan;
use foundry_kernels::{Allocator, Buffer, Dtype, Matmul, MemoryClass};

/// Weight `[outputs, inputs]`, bias and branch of one module.
pub(crate) struct Linear {
    pub(crate) inputs: usize,
    pub(crate) outputs: usize,
    pub(crate) weight: Weight,
    pub(crate) bias: Option<Weight>,
    pub(crate) lora: Option<Branch>,
}

/// The low-rank branch: A `[r, inputs]`, B `[outputs, r]`.
pub(crate) struct Branch {
    pub(crate) a: Weight,
    pub(crate) b: Weight,
    pub(crate) rank: usize,
    scale: f32,
    dropout: f32,
    /// Number of this branch among all: its dropout differs from the others'.
    stream: u64,
}

/// Scratch that all branches share, sized for the widest.
pub(crate) struct BranchScratch {
    /// `dropout(x)`, operand.
    dropped: Option<Buffer>,
    /// `dz_tr`, operand.
    dz: Option<Buffer>,
    /// `dz·A` and its dropout, operands.
    dx: Option<[Buffer; 2]>,
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
        let weight = maker.matrix(plan.own(&module, "weight"), [outputs, inputs]);
        let bias = has_bias.then(|| maker.vector(plan.own(&module, "bias"), outputs));
        let lora = (plan.role(&module) == Role::Adapted).then(|| {
            let spec = plan.lora().expect("only LoRA adapts modules");
            let (rank, scale, dropout) = (spec.r, spec.scale(), spec.lora_dropout as f32);
            let a = maker.matrix(plan.branch(&module, "lora_A"), [rank, inputs]);
            let b = maker.matrix(plan.branch(&module, "lora_B"), [outputs, rank]);
            Branch { a, b, rank, scale, dropout, stream: plan.next_stream() }
        });
        Self { inputs, outputs, weight, bias, lora }
    }

    /// Anything in here has a gradient.
    pub(crate) fn is_trained(&self) -> bool {
        self.weight.is_trained() || self.lora.as_ref().is_some_and(|lora| lora.a.is_trained())
    }

    /// Weight, bias, A and B, as far as they exist.
    pub(crate) fn weights(&self) -> impl Iterator<Item = &Weight> {
        let branch = self.lora.iter().flat_map(|lora| [&lora.a, &lora.b]);
        std::iter::once(&self.weight).chain(&self.bias).chain(branch)
    }

    /// The same, to be written.
    pub(crate) fn weights_mut(&mut self) -> impl Iterator<Item = &mut Weight> {
        let branch = self.lora.iter_mut().flat_map(|lora| [&mut lora.a, &mut lora.b]);
        std::iter::once(&mut self.weight).chain(&mut self.bias).chain(branch)
    }

    /// Rank of the branch, if there is one.
    pub(crate) fn rank(&self) -> Option<usize> {
        self.lora.as_ref().map(|lora| lora.rank)
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
        let product = Matmul { accumulate, ..Matmul::nt(tokens, self.outputs, self.inputs) };
        backend.matmul(product, x, self.weight.operand(parameters), y);
        if let Some(bias) = &self.bias {
            backend.add_bias(tokens, self.outputs, bias.operand(parameters), y);
        }
        if let Some(lora) = &self.lora {
            let z = z.as_mut().expect("activations have room for every branch");
            self.project_down(pass, parameters, x, z, scratch);
            let product = Matmul::nt(tokens, self.outputs, lora.rank).scaled(lora.scale).accumulated();
            backend.matmul(product, z, lora.b.operand(parameters), y);
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
        let dx = dx.map(|(dx, accumulate)| {
            let product = Matmul { accumulate, ..Matmul::nn(tokens, self.inputs, self.outputs) };
            backend.matmul(product, dy, self.weight.operand(parameters), dx);
            dx
        });
        if let Some(lora) = &self.lora {
            let z = z.expect("activations have room for every branch");
            lora.backward(pass, parameters, [self.outputs, self.inputs], x, z, dy, scratch, dx);
        }
    }
}

impl Branch {
    /// The branch's input: `x` itself, or `x` with dropout in training.
    fn dropped<'a>(
        &self,
        pass: &Pass<'_>,
        width: usize,
        x: &'a Buffer,
        dropped: &'a mut Option<Buffer>,
    ) -> &'a Buffer {
        match (pass.dropout_seed, dropped) {
            (Some(seed), Some(dropped)) if self.dropout > 0.0 => {
                pass.backend.dropout(pass.tokens * width, self.dropout, mix(seed, self.stream), x, dropped);
                dropped
            }
            _ => x,
        }
    }

    fn backward(
        &self,
        pass: &Pass<'_>,
        parameters: &mut [Parameter],
        [outputs, inputs]: [usize; 2],
        x: &Buffer,
        z: &Buffer,
        dy: &Buffer,
        scratch: &mut BranchScratch,
        dx: Option<&mut Buffer>,
    ) {
        let (backend, tokens) = (pass.backend, pass.tokens);
        let dz = scratch.dz.as_mut().expect("a trained decoder has scratch for its branches");
        backend.matmul(
            Matmul::nn(tokens, self.rank, outputs).scaled(self.scale),
            dy,
            self.b.operand(parameters),
            dz,
        );
        if let Some(db) = self.b.grad(parameters) {
            backend.matmul(
                Matmul::tn(outputs, self.rank, tokens).scaled(self.scale).accumulated(),
                dy,
                z,
                db,
            );
        }
        if let Some(da) = self.a.grad(parameters) {
            let x = self.dropped(pass, inputs, x, &mut scratch.dropped);
            backend.matmul(Matmul::tn(self.rank, inputs, tokens).accumulated(), dz, x, da);
        }
        let Some(dx) = dx else { return };
        let product = Matmul::nn(tokens, inputs, self.rank);
        match (pass.dropout_seed, &mut scratch.dx) {
            (Some(seed), Some([branch, masked])) if self.dropout > 0.0 => {
                backend.matmul(product, dz, self.a.operand(parameters), branch);
                backend.dropout(tokens * inputs, self.dropout, mix(seed, self.stream), branch, masked);
                backend.add(tokens * inputs, masked, dx);
            }
            _ => backend.matmul(product.accumulated(), dz, self.a.operand(parameters), dx),
        }
    }
}

impl BranchScratch {
    /// Scratch for branches of rank `rank` on inputs up to `width` wide.
    pub(crate) fn allocate(
        alloc: &dyn Allocator,
        plan: &Plan<'_>,
        dtype: Dtype,
        max_tokens: usize,
        width: usize,
    ) -> Self {
        let workspace = |len: usize| alloc.alloc(MemoryClass::Workspace, dtype, max_tokens * len);
        let trained = plan.lora().filter(|_| plan.trains_branches());
        let dropout = trained.is_some_and(|spec| spec.lora_dropout > 0.0);
        Self {
            dropped: dropout.then(|| workspace(width)),
            dz: trained.map(|spec| workspace(spec.r)),
            dx: dropout.then(|| [workspace(width), workspace(width)]),
        }
    }
}
