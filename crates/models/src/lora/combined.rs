//! Several adapters on disk as one in memory, to be saved or used at once.

use super::combine::{Combination, CombineOptions, Factors, combine};
use super::init::drawn;
use super::{AdapterTensors, Bias, InitLora, LoraSpec, TargetModules};
use crate::ModelError;
use crate::families::{FAMILIES, Family};
use crate::save::write_json;
use foundry_formats::safetensors::{Entry, Writer};
use foundry_formats::torch_rng::Mt19937;
use foundry_formats::{HfConfig, StoredDtype, TensorSource};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Shapes and numbers by name.
pub(crate) type Tensors = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

/// An adapter made of others; its tensors by their names in a file.
pub struct CombinedAdapter {
    /// Its settings.
    pub spec: LoraSpec,
    /// Base model of the first adapter, as its file calls it.
    pub base_model: String,
    pub(crate) tensors: Tensors,
}

/// One adapter, read.
struct Source {
    dir: PathBuf,
    weight: f64,
    spec: LoraSpec,
    base_model: String,
    tensors: AdapterTensors,
}

const A: &str = ".lora_A.weight";
const B: &str = ".lora_B.weight";

impl CombinedAdapter {
    /// Combines adapters, each a directory and its weight, as PEFT 0.21 `add_weighted_adapter` does.
    ///
    /// # Errors
    /// No adapter; a broken one; one that cannot be combined (DoRA, biases, an initialisation that changed the base);
    /// ranks or shapes that do not fit each other; a module trained in full by more than one of them.
    pub fn new(adapters: &[(PathBuf, f64)], options: &CombineOptions) -> Result<Self, ModelError> {
        let sources: Vec<Source> =
            adapters.iter().map(|(dir, weight)| Source::open(dir, *weight)).collect::<Result<_, _>>()?;
        let Some(first) = sources.first() else {
            return Err(ModelError::Lora {
                what: "no adapter to combine".into(),
                remedy: "name at least one".into(),
            });
        };
        // A single adapter is only weighted, whatever the method.
        let method = if sources.len() == 1 { Combination::Linear } else { options.method };
        let options = CombineOptions { method, ..*options };
        let rank = rank(&sources, &options)?;
        let mut tensors = whole_modules(&sources)?;
        let mut rng = Mt19937::seeded(options.seed);
        let modules = in_model_order(modules(&sources));
        if method.is_random() {
            pass_over_new_adapter(&sources, &modules, rank, &mut rng)?;
        }
        for module in modules {
            let (shape, parts) = factors(&sources, &module)?;
            let (a, b) = combine(&parts, shape, rank, &options, &mut rng);
            tensors.insert(format!("{module}{A}"), (vec![rank, shape[1]], a));
            tensors.insert(format!("{module}{B}"), (vec![shape[0], rank], b));
        }
        let spec = LoraSpec {
            r: rank,
            lora_alpha: rank as f64,
            use_rslora: false,
            lora_dropout: first.spec.lora_dropout,
            modules_to_save: saved_modules(&sources),
            // Of one at most: the rows' tensor would be there twice.
            trainable_token_indices: sources.iter().find_map(|s| s.spec.trainable_token_indices.clone()),
            init_lora_weights: InitLora::Default,
            ..targets(&sources)
        };
        Ok(Self { spec, base_model: first.base_model.clone(), tensors })
    }

    /// Bytes of its numbers in a file.
    pub fn bytes(&self) -> u64 {
        self.tensors.values().map(|(_, values)| 4 * values.len() as u64).sum()
    }

    /// Last parts of the names of the adapted modules.
    fn adapted_names(&self) -> Vec<String> {
        let modules = self.tensors.keys().filter_map(|name| name.strip_suffix(A)?.rsplit('.').next());
        modules.map(str::to_owned).collect::<BTreeSet<String>>().into_iter().collect()
    }

