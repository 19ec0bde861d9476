//! One pass over memory.

use crate::lanes::{MulAdd, PIECE, vectorize};
use crate::operand::Operand;
use crate::pool::Pool;
use crate::{Isa, Sgd, rounding};

/// The factors of one step, rounded to f32.
#[derive(Clone, Copy)]
struct Factors {
    grad: f32,
    decay: f32,
    momentum: f32,
    /// Factor on the new gradient: `1 - τ`, 1 in the first step.
    new: f32,
    /// The share of the gradient in the step: 1 with Nesterov's correction, else 0.
    ahead: f32,
    /// The share of the momentum buffer in the step: `μ` with Nesterov's correction, else 1.
    along: f32,
    lr: f32,
}

pub(super) fn step<P: Operand>(
    pool: &Pool,
    isa: Isa,
    op: &Sgd,
    grad: &[f32],
    param: &mut [P],
    momentum: Option<&mut [f32]>,
) {
    let factors = Factors {
        grad: op.grad_scale,
        decay: op.weight_decay as f32,
        // The first step overwrites the buffer.
        momentum: if op.step == 1 { 0.0 } else { op.momentum as f32 },
        new: if op.step == 1 { 1.0 } else { (1.0 - op.dampening) as f32 },
        ahead: f32::from(op.nesterov),
        along: if op.nesterov { op.momentum as f32 } else { 1.0 },
        lr: op.lr as f32,
    };
    match momentum {
        Some(momentum) => pool.pieces2(param, PIECE, momentum, PIECE, |i, param, momentum| {
            let grad = &grad[i * PIECE..][..momentum.len()];
            rounding::in_f32(isa, op.rounding, i * PIECE, param, |param| {
                vectorize!(isa, F => with_momentum::<F>(factors, grad, param, momentum));
            });
        }),
        None => pool.pieces(param, PIECE, |i, param| {
            let grad = &grad[i * PIECE..][..param.len()];
            rounding::in_f32(isa, op.rounding, i * PIECE, param, |param| {
                vectorize!(isa, F => plain::<F>(factors, grad, param));
            });
        }),
    }
}

#[inline(always)]
fn with_momentum<F: MulAdd>(f: Factors, grad: &[f32], param: &mut [f32], momentum: &mut [f32]) {
    for ((p, b), g) in param.iter_mut().zip(momentum).zip(grad) {
        let g = F::mul_add(f.decay, *p, g * f.grad);
        *b = F::mul_add(f.new, g, *b * f.momentum);
        *p = F::mul_add(-f.lr, F::mul_add(f.along, *b, f.ahead * g), *p);
    }
}

#[inline(always)]
fn plain<F: MulAdd>(f: Factors, grad: &[f32], param: &mut [f32]) {
    for (p, g) in param.iter_mut().zip(grad) {
        *p = F::mul_add(-f.lr, F::mul_add(f.decay, *p, g * f.grad), *p);
    }
}
