//! The truth: plain loops in f64.

/// `out_td[t] = table_vd[ids[t]]`.
pub(crate) fn forward(width: usize, ids: &[u32], table: &[f64], out: &mut [f64]) {
    for (t, &id) in ids.iter().enumerate() {
        for d in 0..width {
            out[t * width + d] = table[id as usize * width + d];
        }
    }
}

/// `dtable_vd[ids[t]] += dout_td[t]`.
pub(crate) fn backward(width: usize, ids: &[u32], dout: &[f64], dtable: &mut [f64]) {
    for (t, &id) in ids.iter().enumerate() {
        for d in 0..width {
            dtable[id as usize * width + d] += dout[t * width + d];
        }
    }
}
