//! A Hugging Face model written as one GGUF file: names, layout, mixture of types, metadata, tokenizer.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use super::metadata::{Description, describe, turn_ends, unsupported};
use super::names::gguf_name;
use super::writer::GgufWriter;
use super::{MetaValue, Origin, Recipe, dequant, quant};
use crate::{FormatError, HfConfig, StoredDtype, TensorInfo, TensorSource, Tokenizer};

/// Elements converted at a time: enough for threads, few megabytes whatever the tensor's size.
const PIECE: usize = 1 << 22;
/// Hugging Face's name of the head.
const HEAD: &str = "lm_head.weight";

/// A model to be written as GGUF.
pub struct GgufExport<'a> {
    /// Its weights under Hugging Face names.
    pub weights: &'a dyn TensorSource,
    /// `config.json`.
    pub config: &'a HfConfig,
    /// `generation_config.json`.
    pub generation_config: Option<&'a Value>,
    /// Its tokenizer, with the chat template.
    pub tokenizer: &'a Tokenizer,
    /// `general.name`.
    pub name: &'a str,
    /// Licence and base models.
    pub origin: &'a Origin,
    /// Which type each tensor gets.
    pub recipe: Recipe,
    /// Threads to quantise with; the bytes do not depend on it.
    pub threads: usize,
}

/// What was written.
#[derive(Clone, Debug, Default)]
pub struct GgufSummary {
    /// For each stored type: what it holds and how far it is from the source.
    pub types: BTreeMap<&'static str, TypeSummary>,
    /// For each tensor of the source that is in the file, by its name there: the sum of the squares of what rounding
    /// changed, so that whoever reads the file back can tell that the numbers are those that were written.
    pub squared_errors: BTreeMap<String, f64>,
    /// What a user should know about the file.
    pub warnings: Vec<String>,
    /// What explains it.
    pub notes: Vec<String>,
}

/// The tensors of one stored type.
#[derive(Clone, Copy, Debug, Default)]
pub struct TypeSummary {
    /// Number of tensors.
    pub tensors: usize,
    /// Number of elements.
    pub elements: u64,
    /// Bytes in the file.
    pub bytes: u64,
    squared_error: f64,
    squares: f64,
}

impl TypeSummary {
    /// Root mean square of the rounding error over that of the weights.
    pub fn relative_error(&self) -> f64 {
        if self.squares == 0.0 { 0.0 } else { (self.squared_error / self.squares).sqrt() }
    }
}

/// Where a tensor of the file comes from.
struct Planned {
    info: TensorInfo,
    /// Hugging Face name; `None` for `rope_freqs.weight`.
    source: Option<String>,
    /// Number of heads whose rows are permuted, for q and k.
    heads: Option<usize>,
}

