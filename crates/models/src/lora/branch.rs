//! The low-rank branch of a linear layer: forward and backward, and the scratch that all branches share.

use super::dora::Dora;
use crate::parameter::{Parameter, Weight, WeightMaker};
use crate::pass::Pass;
use crate::seeds::mix;
use crate::tuning::Plan;
use foundry_kernels::{Allocator, Buffer, Dtype, Matmul, MemoryClass};

/// A `[r, inputs]`, B `[outputs, r]`, and what its variants add.
pub(crate) struct Branch {
    pub(crate) a: Weight,
    pub(crate) b: Weight,
    /// Bias of B `[outputs]` (`lora_bias`), in the operands' format.
    pub(crate) bias: Option<Weight>,
    /// Trained magnitudes (DoRA).
    pub(crate) dora: Option<Dora>,
    /// First values of A and B, where they were taken out of the base (PiSSA, OLoRA); f32.
    pub(crate) initial: Option<[Buffer; 2]>,
    pub(crate) rank: usize,
    pub(crate) scale: f32,
    pub(super) dropout: f32,
    /// Number of this branch among all: its dropout differs from the others'.
    pub(super) stream: u64,
}

/// Scratch that all branches share, sized for the widest.
pub(crate) struct BranchScratch {
    /// `dropout(x)`, operand.
    pub(crate) dropped: Option<Buffer>,
    /// `dz_tr`, operand.
    pub(crate) dz: Option<Buffer>,
    /// `dz·A` and its dropout, operands.
    pub(crate) dx: Option<[Buffer; 2]>,
    /// Ones `[T]`, operand: a bias as a product of rank 1.
    pub(crate) ones: Option<Buffer>,
    /// DoRA's.
    pub(crate) dora: Option<super::dora::DoraScratch>,
}

impl Branch {
    /// Allocates the branch of `module` `[outputs, inputs]` as the adapter's settings say.
    pub(crate) fn allocate(
        maker: &mut WeightMaker<'_>,
        plan: &mut Plan<'_>,
        module: &str,
        [outputs, inputs]: [usize; 2],
    ) -> Self {
        let spec = plan.lora().expect("only LoRA adapts modules");
        let rank = spec.rank_of(module);
        let a = maker.matrix(plan.branch(module, "lora_A.weight"), [rank, inputs]);
        let b = maker.matrix(plan.branch(module, "lora_B.weight"), [outputs, rank]);
        let bias = spec.lora_bias.then(|| maker.operand_vector(plan.branch(module, "lora_B.bias"), outputs));
        let dora = spec.use_dora.then(|| Dora::allocate(maker, plan, module, outputs));
        let keeps = spec.init_lora_weights.changes_base();
        let first = |len: usize| maker.alloc.alloc(MemoryClass::Weights, Dtype::F32, len);
        Self {
            a,
            b,
            bias,
            dora,
            initial: keeps.then(|| [first(rank * inputs), first(outputs * rank)]),
            rank,
            scale: spec.scale_of(module),
            dropout: spec.lora_dropout as f32,
            stream: plan.next_stream(),
        }
    }

    /// A, B, B's bias and the magnitudes, as far as they exist.
    pub(crate) fn weights(&self) -> impl Iterator<Item = &Weight> {
        [&self.a, &self.b].into_iter().chain(&self.bias).chain(self.dora.as_ref().map(|dora| &dora.magnitude))
    }

    /// The same, to be written.
    pub(crate) fn weights_mut(&mut self) -> impl Iterator<Item = &mut Weight> {
        let Self { a, b, bias, dora, .. } = self;
        [a, b].into_iter().chain(bias).chain(dora.as_mut().map(|dora| &mut dora.magnitude))
    }

    /// Dropout acts in this pass.
    pub(crate) fn drops(&self, pass: &Pass<'_>) -> bool {
        pass.dropout_seed.is_some() && self.dropout > 0.0
    }

    /// The branch's input: `x` itself, or `x` with dropout in training.
    pub(crate) fn dropped<'a>(
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

    /// `y (+)= s·(z·Bᵀ + b)`.
    pub(crate) fn project_up(
        &self,
        pass: &Pass<'_>,
        parameters: &[Parameter],
        outputs: usize,
        z: &Buffer,
        ones: &mut Option<Buffer>,
        y: &mut Buffer,
        accumulate: bool,
    ) {
        let product = Matmul { accumulate, ..Matmul::nt(pass.tokens, outputs, self.rank).scaled(self.scale) };
        pass.backend.matmul(product, z, self.b.operand(parameters), y);
        if let (Some(bias), Some(ones)) = (&self.bias, ones) {
            pass.backend.fill(pass.tokens, 1.0, ones);
            let product = Matmul::nt(pass.tokens, outputs, 1).scaled(self.scale).accumulated();
            pass.backend.matmul(product, ones, bias.operand(parameters), y);
        }
    }

    /// Gradients of A, B and B's bias from `dy_to`, and `dx += …` where it is wanted. `is_begun`: with dropout, the
    /// first buffer of `scratch.dx` already holds a part of the gradient of `dropout(x)`.
    pub(crate) fn backward(
        &self,
        pass: &Pass<'_>,
        parameters: &mut [Parameter],
        [outputs, inputs]: [usize; 2],
        x: &Buffer,
        z: &Buffer,
        dy: &Buffer,
        scratch: &mut BranchScratch,
        is_begun: bool,
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
        let bias = self.bias.as_ref().and_then(|bias| bias.grad(parameters));
        if let (Some(dbias), Some(ones)) = (bias, &mut scratch.ones) {
            backend.fill(tokens, 1.0, ones);
            let product = Matmul::tn(outputs, 1, tokens).scaled(self.scale).accumulated();
            backend.matmul(product, dy, ones, dbias);
        }
        if let Some(da) = self.a.grad(parameters) {
            let x = self.dropped(pass, inputs, x, &mut scratch.dropped);
            backend.matmul(Matmul::tn(self.rank, inputs, tokens).accumulated(), dz, x, da);
        }
        let Some(dx) = dx else { return };
        let product = Matmul::nn(tokens, inputs, self.rank);
        match (pass.dropout_seed, &mut scratch.dx) {
            (Some(seed), Some([branch, masked])) if self.dropout > 0.0 => {
                let product = Matmul { accumulate: is_begun, ..product };
                backend.matmul(product, dz, self.a.operand(parameters), branch);
                backend.dropout(tokens * inputs, self.dropout, mix(seed, self.stream), branch, masked);
                backend.add(tokens * inputs, masked, dx);
            }
            _ => backend.matmul(product.accumulated(), dz, self.a.operand(parameters), dx),
        }
    }
}

impl BranchScratch {
    /// Scratch for the branches of a decoder whose adapted layers read and write up to `width` numbers a token.
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
        let has = |of: fn(&super::LoraSpec) -> bool| plan.lora().is_some_and(of);
        let rank = plan.largest_rank();
        Self {
            dropped: dropout.then(|| workspace(width)),
            dz: trained.map(|_| workspace(rank)),
            dx: dropout.then(|| [workspace(width), workspace(width)]),
            ones: has(|spec| spec.lora_bias).then(|| workspace(1)),
            dora: has(|spec| spec.use_dora).then(|| {
                super::dora::DoraScratch::allocate(alloc, dtype, [max_tokens, width, rank], trained.is_some())
            }),
        }
    }
}
