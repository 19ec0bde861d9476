//! Loops that only multiply and add in registers: the speed no kernel can exceed on this machine, for benchmarks.

use super::Isa;
use crate::lanes::{LANES, MulAdd, vectorize};

/// Lane arrays that are summed at the same time: twelve registers of 256 bits cover the latency of the addition.
const CHAINS: usize = 6;

/// Does `steps` rounds of f32 multiply-adds on one thread; returns how many floating-point operations that was, and a
/// number that depends on all of them.
pub fn multiply_adds(isa: Isa, steps: usize) -> (f64, f32) {
    let sum = vectorize!(isa, F => rounds::<F>(steps));
    ((2 * LANES * CHAINS * steps) as f64, sum)
}

#[inline(always)]
fn rounds<F: MulAdd>(steps: usize) -> f32 {
    let mut sums = [[0.0f32; LANES]; CHAINS];
    let (a, b) = (std::hint::black_box([1.0f32; LANES]), std::hint::black_box(1e-9f32));
    for _ in 0..steps {
        for sum in &mut sums {
            for l in 0..LANES {
                sum[l] = F::mul_add(a[l], b, sum[l]);
            }
        }
    }
    sums.as_flattened().iter().sum()
}

/// The same for dot products of bf16 pairs, where the machine has them.
pub fn bf16_dots(isa: Isa, steps: usize) -> Option<(f64, f32)> {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512(witness) => Some(super::gemm_bf16::register_only(witness, steps)),
        _ => None,
    }
}
