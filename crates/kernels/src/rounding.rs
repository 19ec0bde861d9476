//! How an updated parameter is rounded to the format it is kept in.
//!
//! A bfloat16 weight near 1 has neighbours 2⁻⁸ apart: an update of learning rate 1e-5 rounds away, every time. Rounding
//! up with the probability that the remainder says keeps the expected value (Gupta et al. 2015, "Deep Learning with
//! Limited Numerical Precision"; torchao's `bf16_stochastic_round`).

use crate::Isa;
use crate::lanes::vectorize;
use crate::matmul::scratch;
use crate::operand::Operand;
use crate::philox::{self, Stream, WORDS};
use half::bf16;

/// Rounding of a parameter that is kept in bfloat16; float32 parameters are stored as they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rounding {
    /// To the nearest number, ties to even.
    #[default]
    Nearest,
    /// Up or down at random, by the distance; a function of the seed and the element's index alone.
    Stochastic {
        /// New for each update of each parameter.
        seed: u64,
    },
}

/// Lets `f` change a piece of a parameter in f32. `at`: index of its first element, a multiple of [`WORDS`].
pub(crate) fn in_f32<P: Operand>(
    isa: Isa,
    rounding: Rounding,
    at: usize,
    param: &mut [P],
    f: impl FnOnce(&mut [f32]),
) {
    if let Ok(param) = bytemuck::try_cast_slice_mut::<P, f32>(param)
        && P::DTYPE == crate::Dtype::F32
    {
        return f(param);
    }
    scratch::with(param.len(), |wide: &mut [f32]| {
        vectorize!(isa, F => widen(param, wide));
        f(wide);
        match rounding {
            Rounding::Nearest => vectorize!(isa, F => nearest(wide, param)),
            Rounding::Stochastic { seed } => vectorize!(isa, F => stochastic(seed, at, wide, param)),
        }
    });
}

#[inline(always)]
fn widen<P: Operand>(from: &[P], to: &mut [f32]) {
    for i in 0..to.len() {
        to[i] = from[i].widen();
    }
}

#[inline(always)]
fn nearest<P: Operand>(from: &[f32], to: &mut [P]) {
    for i in 0..from.len() {
        to[i] = P::narrow(from[i]);
    }
}

#[inline(always)]
fn stochastic<P: Operand>(seed: u64, at: usize, from: &[f32], to: &mut [P]) {
    let first = (at / WORDS) as u64;
    for start in (0..from.len()).step_by(WORDS) {
        let words = philox::words(seed, Stream::Rounding, first + (start / WORDS) as u64);
        let len = WORDS.min(from.len() - start);
        let (from, to) = (&from[start..][..len], &mut to[start..][..len]);
        for i in 0..len {
            to[i] = P::narrow(at_random(from[i], words[i]));
        }
    }
}

/// One of the two bfloat16 numbers around `x` (exactly representable, so that narrowing it changes nothing).
#[inline(always)]
pub(crate) fn at_random(x: f32, word: u32) -> f32 {
    let bits = x.to_bits();
    let moved = bits.wrapping_add(word & 0xffff) & 0xffff_0000;
    if x.is_finite() { f32::from_bits(moved) } else { x }
}

/// The definition: element `i` with its own random word.
pub(crate) fn reference(rounding: Rounding, i: usize, x: f64) -> f32 {
    match rounding {
        Rounding::Nearest => bf16::from_f32(x as f32).to_f32(),
        Rounding::Stochastic { seed } => {
            at_random(x as f32, philox::words(seed, Stream::Rounding, (i / WORDS) as u64)[i % WORDS])
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{buffer, check, read};
    use crate::{AdamW, Dtype};

    #[test]
    fn the_mean_of_many_roundings_is_the_number() {
        // 1 + 3/1024 lies at 3/8 of the way from 1 to the next bfloat16, 1 + 8/1024.
        let x = 1.0 + 3.0 / 1024.0;
        let n = 64 * 1024;
        let mut param = vec![bf16::ZERO; n];
        stochastic(7, 0, &vec![x; n], &mut param);
        let ups = param.iter().filter(|p| p.to_f32() > 1.0).count() as f64 / n as f64;
        assert!(param.iter().all(|p| [1.0, 1.0 + 1.0 / 128.0].contains(&p.to_f32())));
        // Five deviations of a share of 3/8 in 65,536 draws: 5·√(0.375·0.625/65536) = 0.0095.
        assert!((ups - 0.375).abs() < 0.0095, "{ups}");
        assert!(at_random(f32::INFINITY, 0xffff).is_infinite() && at_random(f32::NAN, 1).is_nan());
        assert_eq!(at_random(-2.5, 0xffff), -2.5, "what is representable stays");
    }

    #[test]
    fn small_updates_of_bfloat16_weights_are_not_lost() {
        let op = AdamW {
            lr: 1e-5,
            beta1: 0.9,
            beta2: 0.999,
            eps: 1e-8,
            weight_decay: 0.0,
            step: 1,
            grad_scale: 1.0,
            rounding: Rounding::Nearest,
        };
        let mean_after = |stochastic: bool| {
            let backend = crate::CpuBackend::new(2, Isa::detect());
            let n = 4096;
            let mut param = buffer(Dtype::Bf16, &vec![1.0; n]);
            let [mut m, mut v] = [0, 1].map(|_| buffer(Dtype::F32, &vec![0.0; n]));
            let grad = buffer(Dtype::F32, &vec![1.0; n]);
            for step in 1..=100 {
                let rounding =
                    if stochastic { Rounding::Stochastic { seed: step } } else { Rounding::Nearest };
                let op = AdamW { step, rounding, ..op };
                crate::Backend::adamw(&backend, n, &op, &grad, &mut param, &mut m, &mut v);
            }
            read(&param).iter().map(|x| f64::from(*x)).sum::<f64>() / n as f64
        };
        assert_eq!(mean_after(false), 1.0, "100 steps of 1e-5 have no effect");
        // 100 steps of 1e-5 are 0.001. One element's deviation is at most √(0.001·2⁻⁸) = 0.002; five of the mean's.
        let mean = mean_after(true);
        assert!((mean - 0.999).abs() < 5.0 * 0.002 / 64.0, "{mean}");
    }

    #[test]
    fn every_path_rounds_alike() {
        for n in [1, 63, 65, 40_000] {
            for rounding in [Rounding::Nearest, Rounding::Stochastic { seed: 5 }] {
                // One bfloat16 step of numbers below 1: the f64 reference may fall on the other side of a draw.
                check(&format!("{n} {rounding:?}"), 1.0 / 128.0, |backend| {
                    let mut numbers = crate::testing::Numbers::new(3);
                    let op = AdamW {
                        lr: 1e-2,
                        beta1: 0.9,
                        beta2: 0.999,
                        eps: 1e-8,
                        weight_decay: 0.1,
                        step: 2,
                        grad_scale: 1.0,
                        rounding,
                    };
                    let grad = buffer(Dtype::F32, &numbers.vec(n, 1.0));
                    let mut param = buffer(Dtype::Bf16, &numbers.vec(n, 1.0));
                    let mut m = buffer(Dtype::F32, &numbers.vec(n, 0.1));
                    let squares: Vec<f32> = numbers.vec(n, 0.1).iter().map(|x| x * x).collect();
                    let mut v = buffer(Dtype::F32, &squares);
                    backend.adamw(n, &op, &grad, &mut param, &mut m, &mut v);
                    vec![read(&param)]
                });
            }
        }
    }
}
