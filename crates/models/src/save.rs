//! A model on disk in transformers' layout: config.json, generation_config.json, model.safetensors or shards.

use crate::parameter::Weight;
use crate::saved::{Numbers, WriteFiles};
use crate::{Decoder, ModelError, quantized};
use foundry_formats::safetensors::{DEFAULT_MAX_SHARD_SIZE, Entry, ShardedWriter};
use foundry_formats::{HfConfig, StoredDtype};
use foundry_kernels::{Backend, Dtype};
use serde_json::{Map, Value};
use std::path::Path;

/// How a model is written.
#[derive(Clone, Debug, PartialEq)]
pub struct SaveOptions {
    /// Number format of the tensors: F32, BF16 or F16.
    pub dtype: StoredDtype,
    /// Largest file of weights in bytes; a larger model is split into shards.
    pub max_shard_size: u64,
}

impl Default for SaveOptions {
    /// float32 and transformers' limit.
    fn default() -> Self {
        Self { dtype: StoredDtype::F32, max_shard_size: DEFAULT_MAX_SHARD_SIZE }
    }
}

impl Decoder {
    /// Writes the base model (trained values where it is trained) with its configuration to an existing directory. A
    /// tied head is not written, as in transformers. Tokenizer files are the caller's, and so is flushing the directory
    /// to disk ([`foundry_formats::flush_tree`]).
    ///
    /// # Errors
    /// An adapter in place (save it with [`Decoder::save_adapter`]); files that cannot be written.
    pub fn save_model(
        &self,
        backend: &dyn Backend,
        dir: &Path,
        config: &HfConfig,
        generation_config: Option<&Value>,
        options: &SaveOptions,
    ) -> Result<(), ModelError> {
        self.gather_model(backend, config, generation_config, options)?(dir)
    }

    /// The first half of [`Decoder::save_model`]; what it returns is the second.
    ///
    /// # Errors
    /// An adapter in place.
    pub fn gather_model(
        &self,
        backend: &dyn Backend,
        config: &HfConfig,
        generation_config: Option<&Value>,
        options: &SaveOptions,
    ) -> Result<WriteFiles, ModelError> {
        let weights = self.weights();
        if weights.iter().any(|weight| weight.adapter.is_some()) {
            let what = "a model with an adapter cannot be saved as a plain model".into();
            return Err(ModelError::Lora { what, remedy: "save the adapter, or merge it first".into() });
        }
        let compute = if self.compute == Dtype::Bf16 { "bfloat16" } else { "float32" };
        let gather = |weight: &Weight| {
            let name = weight.base.clone()?;
            let entries = match weight.quantized() {
                Some(matrix) => quantized::entries(&name, &weight.shape, matrix.kind(), compute),
                None => vec![Entry::new(&name, options.dtype, &weight.shape)],
            };
            let (shape, numbers) = (weight.shape.clone(), weight.share(backend, &self.parameters));
            Some(Gathered { name, shape, entries, numbers })
        };
        let mut gathered: Vec<Gathered> = weights.into_iter().filter_map(gather).collect();
        gathered.sort_by(|a, b| a.name.cmp(&b.name));
        let config = self.config_to_save(config, options, compute);
        let generation_config = generation_config.and_then(Value::as_object).cloned();
        let max_shard_size = options.max_shard_size;
        Ok(Box::new(move |dir| {
            write_weights(&gathered, dir, max_shard_size, compute)?;
            drop(gathered);
            write_json(&dir.join("config.json"), &config, true)?;
            match generation_config {
                Some(settings) => write_json(&dir.join("generation_config.json"), &settings, true),
                None => Ok(()),
            }
        }))
    }

    fn config_to_save(&self, config: &HfConfig, options: &SaveOptions, compute: &str) -> Map<String, Value> {
        let mut config = config.0.clone();
        // transformers 4 called it `torch_dtype`; whatever was there described other files.
        config.shift_remove("torch_dtype");
        config.shift_remove("quantization_config");
        config.insert("dtype".into(), Value::from(dtype_name(options.dtype)));
        if let Some(weights) = &self.quantization {
            let settings = quantized::quantization_config(weights.kind, compute, &weights.skip);
            config.insert("quantization_config".into(), settings);
        }
        config
    }
}

/// A weight of the base model, to be written.
struct Gathered {
    name: String,
    shape: Vec<usize>,
    /// One, or those of a quantised weight.
    entries: Vec<Entry>,
    numbers: Numbers,
}

fn write_weights(
    gathered: &[Gathered],
    dir: &Path,
    max_shard_size: u64,
    compute: &str,
) -> Result<(), ModelError> {
    let entries: Vec<Entry> = gathered.iter().flat_map(|weight| weight.entries.clone()).collect();
    let mut writer = ShardedWriter::create(dir, &entries, max_shard_size)?;
    for Gathered { name, shape, entries, numbers } in gathered {
        if let Numbers::Quantized(matrix) = numbers {
            let parts = matrix.parts();
            for entry in entries {
                quantized::write_part(entry, &parts, shape, compute, &mut writer)?;
            }
        } else {
            numbers.write_out(shape.iter().product(), |piece| writer.write_f32(name, piece))?;
        }
    }
    Ok(writer.finish_unflushed()?)
}

pub(crate) fn dtype_name(dtype: StoredDtype) -> String {
    match dtype {
        StoredDtype::F32 => "float32".into(),
        StoredDtype::BF16 => "bfloat16".into(),
        StoredDtype::F16 => "float16".into(),
        other => other.name().to_lowercase(),
    }
}

/// JSON as Python's `json.dumps(indent=2, sort_keys=True)` writes it.
pub(crate) fn write_json(path: &Path, object: &Map<String, Value>, newline: bool) -> Result<(), ModelError> {
    let mut text = serde_json::to_string_pretty(&sorted(&Value::Object(object.clone())))
        .expect("an object with text keys is JSON");
    if newline {
        text.push('\n');
    }
    std::fs::write(path, text).map_err(|source| ModelError::Io { path: path.into(), source })
}

fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut keys: Vec<&String> = map.keys().collect();
            keys.sort();
            Value::Object(keys.into_iter().map(|key| (key.clone(), sorted(&map[key]))).collect())
        }
        Value::Array(items) => Value::Array(items.iter().map(sorted).collect()),
        other => other.clone(),
    }
}
