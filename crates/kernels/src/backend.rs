//! The one interface between models and machines.
//!
//! Conventions that hold for every operation:
//! - Buffers are dense and row-major; a buffer may be longer than the operation needs (work space is sized for the
//!   longest row), only the stated leading part is read or written.
//! - "operand" buffers may be [`Dtype::F32`](crate::Dtype) or [`Dtype::Bf16`](crate::Dtype): activations that feed a
//!   matrix product, weights. All operands of one call have the same dtype. Arithmetic is in f32 whatever the
//!   operands are.
//! - `f32` in a shape comment means that buffer is always [`Dtype::F32`](crate::Dtype).
//! - `+=` means that the result is added to what the buffer holds.
//! - Results have the same bits for any number of threads and on every run.
//! - A shape or dtype that does not fit is a bug of the caller: the operation panics and names both.

use crate::{
    Allocator, Buffer, Pages, QuantizedMatrix, QuantizedParts, Rounding, SharedBuffer, SharedMatrix,
};

/// `C = alpha · op(A) · op(B)` (or `+=`), `op(A)` is `m × k`, `op(B)` is `k × n`, `C` is `m × n`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Matmul {
    /// Rows of `C`.
    pub m: usize,
    /// Columns of `C`.
    pub n: usize,
    /// Length of the sum.
    pub k: usize,
    /// `A` is stored `k × m` and used transposed.
    pub trans_a: bool,
    /// `B` is stored `n × k` and used transposed (a linear layer's forward: `Y = X · Wᵀ`).
    pub trans_b: bool,
    /// Factor of the product.
    pub alpha: f32,
    /// Add to `C` instead of overwriting it.
    pub accumulate: bool,
}

impl Matmul {
    /// Forward of a linear layer: `Y[m,n] = X[m,k] · W[n,k]ᵀ`.
    pub fn nt(m: usize, n: usize, k: usize) -> Self {
        Self { m, n, k, trans_a: false, trans_b: true, alpha: 1.0, accumulate: false }
    }
    /// Input gradient of a linear layer: `dX[m,n] = dY[m,k] · W[k,n]`.
    pub fn nn(m: usize, n: usize, k: usize) -> Self {
        Self { m, n, k, trans_a: false, trans_b: false, alpha: 1.0, accumulate: false }
    }
    /// Weight gradient of a linear layer: `dW[m,n] = dY[k,m]ᵀ · X[k,n]`.
    pub fn tn(m: usize, n: usize, k: usize) -> Self {
        Self { m, n, k, trans_a: true, trans_b: false, alpha: 1.0, accumulate: false }
    }
    /// The same product times `alpha`.
    pub fn scaled(self, alpha: f32) -> Self {
        Self { alpha, ..self }
    }
    /// The same product, added to `C`.
    pub fn accumulated(self) -> Self {
        Self { accumulate: true, ..self }
    }
}

/// What kind of causal attention (grouped-query; the query heads of one group are neighbours, as in Hugging Face).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Attention {
    /// Query heads `N`.
    pub heads: usize,
    /// Key/value heads `K`, a divisor of `N`.
    pub kv_heads: usize,
    /// Head width `H`.
    pub head_dim: usize,
    /// Factor on the scores, usually `1/√H`.
    pub scale: f32,
    /// A query at position `i` sees keys `i-window+1 ..= i` (Mistral). `None`: all earlier keys.
    pub window: Option<usize>,
    /// Scores become `cap · tanh(score / cap)` (Gemma 2).
    pub softcap: Option<f32>,
}

/// A factor for each output of a linear layer: `y_to[t,o] (+)= (m_o·r_o + c)·x_to[t,o]`.
#[derive(Clone, Copy)]
pub struct Rescale<'a> {
    /// Rows `T`.
    pub rows: usize,
    /// Columns `O`.
    pub width: usize,
    /// `m_o`, f32.
    pub magnitude: &'a Buffer,
    /// `r_o`, f32.
    pub inverse_norm: &'a Buffer,
    /// `c`.
    pub shift: f32,
    /// Add to `y`.
    pub accumulate: bool,
}

