//! Compute kernels: one folder per operation, reference loops and fast CPU paths behind one [`Backend`] trait.
//!
//! This crate does not know what a model is. It knows buffers of numbers and some thirty operations on them,
//! forward and backward in pairs. Shapes are arguments; every tensor is dense and row-major.
//!
//! Shape letters used in every file: `T` tokens (rows), `D` model width, `N` query heads, `K` key/value heads,
//! `H` head width, `F` feed-forward width, `V` vocabulary, `R` LoRA rank, `O` output width. A buffer named `x_td`
//! holds `T × D` numbers; `dx` is the gradient of the loss with respect to `x`.

mod adafactor;
mod adamw;
mod adamw_8bit;
mod attention;
mod backend;
mod bias;
mod buffer;
mod copy;
mod cpu;
mod dropout;
mod dtype;
mod dynamic_map;
mod embedding;
mod lanes;
mod linear_cross_entropy;
mod lion;
mod math;
mod matmul;
mod noise;
mod operand;
mod philox;
pub mod pool;
mod profile;
mod quantized;
mod reference;
mod rescale;
mod residual;
mod rmsnorm;
mod rope;
mod rounding;
mod sgd;
mod shared;
pub mod simd;
mod sum_of_squares;
mod swiglu;
#[cfg(test)]
mod testing;

pub use attention::Pages;
pub use backend::{
    Adafactor, AdamW, Attention, Backend, BlockwiseState, LinearCrossEntropy, Lion, LossSums, Matmul,
    Rescale, RowLoss, Sgd, Span, SquaredMeans, TokenLoss,
};
pub use buffer::{Allocator, Buffer, MemoryClass, Meter, give_back_free_memory};
pub use cpu::CpuBackend;
pub use dtype::Dtype;
pub use matmul::scratch::scratch_bound;
pub use profile::{OpCost, ProfilingBackend};
pub use quantized::{
    ABSMAX_BLOCK, Absmax, NF4_BLOCK, NF4_LEVELS, Quantization, QuantizedMatrix, QuantizedParts,
    dynamic_levels,
};
pub use reference::ReferenceBackend;
pub use rounding::Rounding;
pub use shared::{SharedBuffer, SharedMatrix};
pub use simd::Isa;
