//! The truth: plain loops in f64.

/// Rotates by `+angle` (`direction = 1`) or back (`direction = -1`).
pub(crate) fn rotate(
    heads: usize,
    head_dim: usize,
    positions: &[u32],
    table: &[f64],
    direction: f64,
    x: &mut [f64],
) {
    let half = head_dim / 2;
    for (t, &position) in positions.iter().enumerate() {
        for n in 0..heads {
            for i in 0..half {
                let cos = table[position as usize * head_dim + i];
                let sin = table[position as usize * head_dim + half + i] * direction;
                let low = (t * heads + n) * head_dim + i;
                let (a, b) = (x[low], x[low + half]);
                x[low] = a * cos - b * sin;
                x[low + half] = b * cos + a * sin;
            }
        }
    }
}
