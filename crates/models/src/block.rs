//! One block: attention, then feed-forward, each added to the residual stream.

use crate::DecoderConfig;
use crate::acts::{BlockActs, Gradients, MlpActs, Remade};
use crate::attention_block::AttentionBlock;
use crate::families::Slot;
use crate::inference::LayerCache;
use crate::linear::Linear;
use crate::lora::BranchScratch;
use crate::mlp_block::MlpBlock;
use crate::norm::Norm;
use crate::parameter::{Parameter, Weight, WeightMaker};
use crate::pass::Pass;
use crate::tuning::Plan;
use foundry_kernels::Buffer;

/// How far down a block's backward has to go.
pub(crate) struct Reach {
    /// Which of the linear layers need the gradient of their input, in the order of [`Block::linears`].
    pub(crate) inputs: [bool; 7],
    /// The backward passes through the attention.
    pub(crate) attention: bool,
}

/// Weights of one block.
pub(crate) struct Block {
    pub(crate) attention: AttentionBlock,
    pub(crate) mlp: MlpBlock,
}

impl Block {
    /// Allocates in the order of the family's modules: linear layers, then norms.
    pub(crate) fn allocate(
        maker: &mut WeightMaker<'_>,
        plan: &mut Plan<'_>,
        config: &DecoderConfig,
        layer: usize,
    ) -> Self {
        let family = config.family;
        let (d, f) = (config.hidden_size, config.intermediate_size);
        let (q, kv) = (config.query_width(), config.key_value_width());
        let mut linear = |slot: Slot, shape: [usize; 2], bias: bool| {
            Linear::allocate(maker, plan, family.module(slot, layer), shape, bias)
        };
        let q_proj = linear(Slot::QProj, [q, d], config.attention_bias);
        let k_proj = linear(Slot::KProj, [kv, d], config.attention_bias);
        let v_proj = linear(Slot::VProj, [kv, d], config.attention_bias);
        let o_proj = linear(Slot::OProj, [d, q], config.attention_bias);
        let gate_proj = linear(Slot::GateProj, [f, d], config.mlp_bias);
        let up_proj = linear(Slot::UpProj, [f, d], config.mlp_bias);
        let down_proj = linear(Slot::DownProj, [d, f], config.mlp_bias);
        let mut norm = |slot: Slot| Norm::allocate(maker, plan, &family.module(slot, layer), config);
        let input_layernorm = norm(Slot::InputLayernorm);
        let post_attention_layernorm = norm(Slot::PostAttentionLayernorm);
        Self {
            attention: AttentionBlock { input_layernorm, q_proj, k_proj, v_proj, o_proj },
            mlp: MlpBlock { post_attention_layernorm, gate_proj, up_proj, down_proj },
        }
    }

    /// Anything in here has a gradient.
    pub(crate) fn is_trained(&self) -> bool {
        self.attention.is_trained() || self.mlp.is_trained()
    }

    /// Every weight, in the order of the modules.
    pub(crate) fn weights(&self) -> Vec<&Weight> {
        let norms = [&self.attention.input_layernorm.weight, &self.mlp.post_attention_layernorm.weight];
        self.linears().into_iter().flat_map(Linear::weights).chain(norms).collect()
    }

    /// The same, to be written.
    pub(crate) fn weights_mut(&mut self) -> Vec<&mut Weight> {
        let AttentionBlock { input_layernorm, q_proj, k_proj, v_proj, o_proj } = &mut self.attention;
        let MlpBlock { post_attention_layernorm, gate_proj, up_proj, down_proj } = &mut self.mlp;
        let linears = [q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj];
        let norms = [&mut input_layernorm.weight, &mut post_attention_layernorm.weight];
        linears.into_iter().flat_map(Linear::weights_mut).chain(norms).collect()
    }

    /// Linear layers in the order of the modules.
    pub(crate) fn linears_mut(&mut self) -> [&mut Linear; 7] {
        let AttentionBlock { q_proj, k_proj, v_proj, o_proj, .. } = &mut self.attention;
        let MlpBlock { gate_proj, up_proj, down_proj, .. } = &mut self.mlp;
        [q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj]
    }

    /// The same, to be read.
    pub(crate) fn linears(&self) -> [&Linear; 7] {
        let (a, m) = (&self.attention, &self.mlp);
        [&a.q_proj, &a.k_proj, &a.v_proj, &a.o_proj, &m.gate_proj, &m.up_proj, &m.down_proj]
    }

    /// `below`: something under this block is trained.
    pub(crate) fn reach(&self, below: bool) -> Reach {
        let (qkv, out) = self.attention.reach(below);
        let (gate_up, down) = self.mlp.reach(below || self.attention.is_trained());
        Reach { inputs: [qkv, qkv, qkv, out, gate_up, gate_up, down], attention: out }
    }

    /// `x ← x + attention(norm(x))`, `x ← x + mlp(norm(x))`.
    pub(crate) fn forward(
        &self,
        pass: &Pass<'_>,
        parameters: &[Parameter],
        x: &mut Buffer,
        acts: &mut BlockActs,
        scratch: &mut BranchScratch,
        remade: &mut Remade,
        cache: Option<LayerCache<'_>>,
    ) {
        self.attention.forward(pass, parameters, x, &mut acts.attention, scratch, remade, cache);
        self.mlp.forward(pass, parameters, x, &mut acts.mlp, scratch, remade);
    }

    /// Makes the activations again from the block's input in `x`, as far as the backward reads them.
    pub(crate) fn recompute(
        &self,
        pass: &Pass<'_>,
        parameters: &[Parameter],
        x: &mut Buffer,
        acts: &mut BlockActs,
        scratch: &mut BranchScratch,
        remade: &mut Remade,
    ) {
        self.attention.forward(pass, parameters, x, &mut acts.attention, scratch, remade, None);
        self.mlp.activate(pass, parameters, x, &mut acts.mlp, scratch, remade);
        let MlpActs { act, z: [.., z], .. } = &mut acts.mlp;
        if let Some(z) = z {
            let act = act.as_ref().unwrap_or_else(|| &*remade.act());
            self.mlp.down_proj.project_down(pass, parameters, act, z, scratch);
        }
    }

    /// The forward read upwards. `x_in`: the block's input. `below`: something under this block is trained.
    pub(crate) fn backward(
        &self,
        pass: &Pass<'_>,
        parameters: &mut [Parameter],
        x_in: &Buffer,
        acts: &BlockActs,
        grads: &mut Gradients,
        scratch: &mut BranchScratch,
        remade: &mut Remade,
        below: bool,
    ) {
        let attention = below || self.attention.is_trained();
        self.mlp.backward(pass, parameters, &acts.mlp, grads, scratch, remade, attention);
        if attention {
            let acts = &acts.attention;
            self.attention.backward(pass, parameters, x_in, acts, grads, scratch, remade, below);
        }
    }
}
