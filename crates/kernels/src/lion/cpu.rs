//! One pass over memory.

use crate::lanes::{MulAdd, PIECE, vectorize};
use crate::operand::Operand;
use crate::pool::Pool;
use crate::{Isa, Lion, rounding};

/// The factors of one step, rounded to f32.
#[derive(Clone, Copy)]
struct Factors {
    grad: f32,
    decay: f32,
    beta1: f32,
    /// `1 - β₁`
    new1: f32,
    beta2: f32,
    /// `1 - β₂`
    new2: f32,
    lr: f32,
}

pub(super) fn step<P: Operand>(
    pool: &Pool,
    isa: Isa,
    op: &Lion,
    grad: &[f32],
    param: &mut [P],
    m: &mut [f32],
) {
    let factors = Factors {
        grad: op.grad_scale,
        decay: (1.0 - op.lr * op.weight_decay) as f32,
        beta1: op.beta1 as f32,
        new1: (1.0 - op.beta1) as f32,
        beta2: op.beta2 as f32,
        new2: (1.0 - op.beta2) as f32,
        lr: op.lr as f32,
    };
    pool.pieces2(param, PIECE, m, PIECE, |i, param, m| {
        let grad = &grad[i * PIECE..][..m.len()];
        rounding::in_f32(isa, op.rounding, i * PIECE, param, |param| {
            vectorize!(isa, F => piece::<F>(factors, grad, param, m));
        });
    });
}

#[inline(always)]
fn piece<F: MulAdd>(f: Factors, grad: &[f32], param: &mut [f32], m: &mut [f32]) {
    for ((p, m), g) in param.iter_mut().zip(m).zip(grad) {
        let g = g * f.grad;
        let direction = *m * f.beta1 + f.new1 * g;
        let sign = f32::from(direction > 0.0) - f32::from(direction < 0.0);
        *p = F::mul_add(-f.lr, sign, *p * f.decay);
        *m = *m * f.beta2 + f.new2 * g;
    }
}
