//! Speed of `Backend::matmul` in GFLOP/s, shape by shape; every result is checked against f64 sums first.
//!
//! ```text
//! cargo run --release -p foundry-kernels --example matmul_rate -- [--threads N] [--isa NAME] [--seconds S] [SPEC…]
//! ```
//! A spec is `layout:operands:result:MxNxK`, such as `nt:bf16:f32:2048x1536x576` (`C[M,N]`, sums of length `K`);
//! without one, the shapes of SmolLM2-135M and Llama-3.2-1B are timed. The spec `-` reads specs from standard input,
//! one a line, and answers each at once, so that a script can time another library in between.

use foundry_kernels::{Allocator, Backend, Buffer, CpuBackend, Dtype, Isa, Matmul, MemoryClass};
use std::io::Write;
use std::time::{Duration, Instant};

/// SmolLM2-135M (width 576, k/v 192, feed-forward 1536, vocabulary 49152) and Llama-3.2-1B (2048, 512, 8192): forward,
/// input gradient, weight gradient, LoRA of rank 16, decoding.
const SHAPES: &[&str] = &[
    "nt:bf16:bf16:1024x576x576",
    "nt:bf16:bf16:1024x192x576",
    "nt:bf16:bf16:1024x1536x576",
    "nt:bf16:bf16:1024x576x1536",
    "nt:bf16:bf16:2048x1536x576",
    "nt:bf16:f32:1024x49152x576",
    "nn:bf16:bf16:1024x576x576",
    "nn:bf16:bf16:1024x1536x576",
    "nn:bf16:bf16:1024x576x1536",
    "tn:bf16:f32:1536x576x1024",
    "nt:bf16:bf16:1024x2048x2048",
    "nt:bf16:bf16:1024x512x2048",
    "nt:bf16:bf16:1024x8192x2048",
    "nt:bf16:bf16:1024x2048x8192",
    "nn:bf16:bf16:1024x2048x8192",
    "tn:bf16:f32:8192x2048x1024",
    "nt:bf16:bf16:1024x16x576",
    "nt:bf16:bf16:1024x576x16",
    "nn:bf16:bf16:1024x16x576",
    "nn:bf16:bf16:1024x576x16",
    "tn:bf16:f32:16x576x1024",
    "tn:bf16:f32:576x16x1024",
    "nt:bf16:f32:1x49152x576",
    "nt:bf16:bf16:1x8192x2048",
    "nt:bf16:bf16:4x8192x2048",
    "nt:f32:f32:1024x1536x576",
    "nt:f32:f32:1024x576x1536",
    "nn:f32:f32:1024x576x1536",
    "tn:f32:f32:1536x576x1024",
    "nt:f32:f32:1024x2048x2048",
    "nt:f32:f32:1024x2048x8192",
    "nt:f32:f32:1x8192x2048",
];

struct Spec {
    op: Matmul,
    operands: Dtype,
    result: Dtype,
}

