//! The truth: plain loops in f64.

use crate::philox::{self, Stream, WORDS};

/// Element `i` is kept where word `i` of the stream is at least `p · 2³²`.
pub(crate) fn forward(p: f32, seed: u64, x: &[f64], y: &mut [f64]) {
    for i in 0..x.len() {
        let word = philox::words(seed, Stream::Dropout, (i / WORDS) as u64)[i % WORDS];
        let kept = f64::from(word) >= f64::from(p) * 4_294_967_296.0;
        y[i] = if kept { x[i] / (1.0 - f64::from(p)) } else { 0.0 };
    }
}
