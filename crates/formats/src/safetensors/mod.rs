//! safetensors: reading single and sharded checkpoints, writing them in a stream.

mod file;
mod shards;
mod writer;

use std::path::Path;

use crate::{FormatError, TensorSource};

pub use shards::{DEFAULT_MAX_SHARD_SIZE, ShardedWriter, save_sharded};
pub use writer::{Entry, Writer};

pub(crate) use writer::{TemporaryFile, write_unflushed};

/// The single-file name that transformers uses.
pub const SINGLE_FILE: &str = "model.safetensors";
/// The name of the shard index that transformers uses.
pub const INDEX_FILE: &str = "model.safetensors.index.json";

/// Opens a safetensors file, or a directory with `model.safetensors` or `model.safetensors.index.json`.
///
/// The header is checked against the file here, so a truncated download fails now and not in the middle of loading.
///
/// # Errors
/// [`FormatError::NotFound`], [`FormatError::PickleOnly`], [`FormatError::InvalidSafetensors`],
/// [`FormatError::InvalidIndex`], [`FormatError::ShardMissing`], [`FormatError::ShardLacksTensor`],
/// [`FormatError::UnsupportedDtype`], [`FormatError::Io`].
pub fn open(path: &Path) -> Result<Box<dyn TensorSource>, FormatError> {
    if !path.is_dir() {
        refuse_pickle(path)?;
        return if path.file_name().is_some_and(|n| n.to_string_lossy().ends_with(".index.json")) {
            Ok(Box::new(shards::ShardedFiles::open(path)?))
        } else {
            Ok(Box::new(file::SafetensorsFile::open(path)?))
        };
    }
    let single = path.join(SINGLE_FILE);
    if single.exists() {
        return Ok(Box::new(file::SafetensorsFile::open(&single)?));
    }
    let index = path.join(INDEX_FILE);
    if index.exists() {
        return Ok(Box::new(shards::ShardedFiles::open(&index)?));
    }
    Err(no_weights(path))
}

/// Refuses an existing pickle file, with the way out.
pub(crate) fn refuse_pickle(path: &Path) -> Result<(), FormatError> {
    if is_pickle(path) && path.exists() {
        let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        return Err(FormatError::PickleOnly { path: path.to_owned(), file });
    }
    Ok(())
}

/// The error for a directory without safetensors: pickle is named as such.
fn no_weights(dir: &Path) -> FormatError {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let mut pickles: Vec<_> =
        entries.map(|e| e.path()).filter(|p| is_pickle(p) && !is_trainer_state(p)).collect();
    pickles.sort();
    match pickles.first() {
        Some(file) => FormatError::PickleOnly {
            path: dir.to_owned(),
            file: file.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        },
        None => FormatError::NotFound {
            path: dir.to_owned(),
            wanted: "model.safetensors or model.safetensors.index.json",
            remedy: "name a directory with safetensors weights, or a .gguf file",
        },
    }
}

/// Pickles that transformers' Trainer writes next to the weights: they are not the model.
fn is_trainer_state(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    ["training_args.", "optimizer.", "scheduler.", "rng_state", "scaler."].iter().any(|p| name.starts_with(p))
}

fn is_pickle(path: &Path) -> bool {
    path.extension()
        .is_some_and(|e| matches!(e.to_string_lossy().as_ref(), "bin" | "pt" | "pth" | "ckpt" | "pkl"))
}
