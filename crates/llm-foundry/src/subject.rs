//! The model that a run adapts: its files, its shapes, its tokenizer, and which weights are trained. No weights yet.

use crate::checkpoint_dir;
use crate::config::{Config, LoraSection, WeightInit};
use crate::failure::{Failure, Outcome};
use crate::hub::Need;
use crate::machine::Machine;
use crate::model_source::{expand_home, find};
use crate::vocabulary;
use foundry_data::chat::builtin;
use foundry_formats::{HfConfig, ModelFiles, Tokenizer};
use foundry_kernels::Dtype;
use foundry_models::families::Slot;
use foundry_models::{
    Bias, DecoderConfig, LoraSpec, QuantizedWeights, Tuning, decoder_config, quantized_weights,
};
use std::path::{Path, PathBuf};

/// A model, described.
pub(crate) struct Subject {
    /// As the user calls it; goes into `adapter_config.json`.
    pub(crate) name: String,
    /// Its files; `None` for random weights from a bare `config.json`.
    pub(crate) files: Option<ModelFiles>,
    /// config.json.
    pub(crate) hf: HfConfig,
    /// Its shapes.
    pub(crate) decoder: DecoderConfig,
    /// Number format of products.
    pub(crate) compute: Dtype,
    /// Frozen weights in few bits.
    pub(crate) quantization: Option<QuantizedWeights>,
    /// Which weights are trained.
    pub(crate) tuning: Tuning,
    /// An adapter to continue.
    pub(crate) adapter: Option<PathBuf>,
    /// `None`: there are no tokenizer files, which only a plan puts up with.
    pub(crate) tokenizer: Option<Tokenizer>,
    /// Ids of the tokens that the configuration adds.
    added: Vec<u32>,
}

impl Subject {
    /// Finds and reads all descriptions. With [`Need::Description`] a missing tokenizer is tolerated.
    pub(crate) fn open(config: &Config, machine: Machine, need: Need, quiet: bool) -> Outcome<Self> {
        let model = &config.model;
        let is_random = model.init == WeightInit::Random;
        // Random weights need no download of others.
        let need_of_model = if is_random { Need::Description } else { need };
        let files = match &model.name_or_path {
            Some(name) => {
                let path = find(name, &model.revision, need_of_model, quiet)?;
                Some(ModelFiles::open(&path).map_err(Failure::input)?)
            }
            None => None,
        };
        let hf = match (&model.config, &files) {
            (Some(path), _) if is_random => read_config(path)?,
            (_, Some(files)) => files.config.clone(),
            (_, None) => unreachable!("validation asks for a model or a configuration of one"),
        };
        let mut hf = hf;
        let (_, mut decoder) = decoder_config(&hf).map_err(|e| in_file(&hf, &e))?;
        let (tokenizer, added) = tokenizer(config, files.as_ref(), need, quiet)?.unzip();
        let added = added.unwrap_or_default();
        let (tuning, adapter) = tuning(config.lora.as_ref(), tokenizer.as_ref(), &added, &decoder)?;
        let rows = vocabulary::rows(tokenizer.as_ref().filter(|_| !added.is_empty()), adapter.as_deref())?;
        if rows > decoder.vocab_size {
            decoder.vocab_size = rows;
            hf.0.insert("vocab_size".into(), rows.into());
        }
        let quantization = quantization(config, &hf, &tuning)?;
        let name = model.name_or_path.clone().or_else(|| model.config.clone()).unwrap_or_default();
        let compute = machine.compute(model.dtype);
        Ok(Self { name, files, hf, decoder, compute, quantization, tuning, adapter, tokenizer, added })
    }

    /// What a reader should know about the tokens that were added.
    pub(crate) fn added_note(&self) -> Option<String> {
        let (first, last) = (self.added.iter().min()?, self.added.iter().max()?);
        let table = self.decoder.family.module(Slot::EmbedTokens, 0);
        let trains = match &self.tuning {
            Tuning::Full => true,
            Tuning::Lora(spec) => {
                let rows = spec.trainable_token_indices.as_deref().unwrap_or_default();
                let saved = spec.modules_to_save.iter().flatten().any(|end| table.ends_with(end.as_str()));
                saved || self.added.iter().all(|id| rows.contains(id))
            }
            Tuning::Frozen | Tuning::Adapted(_) => false,
        };
        let frozen = match trains {
            true => "",
            false => ", and stay so: train them with lora.trainable_token_indices=added",
        };
        let count = self.added.len();
        Some(format!(
            "{count} token(s) added, ids {first} to {last}; new rows of the embedding begin as the mean of the \
             others{frozen}"
        ))
    }

