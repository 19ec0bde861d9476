//! The end of the decoder: the last norm, the head and the loss.

use crate::DecoderConfig;
use crate::norm::Norm;
use crate::parameter::{Parameter, Weight};
use crate::pass::{Pass, RowPlan};
use foundry_kernels::{
    Allocator, Buffer, Dtype, LinearCrossEntropy, LossSums, Matmul, MemoryClass, RowLoss, TokenLoss,
};

/// Logits of one chunk of rows take about this much: large enough for full speed, small beside the activations.
const CHUNK_BYTES: usize = 64 << 20;

/// Buffers of the head.
pub(crate) struct Head {
    /// Normed stream `h_td`, operand.
    h: Buffer,
    /// `rstd_t` of the norm, f32.
    rstd: Buffer,
    /// Logits of one chunk of rows, f32.
    logits: Buffer,
    /// Rows of `h` that lie apart, side by side, operand.
    gathered: Buffer,
    chunk: usize,
}

impl Head {
    pub(crate) fn allocate(
        alloc: &dyn Allocator,
        config: &DecoderConfig,
        compute: Dtype,
        max_tokens: usize,
    ) -> Self {
        let (width, vocab) = (config.hidden_size, config.vocab_size);
        let chunk = (CHUNK_BYTES / (4 * vocab)).clamp(1, max_tokens.max(1));
        let buffer = |class: MemoryClass, dtype: Dtype, len: usize| alloc.alloc(class, dtype, len);
        Self {
            h: buffer(MemoryClass::Activations, compute, max_tokens * width),
            rstd: buffer(MemoryClass::Activations, Dtype::F32, max_tokens),
            logits: buffer(MemoryClass::Workspace, Dtype::F32, chunk * vocab),
            gathered: buffer(MemoryClass::Workspace, compute, chunk * width),
            chunk,
        }
    }

    /// `h = norm(x)`.
    pub(crate) fn normalize(&mut self, pass: &Pass<'_>, norm: &Norm, parameters: &[Parameter], x: &Buffer) {
        norm.forward(pass, parameters, x, &mut self.h, &mut self.rstd);
    }

    /// Kept by [`Head::normalize`].
    pub(crate) fn rstd(&self) -> &Buffer {
        &self.rstd
    }

    /// Loss of the labelled rows; `per_row` is as long as there are.
    pub(crate) fn loss(
        &mut self,
        pass: &Pass<'_>,
        row: &RowPlan,
        objective: TokenLoss,
        weight: &Buffer,
        per_row: Option<&mut [RowLoss]>,
    ) -> LossSums {
        let op = operation(pass, row, objective, 1.0);
        pass.backend.linear_cross_entropy(
            &op,
            pass.tokens,
            &self.h,
            weight,
            &mut self.logits,
            None,
            None,
            per_row,
        )
    }

    /// Loss, the gradient of `h` where it is wanted, and the head's own gradient where it is trained; `frozen_grad`:
    /// where that of a frozen head goes, if some of its rows are trained.
    pub(crate) fn loss_and_gradients(
        &mut self,
        pass: &Pass<'_>,
        row: &RowPlan,
        objective: TokenLoss,
        grad_scale: f32,
        weight: &Weight,
        parameters: &mut [Parameter],
        [dh, frozen_grad]: [Option<&mut Buffer>; 2],
    ) -> LossSums {
        let op = operation(pass, row, objective, grad_scale);
        let (weight, dweight) = weight.operand_and_grad(parameters);
        let dweight = dweight.or(frozen_grad);
        pass.backend.linear_cross_entropy(
            &op,
            pass.tokens,
            &self.h,
            weight,
            &mut self.logits,
            dh,
            dweight,
            None,
        )
    }

    /// Appends the logits of `rows` to `out`: `[rows, V]`.
    pub(crate) fn logits(&mut self, pass: &Pass<'_>, weight: &Buffer, rows: &[u32], out: &mut Vec<f32>) {
        let (backend, width, vocab) = (pass.backend, pass.config.hidden_size, pass.config.vocab_size);
        for part in rows.chunks(self.chunk) {
            for (at, &row) in part.iter().enumerate() {
                backend.copy(width, &self.h, row as usize * width, &mut self.gathered, at * width);
            }
            backend.matmul(Matmul::nt(part.len(), vocab, width), &self.gathered, weight, &mut self.logits);
            let start = out.len();
            out.resize(start + part.len() * vocab, 0.0);
            backend.download(&self.logits, 0, &mut out[start..]);
        }
    }
}

fn operation<'a>(
    pass: &Pass<'_>,
    row: &'a RowPlan,
    objective: TokenLoss,
    grad_scale: f32,
) -> LinearCrossEntropy<'a> {
    LinearCrossEntropy {
        rows: &row.rows,
        targets: &row.targets,
        width: pass.config.hidden_size,
        vocab: pass.config.vocab_size,
        objective,
        grad_scale,
    }
}
