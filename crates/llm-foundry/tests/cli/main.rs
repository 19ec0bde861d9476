//! The real binary, as a user meets it: exit codes, messages, files.

mod adapters;
mod answers;
mod composition;
mod data;
mod output;
mod plans;
mod resume;
mod schema;
mod support;
mod training;
mod wrong_input;
