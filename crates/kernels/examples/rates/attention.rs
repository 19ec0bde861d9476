//! Causal attention of one sequence or of short ones in a packed row, forward and backward; only the work below the
//! diagonals is counted.

use crate::rows::{Row, median_seconds, random};
use foundry_kernels::{
    Allocator, Attention, Backend, Buffer, CpuBackend, Dtype, MemoryClass, ReferenceBackend, Span,
};

/// SmolLM2-135M and Llama-3.2-1B.
pub(crate) const SHAPES: &[&str] = &[
    "attention:f32:9x3x64x1024",
    "attention:f32:9x3x64x8192",
    "attention:bf16:9x3x64x1024",
    "attention:bf16:9x3x64x1024/150",
    "attention:bf16:9x3x64x8192",
    "attention:bf16:32x8x64x2048",
];

struct Tensors {
    inputs: [Buffer; 4],
    out: Buffer,
    lse: Buffer,
    gradients: [Buffer; 3],
}

fn tensors(backend: &CpuBackend, op: &Attention, dtype: Dtype, tokens: usize) -> Tensors {
    let (wide, narrow) = (tokens * op.heads * op.head_dim, tokens * op.kv_heads * op.head_dim);
    let zeros = |dtype, len| backend.alloc(MemoryClass::Workspace, dtype, len);
    let inputs = [(wide, 1), (narrow, 2), (narrow, 3), (wide, 4)];
    Tensors {
        inputs: inputs.map(|(len, seed)| random(backend, dtype, len, seed).0),
        out: zeros(dtype, wide),
        lse: zeros(Dtype::F32, tokens * op.heads),
        gradients: [wide, narrow, narrow].map(|len| zeros(dtype, len)),
    }
}

impl Tensors {
    fn forward(&mut self, backend: &dyn Backend, op: &Attention, spans: &[Span]) {
        let [q, k, v, _] = &self.inputs;
        backend.attention_forward(op, spans, q, k, v, &mut self.out, &mut self.lse);
    }

    fn backward(&mut self, backend: &dyn Backend, op: &Attention, spans: &[Span]) {
        let ([q, k, v, dout], [dq, dk, dv]) = (&self.inputs, &mut self.gradients);
        backend.attention_backward(op, spans, q, k, v, &self.out, &self.lse, dout, dq, dk, dv);
    }

    fn results(&self, backend: &dyn Backend) -> Vec<f32> {
        let mut all = Vec::new();
        for buffer in std::iter::once(&self.out).chain(&self.gradients) {
            let mut part = vec![0.0; buffer.len()];
            backend.download(buffer, 0, &mut part);
            all.extend(part);
        }
        all
    }
}

/// Panics unless a short row equals the reference's within the roundings of the dtype.
fn verify(backend: &CpuBackend, op: &Attention, dtype: Dtype) {
    let (reference, spans) = (ReferenceBackend::default(), Span::packed(&[150, 43]));
    let run = |backend: &dyn Backend, mut tensors: Tensors| {
        tensors.forward(backend, op, &spans);
        tensors.backward(backend, op, &spans);
        tensors.results(backend)
    };
    let got = run(backend, tensors(backend, op, dtype, 193));
    let expected = run(&reference, tensors(backend, op, dtype, 193));
    let most = expected.iter().fold(0.0, |most: f32, x| most.max(x.abs()));
    let bound = most * if dtype == Dtype::Bf16 { 1.0 / 64.0 } else { 4e-5 };
    for (i, (got, expected)) in got.iter().zip(&expected).enumerate() {
        assert!((got - expected).abs() <= bound, "attention: {got} at {i}, not {expected}");
    }
}

/// Forward and backward; `None` if `text` is no spec.
pub(crate) fn rows(backend: &CpuBackend, text: &str, seconds: f64) -> Option<[Row; 2]> {
    let rest = text.trim().strip_prefix("attention:")?;
    let (dtype, shape) = rest.split_once(':')?;
    let dtype = match dtype {
        "f32" => Dtype::F32,
        "bf16" => Dtype::Bf16,
        _ => return None,
    };
    let (shape, len) = match shape.split_once('/') {
        None => (shape, None),
        Some((shape, len)) => (shape, Some(len.parse::<usize>().ok().filter(|len| *len > 0)?)),
    };
    let sizes: Vec<usize> = shape.split('x').map(|size| size.parse().ok()).collect::<Option<_>>()?;
    let [heads, kv_heads, head_dim, tokens] = sizes[..] else { return None };
    if heads == 0 || kv_heads == 0 || heads % kv_heads != 0 || head_dim == 0 || tokens == 0 {
        return None;
    }
    let scale = 1.0 / (head_dim as f32).sqrt();
    let op = Attention { heads, kv_heads, head_dim, scale, window: None, softcap: None };
    verify(backend, &op, dtype);
    let len = len.unwrap_or(tokens);
    let lens: Vec<usize> = (0..tokens).step_by(len).map(|first| len.min(tokens - first)).collect();
    let spans = Span::packed(&lens.iter().map(|len| *len as u32).collect::<Vec<_>>());
    let mut tensors = tensors(backend, &op, dtype, tokens);
    let forward = median_seconds(seconds, || tensors.forward(backend, &op, &spans));
    let backward = median_seconds(seconds, || tensors.backward(backend, &op, &spans));
    // Two products of the pairs below the diagonal forward, five backward.
    let pairs: usize = lens.iter().map(|len| len * (len + 1)).sum();
    let product = heads as f64 * head_dim as f64 * pairs as f64;
    let (wide, narrow) = (tokens * heads * head_dim, tokens * kv_heads * head_dim);
    let row = |name, seconds, products: f64, numbers: usize| Row {
        name: format!("{name} {}", text.trim()),
        seconds,
        flops: products * product,
        bytes: (numbers * dtype.bytes()) as f64,
        bf16: dtype == Dtype::Bf16,
    };
    Some([
        row("forward", forward, 2.0, 2 * wide + 2 * narrow),
        row("backward", backward, 5.0, 4 * wide + 4 * narrow),
    ])
}
