//! A backend that measures another one: how long each operation took, how much it computed and moved.

use crate::{
    Adafactor, AdamW, Allocator, Attention, Backend, BlockwiseState, Buffer, Dtype, LinearCrossEntropy, Lion,
    LossSums, Matmul, MemoryClass, Pages, QuantizedMatrix, QuantizedParts, Rescale, RowLoss, Sgd, Span,
    SquaredMeans,
};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Measures every operation of `inner`. Results are those of `inner`, bit for bit.
pub struct ProfilingBackend<'a> {
    inner: &'a dyn Backend,
    costs: Mutex<Vec<OpCost>>,
}

/// What all calls of one operation cost.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct OpCost {
    /// The operation, with its kind where that matters (`matmul nt`: a layer's forward, `nn`: the gradient of its
    /// input, `tn`: of its weight).
    pub name: &'static str,
    /// Calls.
    pub calls: u64,
    /// Wall time.
    pub time: Duration,
    /// Multiplications and additions of matrix products; 0 for operations that are limited by memory.
    pub flops: f64,
    /// Bytes of operands read and results written, once each.
    pub bytes: f64,
}

/// Work of one call.
#[derive(Clone, Copy, Default)]
struct Work {
    flops: f64,
    bytes: f64,
}

impl Work {
    /// `n` elements of each of these buffers, read or written once.
    fn elements(n: usize, buffers: &[&Buffer]) -> Self {
        Self::bytes(buffers.iter().map(|buffer| n * buffer.dtype().bytes()).sum())
    }

    fn bytes(bytes: usize) -> Self {
        Self { flops: 0.0, bytes: bytes as f64 }
    }
}

fn product(op: &Matmul, a: Dtype, b_bytes: f64, c: Dtype) -> Work {
    let Matmul { m, n, k, .. } = *op;
    let once = (m * k * a.bytes() + m * n * c.bytes()) as f64 + b_bytes;
    Work { flops: 2.0 * m as f64 * n as f64 * k as f64, bytes: once }
}

fn name_of(op: &Matmul, is_quantized: bool) -> &'static str {
    match (op.trans_a, op.trans_b, is_quantized) {
        (false, true, false) => "matmul nt",
        (false, false, false) => "matmul nn",
        (true, _, false) => "matmul tn",
        (_, true, true) => "matmul nt, quantised",
        (_, false, true) => "matmul nn, quantised",
    }
}

/// Products of scores and values, causal work only, in units of the forward's two.
fn attention_flops(op: &Attention, spans: &[Span]) -> f64 {
    let keys = |span: &Span| {
        (0..span.q_len)
            .map(|i| {
                let seen = span.kv_len - span.q_len + i + 1;
                op.window.map_or(seen, |window| window.min(seen)) as f64
            })
            .sum::<f64>()
    };
    4.0 * (op.heads * op.head_dim) as f64 * spans.iter().map(keys).sum::<f64>()
}

impl<'a> ProfilingBackend<'a> {
    /// Measures `inner` from now on.
    pub fn new(inner: &'a dyn Backend) -> Self {
        Self { inner, costs: Mutex::default() }
    }

    /// Everything since the last call of this, in the order of the first calls.
    pub fn take(&self) -> Vec<OpCost> {
        std::mem::take(&mut *self.costs.lock().expect("no thread panics while it holds the costs"))
    }

    fn measure<R>(&self, name: &'static str, work: Work, f: impl FnOnce(&dyn Backend) -> R) -> R {
        let began = Instant::now();
        let result = f(self.inner);
        let time = began.elapsed();
        let mut costs = self.costs.lock().expect("no thread panics while it holds the costs");
        let at = costs.iter().position(|cost| cost.name == name).unwrap_or_else(|| {
            costs.push(OpCost { name, ..OpCost::default() });
            costs.len() - 1
        });
        let cost = &mut costs[at];
        cost.calls += 1;
        cost.time += time;
        cost.flops += work.flops;
        cost.bytes += work.bytes;
        result
    }
}

