//! Data that was tokenised before: written once in shards, then read at the speed of the disk.
//!
//! A directory of token files has a manifest for each shard, which says with what the tokens were made. Only its token
//! files that fit the tokenizer and the settings of a run are read, and only after their SHA-256 was checked.

mod indexed;
mod indexing;
mod lock;
mod manifest;
mod moment;
mod row;
mod set;
mod settings;
mod write;

pub use indexed::IndexedTokens;
pub use indexing::{Indexed, are_tokens, index, index_with_holdout};
pub use manifest::ShardCounts;
pub use moment::parse_moment;
pub(crate) use row::TokenRow;
pub use set::TokenSet;
pub(crate) use set::{TokenPart, check_holdout, check_source};
pub use write::{Progress, Shard, TokenizeSpec, Tokenized, tokenize_shard};

#[cfg(test)]
mod holdout_tests;
#[cfg(test)]
mod indexed_tests;
#[cfg(test)]
mod tests;