    /// Writes it as PEFT would, to an existing directory.
    ///
    /// # Errors
    /// Files that cannot be written.
    pub fn save(&self, dir: &Path, family: &Family) -> Result<(), ModelError> {
        let entries: Vec<Entry> = self
            .tensors
            .iter()
            .map(|(name, (shape, _))| Entry::new(name.clone(), StoredDtype::F32, shape))
            .collect();
        let path = dir.join("adapter_model.safetensors");
        let mut writer = Writer::create(&path, &entries, &[("format".into(), "pt".into())])?;
        for (name, (_, values)) in &self.tensors {
            writer.write_f32(name, values)?;
        }
        writer.finish()?;
        let config = self.spec.adapter_config(family, &self.base_model, self.adapted_names());
        write_json(&dir.join("adapter_config.json"), &config, false)
    }
}

fn error(dir: &Path, what: String, remedy: &str) -> ModelError {
    ModelError::Adapter { path: dir.into(), what, remedy: remedy.into() }
}

impl Source {
    fn open(dir: &Path, weight: f64) -> Result<Self, ModelError> {
        let spec = LoraSpec::from_adapter(dir)?;
        let obstacle = match () {
            () if spec.use_dora => Some("`use_dora`"),
            () if spec.lora_bias => Some("`lora_bias`"),
            () if spec.bias != Bias::None => Some("`bias`"),
            () if spec.init_lora_weights.changes_base() => Some("`init_lora_weights`"),
            () => None,
        };
        if let Some(key) = obstacle {
            let what = format!("an adapter with {key} cannot be combined with others");
            return Err(error(dir, what, "merge it into its base model instead"));
        }
        let config = HfConfig::read(&dir.join("adapter_config.json"))?;
        let base_model = config.opt_str("base_model_name_or_path")?.unwrap_or_default().to_owned();
        let tensors = AdapterTensors::open(dir, &spec)?;
        if let Some(branch) = tensors.tensors().iter().find(|info| info.name.contains(".lora_embedding_")) {
            let what =
                format!("`{}` is a branch of an embedding, and cannot be combined with others", branch.name);
            return Err(error(dir, what, "merge it into its base model instead"));
        }
        if let Some((table, _)) = tensors.tables().next() {
            let what = format!("it holds the base's `{table}`, resized, and cannot be combined with others");
            return Err(error(dir, what, "merge it into its base model instead"));
        }
        Ok(Self { dir: dir.to_owned(), weight, spec, base_model, tensors })
    }

    fn read(&self, name: &str) -> Result<Vec<f32>, ModelError> {
        let info = self.tensors.find(name).ok_or_else(|| {
            let what = format!("tensor `{name}` is missing");
            error(&self.dir, what, "save the adapter again with PEFT")
        })?;
        let mut values = vec![0.0; info.elements()];
        self.tensors.read_f32(name, 0, &mut values)?;
        if let Some(value) = values.iter().find(|value| !value.is_finite()) {
            let what = format!("tensor `{name}` holds {value}");
            return Err(error(&self.dir, what, "the run overflowed, or the file is damaged"));
        }
        Ok(values)
    }

    /// Names of tensors that belong to no branch.
    fn whole(&self) -> impl Iterator<Item = &foundry_formats::TensorInfo> {
        self.tensors.tensors().iter().filter(|t| !t.name.ends_with(A) && !t.name.ends_with(B))
    }
}

fn modules(sources: &[Source]) -> BTreeSet<String> {
    let tensors = sources.iter().flat_map(|source| source.tensors.tensors());
    tensors.filter_map(|tensor| Some(tensor.name.strip_suffix(A)?.to_owned())).collect()
}

