//! Norms, rotations, activations, the head with its loss, optimisers: all limited by memory, except the head.

use crate::rows::{Row, median_seconds, random};
use foundry_kernels::{
    AdamW, Allocator, Backend, BlockwiseState, Buffer, CpuBackend, Dtype, LinearCrossEntropy, Lion,
    MemoryClass, ReferenceBackend, Rounding, TokenLoss,
};

/// SmolLM2-135M and Llama-3.2-1B: a row of 1,024 tokens; updates of a LoRA adapter and of a large matrix.
pub(crate) const SHAPES: &[&str] = &[
    "rmsnorm:bf16:1024x576",
    "rmsnorm:bf16:1024x2048",
    "rope:bf16:1024x9x64",
    "rope:bf16:1024x32x64",
    "swiglu:bf16:1024x1536",
    "swiglu:bf16:1024x8192",
    "cross_entropy:bf16:1024x49152x576",
    "cross_entropy:bf16:256x128256x2048",
    "cross_entropy:f32:256x49152x576",
    "adamw:f32:4884480x1",
    "adamw:bf16:2048x8192",
    "adamw_8bit:f32:2048x8192",
    "lion:f32:2048x8192",
];

const ADAMW: AdamW = AdamW {
    lr: 1e-3,
    beta1: 0.9,
    beta2: 0.999,
    eps: 1e-8,
    weight_decay: 0.01,
    step: 1,
    grad_scale: 0.5,
    rounding: Rounding::Nearest,
};

/// Runs an operation on a backend and the buffers of its case.
type Call = Box<dyn Fn(&dyn Backend, &mut [Buffer])>;

/// An operation on buffers of its own.
struct Case {
    name: &'static str,
    buffers: Vec<Buffer>,
    /// Which of the buffers it writes.
    written: Vec<usize>,
    flops: f64,
    bytes: f64,
    call: Call,
}

/// Makes the cases of one operation at one size.
type Make = fn(&CpuBackend, Dtype, &[usize]) -> Vec<Case>;

/// The operation of that name, and a small size at which the reference checks it.
fn operation(name: &str) -> Option<(Make, &'static [usize])> {
    Some(match name {
        "rmsnorm" => (rmsnorm, &[37, 100]),
        "rope" => (rope, &[37, 3, 20]),
        "swiglu" => (swiglu, &[37, 100]),
        "cross_entropy" => (cross_entropy, &[37, 301, 40]),
        "adamw" => (adamw, &[37, 100]),
        "adamw_8bit" => (adamw_8bit, &[37, 100]),
        "lion" => (lion, &[37, 100]),
        _ => return None,
    })
}

fn numbers(backend: &CpuBackend, dtype: Dtype, len: usize, seed: u32) -> Buffer {
    random(backend, dtype, len, seed).0
}

fn zeros(backend: &CpuBackend, dtype: Dtype, len: usize) -> Buffer {
    backend.alloc(MemoryClass::Workspace, dtype, len)
}

fn rmsnorm(backend: &CpuBackend, dtype: Dtype, sizes: &[usize]) -> Vec<Case> {
    let &[rows, width] = sizes else { return Vec::new() };
    let n = rows * width;
    let inputs = || vec![numbers(backend, Dtype::F32, n, 1), numbers(backend, Dtype::F32, width, 2)];
    let mut forward = inputs();
    forward.extend([zeros(backend, dtype, n), zeros(backend, Dtype::F32, rows)]);
    let mut backward = inputs();
    let rstd = numbers(backend, Dtype::F32, rows, 4);
    backward.extend([numbers(backend, dtype, n, 3), rstd, zeros(backend, Dtype::F32, n)]);
    let size = dtype.bytes() as f64;
    vec![
        Case {
            name: "forward",
            buffers: forward,
            written: vec![2, 3],
            flops: 4.0 * n as f64,
            bytes: n as f64 * (4.0 + size),
            call: Box::new(move |backend, buffers| {
                let [x, weight, y, rstd] = buffers else { unreachable!("four buffers") };
                backend.rmsnorm_forward(rows, width, 1e-5, x, weight, y, rstd);
            }),
        },
        Case {
            name: "backward",
            buffers: backward,
            written: vec![4],
            flops: 8.0 * n as f64,
            bytes: n as f64 * (12.0 + size),
            call: Box::new(move |backend, buffers| {
                let [x, weight, dy, rstd, dx] = buffers else { unreachable!("five buffers") };
                backend.rmsnorm_backward(rows, width, dy, x, weight, rstd, dx, None);
            }),
        },
    ]
}

