//! One pass over memory.

use crate::lanes::{MulAdd, PIECE, vectorize};
use crate::operand::Operand;
use crate::pool::Pool;
use crate::{AdamW, Isa, rounding};

/// The factors of one step, rounded to f32.
#[derive(Clone, Copy)]
pub(crate) struct Factors {
    grad: f32,
    decay: f32,
    /// `1 - β₁`
    new1: f32,
    beta2: f32,
    /// `1 - β₂`
    new2: f32,
    /// `√(1 - β₂ᵗ)`
    root2: f32,
    eps: f32,
    /// `-lr / (1 - β₁ᵗ)`
    step: f32,
}

impl Factors {
    pub(crate) fn new(op: &AdamW) -> Self {
        let t = op.step as f64;
        Self {
            grad: op.grad_scale,
            decay: (1.0 - op.lr * op.weight_decay) as f32,
            new1: (1.0 - op.beta1) as f32,
            beta2: op.beta2 as f32,
            new2: (1.0 - op.beta2) as f32,
            root2: (1.0 - op.beta2.powf(t)).sqrt() as f32,
            eps: op.eps as f32,
            step: -(op.lr / (1.0 - op.beta1.powf(t))) as f32,
        }
    }

    /// The update of a piece.
    #[inline(always)]
    pub(crate) fn update<F: MulAdd>(self, grad: &[f32], param: &mut [f32], m: &mut [f32], v: &mut [f32]) {
        for (((p, m), v), g) in param.iter_mut().zip(m).zip(v).zip(grad) {
            let g = g * self.grad;
            *m = F::mul_add(self.new1, g - *m, *m);
            *v = F::mul_add(self.new2 * g, g, *v * self.beta2);
            *p = *p * self.decay + self.step * *m / (v.sqrt() / self.root2 + self.eps);
        }
    }
}

pub(super) fn step<P: Operand>(
    pool: &Pool,
    isa: Isa,
    op: &AdamW,
    grad: &[f32],
    param: &mut [P],
    m: &mut [f32],
    v: &mut [f32],
) {
    let factors = Factors::new(op);
    let mut moments: Vec<_> = m.chunks_mut(PIECE).zip(v.chunks_mut(PIECE)).collect();
    pool.pieces2(param, PIECE, &mut moments, 1, |i, param, moments| {
        let grad = &grad[i * PIECE..][..param.len()];
        let (m, v) = &mut moments[0];
        rounding::in_f32(isa, op.rounding, i * PIECE, param, |param| {
            vectorize!(isa, F => factors.update::<F>(grad, param, m, v));
        });
    });
}