impl Spec {
    fn parse(text: &str) -> Option<Spec> {
        let mut fields = text.trim().split(':');
        let (layout, operands, result, shape) =
            (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
        let sizes: Vec<usize> = shape.split('x').map(|size| size.parse().ok()).collect::<Option<_>>()?;
        let [m, n, k] = sizes[..] else { return None };
        let op = match layout {
            "nt" => Matmul::nt(m, n, k),
            "nn" => Matmul::nn(m, n, k),
            "tn" => Matmul::tn(m, n, k),
            "tt" => Matmul { trans_b: true, ..Matmul::tn(m, n, k) },
            _ => return None,
        };
        let dtype = |name| match name {
            "f32" => Some(Dtype::F32),
            "bf16" => Some(Dtype::Bf16),
            _ => None,
        };
        Some(Spec { op, operands: dtype(operands)?, result: dtype(result)? })
    }
}

/// Numbers in (-0.5, 0.5) from a linear congruential generator (Numerical Recipes).
fn random(backend: &CpuBackend, dtype: Dtype, len: usize, seed: u32) -> (Buffer, Vec<f32>) {
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

/// Compares some 500 sums with f64; panics on a wrong one.
fn verify(spec: &Spec, a: &[f32], b: &[f32], c: &[f32]) {
    let Matmul { m, n, k, trans_a, trans_b, .. } = spec.op;
    for s in 0..500usize {
        let (i, j) = ((s * 7919) % m, (s * 104_729) % n);
        let (mut sum, mut size) = (0.0f64, 0.0f64);
        for p in 0..k {
            let x = if trans_a { a[p * m + i] } else { a[i * k + p] };
            let y = if trans_b { b[j * k + p] } else { b[p * n + j] };
            let product = f64::from(x) * f64::from(y);
            sum += product;
            size += product.abs();
        }
        let rounding = if spec.result == Dtype::Bf16 { sum.abs() / 256.0 } else { 0.0 };
        let bound = (k + 2) as f64 * f64::from(f32::EPSILON) / 2.0 * size + rounding;
        let got = f64::from(c[i * n + j]);
        assert!((got - sum).abs() <= bound, "C[{i},{j}] is {got}, should be {sum}");
    }
}

/// Median and best GFLOP/s over `seconds` of calls (at least five).
fn rate(backend: &CpuBackend, spec: &Spec, seconds: f64) -> (f64, f64, f64) {
    let Matmul { m, n, k, .. } = spec.op;
    let (a, a_wide) = random(backend, spec.operands, m * k, 1);
    let (b, b_wide) = random(backend, spec.operands, k * n, 2);
    let mut c = backend.alloc(MemoryClass::Workspace, spec.result, m * n);
    backend.matmul(spec.op, &a, &b, &mut c);
    let mut c_wide = vec![0.0; m * n];
    backend.download(&c, 0, &mut c_wide);
    verify(spec, &a_wide, &b_wide, &c_wide);
    let (mut times, start) = (Vec::new(), Instant::now());
    while times.len() < 5 || start.elapsed() < Duration::from_secs_f64(seconds) {
        let start = Instant::now();
        backend.matmul(spec.op, &a, &b, &mut c);
        times.push(start.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    let flops = 2.0 * (m * n) as f64 * k as f64 / 1e9;
    let median = times[times.len() / 2];
    (flops / median, flops / times[0], median * 1e3)
}

fn report(backend: &CpuBackend, text: &str, seconds: f64) {
    let Some(spec) = Spec::parse(text) else {
        println!("{text}: not a spec; write for example nt:bf16:f32:2048x1536x576");
        return;
    };
    let (median, best, milliseconds) = rate(backend, &spec, seconds);
    println!("{:32} median {median:7.1} best {best:7.1} GFLOP/s {milliseconds:9.4} ms", text.trim());
    std::io::stdout().flush().expect("standard output is open");
}

fn main() {
    let (mut threads, mut isa, mut seconds) = (None, Isa::detect(), 0.3);
    let mut specs = Vec::new();
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().unwrap_or_else(|| panic!("{argument} needs a value"));
        match argument.as_str() {
            "--threads" => threads = Some(value().parse().expect("--threads takes a number")),
            "--isa" => {
                isa =
                    Isa::named(&value()).expect("an instruction set of this machine: avx512, avx2, portable")
            }
            "--seconds" => seconds = value().parse().expect("--seconds takes a number"),
            _ => specs.push(argument),
        }
    }
    let threads = threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    let backend = CpuBackend::new(threads, isa);
    println!("{}", backend.name());
    if specs.is_empty() {
        specs.extend(SHAPES.iter().map(|&shape| shape.to_owned()));
    }
    for spec in &specs {
        if spec == "-" {
            std::io::stdin().lines().map_while(Result::ok).for_each(|line| report(&backend, &line, seconds));
        } else {
            report(&backend, spec, seconds);
        }
    }
}