/// One sequence inside a packed row: rows `q_start..q_start+q_len` of the queries attend, causally, to rows
/// `kv_start..kv_start+kv_len` of the keys. Query `i` is at position `kv_len - q_len + i` of its sequence.
/// Training has `q_* == kv_*`; decoding with a key/value cache has `q_len < kv_len`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// First query row.
    pub q_start: usize,
    /// Number of query rows.
    pub q_len: usize,
    /// First key row.
    pub kv_start: usize,
    /// Number of key rows, at least `q_len`.
    pub kv_len: usize,
}

impl Span {
    /// Spans of a packed row from the lengths of its sequences.
    pub fn packed(seq_lens: &[u32]) -> Vec<Span> {
        let mut start = 0;
        seq_lens
            .iter()
            .map(|&len| {
                let len = len as usize;
                let span = Span { q_start: start, q_len: len, kv_start: start, kv_len: len };
                start += len;
                span
            })
            .collect()
    }
}

/// Loss of one token, a function of its logits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum TokenLoss {
    /// `-log p(target)`.
    CrossEntropy,
    /// `(1-ε)·(-log p(target)) + ε·mean_v(-log p(v))` (label smoothing, Szegedy et al. 2016; transformers 5.23).
    LabelSmoothing(f32),
    /// `-p(target).detach() · log p(target)` (DFT, TRL 1.16 `loss_type="dft"`).
    Dft,
}

/// The head and the loss in one: logits exist for one chunk of rows at a time.
#[derive(Clone, Copy, Debug)]
pub struct LinearCrossEntropy<'a> {
    /// Rows of `x_td` that have a label, ascending; without gradients a row may be there several times.
    pub rows: &'a [u32],
    /// Target token of each of `rows`.
    pub targets: &'a [u32],
    /// Model width `D`.
    pub width: usize,
    /// Vocabulary `V`.
    pub vocab: usize,
    /// Loss of one token.
    pub objective: TokenLoss,
    /// Factor on every gradient: 1 / number of labelled tokens of the whole optimiser step.
    pub grad_scale: f32,
}

/// What one labelled row said.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RowLoss {
    /// Natural logarithm of the target's probability.
    pub log_prob: f32,
    /// The target has the highest logit (the lowest index wins a tie).
    pub is_greedy: bool,
}

/// Sums over the labelled rows of one call, without `grad_scale`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LossSums {
    /// Sum of the token losses (in the objective's meaning).
    pub loss: f64,
    /// Sum of the entropies of the predicted distributions, in nats.
    pub entropy: f64,
    /// Rows whose target was the highest logit.
    pub correct: u64,
    /// Labelled rows.
    pub count: u64,
}

impl std::ops::AddAssign for LossSums {
    fn add_assign(&mut self, other: Self) {
        self.loss += other.loss;
        self.entropy += other.entropy;
        self.correct += other.correct;
        self.count += other.count;
    }
}

/// One AdamW update in torch's order of operations (torch 2.15 `optim/adamw.py`; Loshchilov & Hutter 2019):
/// `p *= 1-lr·wd; m = β1·m+(1-β1)·g; v = β2·v+(1-β2)·g²; p -= lr/(1-β1^t) · m / (√v/√(1-β2^t) + ε)`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamW {
    /// Learning rate of this step.
    pub lr: f64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the denominator.
    pub eps: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Number of this step, from 1.
    pub step: u64,
    /// The gradient is multiplied by this first (clipping).
    pub grad_scale: f32,
    /// How a bf16 parameter is rounded.
    pub rounding: Rounding,
}

/// One Lion update (see the folder `lion`).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Lion {
    /// Learning rate of this step.
    pub lr: f64,
    /// Share of the momentum in the direction.
    pub beta1: f64,
    /// Decay of the momentum.
    pub beta2: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// The gradient is multiplied by this first (clipping).
    pub grad_scale: f32,
    /// How a bf16 parameter is rounded.
    pub rounding: Rounding,
}

/// One update of stochastic gradient descent (see the folder `sgd`).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sgd {
    /// Learning rate of this step.
    pub lr: f64,
    /// Decay of the momentum buffer; 0: none.
    pub momentum: f64,
    /// The gradient enters the momentum buffer with the factor `1 - dampening`, except in the first step.
    pub dampening: f64,
    /// Nesterov's correction.
    pub nesterov: bool,
    /// L2 penalty, added to the gradient as in torch.
    pub weight_decay: f64,
    /// Number of this step, from 1.
    pub step: u64,
    /// The gradient is multiplied by this first (clipping).
    pub grad_scale: f32,
    /// How a bf16 parameter is rounded.
    pub rounding: Rounding,
}

