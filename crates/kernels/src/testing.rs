//! One battery for every operation: a case is a function of a backend that returns what the operation wrote; the
//! battery runs it on the reference and on each instruction set with one, two and three threads.

use crate::{Backend, Buffer, CpuBackend, Dtype, Isa, ReferenceBackend};

/// Reproducible numbers in (-1, 1): a 64-bit linear congruential generator (Knuth's MMIX constants), its upper bits.
pub(crate) struct Numbers(u64);

impl Numbers {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0x5DEE_CE66)
    }

    pub(crate) fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 40) as f32 - 8_388_607.5) / 8_388_608.0
    }

    /// `n` numbers in (-range, range).
    pub(crate) fn vec(&mut self, n: usize, range: f32) -> Vec<f32> {
        (0..n).map(|_| self.next() * range).collect()
    }

    /// `n` numbers in (-range, range) for gradient checks.
    pub(crate) fn vec64(&mut self, n: usize, range: f64) -> Vec<f64> {
        (0..n).map(|_| f64::from(self.next()) * range).collect()
    }

    /// `n` integers below `end`.
    pub(crate) fn below(&mut self, n: usize, end: u32) -> Vec<u32> {
        (0..n).map(|_| ((self.next() * 0.5 + 0.5) * end as f32) as u32 % end).collect()
    }
}

/// A buffer with these numbers, rounded to its dtype.
pub(crate) fn buffer(dtype: Dtype, x: &[f32]) -> Buffer {
    let mut buffer = Buffer::host(dtype, x.len());
    ReferenceBackend::default().upload(x, &mut buffer, 0);
    buffer
}

/// Starting values of the optimisers' golden numbers (`crates/kernels/golden/`): short binary fractions.
pub(crate) fn golden_start(n: usize) -> Vec<f32> {
    (0..n).map(|i| ((i * 5 % 32) as f32 - 15.5) / 16.0).collect()
}

/// Gradients of the optimisers' golden numbers.
pub(crate) fn golden_gradient(n: usize, step: usize) -> Vec<f32> {
    (0..n).map(|i| ((i * 37 + step * 101) % 64) as f32 / 64.0 - 0.492_187_5).collect()
}

/// Compares with golden bits: within `tolerance` of the greatest magnitude.
pub(crate) fn assert_near(name: &str, tolerance: f32, got: &[f32], golden: &[u32]) {
    let golden: Vec<f32> = golden.iter().map(|bits| f32::from_bits(*bits)).collect();
    compare(name, tolerance, std::slice::from_ref(&golden), &[got.to_vec()]);
}

/// A buffer of ids.
pub(crate) fn ids(x: &[u32]) -> Buffer {
    let mut buffer = Buffer::host(Dtype::U32, x.len());
    buffer.u32_mut().copy_from_slice(x);
    buffer
}

/// A buffer full of one number, to see what an operation leaves alone.
pub(crate) fn filled(dtype: Dtype, len: usize, value: f32) -> Buffer {
    buffer(dtype, &vec![value; len])
}

/// All elements of a buffer.
pub(crate) fn read(x: &Buffer) -> Vec<f32> {
    let mut out = vec![0.0; x.len()];
    ReferenceBackend::default().download(x, 0, &mut out);
    out
}

/// The operand dtypes, each with the tolerance of a result: relative to the greatest magnitude of the result. For bf16
/// one unit in the last place, 2⁻⁷, as a sum that differs in the last f32 bits may round to the other neighbour.
pub(crate) fn operands(f32_tolerance: f32) -> [(Dtype, f32); 2] {
    [(Dtype::F32, f32_tolerance), (Dtype::Bf16, 1.0 / 128.0)]
}

/// Runs `case` everywhere. Results must be within `tolerance · max|expected|` of the reference's, and have the same
/// bits for any number of threads and on a second run.
pub(crate) fn check(name: &str, tolerance: f32, case: impl Fn(&dyn Backend) -> Vec<Vec<f32>>) {
    let expected = case(&ReferenceBackend::default());
    for isa in Isa::available() {
        let one = case(&CpuBackend::new(1, isa));
        compare(&format!("{name}, {}", isa.name()), tolerance, &expected, &one);
        for threads in [2, 3] {
            let backend = CpuBackend::new(threads, isa);
            for run in ["first", "second"] {
                assert_same_bits(
                    &format!("{name}, {}, {threads} threads, {run} run", isa.name()),
                    &one,
                    &case(&backend),
                );
            }
        }
    }
}

fn compare(name: &str, tolerance: f32, expected: &[Vec<f32>], got: &[Vec<f32>]) {
    assert_eq!(expected.len(), got.len());
    for (output, (expected, got)) in expected.iter().zip(got).enumerate() {
        assert_eq!(expected.len(), got.len());
        let bound = tolerance * expected.iter().fold(0.0, |a, b| b.abs().max(a));
        for (i, (e, g)) in expected.iter().zip(got).enumerate() {
            let fits = (e - g).abs() <= bound || (e.is_nan() && g.is_nan()) || e == g;
            assert!(
                fits,
                "{name}: output {output}, element {i}: expected {e}, got {g}, off by more than {bound}"
            );
        }
    }
}

fn assert_same_bits(name: &str, one: &[Vec<f32>], other: &[Vec<f32>]) {
    for (output, (one, other)) in one.iter().zip(other).enumerate() {
        for (i, (a, b)) in one.iter().zip(other).enumerate() {
            assert_eq!(
                a.to_bits(),
                b.to_bits(),
                "{name}: output {output}, element {i}: {a} on one thread, {b} here"
            );
        }
    }
}

/// Compares gradients with central differences of `loss` in f64. The step 1e-5 leaves an error near 1e-10 relative
/// to the third derivative and 1e-11 of cancellation; 1e-7 of the greatest gradient catches any wrong term.
pub(crate) fn gradcheck(inputs: &[Vec<f64>], gradients: &[Vec<f64>], loss: impl Fn(&[Vec<f64>]) -> f64) {
    let step = 1e-5;
    for (which, gradient) in gradients.iter().enumerate() {
        let scale = gradient.iter().fold(1e-3, |a: f64, b| a.max(b.abs()));
        for i in 0..gradient.len() {
            let mut moved = inputs.to_vec();
            moved[which][i] = inputs[which][i] + step;
            let above = loss(&moved);
            moved[which][i] = inputs[which][i] - step;
            let slope = (above - loss(&moved)) / (2.0 * step);
            let error = (slope - gradient[i]).abs();
            assert!(
                error <= 1e-7 * scale,
                "input {which}, element {i}: gradient {}, slope {slope}",
                gradient[i]
            );
        }
    }
}

/// `Σ weights·x`: turns a tensor into a loss whose gradient is `weights`.
pub(crate) fn weighted(x: &[f64], weights: &[f64]) -> f64 {
    x.iter().zip(weights).map(|(x, w)| x * w).sum()
}
