//! Sixteen Philox blocks at a time, in lanes.

use crate::Isa;
use crate::lanes::{PIECE, vectorize};
use crate::operand::Operand;
use crate::philox::{self, Stream, WORDS};
use crate::pool::Pool;

pub(super) fn add_uniform<T: Operand>(pool: &Pool, isa: Isa, magnitude: f32, seed: u64, x: &mut [T]) {
    pool.pieces(x, PIECE, |i, x| {
        let group = (i * PIECE / WORDS) as u64;
        vectorize!(isa, F => piece(group, magnitude, seed, x));
    });
}

#[inline(always)]
fn piece<T: Operand>(first: u64, magnitude: f32, seed: u64, x: &mut [T]) {
    let whole = x.len() / WORDS;
    for i in 0..whole {
        let words = philox::words(seed, Stream::Noise, first + i as u64);
        let x = &mut x[i * WORDS..][..WORDS];
        for l in 0..WORDS {
            x[l] = moved(words[l], magnitude, x[l]);
        }
    }
    let words = philox::words(seed, Stream::Noise, first + whole as u64);
    for i in whole * WORDS..x.len() {
        x[i] = moved(words[i - whole * WORDS], magnitude, x[i]);
    }
}

#[inline(always)]
fn moved<T: Operand>(word: u32, magnitude: f32, x: T) -> T {
    T::narrow(x.widen() + (2.0 * philox::uniform(word) - 1.0) * magnitude)
}
