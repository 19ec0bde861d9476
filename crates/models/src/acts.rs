//! What a forward keeps for its backward, and the scratch of a backward, allocated once for the longest row.

use crate::DecoderConfig;
use crate::block::Block;
use crate::linear::Linear;
use crate::storage::Kept;
use foundry_kernels::{Allocator, Backend, Buffer, Dtype, MemoryClass};

/// Activations of one block.
pub(crate) struct BlockActs {
    pub(crate) attention: AttentionActs,
    pub(crate) mlp: MlpActs,
}

/// Activations of the attention half. `op`: the compute dtype.
pub(crate) struct AttentionActs {
    /// `rstd_t` of the norm, f32.
    pub(crate) rstd: Buffer,
    /// Normed input `h_td`, op; `None`: made again in [`Remade`].
    pub(crate) h: Option<Buffer>,
    /// Rotated queries `q_tnh`, op.
    pub(crate) q: Buffer,
    /// Rotated keys `k_tkh`, op.
    pub(crate) k: Buffer,
    /// Values `v_tkh`, op.
    pub(crate) v: Buffer,
    /// Attention's output `out_tnh`, op.
    pub(crate) out: Buffer,
    /// Log-sum-exp of the scores `lse_nt`, f32.
    pub(crate) lse: Buffer,
    /// `z_tr` of the branches of q, k, v, o.
    pub(crate) z: [Option<Buffer>; 4],
}

/// Activations of the feed-forward half.
pub(crate) struct MlpActs {
    /// The stream between the halves `x_td`, f32; only kept for a backward.
    pub(crate) x: Option<Buffer>,
    /// `rstd_t` of the norm, f32.
    pub(crate) rstd: Buffer,
    /// Normed input `h_td`, op; `None`: made again in [`Remade`].
    pub(crate) h: Option<Buffer>,
    /// `gate_tf`, op.
    pub(crate) gate: Buffer,
    /// `up_tf`, op.
    pub(crate) up: Buffer,
    /// `silu(gate)·up`, op; `None`: made again in [`Remade`].
    pub(crate) act: Option<Buffer>,
    /// `z_tr` of the branches of gate, up, down.
    pub(crate) z: [Option<Buffer>; 3],
}

impl BlockActs {
    /// Buffers for rows of up to `max_tokens`, shared by `blocks`; `for_backward`: also what only a backward reads;
    /// `kept`: what they hold between a forward and its backward.
    pub(crate) fn allocate(
        alloc: &dyn Allocator,
        config: &DecoderConfig,
        blocks: &[&Block],
        op: Dtype,
        max_tokens: usize,
        for_backward: bool,
        kept: Kept,
    ) -> Self {
        let is_whole = kept != Kept::Products;
        let kept =
            |dtype: Dtype, width: usize| alloc.alloc(MemoryClass::Activations, dtype, max_tokens * width);
        let z = |of: fn(&Block) -> &Linear| {
            blocks.iter().filter_map(|block| of(block).rank()).max().map(|rank| kept(op, rank))
        };
        let (width, ffn) = (config.hidden_size, config.intermediate_size);
        Self {
            attention: AttentionActs {
                rstd: kept(Dtype::F32, 1),
                h: is_whole.then(|| kept(op, width)),
                q: kept(op, config.query_width()),
                k: kept(op, config.key_value_width()),
                v: kept(op, config.key_value_width()),
                out: kept(op, config.query_width()),
                lse: kept(Dtype::F32, config.num_attention_heads),
                z: [
                    z(|block| &block.attention.q_proj),
                    z(|block| &block.attention.k_proj),
                    z(|block| &block.attention.v_proj),
                    z(|block| &block.attention.o_proj),
                ],
            },
            mlp: MlpActs {
                x: for_backward.then(|| kept(Dtype::F32, width)),
                rstd: kept(Dtype::F32, 1),
                h: is_whole.then(|| kept(op, width)),
                gate: kept(op, ffn),
                up: kept(op, ffn),
                act: is_whole.then(|| kept(op, ffn)),
                z: [
                    z(|block| &block.mlp.gate_proj),
                    z(|block| &block.mlp.up_proj),
                    z(|block| &block.mlp.down_proj),
                ],
            },
        }
    }
}

/// What blocks that keep only the results of products make again, shared by all of them.
pub(crate) struct Remade(Option<[Buffer; 3]>);

