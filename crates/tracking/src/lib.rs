//! What a run tells trackers: Weights & Biases, TensorBoard, MLflow.
//!
//! This crate does not know what a step, a loss or a model is: it receives positions on an axis, names, numbers and
//! texts, and puts them where other programs look for them. It reads neither the environment nor the command line.

mod courier;
mod crc32c;
mod error;
mod http;
mod id;
mod json;
#[cfg(test)]
mod loopback;
pub mod mlflow;
mod protobuf;
mod table;
pub mod tensorboard;
mod tracker;
pub mod wandb;

pub use courier::Pace;
pub use error::TrackingError;
pub use http::{Credentials, apart, wrong_address};
pub use table::Table;
pub use tracker::{Row, Tracker};
