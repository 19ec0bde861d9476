//! Moving numbers: between buffers (with conversion f32 ⇄ bf16), between host slices and buffers, and constants.

mod cpu;
#[cfg(test)]
mod tests;

use crate::operand::with_operand;
use crate::pool::Pool;
use crate::{Buffer, Isa};

/// `dst[at..] = src`, rounded to the buffer's dtype.
pub(crate) fn upload(pool: &Pool, isa: Isa, src: &[f32], dst: &mut Buffer, at: usize) {
    with_operand!(dst.dtype(), T => {
        cpu::convert::<f32, T>(pool, isa, src, &mut dst.typed_mut()[at..at + src.len()]);
    });
}

/// `dst = src[at..]`, widened.
pub(crate) fn download(pool: &Pool, isa: Isa, src: &Buffer, at: usize, dst: &mut [f32]) {
    with_operand!(src.dtype(), T => {
        cpu::convert::<T, f32>(pool, isa, &src.typed()[at..at + dst.len()], dst);
    });
}

/// `dst[dst_at..dst_at+n] = src[src_at..src_at+n]`.
pub(crate) fn copy(
    pool: &Pool,
    isa: Isa,
    n: usize,
    src: &Buffer,
    src_at: usize,
    dst: &mut Buffer,
    dst_at: usize,
) {
    if src.dtype() == crate::Dtype::U32 {
        dst.u32_mut()[dst_at..dst_at + n].copy_from_slice(&src.u32()[src_at..src_at + n]);
        return;
    }
    with_operand!(src.dtype(), S => with_operand!(dst.dtype(), D => {
        let (src, dst) = (&src.typed()[src_at..src_at + n], &mut dst.typed_mut()[dst_at..dst_at + n]);
        cpu::convert::<S, D>(pool, isa, src, dst);
    }));
}

/// `x[0..n] = value`.
pub(crate) fn fill(pool: &Pool, n: usize, value: f32, x: &mut Buffer) {
    with_operand!(x.dtype(), T => cpu::fill::<T>(pool, value, &mut x.typed_mut()[..n]));
}
