//! The truth: plain loops in f64.

use crate::philox::{self, Stream, WORDS};

/// `x[i] += (2·u - 1) · magnitude` with `u` uniform in `[0, 1)` from word `i` of the stream.
pub(crate) fn add_uniform(magnitude: f32, seed: u64, x: &mut [f64]) {
    for (i, x) in x.iter_mut().enumerate() {
        let word = philox::words(seed, Stream::Noise, (i / WORDS) as u64)[i % WORDS];
        *x += (2.0 * f64::from(philox::uniform(word)) - 1.0) * f64::from(magnitude);
    }
}