    /// Ids that end a generation, for the data report.
    pub(crate) fn eos_token_ids(&self) -> Vec<u32> {
        self.files.as_ref().map(ModelFiles::eos_token_ids).unwrap_or_default()
    }
}

/// The tokenizer of a run, and the ids that end a generation, without the model: what looking at data needs.
pub(crate) fn open_tokenizer_alone(config: &Config, quiet: bool) -> Outcome<(Tokenizer, Vec<u32>)> {
    let model = &config.model;
    let files = match &model.name_or_path {
        Some(name) => {
            let path = find(name, &model.revision, Need::Description, quiet)?;
            Some(ModelFiles::open(&path).map_err(Failure::input)?)
        }
        None => None,
    };
    let eos_token_ids = files.as_ref().map(ModelFiles::eos_token_ids).unwrap_or_default();
    let tokenizer = tokenizer(config, files.as_ref(), Need::Everything, quiet)?;
    let (tokenizer, _) = tokenizer.ok_or_else(|| {
        Failure::Input("there is no tokenizer to read the data with; name one: tokenizer.name_or_path".into())
    })?;
    Ok((tokenizer, eos_token_ids))
}

/// How the frozen weights are stored: as the files are, or else as the configuration asks.
fn quantization(config: &Config, hf: &HfConfig, tuning: &Tuning) -> Outcome<Option<QuantizedWeights>> {
    let stored = quantized_weights(hf).map_err(|e| in_file(hf, &e))?;
    let wanted = config.model.quantization();
    let chosen = match (stored, wanted) {
        (Some(stored), Some(wanted)) if stored.kind != wanted.kind => {
            return Err(Failure::Input(format!(
                "the checkpoint is stored as {:?}, but the configuration asks for {:?}\n  remove load_in_4bit or \
                 load_in_8bit from the section `model`: how a checkpoint is stored is recognised",
                stored.kind, wanted.kind
            )));
        }
        (stored, wanted) => stored.or(wanted),
    };
    if chosen.is_some() && *tuning == Tuning::Full {
        return Err(Failure::Input(format!(
            "{}: this checkpoint is stored in few bits, and such weights cannot be trained\n  add a section `lora` to \
             train an adapter on them, or take the unquantised checkpoint",
            hf.path().display()
        )));
    }
    if let (Some(_), Tuning::Lora(spec)) = (&chosen, tuning)
        && spec.init_lora_weights.changes_base()
    {
        return Err(Failure::Input(
            "lora.init_lora_weights takes the adapter's first values out of the base weights, which is not exact for \
             weights in few bits (PEFT refuses it too)\n  choose init_lora_weights: true, or do without \
             load_in_4bit and load_in_8bit"
                .into(),
        ));
    }
    Ok(chosen)
}

/// Errors about a configuration say `config.json`; there may be many of those.
fn in_file(hf: &HfConfig, error: &foundry_models::ModelError) -> Failure {
    let text = error.to_string();
    Failure::Input(match text.strip_prefix("config.json") {
        Some(rest) => format!("{}{rest}", hf.path().display()),
        None => text,
    })
}

fn read_config(path: &str) -> Outcome<HfConfig> {
    let path = expand_home(path);
    let path = if path.is_dir() { path.join("config.json") } else { path };
    if !path.is_file() {
        return Err(Failure::Input(format!("model.config: no file {}", path.display())));
    }
    HfConfig::read(&path).map_err(Failure::input)
}

