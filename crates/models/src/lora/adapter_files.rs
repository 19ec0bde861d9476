//! An adapter on disk: adapter_model.safetensors and adapter_config.json, read and written as PEFT 0.21 does.

use super::combined::{CombinedAdapter, InMemory};
use super::{AdapterTensors, InitLora, LoraSpec};
use crate::load::read_into;
use crate::parameter::Weight;
use crate::save::write_json;
use crate::saved::{Numbers, WriteFiles};
use crate::{Decoder, DecoderConfig, ModelError, Tuning};
use foundry_formats::safetensors::{Entry, Writer};
use foundry_formats::{FormatError, StoredDtype, TensorSource};
use foundry_kernels::{Backend, Dtype, Meter, SharedBuffer};
use std::collections::HashMap;
use std::path::Path;

const WEIGHTS: &str = "adapter_model.safetensors";

impl Decoder {
    /// Reads an adapter that PEFT or [`Decoder::save_adapter`] wrote. Its settings must be those this decoder was
    /// allocated with ([`LoraSpec::from_adapter`] reads them).
    ///
    /// # Errors
    /// Another rank or scale than this decoder's; tensors that are missing, have another shape or have no place here;
    /// a pickle file.
    pub fn load_adapter(&mut self, backend: &dyn Backend, dir: &Path) -> Result<(), ModelError> {
        let error = |what: String, remedy: &str| {
            Err(ModelError::Adapter { path: dir.into(), what, remedy: remedy.into() })
        };
        let spec = match &self.tuning {
            Tuning::Lora(spec) | Tuning::Adapted(spec) => spec.clone(),
            Tuning::Full | Tuning::Frozen => {
                return error(
                    "this model was allocated without an adapter".into(),
                    "allocate it with the adapter's settings",
                );
            }
        };
        let saved = LoraSpec::from_adapter(dir)?;
        if saved.r != spec.r || saved.scale_of("") != spec.scale_of("") {
            let what = format!(
                "r = {} and scale {} do not fit the configured r = {} and scale {}",
                saved.r,
                saved.scale_of(""),
                spec.r,
                spec.scale_of("")
            );
            return error(what, "set r, lora_alpha and use_rslora to those of adapter_config.json");
        }
        if let Some(key) = other_arithmetic(&saved, &spec) {
            let what = format!("its `{key}` is not the configured one");
            return error(what, "set the key to that of adapter_config.json");
        }
        self.fill_adapter(backend, dir, &AdapterTensors::open(dir, &saved)?)
    }

    /// Takes the tensors of an adapter made of others. This decoder must have been allocated with its settings.
    ///
    /// # Errors
    /// Tensors that have no place here.
    pub fn load_combined(
        &mut self,
        backend: &dyn Backend,
        adapter: &CombinedAdapter,
    ) -> Result<(), ModelError> {
        self.fill_adapter(backend, Path::new("(combined)"), &InMemory::new(&adapter.tensors))
    }

    fn fill_adapter(
        &mut self,
        backend: &dyn Backend,
        dir: &Path,
        source: &dyn TensorSource,
    ) -> Result<(), ModelError> {
        let init = match &self.tuning {
            Tuning::Lora(spec) | Tuning::Adapted(spec) => spec.init_lora_weights,
            Tuning::Full | Tuning::Frozen => InitLora::Default,
        };
        let expected = self.weights().into_iter().filter_map(|w| Some((w.adapter.clone()?, w.shape.clone())));
        check_tensors(dir, source, &expected.collect())?;
        if init.changes_base() {
            self.change_base(backend, init);
        }
        let (slots, parameters) = self.weights_mut();
        for slot in slots {
            if let Some(name) = slot.adapter.clone() {
                read_into(backend, source, &name, slot, parameters)?;
            }
        }
        self.refresh_norms(backend);
        self.put_token_rows(backend);
        Ok(())
    }

    /// Writes the adapter to an existing directory: what PEFT's `save_pretrained` writes, float32, readable by PEFT,
    /// transformers and vLLM. `base_model_name` goes into adapter_config.json. Flushing the directory to disk is the
    /// caller's ([`foundry_formats::flush_tree`]).
    ///
    /// # Errors
    /// A decoder without an adapter; files that cannot be written.
    pub fn save_adapter(
        &self,
        backend: &dyn Backend,
        dir: &Path,
        base_model_name: &str,
    ) -> Result<(), ModelError> {
        self.gather_adapter(backend, base_model_name)?(dir)
    }

