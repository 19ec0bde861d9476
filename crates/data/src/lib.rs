//! Raw files to packed rows of tokens: sources, chat templates, masks, packing, order, resume.
//!
//! The road of an example: a file ([`DataSpec::files`]) → a row (`source`) → an [`Example`] (`shape`, `example`) → text
//! ([`chat`]) → tokens and labels (`tokenize`, `mask`) → packed rows ([`pack`]) → batches ([`Loader`]). Rows, labels
//! and order are those of TRL 1.16 and accelerate 1.15 for the same file and seed.

mod batches;
pub mod chat;
mod conversation;
mod counter;
mod dataset;
mod error;
mod example;
mod filter;
mod lengths;
mod load;
mod loader;
mod mask;
pub mod numpy_rng;
pub mod pack;
mod pipeline;
mod place;
mod prepare;
mod report;
mod rows;
mod shape;
pub(crate) mod source;
mod spec;
mod stream;
mod tokenize;
pub mod tokens;
mod turns;

pub use batches::{Batches, MicroBatch, Rows};
pub use dataset::{Dataset, PackedRow, Sequence};
pub use error::{DataError, Place};
pub use example::{ChatExtras, Example, Message};
pub use filter::{Charset, TextFilter};
pub use lengths::Lengths;
pub use load::{load, load_with_holdout};
pub use loader::{Cursor, Loader};
pub use report::{DataReport, FileCount, SourceCount};
pub use rows::read_rows;
pub use shape::Shape;
pub use source::{DataFile, FileKind, ReadAt, file_kind};
pub use spec::{
    DataSpec, Decontamination, FormatHint, Holdout, MultiTurn, OnError, PackingStrategy, SampleBy, Source,
    StoppingStrategy, TrainOn,
};
pub use stream::{CHUNK_BYTES, Sample, StreamLoader, StreamSpec, count_rows, held_out, sample, survey};

/// The label of a token that does not count in the loss (PyTorch's `ignore_index`).
pub const IGNORED: i32 = -100;
