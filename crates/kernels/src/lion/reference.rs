//! The truth: plain loops in f64.

use crate::Lion;

/// One update of every parameter.
pub(crate) fn step(op: &Lion, grad: &[f64], param: &mut [f64], m: &mut [f64]) {
    for i in 0..param.len() {
        let g = grad[i] * f64::from(op.grad_scale);
        let direction = op.beta1 * m[i] + (1.0 - op.beta1) * g;
        param[i] *= 1.0 - op.lr * op.weight_decay;
        if direction != 0.0 {
            param[i] -= op.lr * direction.signum();
        }
        m[i] = op.beta2 * m[i] + (1.0 - op.beta2) * g;
    }
}
