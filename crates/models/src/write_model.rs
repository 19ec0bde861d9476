//! Tensors from any source into a model directory in transformers' layout, a piece at a time.

use crate::ModelError;
use crate::save::{dtype_name, write_json};
use foundry_formats::safetensors::{Entry, save_sharded};
use foundry_formats::{FormatError, HfConfig, StoredDtype, TensorInfo, TensorSource, fp8};
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

/// How the weights are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WeightFormat {
    /// Each tensor as it was, see [`kept_dtype`].
    Kept,
    /// All in one float type.
    Plain(StoredDtype),
    /// The matrices of the layers in eight bits with a scale for each row ([`fp8`]), the rest as it was.
    Fp8,
}

impl WeightFormat {
    fn dtype_of(self, info: &TensorInfo) -> StoredDtype {
        match self {
            WeightFormat::Plain(dtype) => dtype,
            WeightFormat::Fp8 if is_layer_matrix(info) => StoredDtype::F8E4M3,
            WeightFormat::Kept | WeightFormat::Fp8 => kept_dtype(info.dtype),
        }
    }
}

fn is_layer_matrix(info: &TensorInfo) -> bool {
    info.shape.len() == 2 && info.name.starts_with("model.layers.") && info.name.ends_with("_proj.weight")
}

/// Writes config.json, generation_config.json and the weights to an existing directory. A tied head is not written, as
/// in transformers.
///
/// # Errors
/// [`FormatError::NotFinite`] for weights that are NaN or infinite, or become so; files that cannot be read or written.
pub fn write_model(
    weights: &dyn TensorSource,
    dir: &Path,
    config: &HfConfig,
    generation_config: Option<&Value>,
    format: WeightFormat,
    max_shard_size: u64,
) -> Result<(), ModelError> {
    let entries = entries(weights, config, format)?;
    let (mut piece, mut codes, mut scales) = (Vec::new(), Vec::new(), Vec::new());
    save_sharded(dir, &entries, max_shard_size, |entry, writer| {
        if weights.find(&entry.name).is_none() {
            return Ok(writer.write_f32(&entry.name, &std::mem::take(&mut scales))?);
        }
        let elements = entry.elements();
        // Whole rows, so that a source that computes by rows need not compute any twice.
        let width = entry.shape.get(1).copied().unwrap_or(1).max(1);
        let step = (PIECE / width).max(1) * width;
        for start in (0..elements).step_by(step) {
            piece.resize(step.min(elements - start), 0.0);
            weights.read_f32(&entry.name, start, &mut piece)?;
            check_finite(&entry.name, start, &piece, entry.dtype)?;
            if entry.dtype == StoredDtype::F8E4M3 {
                codes.clear();
                scales.extend(piece.chunks_exact(width).map(|row| fp8::quantise_row(row, &mut codes)));
                writer.write_bytes(&entry.name, &codes)?;
            } else {
                writer.write_f32(&entry.name, &piece)?;
            }
        }
        Ok::<(), ModelError>(())
    })?;
    write_configs(dir, config, generation_config, format, &entries)
}

/// Bytes of the weights that [`write_model`] would write.
///
/// # Errors
/// A configuration whose `tie_word_embeddings` is no truth value.
pub fn model_bytes(
    weights: &dyn TensorSource,
    config: &HfConfig,
    format: WeightFormat,
) -> Result<u64, ModelError> {
    let sizes = entries(weights, config, format)?;
    Ok(sizes.iter().map(|entry| entry.dtype.bytes_of(entry.elements()).unwrap_or(0) as u64).sum())
}

/// What is written: all but a tied head and rotary frequencies.
fn entries(
    weights: &dyn TensorSource,
    config: &HfConfig,
    format: WeightFormat,
) -> Result<Vec<Entry>, ModelError> {
    let is_tied = config.opt_bool("tie_word_embeddings")?.unwrap_or(false);
    let mut entries = Vec::new();
    for info in weights.tensors() {
        let is_tied_head = is_tied && info.name == "lm_head.weight";
        if is_tied_head || info.name.ends_with("rotary_emb.inv_freq") {
            continue;
        }
        let dtype = format.dtype_of(info);
        entries.push(Entry::new(&info.name, dtype, &info.shape));
        if dtype == StoredDtype::F8E4M3 {
            let scale = format!("{}_scale", info.name);
            if weights.find(&scale).is_some() {
                let what =
                    format!("it holds `{scale}` beside dense weights, the name of the scales to be written");
                return Err(ModelError::QuantizedWeight { name: info.name.clone(), what });
            }
            entries.push(Entry::new(scale, StoredDtype::F32, &[info.shape[0], 1]));
        }
    }
    Ok(entries)
}

fn write_configs(
    dir: &Path,
    config: &HfConfig,
    generation_config: Option<&Value>,
    format: WeightFormat,
    entries: &[Entry],
) -> Result<(), ModelError> {
    let mut config = config.0.clone();
    config.shift_remove("torch_dtype");
    config.shift_remove("quantization_config");
    if format == WeightFormat::Fp8 {
        config.insert("quantization_config".into(), fp8::quantization_config());
    }
    let plain = entries.iter().filter(|entry| entry.dtype != StoredDtype::F8E4M3);
    let most = plain.max_by_key(|entry| entry.elements()).map_or(StoredDtype::F32, |entry| entry.dtype);
    config.insert("dtype".into(), Value::from(dtype_name(most)));
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
