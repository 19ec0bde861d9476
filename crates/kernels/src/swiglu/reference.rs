//! The truth: plain loops in f64.

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// `out = gate · σ(gate) · up`.
pub(crate) fn forward(gate: &[f64], up: &[f64], out: &mut [f64]) {
    for i in 0..out.len() {
        out[i] = gate[i] * sigmoid(gate[i]) * up[i];
    }
}

/// `dup = dout · silu(gate)`, `dgate = dout · up · σ · (1 + gate · (1 - σ))`.
pub(crate) fn backward(gate: &[f64], up: &[f64], dout: &[f64], dgate: &mut [f64], dup: &mut [f64]) {
    for i in 0..dout.len() {
        let s = sigmoid(gate[i]);
        dup[i] = dout[i] * gate[i] * s;
        dgate[i] = dout[i] * up[i] * s * (1.0 + gate[i] * (1.0 - s));
    }
}
