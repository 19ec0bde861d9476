//! An adapter added to its base, tensor by tensor and row by row: nothing larger than a few rows is ever held beside
//! the adapter itself.
//!
//! PEFT 0.21 (`tuners/lora/layer.py`, `get_delta_weight`): W' = W + s·B·A in float32; an embedding's rows get
//! s·(B·A)ᵀ; DoRA scales each row of W + s·B·A to the trained magnitude, W' = m / ‖W + s·B·A‖ · (W + s·B·A);
//! `lora_bias` adds s·b to the bias.

use super::LoraSpec;
use super::adapter_files::check_complete;
use super::adapter_tensors::{AdapterTensors, PREFIX};
use crate::{DecoderConfig, ModelError, families};
use foundry_formats::{FormatError, HfConfig, TensorInfo, TensorSource};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What the adapter says about one tensor of the base.
#[derive(Debug, Default)]
struct Change {
    /// `[R, in]` and `[out, R]`.
    lora: Option<LowRank>,
    /// `[R, V]` and `[D, R]`, of an embedding.
    embedding: Option<LowRank>,
    /// `[out]`: the length of each row (DoRA).
    magnitude: Option<Vec<f32>>,
    /// `[out]`, for a bias.
    bias: Option<Vec<f32>>,
    /// Rows that take the place of the base's, by their number (`trainable_token_indices`).
    rows: Option<BTreeMap<usize, Vec<f32>>>,
    /// Name in the adapter of the tensor that takes this one's place (`modules_to_save`, `bias`).
    replaced_by: Option<String>,
}

#[derive(Debug)]
struct LowRank {
    a: Vec<f32>,
    b: Vec<f32>,
    rank: usize,
    scale: f32,
}

/// The merged model as a source of tensors.
pub struct MergedWeights<'a> {
    base: &'a dyn TensorSource,
    adapter: AdapterTensors,
    changes: BTreeMap<String, Change>,
    tensors: Vec<TensorInfo>,
    /// Name of the embedding, which a head without a tensor of its own is read from.
    embedding: String,
    head: String,
    unties_head: bool,
}

impl<'a> MergedWeights<'a> {
    /// Reads the adapter in `dir` (PEFT's files) and finds for each of its tensors the one of the base that it changes.
    ///
    /// # Errors
    /// An adapter of another kind or for another base: tensors without a place, of another shape, missing, or not
    /// finite.
    pub fn open(base: &'a dyn TensorSource, config: &DecoderConfig, dir: &Path) -> Result<Self, ModelError> {
        let spec = LoraSpec::from_adapter(dir)?;
        if spec.init_lora_weights.changes_base() {
            let what = "its `init_lora_weights` changed the base that it was trained on".into();
            let remedy = "save it as a plain adapter first (PEFT: path_initial_model_for_weight_conversion; the result of \
                          `llm-foundry train` is one already)";
            return Err(ModelError::Adapter { path: dir.into(), what, remedy: remedy.into() });
        }
        let adapter = AdapterTensors::open(dir, &spec)?;
        let mut tensors = base.tensors().to_vec();
        let module = |slot| format!("{}.weight", config.family.module(slot, 0));
        let (embedding, head) = (module(families::Slot::EmbedTokens), module(families::Slot::LmHead));
        // A tied head is listed while the adapter is read, so that an adapter may change it.
        if config.tie_word_embeddings && base.find(&head).is_none() {
            let info =
                base.find(&embedding).ok_or_else(|| ModelError::MissingTensor { name: embedding.clone() })?;
            tensors.push(TensorInfo { name: head.clone(), ..info.clone() });
            tensors.sort_by(|a, b| a.name.cmp(&b.name));
        }
        let changes =
            Reader { path: adapter.path.clone(), adapter: &adapter, spec: &spec, tensors: &tensors }
                .changes()?;
        if !has_branch_at_table(&adapter) {
            check_complete(config, &spec, dir, &adapter)?;
        }
        // Single rows of a tied embedding are the head's rows too (PEFT ties such an adapter as the weights are).
        let separates = |name: &String| changes.get(name).is_some_and(|change| change.rows.is_none());
        let unties_head = config.tie_word_embeddings && [&embedding, &head].into_iter().any(separates);
        if config.tie_word_embeddings && !unties_head {
            tensors.retain(|info| info.name != head);
        }
        Ok(Self { base, adapter, changes, tensors, embedding, head, unties_head })
    }

