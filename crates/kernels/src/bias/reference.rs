//! The truth: plain loops in f64.

/// `y_to[t,o] += bias_o[o]`.
pub(crate) fn forward(bias: &[f64], y: &mut [f64]) {
    for row in y.chunks_exact_mut(bias.len()) {
        row.iter_mut().zip(bias).for_each(|(y, b)| *y += b);
    }
}

/// `dbias_o[o] += Σ_t dy_to[t,o]`.
pub(crate) fn backward(dy: &[f64], dbias: &mut [f64]) {
    for row in dy.chunks_exact(dbias.len()) {
        dbias.iter_mut().zip(row).for_each(|(db, dy)| *db += dy);
    }
}