fn rope(backend: &CpuBackend, dtype: Dtype, sizes: &[usize]) -> Vec<Case> {
    let &[tokens, heads, head_dim] = sizes else { return Vec::new() };
    let mut positions = zeros(backend, Dtype::U32, tokens);
    backend.upload_u32(&(0..tokens as u32).collect::<Vec<_>>(), &mut positions);
    let n = tokens * heads * head_dim;
    vec![Case {
        name: "forward",
        buffers: vec![
            positions,
            numbers(backend, Dtype::F32, tokens * head_dim, 1),
            numbers(backend, dtype, n, 2),
        ],
        written: vec![2],
        flops: 3.0 * n as f64,
        bytes: (2 * n * dtype.bytes() + 4 * tokens * head_dim) as f64,
        call: Box::new(move |backend, buffers| {
            let [positions, table, x] = buffers else { unreachable!("three buffers") };
            backend.rope_forward(tokens, heads, head_dim, positions, table, x);
        }),
    }]
}

fn swiglu(backend: &CpuBackend, dtype: Dtype, sizes: &[usize]) -> Vec<Case> {
    let n = sizes.iter().product::<usize>();
    let inputs = || vec![numbers(backend, dtype, n, 1), numbers(backend, dtype, n, 2)];
    let (mut forward, mut backward) = (inputs(), inputs());
    forward.push(zeros(backend, dtype, n));
    backward.extend([numbers(backend, dtype, n, 3), zeros(backend, dtype, n), zeros(backend, dtype, n)]);
    let size = (n * dtype.bytes()) as f64;
    vec![
        Case {
            name: "forward",
            buffers: forward,
            written: vec![2],
            flops: 5.0 * n as f64,
            bytes: 3.0 * size,
            call: Box::new(move |backend, buffers| {
                let [gate, up, out] = buffers else { unreachable!("three buffers") };
                backend.swiglu_forward(n, gate, up, out);
            }),
        },
        Case {
            name: "backward",
            buffers: backward,
            written: vec![3, 4],
            flops: 10.0 * n as f64,
            bytes: 5.0 * size,
            call: Box::new(move |backend, buffers| {
                let [gate, up, dout, dgate, dup] = buffers else { unreachable!("five buffers") };
                backend.swiglu_backward(n, gate, up, dout, dgate, dup);
            }),
        },
    ]
}

/// Logits, loss and the gradient of the input, in chunks of 64 MiB as the decoder does.
fn cross_entropy(backend: &CpuBackend, dtype: Dtype, sizes: &[usize]) -> Vec<Case> {
    let &[tokens, vocab, width] = sizes else { return Vec::new() };
    let rows: Vec<u32> = (0..tokens as u32).collect();
    let targets: Vec<u32> = rows.iter().map(|row| row * 7919 % vocab as u32).collect();
    let chunk = ((64 << 20) / (4 * vocab)).clamp(1, tokens);
    let n = tokens * width;
    vec![Case {
        name: "with gradient",
        buffers: vec![
            numbers(backend, dtype, n, 1),
            numbers(backend, dtype, vocab * width, 2),
            zeros(backend, Dtype::F32, chunk * vocab),
            zeros(backend, dtype, n),
        ],
        written: vec![3],
        flops: 4.0 * n as f64 * vocab as f64,
        bytes: ((2 * n + vocab * width) * dtype.bytes()) as f64,
        call: Box::new(move |backend, buffers| {
            let [x, weight, logits, dx] = buffers else { unreachable!("four buffers") };
            let op = LinearCrossEntropy {
                rows: &rows,
                targets: &targets,
                width,
                vocab,
                objective: TokenLoss::CrossEntropy,
                grad_scale: 1.0,
            };
            backend.linear_cross_entropy(&op, tokens, x, weight, logits, Some(dx), None, None);
        }),
    }]
}

/// Bytes of an update of `n` parameters: gradient read; parameter, and `moments` bytes of state, read and written.
fn update_bytes(n: usize, dtype: Dtype, moments: f64) -> f64 {
    n as f64 * (4.0 + 2.0 * (dtype.bytes() as f64 + moments))
}

fn adamw(backend: &CpuBackend, dtype: Dtype, sizes: &[usize]) -> Vec<Case> {
    let n = sizes.iter().product::<usize>();
    let state = || zeros(backend, Dtype::F32, n);
    vec![Case {
        name: "update",
        buffers: vec![numbers(backend, Dtype::F32, n, 1), numbers(backend, dtype, n, 2), state(), state()],
        written: vec![1, 2, 3],
        flops: 12.0 * n as f64,
        bytes: update_bytes(n, dtype, 8.0),
        call: Box::new(move |backend, buffers| {
            let [grad, param, m, v] = buffers else { unreachable!("four buffers") };
            backend.adamw(n, &ADAMW, grad, param, m, v);
        }),
    }]
}

