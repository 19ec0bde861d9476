//! Matrices stored in four or eight bits a weight, as bitsandbytes 0.50 stores them.
//!
//! - NF4 (QLoRA, Dettmers et al. 2023): codes of 16 levels ([`NF4_LEVELS`]), two in a byte, the first in the high
//!   half, and `absmax` of each run of 64. A weight is `level · absmax`.
//! - NF4, double quantised: `absmax` itself in 8 bits, levels of [`dynamic_levels`], with their own `absmax` for 256 of
//!   them. A weight is `level · (dynamic · absmax₂ + offset)`.
//! - int8 (LLM.int8(), Dettmers et al. 2022): -127…127, and `absmax` of each row ("SCB"). A weight is
//!   `q · absmax · (1/127)`.
//!
//! Runs are those of the row-major matrix laid end to end; a row need not be a whole number of them. Arithmetic is
//! in f32 in the order written here, then one rounding to the dtype of the other operand: a product with a
//! quantised matrix is, bit for bit, the product with [`dequantize`]'s result, which itself is bitsandbytes'. Only
//! a few rows of it exist at a time, see `matmul/cpu_factor.rs`.
//!
//! | file | what |
//! |---|---|
//! | `levels.rs` | the tables |
//! | `matrix.rs` | the stored form and how it goes in and out |
//! | `quantize.rs` | numbers to codes, on all threads |
//! | `mean.rs` | torch's mean, which is the `offset` |
//! | `rows.rs` | codes to numbers, a run at a time |
//! | `reference.rs` | both directions in plain loops |

mod levels;
mod matrix;
mod mean;
mod quantize;
pub(crate) mod reference;
mod rows;
#[cfg(test)]
mod tests;

pub use levels::{NF4_LEVELS, dynamic_levels};
pub use matrix::{Absmax, Quantization, QuantizedMatrix, QuantizedParts};
pub(crate) use matrix::{Stored, StoredAbsmax};
pub(crate) use quantize::quantize;
#[cfg(target_arch = "x86_64")]
pub(crate) use rows::INT8_UNIT;
pub(crate) use rows::View;

use crate::lanes::PIECE;
use crate::operand::with_operand;
use crate::pool::Pool;
use crate::{Buffer, Isa};

/// Weights that share one `absmax` in NF4.
pub const NF4_BLOCK: usize = 64;
/// `absmax` values that share one scale when they are quantised themselves.
pub const ABSMAX_BLOCK: usize = 256;

/// `out = W`, rounded to the dtype of `out`.
pub(crate) fn dequantize(pool: &Pool, isa: Isa, w: &QuantizedMatrix, out: &mut Buffer) {
    let (view, len) = (View::new(w), w.rows() * w.cols());
    assert!(out.len() >= len, "dequantize: {len} weights into {} elements", out.len());
    with_operand!(out.dtype(), T => {
        // Pieces are whole bytes and whole blocks.
        pool.pieces(&mut out.typed_mut::<T>()[..len], PIECE, |i, piece| view.run(isa, i * PIECE, piece));
    });
}
