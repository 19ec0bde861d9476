//! The attention half of a block: forward and backward, facing each other.

use crate::acts::{AttentionActs, Gradients, Remade, Scratch};
use crate::inference::LayerCache;
use crate::linear::Linear;
use crate::lora::BranchScratch;
use crate::norm::Norm;
use crate::parameter::Parameter;
use crate::pass::Pass;
use foundry_kernels::Buffer;

/// Weights of the attention half.
pub(crate) struct AttentionBlock {
    pub(crate) input_layernorm: Norm,
    pub(crate) q_proj: Linear,
    pub(crate) k_proj: Linear,
    pub(crate) v_proj: Linear,
    pub(crate) o_proj: Linear,
}

impl AttentionBlock {
    fn trains_qkv(&self) -> bool {
        [&self.q_proj, &self.k_proj, &self.v_proj].iter().any(|linear| linear.is_trained())
    }

    /// Anything in here has a gradient.
    pub(crate) fn is_trained(&self) -> bool {
        self.input_layernorm.weight.is_trained() || self.trains_qkv() || self.o_proj.is_trained()
    }

    /// Whether the gradients of the normed input, and of the attention's output, are wanted.
    pub(crate) fn reach(&self, below: bool) -> (bool, bool) {
        let wants_input = below || self.input_layernorm.weight.is_trained();
        (wants_input, wants_input || self.trains_qkv())
    }

    /// `x += o_proj(attention(rope(q), rope(k), v))` with `q, k, v` of `norm(x)`.
    pub(crate) fn forward(
        &self,
        pass: &Pass<'_>,
        parameters: &[Parameter],
        x: &mut Buffer,
        acts: &mut AttentionActs,
        scratch: &mut BranchScratch,
        remade: &mut Remade,
        cache: Option<LayerCache<'_>>,
    ) {
        let AttentionActs { rstd, h, q, k, v, out, lse, z: [zq, zk, zv, zo] } = acts;
        let (backend, op, tokens) = (pass.backend, pass.config.attention(), pass.tokens);
        let h = h.as_mut().unwrap_or_else(|| remade.norm().0);
        self.input_layernorm.forward(pass, parameters, x, h, rstd);
        self.q_proj.forward(pass, parameters, h, zq, scratch, q, false);
        self.k_proj.forward(pass, parameters, h, zk, scratch, k, false);
        self.v_proj.forward(pass, parameters, h, zv, scratch, v, false);
        backend.rope_forward(tokens, op.heads, op.head_dim, pass.positions, pass.rope_table, q);
        backend.rope_forward(tokens, op.kv_heads, op.head_dim, pass.positions, pass.rope_table, k);
        match cache {
            None => backend.attention_forward(&op, pass.spans, q, k, v, out, lse),
            Some(cache) => {
                let width = op.kv_heads * op.head_dim;
                for write in cache.writes {
                    let (len, from, to) = (write.count * width, write.row * width, write.slot * width);
                    backend.copy(len, k, from, cache.k, to);
                    backend.copy(len, v, from, cache.v, to);
                }
                let LayerCache { k, v, pages, .. } = cache;
                backend.attention_forward_paged(&op, pass.spans, pages, q, k, v, out, lse);
            }
        }
        self.o_proj.forward(pass, parameters, out, zo, scratch, x, true);
    }

    /// From `grads.dx` (of the output) to `grads.dx` (of the input `x_in`). `below`: something under this is trained.
    pub(crate) fn backward(
        &self,
        pass: &Pass<'_>,
        parameters: &mut [Parameter],
        x_in: &Buffer,
        acts: &AttentionActs,
        grads: &mut Gradients,
        scratch: &mut BranchScratch,
        remade: &mut Remade,
        below: bool,
    ) {
        let AttentionActs { rstd, h, q, k, v, out, lse, z: [zq, zk, zv, zo] } = acts;
        let (backend, op, tokens) = (pass.backend, pass.config.attention(), pass.tokens);
        let (wants_input, wants_qkv) = self.reach(below);

        grads.round_stream(backend, tokens * pass.config.hidden_size);
        let (dy, Scratch { dh, dout, dq, dk, dv, .. }) = grads.split();
        let dx = wants_qkv.then_some((&mut *dout, false));
        self.o_proj.backward(pass, parameters, out, zo.as_ref(), dy, scratch, dx);
        if !wants_qkv {
            return;
        }
        backend.attention_backward(&op, pass.spans, q, k, v, out, lse, dout, dq, dk, dv);
        backend.rope_backward(tokens, op.kv_heads, op.head_dim, pass.positions, pass.rope_table, dk);
        backend.rope_backward(tokens, op.heads, op.head_dim, pass.positions, pass.rope_table, dq);
        let h = match h {
            Some(h) => h,
            None => {
                let (h, rstd) = remade.norm();
                if self.trains_qkv() {
                    self.input_layernorm.forward(pass, parameters, x_in, h, rstd);
                }
                h
            }
        };
        let mut parts = [(&self.v_proj, zv, dv), (&self.k_proj, zk, dk), (&self.q_proj, zq, dq)];
        for (i, (linear, z, dy)) in parts.iter_mut().enumerate() {
            let dx = wants_input.then_some((&mut *dh, i > 0));
            linear.backward(pass, parameters, h, z.as_ref(), dy, scratch, dx);
        }
        if wants_input {
            self.input_layernorm.backward(pass, parameters, &grads.dh, x_in, rstd, &mut grads.dx);
        }
    }
}
