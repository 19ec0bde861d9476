//! Sixteen Philox blocks at a time, in lanes.

use crate::Isa;
use crate::lanes::{PIECE, vectorize};
use crate::operand::Operand;
use crate::philox::{self, Stream, WORDS};
use crate::pool::Pool;

pub(super) fn forward<T: Operand>(pool: &Pool, isa: Isa, p: f32, seed: u64, x: &[T], y: &mut [T]) {
    // At most 2³² - 256, as p is below one and has 24 bits.
    let threshold = (f64::from(p) * 4_294_967_296.0).ceil() as u32;
    let scale = 1.0 / (1.0 - p);
    pool.pieces(y, PIECE, |i, y| {
        let x = &x[i * PIECE..][..y.len()];
        let group = (i * PIECE / WORDS) as u64;
        vectorize!(isa, F => piece(group, threshold, scale, seed, x, y));
    });
}

#[inline(always)]
fn piece<T: Operand>(first: u64, threshold: u32, scale: f32, seed: u64, x: &[T], y: &mut [T]) {
    let whole = x.len() / WORDS;
    for i in 0..whole {
        let words = philox::words(seed, Stream::Dropout, first + i as u64);
        let (x, y) = (&x[i * WORDS..][..WORDS], &mut y[i * WORDS..][..WORDS]);
        for l in 0..WORDS {
            y[l] = keep(words[l], threshold, scale, x[l]);
        }
    }
    let words = philox::words(seed, Stream::Dropout, first + whole as u64);
    for i in whole * WORDS..x.len() {
        y[i] = keep(words[i - whole * WORDS], threshold, scale, x[i]);
    }
}

#[inline(always)]
fn keep<T: Operand>(word: u32, threshold: u32, scale: f32, x: T) -> T {
    T::narrow(if word >= threshold { x.widen() * scale } else { 0.0 })
}
