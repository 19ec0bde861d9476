//! Tensors from any source into a model directory in transformers' layout, a piece at a time.

use crate::ModelError;
use crate::save::{dtype_name, write_json};
use foundry_formats::safetensors::{Entry, save_sharded};
use foundry_formats::{FormatError, HfConfig, StoredDtype, TensorSource};
use serde_json::Value;
use std::path::Path;

/// Elements read at a time: a few megabytes whatever the tensor's size.
const PIECE: usize = 1 << 20;

/// The type in which a tensor is written where none is asked for: its own if that is a plain float type, else bfloat16.
pub fn kept_dtype(dtype: StoredDtype) -> StoredDtype {
    match dtype {
        StoredDtype::F32 | StoredDtype::F16 | StoredDtype::BF16 => dtype,
        StoredDtype::F64 => StoredDtype::F32,
        _ => StoredDtype::BF16,
    }
}

/// Writes config.json, generation_config.json and the weights to an existing directory: every tensor as `dtype`, or as
/// it was ([`kept_dtype`]). A tied head is not written, as in transformers.
///
/// # Errors
/// [`FormatError::NotFinite`] for weights that are NaN or infinite, or become so in `dtype`; files that cannot be read
/// or written.
pub fn write_model(
    weights: &dyn TensorSource,
    dir: &Path,
    config: &HfConfig,
    generation_config: Option<&Value>,
    dtype: Option<StoredDtype>,
    max_shard_size: u64,
) -> Result<(), ModelError> {
    let is_tied = config.opt_bool("tie_word_embeddings")?.unwrap_or(false);
    let infos = weights.tensors().iter().filter(|info| {
        let is_tied_head = is_tied && info.name == "lm_head.weight";
        !is_tied_head && !info.name.ends_with("rotary_emb.inv_freq")
    });
    let entries: Vec<Entry> = infos
        .map(|info| Entry::new(&info.name, dtype.unwrap_or(kept_dtype(info.dtype)), &info.shape))
        .collect();
    let mut piece = Vec::new();
    save_sharded(dir, &entries, max_shard_size, |entry, writer| {
        let elements = entry.elements();
        // Whole rows, so that a source that computes by rows need not compute any twice.
        let width = entry.shape.get(1).copied().unwrap_or(1).max(1);
        let step = (PIECE / width).max(1) * width;
        for start in (0..elements).step_by(step) {
            piece.resize(step.min(elements - start), 0.0);
            weights.read_f32(&entry.name, start, &mut piece)?;
            check_finite(&entry.name, start, &piece, entry.dtype)?;
            writer.write_f32(&entry.name, &piece)?;
        }
        Ok::<(), ModelError>(())
    })?;
    let mut config = config.0.clone();
    config.shift_remove("torch_dtype");
    let most = dtype.or_else(|| entries.iter().max_by_key(|entry| entry.elements()).map(|entry| entry.dtype));
    config.insert("dtype".into(), Value::from(dtype_name(most.unwrap_or(StoredDtype::F32))));
    write_json(&dir.join("config.json"), &config, true)?;
    match generation_config.and_then(Value::as_object) {
        Some(settings) => write_json(&dir.join("generation_config.json"), settings, true),
        None => Ok(()),
    }
}

/// float16 ends at 65504; bfloat16 and float32 hold what float32 held.
fn check_finite(name: &str, start: usize, values: &[f32], dtype: StoredDtype) -> Result<(), FormatError> {
    let most = if dtype == StoredDtype::F16 { 65519.0 } else { f32::MAX };
    let Some(at) = values.iter().position(|v| v.is_nan() || v.abs() > most) else { return Ok(()) };
    let problem = match values[at].is_finite() {
        true => format!("element {} is {}, too large for {dtype}", start + at, values[at]),
        false => format!("element {} is {}", start + at, values[at]),
    };
    Err(FormatError::NotFinite { name: name.to_owned(), problem })
}