impl Allocator for ProfilingBackend<'_> {
    fn alloc(&self, class: MemoryClass, dtype: Dtype, len: usize) -> Buffer {
        self.inner.alloc(class, dtype, len)
    }
    fn allocated(&self) -> Vec<(MemoryClass, u64)> {
        self.inner.allocated()
    }
}

impl Backend for ProfilingBackend<'_> {
    fn name(&self) -> String {
        self.inner.name()
    }
    fn row_of_operations(&self, f: &mut (dyn FnMut() + Send)) {
        self.inner.row_of_operations(f);
    }
    fn upload(&self, src: &[f32], dst: &mut Buffer, offset: usize) {
        let work = Work::bytes(src.len() * (4 + dst.dtype().bytes()));
        self.measure("upload", work, |inner| inner.upload(src, dst, offset));
    }
    fn upload_u32(&self, src: &[u32], dst: &mut Buffer) {
        self.measure("upload", Work::bytes(8 * src.len()), |inner| inner.upload_u32(src, dst));
    }
    fn download(&self, src: &Buffer, offset: usize, dst: &mut [f32]) {
        let work = Work::bytes(dst.len() * (4 + src.dtype().bytes()));
        self.measure("download", work, |inner| inner.download(src, offset, dst));
    }
    fn upload_u8(&self, src: &[u8], dst: &mut Buffer, offset: usize) {
        self.measure("upload", Work::bytes(2 * src.len()), |inner| inner.upload_u8(src, dst, offset));
    }
    fn download_u8(&self, src: &Buffer, offset: usize, dst: &mut [u8]) {
        self.measure("download", Work::bytes(2 * dst.len()), |inner| inner.download_u8(src, offset, dst));
    }
    fn copy(&self, n: usize, src: &Buffer, src_at: usize, dst: &mut Buffer, dst_at: usize) {
        let work = Work::elements(n, &[src, dst]);
        self.measure("copy", work, |inner| inner.copy(n, src, src_at, dst, dst_at));
    }
    fn fill(&self, n: usize, value: f32, x: &mut Buffer) {
        self.measure("fill", Work::elements(n, &[x]), |inner| inner.fill(n, value, x));
    }
    fn matmul(&self, op: Matmul, a: &Buffer, b: &Buffer, c: &mut Buffer) {
        let b_bytes = (op.n * op.k * b.dtype().bytes()) as f64;
        let work = product(&op, a.dtype(), b_bytes, c.dtype());
        self.measure(name_of(&op, false), work, |inner| inner.matmul(op, a, b, c));
    }
    fn matmul_quantized(&self, op: Matmul, a: &Buffer, w: &QuantizedMatrix, c: &mut Buffer) {
        let work = product(&op, a.dtype(), w.bytes() as f64, c.dtype());
        self.measure(name_of(&op, true), work, |inner| inner.matmul_quantized(op, a, w, c));
    }
    fn quantize(&self, values: &[f32], into: &mut QuantizedMatrix) {
        let work = Work::bytes(4 * values.len() + into.bytes() as usize);
        self.measure("quantise", work, |inner| inner.quantize(values, into));
    }
    fn dequantize(&self, w: &QuantizedMatrix, out: &mut Buffer) {
        let work = Work::bytes(w.bytes() as usize + w.rows() * w.cols() * out.dtype().bytes());
        self.measure("dequantise", work, |inner| inner.dequantize(w, out));
    }
    fn upload_quantized(&self, parts: &QuantizedParts, into: &mut QuantizedMatrix) {
        let work = Work::bytes(2 * into.bytes() as usize);
        self.measure("upload", work, |inner| inner.upload_quantized(parts, into));
    }
    fn download_quantized(&self, w: &QuantizedMatrix) -> QuantizedParts {
        self.measure("download", Work::bytes(2 * w.bytes() as usize), |inner| inner.download_quantized(w))
    }
    fn add(&self, n: usize, x: &Buffer, y: &mut Buffer) {
        self.measure("add", Work::elements(n, &[x, y, y]), |inner| inner.add(n, x, y));
    }
    fn add_bias(&self, rows: usize, width: usize, bias: &Buffer, y: &mut Buffer) {
        let work = Work::elements(rows * width, &[y, y]);
        self.measure("add bias", work, |inner| inner.add_bias(rows, width, bias, y));
    }
    fn add_bias_backward(&self, rows: usize, width: usize, dy: &Buffer, dbias: &mut Buffer) {
        let work = Work::elements(rows * width, &[dy]);
        self.measure("add bias, backward", work, |inner| inner.add_bias_backward(rows, width, dy, dbias));
    }
    fn rescale(&self, op: &Rescale<'_>, x: &Buffer, y: &mut Buffer) {
        let work = Work::elements(op.rows * op.width, &[x, y]);
        self.measure("rescale", work, |inner| inner.rescale(op, x, y));
    }
    fn rescale_backward(&self, op: &Rescale<'_>, dy: &Buffer, x: &Buffer, dm: &mut Buffer) {
        let work = Work::elements(op.rows * op.width, &[dy, x]);
        self.measure("rescale, backward", work, |inner| inner.rescale_backward(op, dy, x, dm));
    }
    fn sum_of_squares(&self, n: usize, x: &Buffer) -> f64 {
        self.measure("sum of squares", Work::elements(n, &[x]), |inner| inner.sum_of_squares(n, x))
    }
    fn embedding_forward(&self, tokens: usize, width: usize, ids: &Buffer, table: &Buffer, out: &mut Buffer) {
        let work = Work::elements(tokens * width, &[table, out]);
        self.measure("embedding", work, |inner| inner.embedding_forward(tokens, width, ids, table, out));
    }
    fn embedding_backward(
        &self,
        tokens: usize,
        width: usize,
        ids: &Buffer,
        dout: &Buffer,
        dtable: &mut Buffer,
    ) {
        let work = Work::elements(tokens * width, &[dout, dtable, dtable]);
        self.measure("embedding, backward", work, |inner| {
            inner.embedding_backward(tokens, width, ids, dout, dtable);
        });
    }
    fn rmsnorm_forward(
        &self,
        rows: usize,
        width: usize,
        eps: f32,
        x: &Buffer,
        weight: &Buffer,
        y: &mut Buffer,
        rstd: &mut Buffer,
    ) {
        let work = Work::elements(rows * width, &[x, y]);
        self.measure("norm", work, |inner| inner.rmsnorm_forward(rows, width, eps, x, weight, y, rstd));
    }
    fn rmsnorm_backward(
        &self,
        rows: usize,
        width: usize,
        dy: &Buffer,
        x: &Buffer,
        weight: &Buffer,
        rstd: &Buffer,
        dx: &mut Buffer,
        dweight: Option<&mut Buffer>,
    ) {
        let work = Work::elements(rows * width, &[dy, x, dx, dx]);
        self.measure("norm, backward", work, |inner| {
            inner.rmsnorm_backward(rows, width, dy, x, weight, rstd, dx, dweight);
        });
    }
    fn rope_forward(
        &self,
        tokens: usize,
        heads: usize,
        head_dim: usize,
        positions: &Buffer,
        table: &Buffer,
        x: &mut Buffer,
    ) {
        let work = Work::elements(tokens * heads * head_dim, &[x, x]);
        self.measure("rope", work, |inner| inner.rope_forward(tokens, heads, head_dim, positions, table, x));
    }
    fn rope_backward(
        &self,
        tokens: usize,
        heads: usize,
        head_dim: usize,
        positions: &Buffer,
        table: &Buffer,
        dx: &mut Buffer,
    ) {
        let work = Work::elements(tokens * heads * head_dim, &[dx, dx]);
        self.measure("rope, backward", work, |inner| {
            inner.rope_backward(tokens, heads, head_dim, positions, table, dx);
        });
    }
    fn attention_forward(
        &self,
        op: &Attention,
        spans: &[Span],
        q: &Buffer,
        k: &Buffer,
        v: &Buffer,
        out: &mut Buffer,
        lse: &mut Buffer,
    ) {
        let rows: usize = spans.iter().map(|span| span.q_len).sum();
        let bytes = Work::elements(rows * op.heads * op.head_dim, &[q, out]).bytes
            + Work::elements(rows * op.kv_heads * op.head_dim, &[k, v]).bytes;
        let work = Work { flops: attention_flops(op, spans), bytes };
        self.measure("attention", work, |inner| inner.attention_forward(op, spans, q, k, v, out, lse));
    }
    fn attention_forward_paged(
        &self,
        op: &Attention,
        spans: &[Span],
        pages: Pages<'_>,
        q: &Buffer,
        k: &Buffer,
        v: &Buffer,
        out: &mut Buffer,
        lse: &mut Buffer,
    ) {
        let rows: usize = spans.iter().map(|span| span.q_len).sum();
        let keys: usize = spans.iter().map(|span| span.kv_len).sum();
        let bytes = Work::elements(rows * op.heads * op.head_dim, &[q, out]).bytes
            + Work::elements(keys * op.kv_heads * op.head_dim, &[k, v]).bytes;
        let work = Work { flops: attention_flops(op, spans), bytes };
        self.measure("attention, paged", work, |inner| {
            inner.attention_forward_paged(op, spans, pages, q, k, v, out, lse);
        });
    }
    fn attention_backward(
        &self,
        op: &Attention,
        spans: &[Span],
        q: &Buffer,
        k: &Buffer,
        v: &Buffer,
        out: &Buffer,
        lse: &Buffer,
        dout: &Buffer,
        dq: &mut Buffer,
        dk: &mut Buffer,
        dv: &mut Buffer,
    ) {
        let rows: usize = spans.iter().map(|span| span.q_len).sum();
        let bytes = Work::elements(rows * op.heads * op.head_dim, &[q, out, dout, dq]).bytes
            + Work::elements(rows * op.kv_heads * op.head_dim, &[k, v, dk, dv]).bytes;
        // Scores again, dV, dP, dQ, dK: five products where the forward has two.
        let work = Work { flops: 2.5 * attention_flops(op, spans), bytes };
        self.measure("attention, backward", work, |inner| {
            inner.attention_backward(op, spans, q, k, v, out, lse, dout, dq, dk, dv);
        });
    }
    fn swiglu_forward(&self, n: usize, gate: &Buffer, up: &Buffer, out: &mut Buffer) {
        let work = Work::elements(n, &[gate, up, out]);
        self.measure("swiglu", work, |inner| inner.swiglu_forward(n, gate, up, out));
    }
    fn swiglu_backward(
        &self,
        n: usize,
        gate: &Buffer,
        up: &Buffer,
        dout: &Buffer,
        dgate: &mut Buffer,
        dup: &mut Buffer,
    ) {
        let work = Work::elements(n, &[gate, up, dout, dgate, dup]);
        self.measure("swiglu, backward", work, |inner| inner.swiglu_backward(n, gate, up, dout, dgate, dup));
    }
    fn linear_cross_entropy(
        &self,
        op: &LinearCrossEntropy<'_>,
        tokens: usize,
        x: &Buffer,
        weight: &Buffer,
        logits: &mut Buffer,
        dx: Option<&mut Buffer>,
        dweight: Option<&mut Buffer>,
        per_row: Option<&mut [RowLoss]>,
    ) -> LossSums {
        let products = 1 + usize::from(dx.is_some()) + usize::from(dweight.is_some());
        let size = op.rows.len() as f64 * op.width as f64 * op.vocab as f64;
        let flops = 2.0 * size * products as f64;
        let bytes = Work::elements(op.vocab * op.width, &[weight]).bytes * products as f64;
        self.measure("head and loss", Work { flops, bytes }, |inner| {
            inner.linear_cross_entropy(op, tokens, x, weight, logits, dx, dweight, per_row)
        })
    }
    fn dropout(&self, n: usize, p: f32, seed: u64, x: &Buffer, y: &mut Buffer) {
        self.measure("dropout", Work::elements(n, &[x, y]), |inner| inner.dropout(n, p, seed, x, y));
    }
    fn add_uniform_noise(&self, n: usize, magnitude: f32, seed: u64, x: &mut Buffer) {
        let work = Work::elements(n, &[x, x]);
        self.measure("noise", work, |inner| inner.add_uniform_noise(n, magnitude, seed, x));
    }
    fn adamw(&self, n: usize, op: &AdamW, grad: &Buffer, param: &mut Buffer, m: &mut Buffer, v: &mut Buffer) {
        let work = Work::elements(n, &[grad, param, param, m, m, v, v]);
        self.measure("adamw", work, |inner| inner.adamw(n, op, grad, param, m, v));
    }
    fn adamw_8bit(
        &self,
        n: usize,
        op: &AdamW,
        grad: &Buffer,
        param: &mut Buffer,
        m: BlockwiseState<'_>,
        v: BlockwiseState<'_>,
    ) {
        let work = Work::elements(n, &[grad, param, param, m.codes, m.codes, v.codes, v.codes]);
        self.measure("adamw, 8 bits", work, |inner| inner.adamw_8bit(n, op, grad, param, m, v));
    }
    fn lion(&self, n: usize, op: &Lion, grad: &Buffer, param: &mut Buffer, m: &mut Buffer) {
        let work = Work::elements(n, &[grad, param, param, m, m]);
        self.measure("lion", work, |inner| inner.lion(n, op, grad, param, m));
    }
    fn sgd(&self, n: usize, op: &Sgd, grad: &Buffer, param: &mut Buffer, momentum: Option<&mut Buffer>) {
        let work = Work::elements(n, &[grad, param, param]);
        self.measure("sgd", work, |inner| inner.sgd(n, op, grad, param, momentum));
    }
    fn adafactor(
        &self,
        shape: [usize; 2],
        op: &Adafactor,
        grad: &Buffer,
        param: &mut Buffer,
        means: SquaredMeans<'_>,
    ) {
        let work = Work::elements(shape[0] * shape[1], &[grad, grad, grad, param, param]);
        self.measure("adafactor", work, |inner| inner.adafactor(shape, op, grad, param, means));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Numbers, buffer, read};
    use crate::{CpuBackend, Isa};

    #[test]
    fn operations_are_counted_and_their_results_kept() {
        let inner = CpuBackend::new(1, Isa::detect());
        let profiling = ProfilingBackend::new(&inner);
        let mut numbers = Numbers::new(41);
        let [a, b] = [6, 8].map(|n| buffer(Dtype::F32, &numbers.vec(n, 1.0)));
        let run = |backend: &dyn Backend| {
            let mut c = buffer(Dtype::F32, &[0.0; 12]);
            backend.matmul(Matmul::nt(3, 4, 2), &a, &b, &mut c);
            backend.matmul(Matmul::nt(3, 4, 2).accumulated(), &a, &b, &mut c);
            backend.fill(2, 1.0, &mut c);
            read(&c)
        };
        assert_eq!(run(&profiling), run(&inner));
        let costs = profiling.take();
        let seen: Vec<(&str, u64, f64, f64)> =
            costs.iter().map(|cost| (cost.name, cost.calls, cost.flops, cost.bytes)).collect();
        assert_eq!(seen, [("matmul nt", 2, 96.0, 2.0 * 4.0 * (6.0 + 8.0 + 12.0)), ("fill", 1, 0.0, 8.0)]);
        assert!(profiling.take().is_empty());
    }
}