    /// The first half of [`Decoder::save_adapter`]; what it returns is the second.
    ///
    /// # Errors
    /// A decoder without an adapter.
    pub fn gather_adapter(
        &self,
        backend: &dyn Backend,
        base_model_name: &str,
    ) -> Result<WriteFiles, ModelError> {
        let (Tuning::Lora(spec) | Tuning::Adapted(spec)) = &self.tuning else {
            let (what, remedy) = ("this model has no adapter".into(), "save the model instead".into());
            return Err(ModelError::Lora { what, remedy });
        };
        let mut first = self.first_values(backend);
        let gather = |weight: &Weight| {
            let name = weight.adapter.clone()?;
            let (shape, first) = (weight.shape.clone(), first.remove(name.as_str()));
            Some(Gathered { name, shape, numbers: weight.share(backend, &self.parameters), first })
        };
        let mut gathered: Vec<Gathered> = self.weights().into_iter().filter_map(gather).collect();
        gathered.sort_by(|a, b| a.name.cmp(&b.name));
        let config = spec.adapter_config(self.config.family, base_model_name, self.adapted_names());
        Ok(Box::new(move |dir| {
            write_weights(&gathered, &dir.join(WEIGHTS))?;
            drop(gathered);
            write_json(&dir.join("adapter_config.json"), &config, false)
        }))
    }

    /// First values of the branches that were taken out of the base, by their names in the file: saved with the
    /// trained ones, the adapter belongs to the base as it was (PEFT 0.21 `subtract_mutated_init`).
    fn first_values(&self, backend: &dyn Backend) -> HashMap<&str, First> {
        let branches = self.blocks.iter().flat_map(|block| block.linears()).filter_map(|l| l.lora.as_ref());
        let mut first = HashMap::new();
        for branch in branches {
            let Some([a, b]) = &branch.initial else { continue };
            let (a, b) = (First::Rows(backend.share(a)), First::Columns(backend.share(b)));
            for (weight, values) in [(&branch.a, a), (&branch.b, b)] {
                first.insert(weight.adapter.as_deref().expect("branches belong to an adapter"), values);
            }
        }
        first
    }

    /// Last parts of the names of all adapted modules, sorted.
    fn adapted_names(&self) -> Vec<String> {
        let branches = self.blocks.iter().flat_map(|block| block.linears()).filter_map(|l| l.lora.as_ref());
        let mut names: Vec<String> = branches
            .filter_map(|branch| branch.a.adapter.as_deref()?.rsplit('.').nth(2).map(str::to_string))
            .collect();
        names.sort();
        names.dedup();
        names
    }
}

/// A tensor of the adapter, to be written.
struct Gathered {
    name: String,
    shape: Vec<usize>,
    numbers: Numbers,
    first: Option<First>,
}

impl Gathered {
    fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    fn entry(&self) -> Entry {
        let shape = match &self.first {
            Some(First::Rows(_)) => vec![2 * self.shape[0], self.shape[1]],
            Some(First::Columns(_)) => vec![self.shape[0], 2 * self.shape[1]],
            None => self.shape.clone(),
        };
        Entry::new(&self.name, StoredDtype::F32, &shape)
    }
}

fn write_weights(gathered: &[Gathered], path: &Path) -> Result<(), ModelError> {
    let entries: Vec<Entry> = gathered.iter().map(Gathered::entry).collect();
    let mut writer = Writer::create(path, &entries, &[("format".into(), "pt".into())])?;
    for tensor in gathered {
        let mut now = Vec::new();
        tensor.numbers.write_out(tensor.elements(), |piece| match tensor.first {
            None => writer.write_f32(&tensor.name, piece),
            Some(_) => {
                now.extend_from_slice(piece);
                Ok(())
            }
        })?;
        if let Some(first) = &tensor.first {
            writer.write_f32(&tensor.name, &first.less(now, tensor.shape[1]))?;
        }
    }
    Ok(writer.finish_unflushed()?)
}

/// First values of a matrix of a branch.
enum First {
    /// Of A: more rows.
    Rows(SharedBuffer),
    /// Of B: more columns, subtracted.
    Columns(SharedBuffer),
}

