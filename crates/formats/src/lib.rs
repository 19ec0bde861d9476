//! Files of models: safetensors, GGUF, Hugging Face config.json, tokenizers, token files. Bytes in, structs out.
//!
//! Files come from strangers: every length, count and offset is checked before it is used, nothing in a file is
//! executed (pickle checkpoints are refused), and every error names the file, the place and the remedy.

mod config;
mod dtype;
mod error;
mod flush;
pub mod fp8;
pub mod gguf;
mod json;
mod mmap;
mod model_files;
mod plain;
pub mod safetensors;
mod tensors;
mod token_file;
mod tokenizer;
pub mod torch_rng;

pub use config::HfConfig;
pub use dtype::StoredDtype;
pub use error::FormatError;
pub use flush::{flush_dir, flush_tree};
pub use model_files::ModelFiles;
pub use tensors::{TensorInfo, TensorSource};
pub use token_file::{TokenDocument, TokenFile, TokenFileCounts, TokenFileWriter, TokenView};
pub use tokenizer::{Tokenizer, TokenizerFiles, guarded, panic_is_guarded};
