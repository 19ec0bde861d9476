//! The decoder against transformers and PEFT, and against itself.

mod config;
mod errors;
mod files;
mod fixture;
mod generation;
mod invariants;
mod lora;
mod parity;
mod quantized;
mod text;
mod vocabulary;