/// One Adafactor update (see the folder `adafactor`).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Adafactor {
    /// Learning rate of this step.
    pub lr: f64,
    /// Added to squared gradients.
    pub eps: f64,
    /// The update's root mean square is brought down to this.
    pub clip_threshold: f64,
    /// The means decay by `1 - step^decay_rate`.
    pub decay_rate: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Number of this step, from 1.
    pub step: u64,
    /// The gradient is multiplied by this first (clipping).
    pub grad_scale: f32,
    /// How a bf16 parameter is rounded.
    pub rounding: Rounding,
}

/// Adafactor's means of squared gradients, f32.
pub enum SquaredMeans<'a> {
    /// Of a matrix: over its rows and over its columns.
    Matrix {
        /// One for each row.
        row: &'a mut Buffer,
        /// One for each column.
        column: &'a mut Buffer,
    },
    /// Element by element.
    Vector(&'a mut Buffer),
}

/// A moment in eight bits: codes (U8) and the greatest magnitude of each block of 256 (f32).
pub struct BlockwiseState<'a> {
    /// One for each element.
    pub codes: &'a mut Buffer,
    /// One for each block.
    pub absmax: &'a mut Buffer,
}

/// Operations on buffers. One implementation per kind of device, chosen once when a run is planned.
pub trait Backend: Allocator + Send + Sync {
    /// For people: device, path and threads, e.g. `cpu avx512-bf16, 2 threads`.
    fn name(&self) -> String;

    /// Runs `f`, a row of many small operations: the device's threads need not be woken for each of them. It changes no
    /// result.
    fn row_of_operations(&self, f: &mut (dyn FnMut() + Send)) {
        f();
    }

    // ---- host and device -------------------------------------------------------------------------------------
    /// Writes `src` to `dst[offset..]`, converting to the buffer's dtype (f32 or bf16).
    fn upload(&self, src: &[f32], dst: &mut Buffer, offset: usize);
    /// Writes token ids or positions to `dst[0..]` (U32).
    fn upload_u32(&self, src: &[u32], dst: &mut Buffer);
    /// Reads `src[offset..offset+dst.len()]` (f32 or bf16) as f32.
    fn download(&self, src: &Buffer, offset: usize, dst: &mut [f32]);
    /// Writes `src` to `dst[offset..]` (U8).
    fn upload_u8(&self, src: &[u8], dst: &mut Buffer, offset: usize);
    /// Reads `src[offset..offset+dst.len()]` (U8).
    fn download_u8(&self, src: &Buffer, offset: usize, dst: &mut [u8]);
    /// The numbers of `src` for another thread, which needs no backend to read them. Until what is returned is dropped,
    /// writing to `src` panics.
    fn share(&self, src: &Buffer) -> SharedBuffer {
        SharedBuffer::of(src)
    }
    /// The same of all parts of `w`.
    fn share_quantized(&self, w: &QuantizedMatrix) -> SharedMatrix {
        SharedMatrix::of(w)
    }
    /// `dst[dst_at..dst_at+n] = src[src_at..src_at+n]`; the dtypes may differ (f32 ⇄ bf16).
    fn copy(&self, n: usize, src: &Buffer, src_at: usize, dst: &mut Buffer, dst_at: usize);
    /// `x[0..n] = value` (f32 or bf16).
    fn fill(&self, n: usize, value: f32, x: &mut Buffer);

