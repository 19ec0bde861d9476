//! The tensors of an adapter's file under the names that an unresized model has.
//!
//! Where the vocabulary was resized, PEFT 0.21 (`save_embedding_layers="auto"`) writes the base's embedding and head
//! too, and calls trained modules otherwise: `M.modules_to_save.weight` beside `M.original_module.weight`, rows beside
//! `M.token_adapter.base_layer.weight`, and the rows of a tied head a second time.

use super::LoraSpec;
use super::target::is_saved;
use crate::ModelError;
use foundry_formats::{FormatError, TensorInfo, TensorSource, safetensors};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What PEFT puts before the name of a base tensor.
pub(super) const PREFIX: &str = "base_model.model.";
const WEIGHTS: &str = "adapter_model.safetensors";

/// An adapter's file, sorted.
pub(crate) struct AdapterTensors {
    pub(crate) path: PathBuf,
    source: Box<dyn TensorSource>,
    infos: Vec<TensorInfo>,
    /// What the file calls them.
    names: BTreeMap<String, String>,
    /// Tables of the base that the file holds: name in the base, name in the file.
    tables: BTreeMap<String, String>,
}

impl AdapterTensors {
    /// Opens the file of the adapter in `dir`.
    ///
    /// # Errors
    /// A file that cannot be read; a pickle.
    pub(crate) fn open(dir: &Path, spec: &LoraSpec) -> Result<Self, ModelError> {
        let path = dir.join(WEIGHTS);
        if !path.exists() && dir.join("adapter_model.bin").exists() {
            let what =
                "only a pickle file (adapter_model.bin) is here, and loading pickle runs code from the file";
            let remedy = "load it once with PEFT and save it with safe_serialization=True";
            return Err(ModelError::Adapter { path: dir.into(), what: what.into(), remedy: remedy.into() });
        }
        let source = safetensors::open(&path)?;
        let (mut names, mut tables) = (BTreeMap::new(), BTreeMap::new());
        for info in source.tensors() {
            match kind_of(&info.name, spec) {
                Kind::Own(name) => {
                    // `M.modules_to_save.weight` and `M.weight` are the same then; the first says what is trained.
                    if name != info.name || !names.contains_key(&name) {
                        names.insert(name, info.name.clone());
                    }
                }
                Kind::Table(base) => {
                    tables.insert(base, info.name.clone());
                }
                Kind::Copy => {}
            }
        }
        let named = |(name, stored): (&String, &String)| {
            source.find(stored).map(|info| TensorInfo { name: name.clone(), ..info.clone() })
        };
        let infos = names.iter().filter_map(named).collect();
        Ok(Self { path, infos, names, tables, source })
    }

    /// Tables of the base that the file holds, by their names in the base.
    pub(crate) fn tables(&self) -> impl Iterator<Item = (&str, &TensorInfo)> {
        self.tables.iter().filter_map(|(base, stored)| Some((base.as_str(), self.source.find(stored)?)))
    }

    /// Reads such a table.
    pub(crate) fn read_table(&self, base: &str, start: usize, dst: &mut [f32]) -> Result<(), FormatError> {
        let stored = self.tables.get(base).map_or(base, String::as_str);
        self.source.read_f32(stored, start, dst)
    }

    fn stored<'a>(&'a self, name: &'a str) -> &'a str {
        self.names.get(name).map_or(name, String::as_str)
    }
}

impl TensorSource for AdapterTensors {
    fn tensors(&self) -> &[TensorInfo] {
        &self.infos
    }

    fn read_f32(&self, name: &str, start: usize, dst: &mut [f32]) -> Result<(), FormatError> {
        self.source.read_f32(self.stored(name), start, dst)
    }

    fn read_i64(&self, name: &str, start: usize, dst: &mut [i64]) -> Result<(), FormatError> {
        self.source.read_i64(self.stored(name), start, dst)
    }

    fn raw(&self, name: &str) -> Result<Option<&[u8]>, FormatError> {
        self.source.raw(self.stored(name))
    }
}

/// What a tensor in the file is.
enum Kind {
    /// The adapter's, with the name it has here.
    Own(String),
    /// The base's, with its name there.
    Table(String),
    /// What is there anyway.
    Copy,
}

fn kind_of(name: &str, spec: &LoraSpec) -> Kind {
    let in_base = |module: &str| format!("{}.weight", module.strip_prefix(PREFIX).unwrap_or(module));
    let is_table = |module: &str| module.ends_with(".embed_tokens") || module.ends_with(".lm_head");
    if name.contains(".original_module.") || name.contains(".lm_head.token_adapter.trainable_tokens_delta") {
        return Kind::Copy;
    }
    if let Some(module) = name.strip_suffix(".token_adapter.base_layer.weight") {
        return Kind::Table(in_base(module));
    }
    if name.contains(".modules_to_save.") {
        return Kind::Own(name.replace(".modules_to_save.", "."));
    }
    match name.strip_suffix(".weight") {
        Some(module)
            if is_table(module) && !is_saved(spec, module.strip_prefix(PREFIX).unwrap_or(module)) =>
        {
            Kind::Table(in_base(module))
        }
        _ => Kind::Own(name.to_owned()),
    }
}