    /// The head and the embedding of the base are one, and the adapter makes them two: the merged model's config.json
    /// must say `tie_word_embeddings: false`.
    pub fn unties_head(&self) -> bool {
        self.unties_head
    }

    /// Number of tensors of the base that the adapter changes.
    pub fn changed(&self) -> usize {
        self.changes.len()
    }

    /// It can be compared with the unmerged adapter: no branch is at the embedding or the head, where a decoder of this
    /// crate has none.
    pub fn runs_unmerged(&self) -> bool {
        !has_branch_at_table(&self.adapter)
    }

    /// What lies below an adapter's branches: the base, or the copy of it that the adapter brings.
    fn read_base(&self, name: &str, start: usize, dst: &mut [f32]) -> Result<(), FormatError> {
        let own = self.changes.get(name).and_then(|change| change.replaced_by.as_ref());
        if let Some(own) = own {
            return self.adapter.read_f32(own, start, dst);
        }
        let stored = if name == self.head && self.base.find(name).is_none() { &self.embedding } else { name };
        self.base.read_f32(stored, start, dst)
    }

    /// Whole rows of a changed matrix.
    fn read_rows(
        &self,
        name: &str,
        change: &Change,
        first: usize,
        width: usize,
        dst: &mut [f32],
    ) -> Result<(), FormatError> {
        self.read_base(name, first * width, dst)?;
        let mut delta = vec![0f32; width];
        for (row, values) in dst.chunks_exact_mut(width).enumerate().map(|(i, v)| (first + i, v)) {
            if let Some(LowRank { a, b, rank, scale }) = &change.lora {
                delta.fill(0.0);
                for (weight, a) in b[row * rank..(row + 1) * rank].iter().zip(a.chunks_exact(width)) {
                    delta.iter_mut().zip(a).for_each(|(d, a)| *d += weight * a);
                }
                values.iter_mut().zip(&delta).for_each(|(v, d)| *v += scale * d);
            }
            if let Some(LowRank { a, b, rank, scale }) = &change.embedding {
                let vocabulary = a.len() / rank;
                for (v, b) in values.iter_mut().zip(b.chunks_exact(*rank)) {
                    let dot: f32 = b.iter().enumerate().map(|(r, b)| b * a[r * vocabulary + row]).sum();
                    *v += scale * dot;
                }
            }
            if let Some(replacement) = change.rows.as_ref().and_then(|rows| rows.get(&row)) {
                values.copy_from_slice(replacement);
            }
            if let Some(magnitude) = &change.magnitude {
                let square: f64 = values.iter().map(|v| f64::from(*v).powi(2)).sum();
                // A row of zeros stays one, as in the decoder.
                let factor =
                    if square > 0.0 { (f64::from(magnitude[row]) / square.sqrt()) as f32 } else { 0.0 };
                values.iter_mut().for_each(|v| *v *= factor);
            }
        }
        Ok(())
    }
}

impl TensorSource for MergedWeights<'_> {
    fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    fn read_f32(&self, name: &str, start: usize, dst: &mut [f32]) -> Result<(), FormatError> {
        let Some(change) = self.changes.get(name) else { return self.read_base(name, start, dst) };
        let shape = self.find(name).map(|info| info.shape.clone()).unwrap_or_default();
        if let Some(bias) = &change.bias {
            self.read_base(name, start, dst)?;
            dst.iter_mut().zip(&bias[start..]).for_each(|(v, b)| *v += b);
            return Ok(());
        }
        let width = shape.get(1).copied().unwrap_or(1).max(1);
        let (first, last) = (start / width, (start + dst.len()).div_ceil(width));
        if start.is_multiple_of(width) && dst.len().is_multiple_of(width) {
            return self.read_rows(name, change, first, width, dst);
        }
        let rows = shape.first().copied().unwrap_or(0);
        if last > rows {
            return self.read_base(name, start, dst); // says what is wrong with the range
        }
        let mut whole = vec![0f32; (last - first) * width];
        self.read_rows(name, change, first, width, &mut whole)?;
        dst.copy_from_slice(&whole[start - first * width..][..dst.len()]);
        Ok(())
    }

    fn read_i64(&self, name: &str, start: usize, dst: &mut [i64]) -> Result<(), FormatError> {
        self.base.read_i64(name, start, dst)
    }

    fn raw(&self, name: &str) -> Result<Option<&[u8]>, FormatError> {
        if self.changes.contains_key(name) { Ok(None) } else { self.base.raw(name) }
    }
}

