//! The machine's own speed, measured in the same run as everything that is compared with it.

use crate::rows::{Roofline, median_seconds};
use foundry_kernels::simd::peak;
use foundry_kernels::{Allocator, Backend, CpuBackend, Dtype, Isa, MemoryClass};

/// Rounds of a register loop: some milliseconds.
const STEPS: usize = 200_000;
/// Numbers read to measure the bandwidth: 256 MiB, more than any cache.
const NUMBERS: usize = 64 << 20;

pub(crate) fn measure(backend: &CpuBackend, isa: Isa, threads: usize) -> Roofline {
    let all_threads = |work: &(dyn Fn() -> f64 + Sync)| {
        let mut flops = 0.0;
        let seconds = median_seconds(0.3, || {
            flops = std::thread::scope(|scope| {
                let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
                workers.into_iter().map(|worker| worker.join().expect("the loop does not panic")).sum()
            });
        });
        flops / seconds
    };
    let f32_flops = all_threads(&|| {
        let (flops, sum) = peak::multiply_adds(isa, STEPS);
        std::hint::black_box(sum);
        flops
    });
    let bf16_flops = peak::bf16_dots(isa, 1).map(|_| {
        all_threads(&|| {
            let (flops, sum) = peak::bf16_dots(isa, STEPS).expect("asked before");
            std::hint::black_box(sum);
            flops
        })
    });
    let mut numbers = backend.alloc(MemoryClass::Workspace, Dtype::F32, NUMBERS);
    backend.fill(NUMBERS, 1.0, &mut numbers);
    let seconds =
        median_seconds(0.3, || assert!(backend.sum_of_squares(NUMBERS, &numbers) == NUMBERS as f64));
    Roofline { f32_flops, bf16_flops, bandwidth: (4 * NUMBERS) as f64 / seconds }
}
