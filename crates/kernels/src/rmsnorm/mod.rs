//! Root-mean-square norm of each row (Zhang & Sennrich 2019; transformers 5.23 `LlamaRMSNorm`).
//!
//! Forward: `r = 1/√(mean_d(x²)+eps)`, `y = x · r · w`. Backward: `dx += r · (w·dy - x · r² · mean_d(w·dy·x))`,
//! `dw += Σ_t dy · x · r`.
//!
//! `x_td`, `y_td`: rows; `w_d`: weight; `r_t`: `rstd`, kept for the backward; `d…`: gradients.

mod cpu;
pub(crate) mod reference;
#[cfg(test)]
mod tests;

use crate::operand::with_operand;
use crate::pool::Pool;
use crate::{Buffer, Isa};

/// Writes `y` and `rstd`.
pub(crate) fn forward(
    pool: &Pool,
    isa: Isa,
    [rows, width]: [usize; 2],
    eps: f32,
    x: &Buffer,
    weight: &Buffer,
    y: &mut Buffer,
    rstd: &mut Buffer,
) {
    let (n, weight, rstd) = (rows * width, &weight.f32()[..width], &mut rstd.f32_mut()[..rows]);
    with_operand!(x.dtype(), X => with_operand!(y.dtype(), Y => {
        cpu::forward::<X, Y>(pool, isa, eps, &x.typed()[..n], weight, &mut y.typed_mut()[..n], rstd);
    }));
}

/// Adds to `dx` and, if wanted, `dweight`.
pub(crate) fn backward(
    pool: &Pool,
    isa: Isa,
    [rows, width]: [usize; 2],
    dy: &Buffer,
    x: &Buffer,
    weight: &Buffer,
    rstd: &Buffer,
    dx: &mut Buffer,
    dweight: Option<&mut Buffer>,
) {
    let (n, weight, rstd) = (rows * width, &weight.f32()[..width], &rstd.f32()[..rows]);
    with_operand!(dy.dtype(), Y => with_operand!(x.dtype(), X => {
        let (dy, x) = (&dy.typed::<Y>()[..n], &x.typed::<X>()[..n]);
        with_operand!(dx.dtype(), G => {
            cpu::backward_x::<X, Y, G>(pool, isa, dy, x, weight, rstd, &mut dx.typed_mut()[..n])
        });
        if let Some(dweight) = dweight {
            cpu::backward_weight::<X, Y>(pool, isa, dy, x, rstd, &mut dweight.f32_mut()[..width]);
        }
    }));
}