/// In the order of the model's `named_modules`, in which PEFT goes through them; what no family names comes last.
fn in_model_order(modules: BTreeSet<String>) -> Vec<String> {
    let last_part = |module: &str| module.rsplit('.').next().map(str::to_owned);
    let place = |module: &str| {
        let slots = FAMILIES.iter().flat_map(|family| family.modules.iter().enumerate());
        let mut named = slots.filter(|(_, (_, pattern))| last_part(pattern) == last_part(module));
        named.next().map_or(usize::MAX, |(place, _)| place)
    };
    // Layers by number, not by text; a module of no layer has one of its kind only.
    let layer = |module: &str| module.split('.').find_map(|part| part.parse::<usize>().ok());
    let mut modules: Vec<String> = modules.into_iter().collect();
    modules.sort_by_cached_key(|module| (layer(module), place(module), module.clone()));
    modules
}

/// Draws what PEFT draws when it makes room for the result (a new adapter, whose first values are then replaced), so
/// that the random numbers after it are those of `torch.manual_seed(seed)` before `add_weighted_adapter`.
fn pass_over_new_adapter(
    sources: &[Source],
    modules: &[String],
    rank: usize,
    rng: &mut Mt19937,
) -> Result<(), ModelError> {
    for module in modules {
        let (shape, _) = factors(sources, module)?;
        drawn(shape, rank, false, sources[0].spec.init_lora_weights, rng);
    }
    Ok(())
}

fn rank(sources: &[Source], options: &CombineOptions) -> Result<usize, ModelError> {
    let ranks: Vec<usize> = sources
        .iter()
        .map(|source| {
            let factors = source.tensors.tensors().iter().filter(|tensor| tensor.name.ends_with(A));
            factors.filter_map(|tensor| tensor.shape.first().copied()).max().unwrap_or(source.spec.r)
        })
        .collect();
    let largest = ranks.iter().copied().max().unwrap_or(1);
    let total = match options.method {
        Combination::Cat => ranks.iter().sum(),
        Combination::Svd => options.svd_rank.unwrap_or(largest),
        _ => match ranks.iter().position(|r| *r != ranks[0]) {
            None => largest,
            Some(other) => {
                let what = format!(
                    "its rank is {}, that of {} is {}, and `{}` adds matrices of equal shape",
                    ranks[other],
                    sources[0].dir.display(),
                    ranks[0],
                    options.method
                );
                return Err(error(&sources[other].dir, what, "use cat or svd"));
            }
        },
    };
    if total == 0 || total > 1 << 16 {
        let what = format!("the result would have rank {total}");
        return Err(ModelError::Lora { what, remedy: "choose a rank from 1 to 65536".into() });
    }
    Ok(total)
}

/// The parts of one module, and its shape `[outputs, inputs]`.
fn factors(sources: &[Source], module: &str) -> Result<([usize; 2], Vec<Factors>), ModelError> {
    let mut shape = None;
    let mut parts = Vec::new();
    let name = module.strip_prefix("base_model.model.").unwrap_or(module);
    for source in sources {
        let (a, b) = (format!("{module}{A}"), format!("{module}{B}"));
        let (Some(found_a), Some(found_b)) = (source.tensors.find(&a), source.tensors.find(&b)) else {
            if source.tensors.find(&a).is_some() || source.tensors.find(&b).is_some() {
                let what = format!("of `{name}` one of lora_A and lora_B is missing");
                return Err(error(&source.dir, what, "save the adapter again with PEFT"));
            }
            continue;
        };
        let r = source.spec.rank_of(name);
        let (&[ra, inputs], &[outputs, rb]) = (found_a.shape.as_slice(), found_b.shape.as_slice()) else {
            let what = format!("`{name}` has factors of shapes {:?} and {:?}", found_a.shape, found_b.shape);
            return Err(error(&source.dir, what, "only matrices can be combined"));
        };
        if outputs == 0 || inputs == 0 {
            let what = format!("`{name}` has factors without numbers");
            return Err(error(&source.dir, what, "save the adapter again with PEFT"));
        }
        if ra != r || rb != r || *shape.get_or_insert([outputs, inputs]) != [outputs, inputs] {
            let what = format!(
                "`{name}` has factors of shapes {:?} and {:?}, which fit neither adapter_config.json nor the other \
                 adapters",
                found_a.shape, found_b.shape
            );
            return Err(error(&source.dir, what, "combine adapters of one base model"));
        }
        let weight = source.weight * f64::from(source.spec.scale_of(name));
        parts.push(Factors { a: source.read(&a)?, b: source.read(&b)?, r, weight });
    }
    let shape = shape.ok_or_else(|| {
        let what = format!("`{name}` has no complete pair of factors");
        error(&sources[0].dir, what, "save the adapter again with PEFT")
    })?;
    Ok((shape, parts))
}

