//! The truth: plain loops in f64.

/// `y_to[t,o] (+)= f_o·x_to[t,o]`.
pub(crate) fn forward(accumulate: bool, factors: &[f64], x: &[f64], y: &mut [f64]) {
    let width = factors.len();
    for (i, (y, x)) in y.iter_mut().zip(x).enumerate() {
        let scaled = factors[i % width] * x;
        *y = if accumulate { *y + scaled } else { scaled };
    }
}

/// `dm_o += r_o·Σ_t dy_to[t,o]·x_to[t,o]`.
pub(crate) fn backward(inverse_norm: &[f64], dy: &[f64], x: &[f64], dm: &mut [f64]) {
    let width = dm.len();
    for (i, (dy, x)) in dy.iter().zip(x).enumerate() {
        dm[i % width] += inverse_norm[i % width] * dy * x;
    }
}