impl First {
    /// `[now; first]` or `[now, -first]`; `columns`: of `now`.
    fn less(&self, mut now: Vec<f32>, columns: usize) -> Vec<f32> {
        let (First::Rows(shared) | First::Columns(shared)) = self;
        let mut first = vec![0.0; shared.len()];
        shared.read(0, &mut first);
        match self {
            First::Rows(_) => {
                now.extend(first);
                now
            }
            First::Columns(_) => {
                let rows = now.chunks_exact(columns).zip(first.chunks_exact(columns));
                rows.flat_map(|(now, first)| now.iter().copied().chain(first.iter().map(|x| -x))).collect()
            }
        }
    }
}

/// The first setting, besides rank and scale, that gives two adapters another arithmetic.
fn other_arithmetic(saved: &LoraSpec, spec: &LoraSpec) -> Option<&'static str> {
    let differs = [
        ("rank_pattern", saved.rank_pattern != spec.rank_pattern),
        ("alpha_pattern", saved.alpha_pattern != spec.alpha_pattern),
        ("use_dora", saved.use_dora != spec.use_dora),
        ("lora_bias", saved.lora_bias != spec.lora_bias),
        (
            "init_lora_weights",
            saved.init_lora_weights.changes_base() && saved.init_lora_weights != spec.init_lora_weights,
        ),
    ];
    differs.into_iter().find(|(_, differs)| *differs).map(|(key, _)| key)
}

/// The same for an adapter that is not loaded into a decoder: measured by the code that would.
pub(super) fn check_complete(
    config: &DecoderConfig,
    spec: &LoraSpec,
    dir: &Path,
    source: &dyn TensorSource,
) -> Result<(), ModelError> {
    let tuning = Tuning::Adapted(spec.clone());
    let decoder = Decoder::allocate(&Meter::default(), config, &tuning, Dtype::F32, 1, true)?;
    let expected = decoder.weights().into_iter().filter_map(|w| Some((w.adapter.clone()?, w.shape.clone())));
    check_tensors(dir, source, &expected.collect())
}

/// The file must hold exactly the adapter's tensors, of the right shapes, and numbers only.
fn check_tensors(
    dir: &Path,
    source: &dyn TensorSource,
    expected: &HashMap<String, Vec<usize>>,
) -> Result<(), ModelError> {
    const OTHER_BASE: &str = "check that base model, target_modules and modules_to_save are the adapter's";
    let error = |what: String, remedy: &str| {
        Err(ModelError::Adapter { path: dir.into(), what, remedy: remedy.into() })
    };
    for tensor in source.tensors() {
        match expected.get(&tensor.name) {
            None => {
                let what = format!("tensor `{}` has no place in this model and configuration", tensor.name);
                return error(what, OTHER_BASE);
            }
            Some(shape) if *shape != tensor.shape => {
                let (name, found) = (&tensor.name, &tensor.shape);
                let what = format!("tensor `{name}` has shape {found:?}, this model needs {shape:?}");
                return error(what, "the adapter was trained on another base model: use that one");
            }
            Some(_) => {}
        }
    }
    let mut missing: Vec<&String> = expected.keys().filter(|name| source.find(name).is_none()).collect();
    missing.sort();
    if let Some(name) = missing.first() {
        let what = format!("tensor `{name}` (and {} more) is missing", missing.len() - 1);
        let what = if missing.len() == 1 { format!("tensor `{name}` is missing") } else { what };
        return error(what, OTHER_BASE);
    }
    for tensor in source.tensors() {
        if let Some(value) = first_not_finite(source, &tensor.name, tensor.elements())? {
            let what = format!("tensor `{}` holds {value}", tensor.name);
            return error(
                what,
                "the training run overflowed, or the file is damaged: use an earlier checkpoint",
            );
        }
    }
    Ok(())
}

/// The first infinity or NaN of a tensor.
fn first_not_finite(
    source: &dyn TensorSource,
    name: &str,
    elements: usize,
) -> Result<Option<f32>, FormatError> {
    const PIECE: usize = 1 << 18;
    let mut piece = vec![0.0; elements.min(PIECE)];
    for start in (0..elements).step_by(PIECE) {
        let piece = &mut piece[..PIECE.min(elements - start)];
        source.read_f32(name, start, piece)?;
        if let Some(value) = piece.iter().find(|value| !value.is_finite()) {
            return Ok(Some(*value));
        }
    }
    Ok(None)
}