    // ---- linear algebra --------------------------------------------------------------------------------------
    /// `C = alpha·op(A)·op(B)` or `+=`. `A`, `B` operands of one dtype; `C` f32 or bf16 (rounded once, at the end).
    fn matmul(&self, op: Matmul, a: &Buffer, b: &Buffer, c: &mut Buffer);
    /// The same product with a quantised `B`: `op(B)` is `W` or, with `trans_b`, its transpose. The result is that of
    /// [`matmul`](Self::matmul) with [`dequantize`](Self::dequantize)d `W` in the dtype of `A`, bit for bit, but only a
    /// few rows of it exist at a time. `A` is not used transposed. `A` operand, `C` operand or f32.
    fn matmul_quantized(&self, op: Matmul, a: &Buffer, w: &QuantizedMatrix, c: &mut Buffer);
    /// Replaces the contents of `into` by `values[rows·cols]`, row by row, with the codes that bitsandbytes chooses.
    fn quantize(&self, values: &[f32], into: &mut QuantizedMatrix);
    /// `out[rows·cols] = W`. Operand.
    fn dequantize(&self, w: &QuantizedMatrix, out: &mut Buffer);
    /// Replaces the contents of `into` by parts of the same kind and size, as a file holds them.
    fn upload_quantized(&self, parts: &QuantizedParts, into: &mut QuantizedMatrix);
    /// Copies of all parts of `w`.
    fn download_quantized(&self, w: &QuantizedMatrix) -> QuantizedParts;
    /// `y[0..n] += x[0..n]`; f32 or bf16 each.
    fn add(&self, n: usize, x: &Buffer, y: &mut Buffer);
    /// `y_to[t,o] += bias_o[o]`; both f32 or bf16.
    fn add_bias(&self, rows: usize, width: usize, bias: &Buffer, y: &mut Buffer);
    /// `dbias_o[o] += Σ_t dy_to[t,o]`; `dbias` f32.
    fn add_bias_backward(&self, rows: usize, width: usize, dy: &Buffer, dbias: &mut Buffer);
    /// `y_to[t,o] (+)= (m_o·r_o + c)·x_to[t,o]`; `x` and `y` f32 or bf16 each.
    fn rescale(&self, op: &Rescale<'_>, x: &Buffer, y: &mut Buffer);
    /// `dm_o += r_o·Σ_t dy_to[t,o]·x_to[t,o]`; `dm` f32. `op.magnitude`, `shift` and `accumulate` are not read.
    fn rescale_backward(&self, op: &Rescale<'_>, dy: &Buffer, x: &Buffer, dm: &mut Buffer);
    /// `Σ x[i]²` over `x[0..n]`, summed in f64.
    fn sum_of_squares(&self, n: usize, x: &Buffer) -> f64;

    // ---- decoder operations ----------------------------------------------------------------------------------
    /// `out_td[t] = table_vd[tokens_t[t]]`.
    fn embedding_forward(&self, tokens: usize, width: usize, ids: &Buffer, table: &Buffer, out: &mut Buffer);
    /// `dtable_vd[ids[t]] += dout_td[t]`; `dtable` f32.
    fn embedding_backward(
        &self,
        tokens: usize,
        width: usize,
        ids: &Buffer,
        dout: &Buffer,
        dtable: &mut Buffer,
    );
    /// `y = x · rsqrt(mean(x²)+eps) · weight`, `rstd_t` f32 kept for the backward. `x` f32 or bf16, `y` operand,
    /// `weight` f32 (Zhang & Sennrich 2019; transformers 5.23 `LlamaRMSNorm`).
    fn rmsnorm_forward(
        &self,
        rows: usize,
        width: usize,
        eps: f32,
        x: &Buffer,
        weight: &Buffer,
        y: &mut Buffer,
        rstd: &mut Buffer,
    );
    /// `dx_td += …`, `dweight_d += …` (f32; `None`: the weight is frozen).
    fn rmsnorm_backward(
        &self,
        rows: usize,
        width: usize,
        dy: &Buffer,
        x: &Buffer,
        weight: &Buffer,
        rstd: &Buffer,
        dx: &mut Buffer,
        dweight: Option<&mut Buffer>,
    );
    /// Rotates the halves of each head in place: with `c, s = table_ph[positions[t]]` (f32, first `H/2` cosines, then
    /// `H/2` sines), `(a, b) ← (a·c - b·s, b·c + a·s)` for `a = x[i]`, `b = x[i+H/2]` (Su et al. 2021, HF layout).
    fn rope_forward(
        &self,
        tokens: usize,
        heads: usize,
        head_dim: usize,
        positions: &Buffer,
        table: &Buffer,
        x: &mut Buffer,
    );
    /// The inverse rotation, in place on the gradient.
    fn rope_backward(
        &self,
        tokens: usize,
        heads: usize,
        head_dim: usize,
        positions: &Buffer,
        table: &Buffer,
        dx: &mut Buffer,
    );
    /// Causal attention inside each span. `q_tnh`, `k_tkh`, `v_tkh`, `out_tnh` operands; `lse_nt` f32 keeps the
    /// log-sum-exp of each query's scores, laid out `[N, T]` with `T` = the query rows covered by the spans' extent.
    fn attention_forward(
        &self,
        op: &Attention,
        spans: &[Span],
        q: &Buffer,
        k: &Buffer,
        v: &Buffer,
        out: &mut Buffer,
        lse: &mut Buffer,
    );
    /// The same with the keys and values of `k` and `v` in pages, as a cache holds them: [`Span::kv_start`] and
    /// [`Span::kv_len`] count rows that `pages` finds.
    fn attention_forward_paged(
        &self,
        op: &Attention,
        spans: &[Span],
        pages: Pages<'_>,
        q: &Buffer,
        k: &Buffer,
        v: &Buffer,
        out: &mut Buffer,
        lse: &mut Buffer,
    );
    /// Overwrites `dq`, `dk`, `dv` (operands) from `dout_tnh`. The row stride of `lse_nt` is as in the forward.
    fn attention_backward(
        &self,
        op: &Attention,
        spans: &[Span],
        q: &Buffer,
        k: &Buffer,
        v: &Buffer,
        out: &Buffer,
        lse: &Buffer,
        dout: &Buffer,
        dq: &mut Buffer,
        dk: &mut Buffer,
        dv: &mut Buffer,
    );
    /// `out = silu(gate) · up`, elementwise over `n` (Shazeer 2020).
    fn swiglu_forward(&self, n: usize, gate: &Buffer, up: &Buffer, out: &mut Buffer);
    /// Overwrites `dgate` and `dup`.
    fn swiglu_backward(
        &self,
        n: usize,
        gate: &Buffer,
        up: &Buffer,
        dout: &Buffer,
        dgate: &mut Buffer,
        dup: &mut Buffer,
    );
    /// Head and loss over the labelled rows, chunk by chunk: `logits = x[rows]·weightᵀ` live in `logits` (f32, at least
    /// `V` long; its length decides the chunk). Overwrites all of `dx_td[0..tokens]` (zeros where no label; `None`: no
    /// gradients wanted); `dweight_vd += …` (f32). `per_row` (as long as `rows`) receives each row's result.
    fn linear_cross_entropy(
        &self,
        op: &LinearCrossEntropy<'_>,
        tokens: usize,
        x: &Buffer,
        weight: &Buffer,
        logits: &mut Buffer,
        dx: Option<&mut Buffer>,
        dweight: Option<&mut Buffer>,
        per_row: Option<&mut [RowLoss]>,
    ) -> LossSums;

    // ---- regularisation --------------------------------------------------------------------------------------
    /// `y = x · mask / (1-p)` with a mask that is a function of `(seed, index)` alone, so that the backward is the same
    /// call on the gradient. In place is not offered; `x` and `y` have one dtype.
    fn dropout(&self, n: usize, p: f32, seed: u64, x: &Buffer, y: &mut Buffer);
    /// `x[i] += U(-magnitude, magnitude)`, a function of `(seed, i)` alone (NEFTune, Jain et al. 2023).
    fn add_uniform_noise(&self, n: usize, magnitude: f32, seed: u64, x: &mut Buffer);

    // ---- updates ---------------------------------------------------------------------------------------------
    // Parameters are f32, or bf16 and rounded as the operation says; gradients and states are f32.
    /// One AdamW update.
    fn adamw(&self, n: usize, op: &AdamW, grad: &Buffer, param: &mut Buffer, m: &mut Buffer, v: &mut Buffer);
    /// One AdamW update with moments of eight bits.
    fn adamw_8bit(
        &self,
        n: usize,
        op: &AdamW,
        grad: &Buffer,
        param: &mut Buffer,
        m: BlockwiseState<'_>,
        v: BlockwiseState<'_>,
    );
    /// One Lion update.
    fn lion(&self, n: usize, op: &Lion, grad: &Buffer, param: &mut Buffer, m: &mut Buffer);
    /// One SGD update; `momentum`: exactly where `op.momentum` is not 0.
    fn sgd(&self, n: usize, op: &Sgd, grad: &Buffer, param: &mut Buffer, momentum: Option<&mut Buffer>);
    /// One Adafactor update of a parameter `[rows, columns]`.
    fn adafactor(
        &self,
        shape: [usize; 2],
        op: &Adafactor,
        grad: &Buffer,
        param: &mut Buffer,
        means: SquaredMeans<'_>,
    );
}
