//! One line of the report, and how it is measured.

use foundry_kernels::{Allocator, Backend, Buffer, CpuBackend, Dtype, MemoryClass};
use std::time::{Duration, Instant};

/// What one call of an operation took and did.
pub(crate) struct Row {
    pub(crate) name: String,
    /// Median of the calls.
    pub(crate) seconds: f64,
    /// Floating-point operations that the mathematics needs.
    pub(crate) flops: f64,
    /// Bytes that have to be read and written once.
    pub(crate) bytes: f64,
    /// Operands are bf16: the machine's bf16 instructions, if it has them, set the bound.
    pub(crate) bf16: bool,
}

/// What the machine can do at most, on all threads used.
pub(crate) struct Roofline {
    /// Multiply-adds of f32 in registers, operations a second.
    pub(crate) f32_flops: f64,
    /// Dot products of bf16 pairs in registers.
    pub(crate) bf16_flops: Option<f64>,
    /// Bytes a second read from memory.
    pub(crate) bandwidth: f64,
}

impl Row {
    /// Prints the figures and the share of what the slower of the two bounds allows.
    pub(crate) fn print(&self, roofline: &Roofline) {
        let peak = if self.bf16 { roofline.bf16_flops } else { None }.unwrap_or(roofline.f32_flops);
        let bound = (self.flops / peak).max(self.bytes / roofline.bandwidth);
        println!(
            "{:44} {:10.4} ms {:8.1} GFLOP/s {:7.2} GB/s {:5.1} % of the roofline",
            self.name,
            self.seconds * 1e3,
            self.flops / self.seconds / 1e9,
            self.bytes / self.seconds / 1e9,
            100.0 * bound / self.seconds
        );
    }
}

/// Median time of a call, over at least `seconds` and five calls.
pub(crate) fn median_seconds(seconds: f64, mut call: impl FnMut()) -> f64 {
    let (mut times, start) = (Vec::new(), Instant::now());
    while times.len() < 5 || start.elapsed() < Duration::from_secs_f64(seconds) {
        let start = Instant::now();
        call();
        times.push(start.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// Numbers in (-0.5, 0.5) from a linear congruential generator (Numerical Recipes), as stored and in f32.
pub(crate) fn random(backend: &CpuBackend, dtype: Dtype, len: usize, seed: u32) -> (Buffer, Vec<f32>) {
    let mut state = seed;
    let mut numbers: Vec<f32> = (0..len)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1u32 << 24) as f32 - 0.5
        })
        .collect();
    let mut buffer = backend.alloc(MemoryClass::Workspace, dtype, len);
    backend.upload(&numbers, &mut buffer, 0);
    backend.download(&buffer, 0, &mut numbers);
    (buffer, numbers)
}