fn tuning(
    lora: Option<&LoraSection>,
    tokenizer: Option<&Tokenizer>,
    added: &[u32],
    decoder: &DecoderConfig,
) -> Outcome<(Tuning, Option<PathBuf>)> {
    let Some(lora) = lora else { return Ok((Tuning::Full, None)) };
    if let Some(dir) = &lora.adapter {
        let dir = expand_home(dir);
        checkpoint_dir::check(&dir)?;
        let spec = LoraSpec::from_adapter(&dir).map_err(|e| Failure::Input(format!("lora.adapter: {e}")))?;
        return Ok((Tuning::Lora(spec), Some(dir)));
    }
    let mut spec = lora.spec();
    if spec.bias != Bias::None && !decoder.attention_bias && !decoder.mlp_bias {
        return Err(Failure::Input(
            "lora.bias: this model's linear layers have no biases that could be trained\n  remove the key, or train \
             those of the adapter with lora.lora_bias=true"
                .into(),
        ));
    }
    if let Some(choice) = &lora.trainable_token_indices {
        spec.trainable_token_indices = vocabulary::chosen(choice, tokenizer, added)?;
    }
    Ok((Tuning::Lora(spec), None))
}

/// The run's tokenizer, and the ids of the tokens that the configuration adds.
fn tokenizer(
    config: &Config,
    files: Option<&ModelFiles>,
    need: Need,
    quiet: bool,
) -> Outcome<Option<(Tokenizer, Vec<u32>)>> {
    let section = &config.tokenizer;
    let adapter = config.lora.as_ref().and_then(|lora| lora.adapter.as_ref()).map(|dir| expand_home(dir));
    let with_tokenizer = adapter.filter(|dir| dir.join("tokenizer.json").is_file());
    let mut tokenizer = match (&section.name_or_path, with_tokenizer, files) {
        (Some(name), _, _) => {
            let path = find(name, "main", Need::Tokenizer, quiet)?;
            open_tokenizer(&path)?
        }
        // What an adapter was trained with, tokens that it brings included.
        (None, Some(dir), _) => Tokenizer::from_dir(&dir).map_err(Failure::input)?,
        (None, None, Some(files)) => {
            let is_absent = !files.is_gguf() && !files.path.join("tokenizer.json").is_file();
            if is_absent && need == Need::Description {
                return Ok(None);
            }
            files.tokenizer().map_err(Failure::input)?
        }
        (None, None, None) => return Ok(None),
    };
    let mut added = Vec::new();
    for (key, tokens, special) in [
        ("add_special_tokens", &section.add_special_tokens, true),
        ("add_tokens", &section.add_tokens, false),
    ] {
        let ids = tokenizer.add_tokens(tokens, special);
        added.extend(ids.map_err(|e| Failure::Input(format!("tokenizer.{key}: {e}")))?);
    }
    if let Some(token) = &section.eos_token {
        tokenizer.set_eos_token(token).map_err(|e| Failure::Input(format!("tokenizer.eos_token: {e}")))?;
    }
    if let Some(template) = &section.chat_template {
        tokenizer.set_chat_template(read_template("tokenizer.chat_template", template)?);
    }
    Ok(Some((tokenizer, added)))
}

fn open_tokenizer(path: &Path) -> Outcome<Tokenizer> {
    let is_gguf = path.extension().is_some_and(|e| e.eq_ignore_ascii_case("gguf"));
    let opened = if is_gguf {
        ModelFiles::open(path).and_then(|files| files.tokenizer())
    } else if path.is_dir() {
        Tokenizer::from_dir(path)
    } else {
        Tokenizer::from_file(path)
    };
    opened.map_err(|e| Failure::Input(format!("tokenizer.name_or_path: {e}")))
}

/// A template given inline, by the name of a built-in one, or as the file or tokenizer's directory that holds it. A
/// file comes before a name.
pub(crate) fn read_template(key: &str, template: &str) -> Outcome<String> {
    if template.contains("{{") || template.contains("{%") {
        return Ok(template.to_owned());
    }
    let path = expand_home(template);
    if path.is_dir() {
        let tokenizer = Tokenizer::from_dir(&path).map_err(|e| Failure::Input(format!("{key}: {e}")))?;
        let found = tokenizer.chat_template().map(str::to_owned);
        return found.ok_or_else(|| {
            Failure::Input(format!("{key}: the tokenizer in {} has no chat template", path.display()))
        });
    }
    if let Some(source) = builtin::find(template).filter(|_| !path.exists()) {
        return Ok(source.to_owned());
    }
    std::fs::read_to_string(&path).map_err(|e| {
        let names: Vec<&str> = builtin::names().collect();
        Failure::Input(format!(
            "{key}: cannot read {}: {e}; give the path of a Jinja file, the template itself, or the name of a built-in \
             one: {}",
            path.display(),
            names.join(", ")
        ))
    })
}