fn has_branch_at_table(adapter: &AdapterTensors) -> bool {
    let at_table = |name: &str| name.contains(".lora_embedding_") || name.contains("lm_head.lora_");
    adapter.tensors().iter().any(|info| at_table(&info.name))
}

/// Sorts an adapter's tensors by what they change.
struct Reader<'a> {
    path: PathBuf,
    adapter: &'a dyn TensorSource,
    spec: &'a LoraSpec,
    tensors: &'a [TensorInfo],
}

impl Reader<'_> {
    fn error(&self, what: String, remedy: &str) -> ModelError {
        ModelError::Adapter { path: self.path.clone(), what, remedy: remedy.into() }
    }

    fn shape_of(&self, name: &str) -> Option<&[usize]> {
        self.tensors.iter().find(|info| info.name == name).map(|info| info.shape.as_slice())
    }

    fn changes(&self) -> Result<BTreeMap<String, Change>, ModelError> {
        // A renamed tensor is both foreign and missing; only the first says what happened.
        if let Some(foreign) = self.adapter.tensors().iter().find(|info| !info.name.starts_with(PREFIX)) {
            return Err(self.no_place(&foreign.name));
        }
        let mut changes: BTreeMap<String, Change> = BTreeMap::new();
        for info in self.adapter.tensors() {
            let name = info.name.strip_prefix(PREFIX).ok_or_else(|| self.no_place(&info.name))?;
            if let Some(module) = name.strip_suffix(".lora_A.weight") {
                let low_rank = self.low_rank(module, ".lora_A.weight", ".lora_B.weight", false)?;
                changes.entry(format!("{module}.weight")).or_default().lora = Some(low_rank);
            } else if let Some(module) = name.strip_suffix(".lora_embedding_A") {
                let low_rank = self.low_rank(module, ".lora_embedding_A", ".lora_embedding_B", true)?;
                changes.entry(format!("{module}.weight")).or_default().embedding = Some(low_rank);
            } else if let Some(module) = name
                .strip_suffix(".lora_magnitude_vector")
                .or(name.strip_suffix(".lora_magnitude_vector.weight"))
            {
                let rows =
                    self.shape_of(&format!("{module}.weight")).and_then(|shape| shape.first().copied());
                let magnitude = self.read(&info.name, rows)?;
                changes.entry(format!("{module}.weight")).or_default().magnitude = Some(magnitude);
            } else if let Some(module) = name.strip_suffix(".lora_B.bias") {
                let target = format!("{module}.bias");
                let rows = self.shape_of(&target).map(|shape| shape.iter().product()).ok_or_else(|| {
                    self.error(
                        format!("`{name}` adds a bias, but `{module}` has none to add it to"),
                        "an adapter trained with `lora_bias` cannot be merged into this model; use it unmerged",
                    )
                })?;
                let mut bias = self.read(&info.name, Some(rows))?;
                bias.iter_mut().for_each(|b| *b *= self.scale(module));
                changes.entry(target).or_default().bias = Some(bias);
            } else if let Some(module) = name.strip_suffix(".token_adapter.trainable_tokens_delta") {
                let rows = self.token_rows(module, info)?;
                changes.entry(format!("{module}.weight")).or_default().rows = Some(rows);
            } else if name.ends_with(".lora_B.weight") || name.ends_with(".lora_embedding_B") {
                let of_a = info.name.replace(".lora_B.", ".lora_A.").replace("_embedding_B", "_embedding_A");
                if self.adapter.find(&of_a).is_none() {
                    return Err(self.missing(&of_a));
                }
            } else {
                let target = name.replace(".base_layer.", ".");
                match self.shape_of(&target) {
                    None => return Err(self.no_place(&info.name)),
                    Some(shape) if shape != info.shape => {
                        return Err(self.other_shape(&info.name, &info.shape, shape));
                    }
                    Some(_) => {}
                }
                changes.entry(target).or_default().replaced_by = Some(info.name.clone());
            }
        }
        if changes.is_empty() {
            return Err(self.error("it holds no tensors".into(), "name the directory of a trained adapter"));
        }
        Ok(changes)
    }

    /// The rows of an embedding that were trained, with their numbers from adapter_config.json: a list, or an
    /// object with a list for each module's name.
    fn token_rows(&self, module: &str, info: &TensorInfo) -> Result<BTreeMap<usize, Vec<f32>>, ModelError> {
        let base = self.shape_of(&format!("{module}.weight")).ok_or_else(|| self.no_place(&info.name))?;
        let config = HfConfig::read(&self.path.with_file_name("adapter_config.json"))?;
        let list = match config.get("trainable_token_indices") {
            Some(Value::Object(by_name)) => {
                by_name.iter().find(|(name, _)| module.ends_with(name.as_str())).map(|(_, list)| list)
            }
            other => other,
        };
        let indices: Option<Vec<usize>> = list
            .and_then(Value::as_array)
            .and_then(|l| l.iter().map(|v| v.as_u64().map(|n| n as usize)).collect());
        let indices = indices.unwrap_or_default();
        let width = base.get(1).copied().unwrap_or(0);
        if info.shape != [indices.len(), width] || width == 0 {
            return Err(self.other_shape(&info.name, &info.shape, &[indices.len(), width]));
        }
        if let Some(index) = indices.iter().find(|&&index| index >= base[0]) {
            return Err(self.error(
                format!("it trains row {index} of `{module}`, which has {} rows", base[0]),
                "the adapter belongs to a base with a larger vocabulary",
            ));
        }
        let values = self.read(&info.name, None)?;
        Ok(indices.into_iter().zip(values.chunks_exact(width).map(<[f32]>::to_vec)).collect())
    }

    fn low_rank(&self, module: &str, a: &str, b: &str, is_embedding: bool) -> Result<LowRank, ModelError> {
        let name_of = |part: &str| format!("{PREFIX}{module}{part}");
        let find = |part: &str| self.adapter.find(&name_of(part)).ok_or_else(|| self.missing(&name_of(part)));
        let (a_info, b_info) = (find(a)?, find(b)?);
        let base = self.shape_of(&format!("{module}.weight")).ok_or_else(|| self.no_place(&a_info.name))?;
        let rank = a_info.shape.first().copied().unwrap_or(0);
        let (a_shape, b_shape) = match (base, is_embedding) {
            ([rows, width], true) => ([rank, *rows], [*width, rank]),
            ([rows, width], false) => ([rank, *width], [*rows, rank]),
            _ => return Err(self.no_place(&a_info.name)),
        };
        for (info, expected) in [(a_info, a_shape), (b_info, b_shape)] {
            if info.shape != expected || rank == 0 {
                return Err(self.other_shape(&info.name, &info.shape, &expected));
            }
        }
        let (a, b) = (self.read(&a_info.name, None)?, self.read(&b_info.name, None)?);
        Ok(LowRank { a, b, rank, scale: self.scale(module) })
    }

    fn scale(&self, module: &str) -> f32 {
        self.spec.scale_of(module)
    }

    /// A whole tensor, finite, of `elements` elements where that is known.
    fn read(&self, name: &str, elements: Option<usize>) -> Result<Vec<f32>, ModelError> {
        let info = self.adapter.find(name).ok_or_else(|| self.missing(name))?;
        if elements.is_some_and(|elements| elements != info.elements()) {
            return Err(self.other_shape(name, &info.shape, &[elements.unwrap_or(0)]));
        }
        let mut values = vec![0f32; info.elements()];
        self.adapter.read_f32(name, 0, &mut values)?;
        match values.iter().position(|v| !v.is_finite()) {
            None => Ok(values),
            Some(at) => Err(self.error(
                format!("element {at} of tensor `{name}` is {}", values[at]),
                "the adapter was trained into overflow: go back to an earlier checkpoint",
            )),
        }
    }

    fn missing(&self, name: &str) -> ModelError {
        self.error(format!("tensor `{name}` is missing"), "the file is incomplete: copy or train it again")
    }

    fn no_place(&self, name: &str) -> ModelError {
        self.error(
            format!("tensor `{name}` has no place in this model"),
            "the adapter belongs to another base: name the one in its adapter_config.json",
        )
    }

    fn other_shape(&self, name: &str, found: &[usize], expected: &[usize]) -> ModelError {
        self.error(
            format!("tensor `{name}` has the shape {found:?}, where this model needs {expected:?}"),
            "the adapter belongs to another base: name the one in its adapter_config.json",
        )
    }
}
