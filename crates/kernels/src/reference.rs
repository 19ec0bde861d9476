//! The truth as a backend: every operation through the plain f64 loops of its folder, one thread.
//!
//! Slow on purpose. Tests compare other backends with it; it also shows what a new backend has to do.

use crate::buffer::Ledger;
use crate::operand::{Operand, with_operand};
use crate::{
    Adafactor, AdamW, Allocator, Attention, Backend, BlockwiseState, Buffer, Dtype, LinearCrossEntropy, Lion,
    LossSums, Matmul, MemoryClass, Pages, QuantizedMatrix, QuantizedParts, Rescale, Rounding, RowLoss, Sgd,
    Span, SquaredMeans, adafactor, adamw, adamw_8bit, attention, bias, dropout, embedding,
    linear_cross_entropy, lion, matmul, noise, quantized, rescale, rmsnorm, rope, rounding, sgd, swiglu,
};

/// Every operation by its definition: operands are widened to f64, results rounded once when stored.
#[derive(Default)]
pub struct ReferenceBackend {
    ledger: Ledger,
}

/// The first `n` elements in f64.
fn values(n: usize, x: &Buffer) -> Vec<f64> {
    with_operand!(x.dtype(), T => x.typed::<T>()[..n].iter().map(|x| f64::from(x.widen())).collect())
}

/// Rounds `x` into the leading elements of a buffer.
fn store(x: &[f64], into: &mut Buffer) {
    with_operand!(into.dtype(), T => {
        into.typed_mut::<T>()[..x.len()].iter_mut().zip(x).for_each(|(y, x)| *y = T::narrow(*x as f32));
    });
}

/// Lets `f` change the first `n` elements in f64.
fn update(n: usize, x: &mut Buffer, f: impl FnOnce(&mut [f64])) {
    let mut wide = values(n, x);
    f(&mut wide);
    store(&wide, x);
}

/// Lets `f` change the first `n` elements of a parameter, which is rounded as an update says.
fn update_param(n: usize, rounding: Rounding, x: &mut Buffer, f: impl FnOnce(&mut [f64])) {
    if x.dtype() == Dtype::F32 {
        return update(n, x, f);
    }
    let mut wide = values(n, x);
    f(&mut wide);
    let rounded: Vec<f64> =
        wide.iter().enumerate().map(|(i, x)| f64::from(rounding::reference(rounding, i, *x))).collect();
    store(&rounded, x);
}

/// The same, if there is a buffer.
fn update_some(n: usize, x: Option<&mut Buffer>, f: impl FnOnce(Option<&mut [f64]>)) {
    match x {
        Some(x) => update(n, x, |x| f(Some(x))),
        None => f(None),
    }
}

impl Allocator for ReferenceBackend {
    fn alloc(&self, class: MemoryClass, dtype: Dtype, len: usize) -> Buffer {
        let buffer = Buffer::host(dtype, len);
        self.ledger.add(class, buffer.bytes());
        buffer
    }
    fn allocated(&self) -> Vec<(MemoryClass, u64)> {
        self.ledger.read()
    }
}

impl Backend for ReferenceBackend {
    fn name(&self) -> String {
        "reference loops, 1 thread".to_owned()
    }

    fn upload(&self, src: &[f32], dst: &mut Buffer, offset: usize) {
        with_operand!(dst.dtype(), T => {
            let dst = &mut dst.typed_mut::<T>()[offset..offset + src.len()];
            dst.iter_mut().zip(src).for_each(|(y, x)| *y = T::narrow(*x));
        });
    }
    fn upload_u32(&self, src: &[u32], dst: &mut Buffer) {
        dst.u32_mut()[..src.len()].copy_from_slice(src);
    }
    fn download(&self, src: &Buffer, offset: usize, dst: &mut [f32]) {
        with_operand!(src.dtype(), T => {
            let src = &src.typed::<T>()[offset..offset + dst.len()];
            dst.iter_mut().zip(src).for_each(|(y, x)| *y = x.widen());
        });
    }
    fn upload_u8(&self, src: &[u8], dst: &mut Buffer, offset: usize) {
        dst.u8_mut()[offset..offset + src.len()].copy_from_slice(src);
    }
    fn download_u8(&self, src: &Buffer, offset: usize, dst: &mut [u8]) {
        dst.copy_from_slice(&src.u8()[offset..offset + dst.len()]);
    }
    fn copy(&self, n: usize, src: &Buffer, src_at: usize, dst: &mut Buffer, dst_at: usize) {
        let mut wide = vec![0.0; n];
        self.download(src, src_at, &mut wide);
        self.upload(&wide, dst, dst_at);
    }
    fn fill(&self, n: usize, value: f32, x: &mut Buffer) {
        store(&vec![f64::from(value); n], x);
    }

