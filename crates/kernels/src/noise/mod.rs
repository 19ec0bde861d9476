//! Uniform noise on embeddings (NEFTune, Jain et al. 2023): `x[i] += (2u - 1) · magnitude`, `u` uniform in `[0, 1)`.
//!
//! `u` comes from random word `i` of the stream: a function of `(seed, i)` alone.

mod cpu;
pub(crate) mod reference;
#[cfg(test)]
mod tests;

use crate::operand::with_operand;
use crate::pool::Pool;
use crate::{Buffer, Isa};

/// Adds noise to `x[0..n]`.
pub(crate) fn add_uniform(pool: &Pool, isa: Isa, n: usize, magnitude: f32, seed: u64, x: &mut Buffer) {
    with_operand!(x.dtype(), T => cpu::add_uniform::<T>(pool, isa, magnitude, seed, &mut x.typed_mut()[..n]));
}
