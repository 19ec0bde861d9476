//! The truth: plain loops in f64.

/// `rstd[t] = 1/√(mean(x²)+eps)`, `y = x · rstd · weight`.
pub(crate) fn forward(width: usize, eps: f64, x: &[f64], weight: &[f64], y: &mut [f64], rstd: &mut [f64]) {
    for t in 0..rstd.len() {
        let row = t * width..(t + 1) * width;
        let mean = x[row.clone()].iter().map(|x| x * x).sum::<f64>() / width as f64;
        rstd[t] = 1.0 / (mean + eps).sqrt();
        for (d, i) in row.enumerate() {
            y[i] = x[i] * rstd[t] * weight[d];
        }
    }
}

/// `dx += rstd · (w·dy - x · rstd² · mean(w·dy·x))`, `dweight += Σ_t dy · x · rstd`.
pub(crate) fn backward(
    width: usize,
    dy: &[f64],
    x: &[f64],
    weight: &[f64],
    rstd: &[f64],
    dx: &mut [f64],
    dweight: Option<&mut [f64]>,
) {
    for (t, &r) in rstd.iter().enumerate() {
        let row = t * width..(t + 1) * width;
        let mean = row.clone().map(|i| weight[i - row.start] * dy[i] * x[i]).sum::<f64>() / width as f64;
        for (d, i) in row.enumerate() {
            dx[i] += r * (weight[d] * dy[i] - x[i] * r * r * mean);
        }
    }
    if let Some(dweight) = dweight {
        for (t, &r) in rstd.iter().enumerate() {
            for d in 0..width {
                dweight[d] += dy[t * width + d] * x[t * width + d] * r;
            }
        }
    }
}
