//! What a run tells a tracker: Weights & Biases.
//!
//! This crate does not know what a step, a loss or a model is: it receives positions on an axis, names, numbers and
//! texts, and puts them where other programs look for them. It reads neither the environment nor the command line.

mod error;
mod json;
mod protobuf;
mod table;
mod tracker;
pub mod wandb;

pub use error::TrackingError;
pub use table::Table;
pub use tracker::{Row, Tracker};
