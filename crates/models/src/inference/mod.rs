//! Inference: many requests at once over one cache of keys and values (Kwon et al. 2023, "PagedAttention"; Yu et al.
//! 2022, "Orca").
//!
//! Keys and values lie in blocks of a fixed number of tokens. Each step packs one token of every running request and as
//! many prompt tokens of new ones as fit into one row (continuous batching); a beginning that was computed before, or
//! is being computed in the same row, is shared block by block and computed once (prefix sharing). What a request
//! generates does not depend on what else is running.
//!
//! | file | what |
//! |---|---|
//! | `request.rs` | what is asked and what is told |
//! | `engine.rs` | requests, steps |
//! | `answers.rs` | requests whose answers are text |
//! | `text.rs` | from tokens to text that can be shown |
//! | `generate.rs` | one request at a time |
//! | `schedule.rs` | who computes how many tokens in the next step |
//! | `scoring.rs` | log-likelihoods of given continuations |
//! | `sequence.rs` | one request on its way |
//! | `blocks.rs` | who holds which block |
//! | `cache.rs` | the buffers, and a row as kernels want it |

mod answers;
mod blocks;
mod cache;
mod engine;
mod generate;
mod request;
mod schedule;
mod scoring;
mod sequence;
mod text;

pub use answers::{Answers, News};
pub(crate) use cache::{LayerCache, PagedCache, PagedRow};
pub use engine::{Inference, InferenceOptions};
pub use generate::Generation;
pub use request::{Event, Finish, Request, RequestId, TokenScore};
pub use scoring::{Continuations, Score};
pub use text::{TextStream, special_stops};
