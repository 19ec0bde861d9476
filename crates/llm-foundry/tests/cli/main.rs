//! The real binary, as a user meets it: exit codes, messages, files.

mod adapters;
mod answers;
mod beginnings;
mod best;
mod composition;
mod continuation;
mod crashes;
mod damaged;
mod data;
mod eval;
mod examples;
mod export;
mod interrupted;
mod large_data;
mod lm_eval;
mod output;
mod plans;
mod reports;
mod results;
mod resume;
mod schema;
#[cfg(feature = "serve")]
mod serve;
mod shell;
mod signals;
mod slips;
#[cfg(target_os = "linux")]
mod spoilt;
mod streams;
mod support;
mod sweeps;
mod tokens;
mod top;
mod tracking;
mod training;
mod vllm;
mod wrong_input;