    fn matmul(&self, op: Matmul, a: &Buffer, b: &Buffer, c: &mut Buffer) {
        let Matmul { m, n, k, .. } = op;
        let (a, b) = (values(m * k, a), values(k * n, b));
        update(m * n, c, |c| matmul::reference::matmul(&op, &a, &b, c));
    }
    fn matmul_quantized(&self, op: Matmul, a: &Buffer, w: &QuantizedMatrix, c: &mut Buffer) {
        let mut dense = Buffer::host(a.dtype(), w.rows() * w.cols());
        self.dequantize(w, &mut dense);
        self.matmul(op, a, &dense, c);
    }
    fn quantize(&self, values: &[f32], into: &mut QuantizedMatrix) {
        into.fill(&quantized::reference::quantize(into.kind(), into.rows(), into.cols(), values));
    }
    fn dequantize(&self, w: &QuantizedMatrix, out: &mut Buffer) {
        let values = quantized::reference::dequantize(&w.parts(), w.rows(), w.cols());
        self.upload(&values, out, 0);
    }
    fn upload_quantized(&self, parts: &QuantizedParts, into: &mut QuantizedMatrix) {
        into.fill(parts);
    }
    fn download_quantized(&self, w: &QuantizedMatrix) -> QuantizedParts {
        w.parts()
    }
    fn add(&self, n: usize, x: &Buffer, y: &mut Buffer) {
        let x = values(n, x);
        update(n, y, |y| y.iter_mut().zip(x).for_each(|(y, x)| *y += x));
    }
    fn add_bias(&self, rows: usize, width: usize, bias: &Buffer, y: &mut Buffer) {
        update(rows * width, y, |y| bias::reference::forward(&values(width, bias), y));
    }
    fn add_bias_backward(&self, rows: usize, width: usize, dy: &Buffer, dbias: &mut Buffer) {
        update(width, dbias, |dbias| bias::reference::backward(&values(rows * width, dy), dbias));
    }
    fn rescale(&self, op: &Rescale<'_>, x: &Buffer, y: &mut Buffer) {
        let (m, r) = (values(op.width, op.magnitude), values(op.width, op.inverse_norm));
        let factors: Vec<f64> = m.iter().zip(&r).map(|(m, r)| m * r + f64::from(op.shift)).collect();
        let x = values(op.rows * op.width, x);
        update(x.len(), y, |y| rescale::reference::forward(op.accumulate, &factors, &x, y));
    }
    fn rescale_backward(&self, op: &Rescale<'_>, dy: &Buffer, x: &Buffer, dm: &mut Buffer) {
        let (n, r) = (op.rows * op.width, values(op.width, op.inverse_norm));
        update(op.width, dm, |dm| rescale::reference::backward(&r, &values(n, dy), &values(n, x), dm));
    }
    fn sum_of_squares(&self, n: usize, x: &Buffer) -> f64 {
        values(n, x).iter().map(|x| x * x).sum()
    }

