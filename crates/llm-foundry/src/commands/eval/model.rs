//! The model under examination, loaded for inference.

use crate::adapter_choice::AdapterChoice;
use crate::answer::sampling_of_model;
use crate::cli::{EvalArgs, MachineArgs};
use crate::config::ComputeDtype;
use crate::console::{self, bytes};
use crate::failure::{Failure, Outcome};
use crate::hub::Need;
use crate::machine::{Machine, available_memory, dtype_name};
use crate::model_source::find;
use crate::subject::read_template;
use crate::vocabulary;
use foundry_data::chat::ChatTemplate;
use foundry_engine::DecoderLanguageModel;
use foundry_eval::Conventions;
use foundry_formats::{ModelFiles, Tokenizer};
use foundry_kernels::{Allocator, CpuBackend, Meter};
use foundry_models::{
    Checkpointing, Decoder, Inference, InferenceOptions, Sampling, Storage, decoder_config,
    quantized_weights, with_vocabulary,
};
use serde_json::{Map, Value};
use std::path::Path;

/// Tokens that are computed at once.
const ROW_TOKENS: usize = 2048;

/// A model with what an evaluation needs of it.
pub(super) struct Examinee {
    /// As the user calls it: the adapter, or the model.
    pub(super) name: String,
    /// lm_eval's `model_args`.
    pub(super) arguments: Map<String, Value>,
    pub(super) revision: String,
    pub(super) parameters: u64,
    pub(super) dtype: &'static str,
    pub(super) tokenizer: Tokenizer,
    backend: CpuBackend,
    decoder: Decoder,
    eos_token_ids: Vec<u32>,
    max_length: usize,
    checks_memory: bool,
    /// The model's own settings of generation.
    sampling: Sampling,
}

impl Examinee {
    /// Finds, checks and loads a model; `is_base`: without its adapter.
    pub(super) fn load(args: &EvalArgs, machine: &MachineArgs, is_base: bool) -> Outcome<Self> {
        let quiet = machine.quiet;
        let machine = Machine::choose(machine, None)?;
        let compute = machine.compute(match args.dtype.as_str() {
            "float32" => ComputeDtype::Float32,
            "bfloat16" => ComputeDtype::Bfloat16,
            _ => ComputeDtype::Auto,
        });
        let name = args.model.as_deref().unwrap_or_default();
        let path = find(name, &args.revision, Need::Everything, quiet)?;
        let files = ModelFiles::open(&path).map_err(Failure::input)?;
        let (_, config) = decoder_config(&files.config)
            .map_err(|e| Failure::Input(format!("{}: {e}", files.config.path().display())))?;
        let adapters = if is_base { &[][..] } else { &args.adapter[..] };
        AdapterChoice::check(adapters)?;
        let dirs: Vec<&Path> = adapters.iter().map(|adapter| adapter.dir.as_path()).collect();
        let tokenizer = match vocabulary::shared_tokenizer(&dirs)? {
            Some(tokenizer) => tokenizer,
            None => files.tokenizer().map_err(Failure::input)?,
        };
        let adapter = AdapterChoice::open(adapters)?;
        let config = vocabulary::grown(config, &tokenizer, adapters.iter().map(|a| a.dir.as_path()))?;
        let max_length = args.max_length.unwrap_or(usize::MAX).min(config.max_position_embeddings).max(1);
        let quantization = quantized_weights(&files.config).map_err(Failure::input)?;
        let storage = Storage { checkpointing: Checkpointing::Full, quantization, ..Storage::default() };
        let weights = files.weights().map_err(Failure::input)?;
        let weights = with_vocabulary(weights, &config, adapter.dir()).map_err(Failure::input)?;
        let tuning = adapter.tuning();
        let row = ROW_TOKENS.min(max_length + 1);
        let allocate = |alloc: &dyn Allocator| {
            Decoder::allocate(alloc, &config, &tuning, compute, row, storage.clone()).map_err(Failure::input)
        };
        let meter = Meter::default();
        allocate(&meter)?;
        // The cache of texts of a row's length; that of longer ones is checked when they are known.
        let cache =
            InferenceOptions { max_sequence: row, cache_tokens: 2 * row, ..InferenceOptions::default() };
        Inference::allocate(&meter, &config, compute, cache);
        check_memory(args, &meter)?;
        let backend = machine.backend();
        let mut decoder = allocate(&backend)?;
        decoder
            .load(&backend, weights.as_ref())
            .map_err(|e| Failure::Input(format!("{}: {e}", path.display())))?;
        adapter.load(&mut decoder, &backend)?;
        let mut eos_token_ids = files.eos_token_ids();
        eos_token_ids.extend(tokenizer.eos_token_id().filter(|id| !eos_token_ids.contains(id)));
        let sizes = weights.tensors().iter().map(|tensor| tensor.shape.iter().product::<usize>() as u64);
        let parameters = sizes.sum();
        Ok(Self {
            name: adapters.first().map_or_else(|| name.to_owned(), |a| a.dir.display().to_string()),
            arguments: arguments(name, &dirs, dtype_name(compute)),
            revision: args.revision.clone(),
            parameters,
            dtype: dtype_name(compute),
            tokenizer,
            backend,
            decoder,
            eos_token_ids,
            max_length,
            checks_memory: !args.no_memory_check,
            sampling: sampling_of_model(files.generation_config.as_ref())?,
        })
    }

