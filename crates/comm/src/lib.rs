//! Collectives between ranks behind one small trait.
//!
//! A rank is one worker of a run that holds a whole copy of the model and sees its own share of the data. This crate
//! does not know what it carries: numbers go in, their sum over all ranks comes out, the same bits on every rank.

mod error;
mod solo;
mod threads;

pub use error::CommError;
pub use solo::Solo;
pub use threads::Threads;

use foundry_kernels::{Backend, Buffer};

/// What ranks can do together. Every rank must make the same calls in the same order with the same lengths.
///
/// Sums are folded in the order of the ranks (`((r0 + r1) + r2) + …`), so that the result has the same bits on every
/// rank and on every run.
pub trait Communicator: Send + Sync {
    /// Number of this rank, from 0.
    fn rank(&self) -> usize;

    /// How many ranks there are, at least 1.
    fn world_size(&self) -> usize;

    /// Replaces `values` by their sum over all ranks, element by element, in f64.
    fn all_reduce_sum(&self, values: &mut [f64]) -> Result<(), CommError>;

    /// Replaces the contents of an f32 or bf16 buffer by their sum over all ranks, summed in f32.
    fn all_reduce_buffer(&self, backend: &dyn Backend, buffer: &mut Buffer) -> Result<(), CommError>;

    /// Returns when every rank has arrived.
    fn barrier(&self) -> Result<(), CommError>;
}