fn adamw_8bit(backend: &CpuBackend, dtype: Dtype, sizes: &[usize]) -> Vec<Case> {
    let n = sizes.iter().product::<usize>();
    let mut buffers = vec![numbers(backend, Dtype::F32, n, 1), numbers(backend, dtype, n, 2)];
    for _ in 0..2 {
        buffers.extend([zeros(backend, Dtype::U8, n), zeros(backend, Dtype::F32, n.div_ceil(256))]);
    }
    vec![Case {
        name: "update",
        buffers,
        // Codes may be one of two neighbours: the parameters and the scales tell.
        written: vec![1, 3, 5],
        flops: 20.0 * n as f64,
        bytes: update_bytes(n, dtype, 2.0),
        call: Box::new(move |backend, buffers| {
            let [grad, param, m, m_absmax, v, v_absmax] = buffers else { unreachable!("six buffers") };
            let state = |codes, absmax| BlockwiseState { codes, absmax };
            backend.adamw_8bit(n, &ADAMW, grad, param, state(m, m_absmax), state(v, v_absmax));
        }),
    }]
}

fn lion(backend: &CpuBackend, dtype: Dtype, sizes: &[usize]) -> Vec<Case> {
    let n = sizes.iter().product::<usize>();
    let AdamW { lr, beta1, weight_decay, grad_scale, rounding, .. } = ADAMW;
    vec![Case {
        name: "update",
        buffers: vec![
            numbers(backend, Dtype::F32, n, 1),
            numbers(backend, dtype, n, 2),
            zeros(backend, Dtype::F32, n),
        ],
        written: vec![1, 2],
        flops: 7.0 * n as f64,
        bytes: update_bytes(n, dtype, 4.0),
        call: Box::new(move |backend, buffers| {
            let [grad, param, m] = buffers else { unreachable!("three buffers") };
            let op = Lion { lr, beta1, beta2: 0.99, weight_decay, grad_scale, rounding };
            backend.lion(n, &op, grad, param, m);
        }),
    }]
}

/// What a case wrote.
fn results(case: &Case, backend: &dyn Backend) -> Vec<Vec<f32>> {
    let read = |at: &usize| {
        let mut numbers = vec![0.0; case.buffers[*at].len()];
        backend.download(&case.buffers[*at], 0, &mut numbers);
        numbers
    };
    case.written.iter().map(read).collect()
}

/// Panics unless a small case equals the reference's within the roundings of the dtype.
fn verify(backend: &CpuBackend, make: Make, dtype: Dtype, sizes: &[usize]) {
    let run = |runner: &dyn Backend| -> Vec<Vec<f32>> {
        let mut cases = make(backend, dtype, sizes);
        cases
            .iter_mut()
            .flat_map(|case| {
                (case.call)(runner, &mut case.buffers);
                results(case, runner)
            })
            .collect()
    };
    let (got, expected) = (run(backend), run(&ReferenceBackend::default()));
    for (got, expected) in got.iter().zip(&expected) {
        let most = expected.iter().fold(0.0, |most: f32, x| most.max(x.abs()));
        let bound = most * if dtype == Dtype::Bf16 { 1.0 / 64.0 } else { 1e-4 };
        for (i, (got, expected)) in got.iter().zip(expected).enumerate() {
            assert!((got - expected).abs() <= bound, "{got} at {i}, not {expected}");
        }
    }
}

/// The passes of one operation; `None` if `text` is no spec.
pub(crate) fn rows(backend: &CpuBackend, text: &str, seconds: f64) -> Option<Vec<Row>> {
    let mut fields = text.trim().split(':');
    let (name, dtype, shape) = (fields.next()?, fields.next()?, fields.next()?);
    let dtype = match dtype {
        "f32" => Dtype::F32,
        "bf16" => Dtype::Bf16,
        _ => return None,
    };
    let sizes: Vec<usize> = shape.split('x').map(|size| size.parse().ok()).collect::<Option<_>>()?;
    let (make, small) = operation(name)?;
    if sizes.len() != small.len() || sizes.contains(&0) || (name == "rope" && !sizes[2].is_multiple_of(2)) {
        return None;
    }
    verify(backend, make, dtype, small);
    let rows = make(backend, dtype, &sizes).into_iter().map(|mut case| Row {
        name: format!("{} {}", case.name, text.trim()),
        seconds: median_seconds(seconds, || (case.call)(backend, &mut case.buffers)),
        flops: case.flops,
        bytes: case.bytes,
        bf16: dtype == Dtype::Bf16 && name == "cross_entropy",
    });
    Some(rows.collect())
}
