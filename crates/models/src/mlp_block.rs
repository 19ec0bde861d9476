//! The feed-forward half of a block: forward and backward, facing each other.

use crate::acts::{Gradients, MlpActs, Remade, Scratch};
use crate::linear::Linear;
use crate::lora::BranchScratch;
use crate::norm::Norm;
use crate::parameter::Parameter;
use crate::pass::Pass;
use foundry_kernels::Buffer;

/// Weights of the feed-forward half.
pub(crate) struct MlpBlock {
    pub(crate) post_attention_layernorm: Norm,
    pub(crate) gate_proj: Linear,
    pub(crate) up_proj: Linear,
    pub(crate) down_proj: Linear,
}

impl MlpBlock {
    fn trains_gate_or_up(&self) -> bool {
        self.gate_proj.is_trained() || self.up_proj.is_trained()
    }

    /// Anything in here has a gradient.
    pub(crate) fn is_trained(&self) -> bool {
        self.post_attention_layernorm.weight.is_trained()
            || self.trains_gate_or_up()
            || self.down_proj.is_trained()
    }

    /// Whether the gradients of the normed input, and of `down_proj`'s input, are wanted.
    pub(crate) fn reach(&self, below: bool) -> (bool, bool) {
        let wants_input = below || self.post_attention_layernorm.weight.is_trained();
        (wants_input, wants_input || self.trains_gate_or_up())
    }

    /// `x += down_proj(silu(gate_proj(h)) · up_proj(h))` with `h = norm(x)`.
    pub(crate) fn forward(
        &self,
        pass: &Pass<'_>,
        parameters: &[Parameter],
        x: &mut Buffer,
        acts: &mut MlpActs,
        scratch: &mut BranchScratch,
        remade: &mut Remade,
    ) {
        self.activate(pass, parameters, x, acts, scratch, remade);
        let MlpActs { act, z: [.., z], .. } = acts;
        let act = act.as_ref().unwrap_or_else(|| &*remade.act());
        self.down_proj.forward(pass, parameters, act, z, scratch, x, true);
    }

    /// The forward up to the input of `down_proj`.
    pub(crate) fn activate(
        &self,
        pass: &Pass<'_>,
        parameters: &[Parameter],
        x: &Buffer,
        acts: &mut MlpActs,
        scratch: &mut BranchScratch,
        remade: &mut Remade,
    ) {
        let MlpActs { x: x_mid, rstd, h, gate, up, act, z: [zg, zu, _] } = acts;
        let (backend, tokens) = (pass.backend, pass.tokens);
        if let Some(x_mid) = x_mid {
            backend.copy(tokens * pass.config.hidden_size, x, 0, x_mid, 0);
        }
        let h = h.as_mut().unwrap_or_else(|| remade.norm().0);
        self.post_attention_layernorm.forward(pass, parameters, x, h, rstd);
        self.gate_proj.forward(pass, parameters, h, zg, scratch, gate, false);
        self.up_proj.forward(pass, parameters, h, zu, scratch, up, false);
        let act = act.as_mut().unwrap_or_else(|| remade.act());
        backend.swiglu_forward(tokens * pass.config.intermediate_size, gate, up, act);
    }

    /// From `grads.dx` (of the output) to `grads.dx` (of the stream between the halves). `below`: something under this
    /// half is trained.
    pub(crate) fn backward(
        &self,
        pass: &Pass<'_>,
        parameters: &mut [Parameter],
        acts: &MlpActs,
        grads: &mut Gradients,
        scratch: &mut BranchScratch,
        remade: &mut Remade,
        below: bool,
    ) {
        let MlpActs { x: x_mid, rstd, h, gate, up, act, z: [zg, zu, zd] } = acts;
        let (backend, tokens) = (pass.backend, pass.tokens);
        let (wants_input, wants_act) = self.reach(below);

        let act = match act {
            Some(act) => act,
            None => {
                let act = remade.act();
                if self.down_proj.is_trained() {
                    backend.swiglu_forward(tokens * pass.config.intermediate_size, gate, up, act);
                }
                act
            }
        };
        grads.round_stream(backend, tokens * pass.config.hidden_size);
        let (dy, Scratch { dh, dact, dgate, dup, .. }) = grads.split();
        let dx = wants_act.then_some((&mut *dact, false));
        self.down_proj.backward(pass, parameters, act, zd.as_ref(), dy, scratch, dx);
        if !wants_act {
            return;
        }
        backend.swiglu_backward(tokens * pass.config.intermediate_size, gate, up, dact, dgate, dup);
        let x_mid = x_mid.as_ref().expect("activations of a trained block keep the stream");
        let h = match h {
            Some(h) => h,
            None => {
                let (h, rstd) = remade.norm();
                if self.trains_gate_or_up() {
                    self.post_attention_layernorm.forward(pass, parameters, x_mid, h, rstd);
                }
                h
            }
        };
        let dx = wants_input.then_some((&mut *dh, false));
        self.up_proj.backward(pass, parameters, h, zu.as_ref(), dup, scratch, dx);
        let dx = wants_input.then_some((&mut *dh, true));
        self.gate_proj.backward(pass, parameters, h, zg.as_ref(), dgate, scratch, dx);
        if wants_input {
            self.post_attention_layernorm.backward(pass, parameters, &grads.dh, x_mid, rstd, &mut grads.dx);
        }
    }
}
