//! Fixed blocks in parallel.

use crate::Isa;
use crate::lanes::{LANES, PIECE, vectorize};
use crate::operand::Operand;
use crate::pool::Pool;

pub(super) fn sum_of_squares<T: Operand>(pool: &Pool, isa: Isa, x: &[T]) -> f64 {
    let blocks = pool.map(x.len().div_ceil(PIECE), |i| {
        let block = &x[i * PIECE..x.len().min((i + 1) * PIECE)];
        vectorize!(isa, F => block_sum(block))
    });
    blocks.iter().sum()
}

/// The square of an f32 is exact in f64.
#[inline(always)]
fn block_sum<T: Operand>(x: &[T]) -> f64 {
    let (whole, tail) = x.as_chunks::<LANES>();
    let mut sums = [0.0f64; LANES];
    for x in whole {
        for i in 0..LANES {
            let x = f64::from(x[i].widen());
            sums[i] += x * x;
        }
    }
    for (sum, x) in sums.iter_mut().zip(tail) {
        let x = f64::from(x.widen());
        *sum += x * x;
    }
    sums.iter().sum()
}