    fn embedding_forward(&self, tokens: usize, width: usize, ids: &Buffer, table: &Buffer, out: &mut Buffer) {
        let table = values(table.len(), table);
        update(tokens * width, out, |out| {
            embedding::reference::forward(width, &ids.u32()[..tokens], &table, out);
        });
    }
    fn embedding_backward(
        &self,
        tokens: usize,
        width: usize,
        ids: &Buffer,
        dout: &Buffer,
        dtable: &mut Buffer,
    ) {
        let dout = values(tokens * width, dout);
        update(dtable.len(), dtable, |dtable| {
            embedding::reference::backward(width, &ids.u32()[..tokens], &dout, dtable);
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
        let (x, weight) = (values(rows * width, x), values(width, weight));
        update(rows, rstd, |rstd| {
            update(rows * width, y, |y| {
                rmsnorm::reference::forward(width, f64::from(eps), &x, &weight, y, rstd)
            });
        });
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
        let (dy, x) = (values(rows * width, dy), values(rows * width, x));
        let (weight, rstd) = (values(width, weight), values(rows, rstd));
        update(rows * width, dx, |dx| {
            update_some(width, dweight, |dweight| {
                rmsnorm::reference::backward(width, &dy, &x, &weight, &rstd, dx, dweight);
            });
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
        let (positions, table) = (&positions.u32()[..tokens], values(table.len(), table));
        update(tokens * heads * head_dim, x, |x| {
            rope::reference::rotate(heads, head_dim, positions, &table, 1.0, x);
        });
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
        let (positions, table) = (&positions.u32()[..tokens], values(table.len(), table));
        update(tokens * heads * head_dim, dx, |dx| {
            rope::reference::rotate(heads, head_dim, positions, &table, -1.0, dx);
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
        let (rows, keys) = attention::extents(spans);
        let (query_len, key_len) = (rows * op.heads * op.head_dim, keys * op.kv_heads * op.head_dim);
        let (q, k, v) = (values(query_len, q), values(key_len, k), values(key_len, v));
        update(query_len, out, |out| {
            update(rows * op.heads, lse, |lse| {
                attention::reference::forward(op, spans, rows, &q, &k, &v, out, lse);
            });
        });
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
        let (rows, keys) = attention::extents(spans);
        let (query_len, key_width) = (rows * op.heads * op.head_dim, op.kv_heads * op.head_dim);
        let key_len = pages.rows(keys) * key_width;
        let [k, v] = [k, v].map(|x| pages.gather(keys, key_width, &values(key_len, x)));
        let q = values(query_len, q);
        update(query_len, out, |out| {
            update(rows * op.heads, lse, |lse| {
                attention::reference::forward(op, spans, rows, &q, &k, &v, out, lse);
            });
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
        let (rows, keys) = attention::extents(spans);
        let (query_len, key_len) = (rows * op.heads * op.head_dim, keys * op.kv_heads * op.head_dim);
        let (q, k, v) = (values(query_len, q), values(key_len, k), values(key_len, v));
        let (out, lse, dout) =
            (values(query_len, out), values(rows * op.heads, lse), values(query_len, dout));
        let inputs = [q, k, v, out, lse, dout];
        let inputs = std::array::from_fn(|i| inputs[i].as_slice());
        let (mut gq, mut gk, mut gv) = (vec![0.0; query_len], vec![0.0; key_len], vec![0.0; key_len]);
        attention::reference::backward(op, spans, rows, inputs, [&mut gq, &mut gk, &mut gv]);
        store(&gq, dq);
        store(&gk, dk);
        store(&gv, dv);
    }
    fn swiglu_forward(&self, n: usize, gate: &Buffer, up: &Buffer, out: &mut Buffer) {
        let (gate, up) = (values(n, gate), values(n, up));
        update(n, out, |out| swiglu::reference::forward(&gate, &up, out));
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
        let (gate, up, dout) = (values(n, gate), values(n, up), values(n, dout));
        update(n, dgate, |dgate| {
            update(n, dup, |dup| swiglu::reference::backward(&gate, &up, &dout, dgate, dup));
        });
    }
    fn linear_cross_entropy(
        &self,
        op: &LinearCrossEntropy<'_>,
        tokens: usize,
        x: &Buffer,
        weight: &Buffer,
        _logits: &mut Buffer,
        dx: Option<&mut Buffer>,
        dweight: Option<&mut Buffer>,
        per_row: Option<&mut [RowLoss]>,
    ) -> LossSums {
        let (x, weight) = (values(tokens * op.width, x), values(op.vocab * op.width, weight));
        let mut sums = LossSums::default();
        update_some(tokens * op.width, dx, |dx| {
            update_some(op.vocab * op.width, dweight, |dweight| {
                sums =
                    linear_cross_entropy::reference::forward_backward(op, &x, &weight, dx, dweight, per_row);
            });
        });
        sums
    }

    fn dropout(&self, n: usize, p: f32, seed: u64, x: &Buffer, y: &mut Buffer) {
        let x = values(n, x);
        update(n, y, |y| dropout::reference::forward(p, seed, &x, y));
    }
    fn add_uniform_noise(&self, n: usize, magnitude: f32, seed: u64, x: &mut Buffer) {
        update(n, x, |x| noise::reference::add_uniform(magnitude, seed, x));
    }

    fn adamw(&self, n: usize, op: &AdamW, grad: &Buffer, param: &mut Buffer, m: &mut Buffer, v: &mut Buffer) {
        let grad = values(n, grad);
        update_param(n, op.rounding, param, |param| {
            update(n, m, |m| update(n, v, |v| adamw::reference::step(op, &grad, param, m, v)));
        });
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
        let grad = values(n, grad);
        let [m, v] = [m, v].map(|state| (&mut state.codes.u8_mut()[..n], state.absmax.f32_mut()));
        update_param(n, op.rounding, param, |param| adamw_8bit::reference::step(op, &grad, param, m, v));
    }
    fn lion(&self, n: usize, op: &Lion, grad: &Buffer, param: &mut Buffer, m: &mut Buffer) {
        let grad = values(n, grad);
        update_param(n, op.rounding, param, |param| {
            update(n, m, |m| lion::reference::step(op, &grad, param, m));
        });
    }
    fn sgd(&self, n: usize, op: &Sgd, grad: &Buffer, param: &mut Buffer, momentum: Option<&mut Buffer>) {
        let grad = values(n, grad);
        update_param(n, op.rounding, param, |param| {
            update_some(n, momentum, |momentum| sgd::reference::step(op, &grad, param, momentum));
        });
    }
    fn adafactor(
        &self,
        [rows, columns]: [usize; 2],
        op: &Adafactor,
        grad: &Buffer,
        param: &mut Buffer,
        means: SquaredMeans<'_>,
    ) {
        use adafactor::reference::{Means, step};
        let n = rows * columns;
        let grad = values(n, grad);
        update_param(n, op.rounding, param, |param| match means {
            SquaredMeans::Matrix { row, column } => update(rows, row, |row| {
                update(columns, column, |column| {
                    step(op, columns, &grad, param, Means::Matrix { row, column });
                });
            }),
            SquaredMeans::Vector(v) => update(n, v, |v| step(op, columns, &grad, param, Means::Vector(v))),
        });
    }
}
