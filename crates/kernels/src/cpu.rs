//! The CPU backend.

use crate::buffer::Ledger;
use crate::pool::Pool;
use crate::rope::Direction;
use crate::{
    Adafactor, AdamW, Allocator, Attention, Backend, BlockwiseState, Buffer, Dtype, Isa, LinearCrossEntropy,
    Lion, LossSums, Matmul, MemoryClass, Pages, QuantizedMatrix, QuantizedParts, Rescale, RowLoss, Sgd, Span,
    SquaredMeans, adafactor, adamw, adamw_8bit, attention, bias, copy, dropout, embedding,
    linear_cross_entropy, lion, matmul, noise, quantized, rescale, residual, rmsnorm, rope, sgd,
    sum_of_squares, swiglu,
};

/// Kernels for this machine's processor.
pub struct CpuBackend {
    pool: Pool,
    isa: Isa,
    ledger: Ledger,
}

impl CpuBackend {
    /// A backend with `threads` workers (at least one) that uses the given instruction set.
    pub fn new(threads: usize, isa: Isa) -> Self {
        Self { pool: Pool::new(threads), isa, ledger: Ledger::default() }
    }

    /// The best instruction set and all the threads of this machine.
    pub fn detect() -> Self {
        Self::new(std::thread::available_parallelism().map_or(1, usize::from), Isa::detect())
    }
}

impl Allocator for CpuBackend {
    fn alloc(&self, class: MemoryClass, dtype: Dtype, len: usize) -> Buffer {
        let buffer = Buffer::host(dtype, len);
        self.ledger.add(class, buffer.bytes());
        buffer
    }
    fn allocated(&self) -> Vec<(MemoryClass, u64)> {
        self.ledger.read()
    }
}

