//! The product as its definition, in plain loops: the truth every fast path is compared with.

use crate::Matmul;
use std::ops::{AddAssign, Mul};

/// `C = alpha · op(A) · op(B)` or `+=`, dense row-major, for `f32` or `f64`; the sum runs over ascending `k`.
pub(crate) fn matmul<T>(op: &Matmul, a: &[T], b: &[T], c: &mut [T])
where
    T: Copy + Default + From<f32> + Mul<Output = T> + AddAssign,
{
    let Matmul { m, n, k, trans_a, trans_b, .. } = *op;
    for i in 0..m {
        for j in 0..n {
            let mut sum = T::default();
            for p in 0..k {
                let x = if trans_a { a[p * m + i] } else { a[i * k + p] };
                let y = if trans_b { b[j * k + p] } else { b[p * n + j] };
                sum += x * y;
            }
            let result = T::from(op.alpha) * sum;
            if op.accumulate {
                c[i * n + j] += result;
            } else {
                c[i * n + j] = result;
            }
        }
    }
}