/// Modules trained in full: of one adapter at most, and then as they are.
fn whole_modules(sources: &[Source]) -> Result<Tensors, ModelError> {
    let mut whole = BTreeMap::new();
    for source in sources {
        for tensor in source.whole() {
            let values = (tensor.shape.clone(), source.read(&tensor.name)?);
            if whole.insert(tensor.name.clone(), values).is_some() {
                let what = format!("`{}` is trained in full by another adapter as well", tensor.name);
                return Err(error(
                    &source.dir,
                    what,
                    "adapters with the same modules_to_save cannot be combined",
                ));
            }
        }
    }
    Ok(whole)
}

fn saved_modules(sources: &[Source]) -> Option<Vec<String>> {
    let names = sources.iter().flat_map(|source| source.spec.modules_to_save.iter().flatten());
    let names: BTreeSet<String> = names.cloned().collect();
    (!names.is_empty()).then(|| names.into_iter().collect())
}

/// Settings that choose exactly the modules of the result: the adapters' own where they agree, else full names.
fn targets(sources: &[Source]) -> LoraSpec {
    let first = &sources[0].spec;
    let choose = |spec: &LoraSpec| {
        let LoraSpec { target_modules, exclude_modules, layers_to_transform, layers_pattern, .. } = spec;
        LoraSpec {
            target_modules: target_modules.clone(),
            exclude_modules: exclude_modules.clone(),
            layers_to_transform: layers_to_transform.clone(),
            layers_pattern: layers_pattern.clone(),
            ..LoraSpec::default()
        }
    };
    if sources.iter().all(|source| choose(&source.spec) == choose(first)) {
        return choose(first);
    }
    let names = modules(sources).into_iter();
    let names =
        names.map(|name| name.strip_prefix("base_model.model.").unwrap_or(&name).to_owned()).collect();
    LoraSpec { target_modules: Some(TargetModules::List(names)), ..LoraSpec::default() }
}

/// The tensors of a combined adapter, as if they were in a file.
pub(crate) struct InMemory<'a> {
    infos: Vec<foundry_formats::TensorInfo>,
    tensors: &'a Tensors,
}

impl<'a> InMemory<'a> {
    pub(crate) fn new(tensors: &'a Tensors) -> Self {
        let info = |(name, (shape, _)): (&String, &(Vec<usize>, Vec<f32>))| foundry_formats::TensorInfo {
            name: name.clone(),
            shape: shape.clone(),
            dtype: StoredDtype::F32,
        };
        Self { infos: tensors.iter().map(info).collect(), tensors }
    }
}

impl TensorSource for InMemory<'_> {
    fn tensors(&self) -> &[foundry_formats::TensorInfo] {
        &self.infos
    }

    fn read_f32(
        &self,
        name: &str,
        start: usize,
        dst: &mut [f32],
    ) -> Result<(), foundry_formats::FormatError> {
        dst.copy_from_slice(&self.tensors[name].1[start..start + dst.len()]);
        Ok(())
    }

    fn read_i64(&self, name: &str, _: usize, _: &mut [i64]) -> Result<(), foundry_formats::FormatError> {
        unreachable!("an adapter has no integers, and `{name}` is one of its tensors")
    }

    fn raw(&self, _: &str) -> Result<Option<&[u8]>, foundry_formats::FormatError> {
        Ok(None)
    }
}