impl Backend for CpuBackend {
    fn name(&self) -> String {
        format!("cpu {}, {} threads", self.isa.name(), self.pool.threads())
    }
    fn row_of_operations(&self, f: &mut (dyn FnMut() + Send)) {
        self.pool.inside(f);
    }
    fn upload(&self, src: &[f32], dst: &mut Buffer, offset: usize) {
        copy::upload(&self.pool, self.isa, src, dst, offset);
    }
    fn upload_u32(&self, src: &[u32], dst: &mut Buffer) {
        dst.u32_mut()[..src.len()].copy_from_slice(src);
    }
    fn download(&self, src: &Buffer, offset: usize, dst: &mut [f32]) {
        copy::download(&self.pool, self.isa, src, offset, dst);
    }
    fn upload_u8(&self, src: &[u8], dst: &mut Buffer, offset: usize) {
        dst.u8_mut()[offset..offset + src.len()].copy_from_slice(src);
    }
    fn download_u8(&self, src: &Buffer, offset: usize, dst: &mut [u8]) {
        dst.copy_from_slice(&src.u8()[offset..offset + dst.len()]);
    }
    fn copy(&self, n: usize, src: &Buffer, src_at: usize, dst: &mut Buffer, dst_at: usize) {
        copy::copy(&self.pool, self.isa, n, src, src_at, dst, dst_at);
    }
    fn fill(&self, n: usize, value: f32, x: &mut Buffer) {
        copy::fill(&self.pool, n, value, x);
    }
    fn matmul(&self, op: Matmul, a: &Buffer, b: &Buffer, c: &mut Buffer) {
        matmul::matmul(&self.pool, self.isa, &op, a, b, c);
    }
    fn matmul_quantized(&self, op: Matmul, a: &Buffer, w: &QuantizedMatrix, c: &mut Buffer) {
        matmul::matmul_quantized(&self.pool, self.isa, &op, a, w, c);
    }
    fn quantize(&self, values: &[f32], into: &mut QuantizedMatrix) {
        quantized::quantize(&self.pool, self.isa, values, into);
    }
    fn dequantize(&self, w: &QuantizedMatrix, out: &mut Buffer) {
        quantized::dequantize(&self.pool, self.isa, w, out);
    }
    fn upload_quantized(&self, parts: &QuantizedParts, into: &mut QuantizedMatrix) {
        into.fill(parts);
    }
    fn download_quantized(&self, w: &QuantizedMatrix) -> QuantizedParts {
        w.parts()
    }
    fn add(&self, n: usize, x: &Buffer, y: &mut Buffer) {
        residual::add(&self.pool, self.isa, n, x, y);
    }
    fn add_bias(&self, rows: usize, width: usize, bias: &Buffer, y: &mut Buffer) {
        bias::forward(&self.pool, self.isa, [rows, width], bias, y);
    }
    fn add_bias_backward(&self, rows: usize, width: usize, dy: &Buffer, dbias: &mut Buffer) {
        bias::backward(&self.pool, self.isa, [rows, width], dy, dbias);
    }
    fn rescale(&self, op: &Rescale<'_>, x: &Buffer, y: &mut Buffer) {
        rescale::forward(&self.pool, self.isa, op, x, y);
    }
    fn rescale_backward(&self, op: &Rescale<'_>, dy: &Buffer, x: &Buffer, dm: &mut Buffer) {
        rescale::backward(&self.pool, self.isa, op, dy, x, dm);
    }
    fn sum_of_squares(&self, n: usize, x: &Buffer) -> f64 {
        sum_of_squares::sum_of_squares(&self.pool, self.isa, n, x)
    }
    fn embedding_forward(&self, tokens: usize, width: usize, ids: &Buffer, table: &Buffer, out: &mut Buffer) {
        embedding::forward(&self.pool, self.isa, [tokens, width], ids, table, out);
    }
    fn embedding_backward(
        &self,
        tokens: usize,
        width: usize,
        ids: &Buffer,
        dout: &Buffer,
        dtable: &mut Buffer,
    ) {
        embedding::backward(&self.pool, self.isa, [tokens, width], ids, dout, dtable);
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
        rmsnorm::forward(&self.pool, self.isa, [rows, width], eps, x, weight, y, rstd);
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
        rmsnorm::backward(&self.pool, self.isa, [rows, width], dy, x, weight, rstd, dx, dweight);
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
        rope::rotate(
            &self.pool,
            self.isa,
            Direction::Forward,
            [tokens, heads, head_dim],
            positions,
            table,
            x,
        );
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
        rope::rotate(
            &self.pool,
            self.isa,
            Direction::Backward,
            [tokens, heads, head_dim],
            positions,
            table,
            dx,
        );
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
        attention::forward(&self.pool, self.isa, op, spans, None, [q, k, v], out, lse);
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
        attention::forward(&self.pool, self.isa, op, spans, Some(pages), [q, k, v], out, lse);
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
        attention::backward(&self.pool, self.isa, op, spans, [q, k, v, out, lse, dout], [dq, dk, dv]);
    }
    fn swiglu_forward(&self, n: usize, gate: &Buffer, up: &Buffer, out: &mut Buffer) {
        swiglu::forward(&self.pool, self.isa, n, gate, up, out);
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
        swiglu::backward(&self.pool, self.isa, n, gate, up, dout, dgate, dup);
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
        linear_cross_entropy::forward_backward(
            &self.pool, self.isa, op, tokens, x, weight, logits, dx, dweight, per_row,
        )
    }
    fn dropout(&self, n: usize, p: f32, seed: u64, x: &Buffer, y: &mut Buffer) {
        dropout::forward(&self.pool, self.isa, n, p, seed, x, y);
    }
    fn add_uniform_noise(&self, n: usize, magnitude: f32, seed: u64, x: &mut Buffer) {
        noise::add_uniform(&self.pool, self.isa, n, magnitude, seed, x);
    }
    fn adamw(&self, n: usize, op: &AdamW, grad: &Buffer, param: &mut Buffer, m: &mut Buffer, v: &mut Buffer) {
        adamw::step(&self.pool, self.isa, n, op, grad, param, m, v);
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
        adamw_8bit::step(&self.pool, self.isa, n, op, grad, param, m, v);
    }
    fn lion(&self, n: usize, op: &Lion, grad: &Buffer, param: &mut Buffer, m: &mut Buffer) {
        lion::step(&self.pool, self.isa, n, op, grad, param, m);
    }
    fn sgd(&self, n: usize, op: &Sgd, grad: &Buffer, param: &mut Buffer, momentum: Option<&mut Buffer>) {
        sgd::step(&self.pool, self.isa, n, op, grad, param, momentum);
    }
    fn adafactor(
        &self,
        shape: [usize; 2],
        op: &Adafactor,
        grad: &Buffer,
        param: &mut Buffer,
        means: SquaredMeans<'_>,
    ) {
        adafactor::step(&self.pool, self.isa, shape, op, grad, param, means);
    }
}
