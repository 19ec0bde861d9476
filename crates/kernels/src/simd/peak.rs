//! Loops that only multiply and add in registers: the speed no kernel can exceed on this machine, for benchmarks.

use super::Isa;
use crate::lanes::{MulAdd, Separate};

/// Does `steps` rounds of f32 multiply-adds on one thread; returns how many floating-point operations that was, and
/// a number that depends on all of them. Written in intrinsics where there are vectors: what the compiler makes of
/// a plain loop passes through memory.
pub fn multiply_adds(isa: Isa, steps: usize) -> (f64, f32) {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Amx(_) | Isa::Avx512(_) => match isa.avx512() {
            Some(witness) => super::gemm_f32::register_only(witness, steps),
            None => unreachable!("both include AVX-512"),
        },
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2(witness) => super::gemm_f32_avx2::register_only(witness, steps),
        _ => plain(steps),
    }
}

/// Eight vectors of four numbers.
fn plain(steps: usize) -> (f64, f32) {
    let mut sums = [[0.0f32; 4]; 8];
    let (a, b) = (std::hint::black_box([1.0f32; 4]), std::hint::black_box(1e-9f32));
    for _ in 0..steps {
        for sum in &mut sums {
            for l in 0..4 {
                sum[l] = Separate::mul_add(a[l], b, sum[l]);
            }
        }
    }
    let done = std::hint::black_box(sums);
    ((2 * 4 * 8 * steps) as f64, done.as_flattened().iter().sum())
}

/// The same for dot products of bf16 pairs, where the machine has them.
pub fn bf16_dots(isa: Isa, steps: usize) -> Option<(f64, f32)> {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Amx(witness) => Some(super::gemm_amx::register_only(witness, steps)),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512(witness) => Some(super::gemm_bf16::register_only(witness, steps)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn register_loops_count_what_they_do() {
        for isa in Isa::available() {
            let ((few, sum), (many, _)) = (multiply_adds(isa, 10), multiply_adds(isa, 1000));
            assert_eq!(many, 100.0 * few, "{}", isa.name());
            // Two operations add 1e-9 to one sum.
            let expected = few as f32 / 2.0 * 1e-9;
            assert!((sum - expected).abs() <= 1e-3 * expected, "{}: {sum}, not {expected}", isa.name());
            if let Some((flops, sum)) = bf16_dots(isa, 10) {
                // Four operations add 2 to one sum.
                assert_eq!(f64::from(sum), flops / 2.0, "{}", isa.name());
            }
        }
    }
}