    /// The chat template, and its source.
    pub(super) fn template(&self, args: &EvalArgs) -> Outcome<(String, ChatTemplate)> {
        let source = match &args.chat_template {
            Some(path) => read_template("--chat-template", &path.to_string_lossy())?,
            None => self.tokenizer.chat_template().map(str::to_owned).ok_or_else(|| {
                Failure::Input(
                    "--apply-chat-template: this model's tokenizer has no chat template\n  give one with \
                     --chat-template FILE, or leave --apply-chat-template away"
                        .into(),
                )
            })?,
        };
        let template = ChatTemplate::compile(&source, self.tokenizer.special_tokens());
        let template = template.map_err(|e| Failure::Input(format!("chat template: {e}")))?;
        Ok((source, template))
    }

    /// What evaluations must know about it.
    pub(super) fn conventions(&mut self) -> Outcome<Conventions> {
        let max_length = self.max_length;
        let conventions = self.language_model().conventions().ok_or_else(|| {
            Failure::Input(
                "the tokenizer has neither a BOS nor an EOS token, which a text without context begins with\n  add \
                 one to its tokenizer_config.json"
                    .into(),
            )
        })?;
        Ok(Conventions { max_length: max_length.min(conventions.max_length), ..conventions })
    }

    /// Behind the evaluation's trait.
    pub(super) fn language_model(&mut self) -> DecoderLanguageModel<'_> {
        let eos_token_ids = self.eos_token_ids.clone();
        let memory = if self.checks_memory { available_memory() } else { None };
        let Self { decoder, backend, tokenizer, sampling, .. } = self;
        let model = DecoderLanguageModel::new(decoder, backend, tokenizer, eos_token_ids);
        DecoderLanguageModel { memory, sampling: sampling.clone(), ..model }
    }
}

/// lm_eval's `model_args`.
fn arguments(name: &str, adapters: &[&Path], dtype: &str) -> Map<String, Value> {
    let mut arguments = Map::from_iter([("pretrained".to_owned(), Value::from(name))]);
    let mut dirs: Vec<Value> = adapters.iter().map(|dir| dir.display().to_string().into()).collect();
    match dirs.len() {
        0 => {}
        1 => arguments.extend([("peft".to_owned(), dirs.remove(0))]),
        _ => arguments.extend([("peft".to_owned(), dirs.into())]),
    }
    arguments.insert("dtype".into(), dtype.into());
    arguments
}

fn check_memory(args: &EvalArgs, meter: &Meter) -> Outcome {
    let needed: u64 = meter.allocated().iter().fold(0, |sum, (_, bytes)| sum.saturating_add(*bytes));
    let available = available_memory().filter(|&available| needed > available && !args.no_memory_check);
    let Some(available) = available else { return Ok(()) };
    Err(Failure::Input(format!(
        "not enough memory: {} needs {} with a cache for rows of {} tokens, and {} are available\n  to need less: --dtype bfloat16, a \
         smaller model\n  to try anyway: --no-memory-check",
        args.model.as_deref().unwrap_or_default(),
        bytes(needed),
        console::thousands(ROW_TOKENS as u64),
        bytes(available)
    )))
}
