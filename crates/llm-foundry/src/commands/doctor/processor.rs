//! The processor: what it has, what the kernels make of it, and how fast that is.

use crate::config::ComputeDtype;
use crate::machine::{Machine, dtype_name};
use foundry_kernels::{Allocator, Backend, CpuBackend, Dtype, Isa, Matmul, MemoryClass};
use serde::Serialize;
use std::time::{Duration, Instant};

/// What was found.
#[derive(Debug, Serialize)]
pub(super) struct Processor {
    name: String,
    /// Those of its instruction sets that matter here.
    features: Vec<&'static str>,
    /// The instruction set that the kernels use.
    kernels: &'static str,
    /// All that could be chosen.
    kernels_available: Vec<&'static str>,
    threads: usize,
    /// What this process may use.
    threads_available: usize,
    /// `model.dtype: auto` means this.
    dtype: &'static str,
    gflops: Speeds,
}

/// Matrix products, in 10^9 floating-point operations a second.
#[derive(Debug, Serialize)]
struct Speeds {
    float32: f64,
    bfloat16: f64,
}

/// How long one number format is measured.
const MEASURED: Duration = Duration::from_millis(250);

impl Processor {
    /// Looks, and measures for about half a second.
    pub(super) fn look(machine: Machine) -> Self {
        let mut system = sysinfo::System::new().ok();
        let name = system.as_mut().and_then(|system| {
            system.refresh_cpu_all();
            Some(system.cpus().first()?.brand().trim().to_owned())
        });
        let backend = machine.backend();
        Self {
            name: name.filter(|name| !name.is_empty()).unwrap_or_else(|| "unknown".into()),
            features: features(),
            kernels: machine.isa.name(),
            kernels_available: Isa::available().into_iter().map(Isa::name).collect(),
            threads: machine.threads,
            threads_available: std::thread::available_parallelism().map_or(1, usize::from),
            dtype: dtype_name(machine.compute(ComputeDtype::Auto)),
            gflops: Speeds { float32: gflops(&backend, Dtype::F32), bfloat16: gflops(&backend, Dtype::Bf16) },
        }
    }

    pub(super) fn lines(&self) -> Vec<(&'static str, String)> {
        let Speeds { float32, bfloat16 } = self.gflops;
        vec![
            ("name", self.name.clone()),
            ("features", self.features.join(" ")),
            ("kernels", format!("{} (of {})", self.kernels, self.kernels_available.join(", "))),
            ("threads", format!("{} of {}", self.threads, self.threads_available)),
            ("number format", format!("{} where model.dtype is auto", self.dtype)),
            ("products", format!("float32 {float32:.0} GFLOP/s, bfloat16 {bfloat16:.0} GFLOP/s")),
        ]
    }

    pub(super) fn advice(&self) -> Vec<String> {
        let mut advice = Vec::new();
        if self.kernels != self.kernels_available[0] {
            let best = self.kernels_available[0];
            advice.push(format!(
                "the {} kernels are used, but this machine has {best}: take --isa or FOUNDRY_ISA away",
                self.kernels
            ));
        } else if self.kernels == "portable" {
            advice.push("no AVX2 and no AVX-512: the portable kernels are several times slower".into());
        }
        if self.threads > self.threads_available {
            advice.push(format!(
                "{} threads share {there} processors, which is slower than {there} threads would be",
                self.threads,
                there = self.threads_available
            ));
        }
        advice
    }
}

/// Names as in `/proc/cpuinfo`.
#[cfg(target_arch = "x86_64")]
fn features() -> Vec<&'static str> {
    let found = [
        ("sse4_2", is_x86_feature_detected!("sse4.2")),
        ("avx", is_x86_feature_detected!("avx")),
        ("f16c", is_x86_feature_detected!("f16c")),
        ("fma", is_x86_feature_detected!("fma")),
        ("avx2", is_x86_feature_detected!("avx2")),
        ("avx512f", is_x86_feature_detected!("avx512f")),
        ("avx512bw", is_x86_feature_detected!("avx512bw")),
        ("avx512dq", is_x86_feature_detected!("avx512dq")),
        ("avx512vl", is_x86_feature_detected!("avx512vl")),
        ("avx512_vnni", is_x86_feature_detected!("avx512vnni")),
        ("avx512_bf16", is_x86_feature_detected!("avx512bf16")),
        ("avx512_fp16", is_x86_feature_detected!("avx512fp16")),
        ("amx", Isa::available().iter().any(|isa| isa.name() == "amx")),
    ];
    found.into_iter().filter(|(_, there)| *there).map(|(name, _)| name).collect()
}

#[cfg(not(target_arch = "x86_64"))]
fn features() -> Vec<&'static str> {
    Vec::new()
}

/// The best of the products that fit into the time; the shape is that of a linear layer of a small model.
fn gflops(backend: &CpuBackend, dtype: Dtype) -> f64 {
    let (tokens, outputs, inputs) = (512, 1536, 576);
    let op = Matmul::nt(tokens, outputs, inputs);
    let filled = |len: usize| {
        let mut buffer = backend.alloc(MemoryClass::Workspace, dtype, len);
        let values: Vec<f32> = (0..len).map(|i| (i % 13) as f32 / 13.0 - 0.5).collect();
        backend.upload(&values, &mut buffer, 0);
        buffer
    };
    let (x, w, mut y) = (filled(tokens * inputs), filled(outputs * inputs), filled(tokens * outputs));
    let began = Instant::now();
    let mut best = f64::INFINITY;
    while began.elapsed() < MEASURED || best.is_infinite() {
        let start = Instant::now();
        backend.matmul(op, &x, &w, &mut y);
        best = best.min(start.elapsed().as_secs_f64());
    }
    2.0 * (tokens * outputs * inputs) as f64 / best.max(1e-9) / 1e9
}
