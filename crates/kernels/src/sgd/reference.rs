//! The truth: plain loops in f64.

use crate::Sgd;

/// One update of every parameter.
pub(crate) fn step(op: &Sgd, grad: &[f64], param: &mut [f64], mut momentum: Option<&mut [f64]>) {
    for i in 0..param.len() {
        let g = grad[i] * f64::from(op.grad_scale) + op.weight_decay * param[i];
        let step = match &mut momentum {
            None => g,
            Some(b) => {
                b[i] = if op.step == 1 { g } else { op.momentum * b[i] + (1.0 - op.dampening) * g };
                if op.nesterov { g + op.momentum * b[i] } else { b[i] }
            }
        };
        param[i] -= op.lr * step;
    }
}
