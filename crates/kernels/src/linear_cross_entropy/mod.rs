//! The head and the loss in one, so that logits exist for one chunk of labelled rows at a time (Hsu et al. 2024, "Liger
//! Kernel"; Wijmans et al. 2024, "Cut your losses").
//!
//! For a row `x_d` with target `y`: `z_v = Σ_d x_d·w_vd`, `lse = log Σ_v exp(z_v)`, `p_v = exp(z_v - lse)`,
//! entropy `H = lse - Σ_v p_v·z_v`, and with `s` the gradient scale and `V` the vocabulary:
//!
//! | objective | loss | `dz_v / s` |
//! |---|---|---|
//! | cross-entropy | `lse - z_y` | `p_v - [v = y]` |
//! | label smoothing ε | `(1-ε)·(lse - z_y) + ε·(lse - Σ_v z_v / V)` | `p_v - (1-ε)·[v = y] - ε/V` |
//! | DFT | `p_y·(lse - z_y)`, `p_y` a constant in the backward | `p_y·(p_v - [v = y])` |
//!
//! `dx_d = Σ_v dz_v·w_vd`, `dw_vd += Σ_rows dz_v·x_d`. With bf16 operands `dz` is rounded to bf16 for these products.
//!
//! | file | what |
//! |---|---|
//! | `reference.rs` | the definition in plain loops |
//! | `cpu.rs` | chunks and products |
//! | `cpu_row.rs` | logits of a row → statistics and `dz` |

mod cpu;
mod cpu_row;
pub(crate) mod reference;
#[cfg(test)]
mod tests;

use crate::operand::with_operand;
use crate::pool::Pool;
use crate::{Buffer, Isa, LinearCrossEntropy, LossSums, RowLoss};

/// Loss of the labelled rows; gradients where wanted.
pub(crate) fn forward_backward(
    pool: &Pool,
    isa: Isa,
    op: &LinearCrossEntropy<'_>,
    tokens: usize,
    x: &Buffer,
    weight: &Buffer,
    logits: &mut Buffer,
    dx: Option<&mut Buffer>,
    dweight: Option<&mut Buffer>,
    per_row: Option<&mut [RowLoss]>,
) -> LossSums {
    check(op, tokens, logits.len(), dx.is_some() || dweight.is_some());
    let dweight = dweight.map(|dw| &mut dw.f32_mut()[..op.vocab * op.width]);
    with_operand!(x.dtype(), T => {
        let (x, weight) = (&x.typed::<T>()[..tokens * op.width], &weight.typed::<T>()[..op.vocab * op.width]);
        let head = cpu::Head { pool, isa, op: *op, x, weight };
        match dx {
            None => head.run::<T>(logits.f32_mut(), None, dweight, per_row),
            Some(dx) => with_operand!(dx.dtype(), G => {
                head.run::<G>(logits.f32_mut(), Some(&mut dx.typed_mut()[..tokens * op.width]), dweight, per_row)
            }),
        }
    })
}

fn check(op: &LinearCrossEntropy<'_>, tokens: usize, logits: usize, wants_gradients: bool) {
    assert!(op.rows.len() == op.targets.len(), "{} rows, {} targets", op.rows.len(), op.targets.len());
    assert!(logits >= op.vocab, "the logits buffer holds {logits} numbers, one row needs {}", op.vocab);
    // Gradients of a row that is there twice would need a sum.
    let follows = |a: &u32, b: &u32| a < b || (a == b && !wants_gradients);
    assert!(op.rows.is_sorted_by(follows), "labelled rows must be ascending");
    assert!(
        op.rows.last().is_none_or(|&t| (t as usize) < tokens),
        "labelled row {:?} of {tokens}",
        op.rows.last()
    );
    if let Some(target) = op.targets.iter().find(|&&y| y as usize >= op.vocab) {
        panic!("target {target} is outside the vocabulary of {}", op.vocab);
    }
}
