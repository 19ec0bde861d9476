//! The truth: plain loops in f64.

use crate::AdamW;

/// One update of every parameter.
pub(crate) fn step(op: &AdamW, grad: &[f64], param: &mut [f64], m: &mut [f64], v: &mut [f64]) {
    let correction1 = 1.0 - op.beta1.powf(op.step as f64);
    let correction2 = 1.0 - op.beta2.powf(op.step as f64);
    for i in 0..param.len() {
        let g = grad[i] * f64::from(op.grad_scale);
        param[i] *= 1.0 - op.lr * op.weight_decay;
        m[i] = op.beta1 * m[i] + (1.0 - op.beta1) * g;
        v[i] = op.beta2 * v[i] + (1.0 - op.beta2) * g * g;
        param[i] -= op.lr / correction1 * m[i] / (v[i].sqrt() / correction2.sqrt() + op.eps);
    }
}
