//! Products: dense and quantised, checked against f64 sums before they are timed.

use crate::rows::{Row, median_seconds, random};
use foundry_kernels::{
    Allocator, Backend, Buffer, CpuBackend, Dtype, Matmul, MemoryClass, Quantization, QuantizedMatrix,
};

/// SmolLM2-135M (width 576, k/v 192, feed-forward 1536, vocabulary 49152) and Llama-3.2-1B (2048, 512, 8192): forward,
/// input gradient, weight gradient, LoRA of rank 16, decoding.
pub(crate) const SHAPES: &[&str] = &[
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
    "nt:bf16-nf4:bf16:1024x1536x576",
    "nn:bf16-nf4:bf16:1024x576x1536",
    "nt:bf16-nf4:bf16:1024x8192x2048",
    "nt:bf16-nf4:bf16:1x8192x2048",
    "nt:bf16-int8:bf16:1024x1536x576",
    "nt:bf16-int8:bf16:1024x8192x2048",
    "nt:f32-nf4:f32:1024x1536x576",
    "nt:f32:f32:1024x1536x576",
    "nt:f32:f32:1024x576x1536",
    "nn:f32:f32:1024x576x1536",
    "tn:f32:f32:1536x576x1024",
    "nt:f32:f32:1024x2048x2048",
    "nt:f32:f32:1024x2048x8192",
    "nt:f32:f32:1x8192x2048",
];

/// One product.
struct Spec {
    op: Matmul,
    operands: Dtype,
    stored: Option<Quantization>,
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
        let (operands, stored) = match operands.split_once('-') {
            None => (operands, None),
            Some((operands, "nf4")) => (operands, Some(Quantization::Nf4 { double_quant: true })),
            Some((operands, "int8")) => (operands, Some(Quantization::Int8)),
            Some(_) => return None,
        };
        if stored.is_some() && op.trans_a {
            return None;
        }
        Some(Spec { op, operands: dtype(operands)?, stored, result: dtype(result)? })
    }

    /// Bytes that must be read and written once.
    fn bytes(&self) -> f64 {
        let Matmul { m, n, k, .. } = self.op;
        let stored = match self.stored {
            None => self.operands.bytes() as f64,
            Some(Quantization::Int8) => 1.0,
            Some(Quantization::Nf4 { .. }) => 4.127 / 8.0,
        };
        (m * k * self.operands.bytes() + m * n * self.result.bytes()) as f64 + (n * k) as f64 * stored
    }
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

/// Times one product, for at least `seconds`; `None` if `text` is no spec.
pub(crate) fn row(backend: &CpuBackend, text: &str, seconds: f64) -> Option<Row> {
    let spec = Spec::parse(text)?;
    let Matmul { m, n, k, trans_b, .. } = spec.op;
    let (a, a_wide) = random(backend, spec.operands, m * k, 1);
    let (mut b, mut b_wide) = random(backend, spec.operands, k * n, 2);
    let quantized = spec.stored.map(|kind| {
        let (rows, cols) = if trans_b { (n, k) } else { (k, n) };
        let mut w = QuantizedMatrix::allocate(backend, MemoryClass::Workspace, kind, rows, cols);
        backend.quantize(&b_wide, &mut w);
        backend.dequantize(&w, &mut b);
        backend.download(&b, 0, &mut b_wide);
        w
    });
    let mut c = backend.alloc(MemoryClass::Workspace, spec.result, m * n);
    let product = |c: &mut Buffer| match &quantized {
        Some(w) => backend.matmul_quantized(spec.op, &a, w, c),
        None => backend.matmul(spec.op, &a, &b, c),
    };
    product(&mut c);
    let mut c_wide = vec![0.0; m * n];
    backend.download(&c, 0, &mut c_wide);
    verify(&spec, &a_wide, &b_wide, &c_wide);
    let seconds = median_seconds(seconds, || product(&mut c));
    Some(Row {
        name: format!("matmul {}", text.trim()),
        seconds,
        flops: 2.0 * (m * n) as f64 * k as f64,
        bytes: spec.bytes(),
        bf16: spec.operands == Dtype::Bf16,
    })
}