impl Remade {
    /// `is_used`: some block needs it.
    pub(crate) fn allocate(
        alloc: &dyn Allocator,
        config: &DecoderConfig,
        op: Dtype,
        max_tokens: usize,
        is_used: bool,
    ) -> Self {
        let scratch =
            |dtype: Dtype, width: usize| alloc.alloc(MemoryClass::Workspace, dtype, max_tokens * width);
        Self(is_used.then(|| {
            [scratch(op, config.hidden_size), scratch(Dtype::F32, 1), scratch(op, config.intermediate_size)]
        }))
    }

    fn buffers(&mut self) -> &mut [Buffer; 3] {
        self.0.as_mut().expect("a block that keeps no norms has room to make them again")
    }

    /// Normed input `h_td`, op, and `rstd_t` of its norm, f32.
    pub(crate) fn norm(&mut self) -> (&mut Buffer, &mut Buffer) {
        let [h, rstd, _] = self.buffers();
        (h, rstd)
    }

    /// `silu(gate)·up`, op.
    pub(crate) fn act(&mut self) -> &mut Buffer {
        let [.., act] = self.buffers();
        act
    }
}

/// Gradients of activations, shared by all blocks.
pub(crate) struct Gradients {
    /// Gradient of the residual stream `dx_td`, f32.
    pub(crate) dx: Buffer,
    /// The same in the compute dtype, where that is not f32.
    dy: Option<Buffer>,
    /// Gradient of a norm's output `dh_td`, f32.
    pub(crate) dh: Buffer,
    /// Gradient of attention's output `dout_tnh`, op.
    pub(crate) dout: Buffer,
    /// `dq_tnh`, op.
    pub(crate) dq: Buffer,
    /// `dk_tkh`, op.
    pub(crate) dk: Buffer,
    /// `dv_tkh`, op.
    pub(crate) dv: Buffer,
    /// Gradient of `silu(gate)·up`, op.
    pub(crate) dact: Buffer,
    /// `dgate_tf`, op.
    pub(crate) dgate: Buffer,
    /// `dup_tf`, op.
    pub(crate) dup: Buffer,
}

impl Gradients {
    pub(crate) fn allocate(
        alloc: &dyn Allocator,
        config: &DecoderConfig,
        op: Dtype,
        max_tokens: usize,
    ) -> Self {
        let scratch =
            |dtype: Dtype, width: usize| alloc.alloc(MemoryClass::Workspace, dtype, max_tokens * width);
        let (width, ffn) = (config.hidden_size, config.intermediate_size);
        Self {
            dx: scratch(Dtype::F32, width),
            dy: (op != Dtype::F32).then(|| scratch(op, width)),
            dh: scratch(Dtype::F32, width),
            dout: scratch(op, config.query_width()),
            dq: scratch(op, config.query_width()),
            dk: scratch(op, config.key_value_width()),
            dv: scratch(op, config.key_value_width()),
            dact: scratch(op, ffn),
            dgate: scratch(op, ffn),
            dup: scratch(op, ffn),
        }
    }

    /// Brings `dy` up to date with the first `len` elements of `dx`.
    pub(crate) fn round_stream(&mut self, backend: &dyn Backend, len: usize) {
        if let Some(dy) = &mut self.dy {
            backend.copy(len, &self.dx, 0, dy, 0);
        }
    }

    /// The stream's gradient as an operand of products, and the buffers around it.
    pub(crate) fn split(&mut self) -> (&Buffer, Scratch<'_>) {
        let Self { dx, dy, dh, dout, dq, dk, dv, dact, dgate, dup } = self;
        (dy.as_ref().unwrap_or(dx), Scratch { dh, dout, dq, dk, dv, dact, dgate, dup })
    }
}

/// [`Gradients`] without the stream.
pub(crate) struct Scratch<'a> {
    pub(crate) dh: &'a mut Buffer,
    pub(crate) dout: &'a mut Buffer,
    pub(crate) dq: &'a mut Buffer,
    pub(crate) dk: &'a mut Buffer,
    pub(crate) dv: &'a mut Buffer,
    pub(crate) dact: &'a mut Buffer,
    pub(crate) dgate: &'a mut Buffer,
    pub(crate) dup: &'a mut Buffer,
}