impl GgufExport<'_> {
    /// Writes the file; under `path` there is the whole file or none. `progress` hears of each tensor before it is
    /// converted: its name, its number from 1 and how many there are.
    ///
    /// # Errors
    /// [`FormatError::ExportUnsupported`] for what GGUF cannot express, [`FormatError::NotFinite`] for NaN or infinite
    /// weights and for those that the chosen type cannot hold, and errors of reading and writing.
    pub fn write(
        &self,
        path: &Path,
        progress: &mut dyn FnMut(&str, usize, usize),
    ) -> Result<GgufSummary, FormatError> {
        let description = describe(self.config)?;
        let plan = self.plan(&description)?;
        let mut summary = GgufSummary { warnings: description.warnings.clone(), ..GgufSummary::default() };
        let metadata = self.metadata(&description, &mut summary.warnings)?;
        summary.notes.extend(self.recipe.fallback_note(plan.iter().map(|planned| &planned.info)));
        let tensors: Vec<TensorInfo> = plan.iter().map(|planned| planned.info.clone()).collect();
        let mut writer = GgufWriter::create(path, &metadata, &tensors)?;
        let mut scratch = Scratch::default();
        for (i, planned) in plan.iter().enumerate() {
            progress(&planned.info.name, i + 1, plan.len());
            let part = match (&planned.source, &description.rope_factors) {
                (Some(source), _) => self.copy(source, planned, &mut scratch, &mut writer)?,
                (None, factors) => {
                    let factors = factors.as_deref().unwrap_or_default();
                    writer.write_bytes(
                        &planned.info.name,
                        &factors.iter().flat_map(|f| f.to_le_bytes()).collect::<Vec<_>>(),
                    )?;
                    TypeSummary::default()
                }
            };
            if let Some(source) = &planned.source {
                summary.squared_errors.insert(source.clone(), part.squared_error);
            }
            let total = summary.types.entry(planned.info.dtype.name()).or_default();
            total.tensors += 1;
            total.elements += planned.info.elements() as u64;
            total.bytes += planned.info.dtype.bytes_of(planned.info.elements()).unwrap_or(0) as u64;
            total.squared_error += part.squared_error;
            total.squares += part.squares;
        }
        writer.finish()?;
        Ok(summary)
    }

    /// Bytes of the tensors that [`GgufExport::write`] would write.
    ///
    /// # Errors
    /// [`FormatError::ExportUnsupported`], as for writing.
    pub fn bytes(&self) -> Result<u64, FormatError> {
        let plan = self.plan(&describe(self.config)?)?;
        let size = |planned: &Planned| planned.info.dtype.bytes_of(planned.info.elements()).unwrap_or(0);
        Ok(plan.iter().map(|planned| size(planned) as u64).sum())
    }

    /// The tensors in llama.cpp's order: what stands outside the layers, then layer by layer.
    fn plan(&self, description: &Description) -> Result<Vec<Planned>, FormatError> {
        let mut plan = Vec::new();
        for info in self.weights.tensors() {
            let is_tied_head = description.sizes.tied && info.name == HEAD;
            if is_tied_head || info.name.ends_with("rotary_emb.inv_freq") {
                continue;
            }
            let name = gguf_name(&info.name).ok_or_else(|| {
                unsupported(self.config, format!("tensor `{}` has no place in GGUF's Llama", info.name))
            })?;
            let heads = if name.contains(".attn_q.") {
                Some(description.sizes.heads)
            } else if name.contains(".attn_k.") {
                Some(description.sizes.key_value_heads)
            } else {
                None
            };
            let rows = info.shape.first().copied().unwrap_or(0);
            if heads.is_some_and(|heads| heads == 0 || !rows.is_multiple_of(2 * heads)) {
                let problem = format!("tensor `{}` has {rows} rows, which do not fit its heads", info.name);
                return Err(unsupported(self.config, problem));
            }
            let dtype = self.recipe.dtype_of(&name, &info.shape, description.sizes);
            let info_out = TensorInfo { name, shape: info.shape.clone(), dtype };
            plan.push(Planned { info: info_out, source: Some(info.name.clone()), heads });
        }
        self.check_complete(description)?;
        if let Some(factors) = &description.rope_factors {
            let info = TensorInfo {
                name: "rope_freqs.weight".to_owned(),
                shape: vec![factors.len()],
                dtype: StoredDtype::F32,
            };
            plan.push(Planned { info, source: None, heads: None });
        }
        plan.sort_by_key(|planned| place(&planned.info.name));
        Ok(plan)
    }

    /// The embedding fits the configuration, the head is there, and every layer is.
    fn check_complete(&self, description: &Description) -> Result<(), FormatError> {
        let missing = |name: &str| Err(unsupported(self.config, format!("there is no tensor `{name}`")));
        let embedding = "model.embed_tokens.weight";
        match self.weights.find(embedding) {
            None => return missing(embedding),
            Some(info) if info.shape.first() != Some(&description.vocab_size) => {
                let problem = format!(
                    "`vocab_size` is {}, but `{embedding}` has the shape {:?}",
                    description.vocab_size, info.shape
                );
                return Err(unsupported(self.config, problem));
            }
            Some(_) => {}
        }
        if !description.sizes.tied && self.weights.find(HEAD).is_none() {
            return missing(HEAD);
        }
        let modules = [
            "input_layernorm",
            "self_attn.q_proj",
            "self_attn.k_proj",
            "self_attn.v_proj",
            "self_attn.o_proj",
            "post_attention_layernorm",
            "mlp.gate_proj",
            "mlp.up_proj",
            "mlp.down_proj",
        ];
        let of_layers = (0..description.sizes.layers).flat_map(|layer| {
            modules.iter().map(move |module| format!("model.layers.{layer}.{module}.weight"))
        });
        for name in of_layers.chain(["model.norm.weight".to_owned()]) {
            if self.weights.find(&name).is_none() {
                return missing(&name);
            }
        }
        Ok(())
    }

    fn metadata(
        &self,
        description: &Description,
        warnings: &mut Vec<String>,
    ) -> Result<Vec<(String, MetaValue)>, FormatError> {
        let text = |value: &str| MetaValue::String(value.to_owned());
        let mut metadata = vec![
            ("general.architecture".to_owned(), text(super::config::ARCHITECTURE)),
            ("general.type".to_owned(), text("model")),
            ("general.name".to_owned(), text(self.name)),
            ("general.file_type".to_owned(), MetaValue::Unsigned(self.recipe.file_type())),
            ("general.quantization_version".to_owned(), MetaValue::Unsigned(2)),
        ];
        metadata.extend(self.origin.metadata());
        metadata.extend(description.metadata.iter().cloned());
        metadata.extend(self.tokenizer.gguf_metadata(description.vocab_size, warnings)?);
        metadata.extend(turn_ends(self.generation_config, self.tokenizer.eos_token_id()));
        Ok(metadata)
    }

    /// Reads, converts and writes one tensor, and measures what the conversion lost.
    fn copy(
        &self,
        source: &str,
        planned: &Planned,
        scratch: &mut Scratch,
        writer: &mut GgufWriter,
    ) -> Result<TypeSummary, FormatError> {
        let TensorInfo { name, shape, dtype } = &planned.info;
        let width: usize = shape.iter().skip(1).product::<usize>().max(1);
        let rows = shape.first().copied().unwrap_or(1);
        let at_once = (PIECE / width).clamp(1, rows.max(1));
        let mut sums = TypeSummary::default();
        for first in (0..rows).step_by(at_once) {
            let count = at_once.min(rows - first);
            scratch.values.resize(count * width, 0.0);
            self.read_rows(source, planned, first, width, rows, &mut scratch.values)?;
            self.check_finite(source, first * width, &scratch.values, None)?;
            quant::quantise(*dtype, &scratch.values, self.threads, &mut scratch.bytes);
            scratch.back.resize(scratch.values.len(), 0.0);
            assert!(dequant::read(*dtype, &scratch.bytes, 0, &mut scratch.back), "a float type");
            self.check_finite(source, first * width, &scratch.back, Some(*dtype))?;
            for (value, back) in scratch.values.iter().zip(&scratch.back) {
                sums.squared_error += (f64::from(*value) - f64::from(*back)).powi(2);
                sums.squares += f64::from(*value).powi(2);
            }
            writer.write_bytes(name, &scratch.bytes)?;
        }
        Ok(sums)
    }

    /// Rows `first..` in the file's order.
    fn read_rows(
        &self,
        source: &str,
        planned: &Planned,
        first: usize,
        width: usize,
        rows: usize,
        values: &mut [f32],
    ) -> Result<(), FormatError> {
        let Some(heads) = planned.heads else { return self.weights.read_f32(source, first * width, values) };
        let head_dim = rows / heads;
        for (i, row) in values.chunks_exact_mut(width).enumerate() {
            self.weights.read_f32(source, source_row(first + i, head_dim) * width, row)?;
        }
        Ok(())
    }

    fn check_finite(
        &self,
        source: &str,
        start: usize,
        values: &[f32],
        dtype: Option<StoredDtype>,
    ) -> Result<(), FormatError> {
        let Some(at) = values.iter().position(|value| !value.is_finite()) else { return Ok(()) };
        let problem = match dtype {
            None => format!("element {} is {}", start + at, values[at]),
            Some(dtype) => format!("element {} is too large for {dtype}", start + at),
        };
        Err(FormatError::NotFinite { name: source.to_owned(), problem })
    }
}

#[derive(Default)]
struct Scratch {
    values: Vec<f32>,
    back: Vec<f32>,
    bytes: Vec<u8>,
}

/// Hugging Face's row that llama.cpp keeps at `row`: the inverse of [`stored_row`].
fn source_row(row: usize, head_dim: usize) -> usize {
    let (head, within) = (row / head_dim, row % head_dim);
    head * head_dim + (within % 2) * (head_dim / 2) + within / 2
}

/// Sorts tensors outside the layers first, then by layer and name.
fn place(name: &str) -> (usize, String) {
    let layer = name
        .strip_prefix("blk.")
        .and_then(|rest| rest.split_once('.'))
        .and_then(|(n, _)| n.parse::<usize>().ok());
    (layer.map_or(0, |layer| layer + 1), name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::super::source::stored_row;
    use super::source_row;

    #[test]
    fn permuting_there_and_back_is_nothing() {
        for row in 0..24 {
            assert_eq!(source_row(stored_row(row, 8), 8), row);
        }
    }
}
