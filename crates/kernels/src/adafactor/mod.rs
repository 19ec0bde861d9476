//! Adafactor (Shazeer & Stern 2018) as transformers' Trainer runs it (transformers 5.23 `optimization.Adafactor` with
//! `scale_parameter=False, relative_step=False`): no momentum, and for a matrix only the means of the squared gradients
//! over rows and columns.
//!
//! `β = 1 - t^decay_rate`; `u = g² + ε`; a matrix: `r_i = β·r_i + (1-β)·mean_j u`, `c_j = β·c_j + (1-β)·mean_i u`,
//! `u = g / √(r_i / mean(r) · c_j)`; a vector: `v = β·v + (1-β)·u`, `u = g / √v`; then
//! `u /= max(1, rms(u) / clip_threshold)`, `p *= 1 - lr·wd`, `p -= lr·u`.
//!
//! Legend: `p` parameter `[rows, columns]`, `g` gradient (times the clipping factor), `t` step from 1.

mod cpu;
pub(crate) mod reference;
#[cfg(test)]
mod tests;

use crate::backend::SquaredMeans;
use crate::operand::with_operand;
use crate::pool::Pool;
use crate::{Adafactor, Buffer, Isa};

/// Updates `param[0..rows·columns]` and the means.
pub(crate) fn step(
    pool: &Pool,
    isa: Isa,
    [rows, columns]: [usize; 2],
    op: &Adafactor,
    grad: &Buffer,
    param: &mut Buffer,
    means: SquaredMeans<'_>,
) {
    assert!(op.step > 0, "Adafactor's steps are counted from 1");
    let n = rows * columns;
    let grad = &grad.f32()[..n];
    let means = match means {
        SquaredMeans::Matrix { row, column } => {
            cpu::Means::Matrix { row: &mut row.f32_mut()[..rows], column: &mut column.f32_mut()[..columns] }
        }
        SquaredMeans::Vector(v) => cpu::Means::Vector(&mut v.f32_mut()[..n]),
    };
    with_operand!(param.dtype(), P => {
        cpu::step::<P>(pool, isa, [rows, columns], op, grad, &mut param.typed_mut()[..n], means);
    });
}
