//! Tasks: their files, what they say, and where they are found.

mod broken;
mod builtin;
mod library;
mod spec;
mod yaml;

pub use library::{AggregateMetric, Group, Library, Member, Selection};
pub(crate) use spec::Field;
pub use spec::{OutputType, TaskSpec};
pub(crate) use yaml::{Config, definition, function, iterated, typed};
