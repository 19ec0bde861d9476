//! A model that answers: loaded for inference, with its tokenizer, chat template and inference.

mod sampling;

pub(crate) use sampling::sampling;

use crate::adapter_choice::AdapterChoice;
use crate::cli::{MachineArgs, ModelArgs};
use crate::config::ComputeDtype;
use crate::console::{self, bytes};
use crate::failure::{Failure, Outcome};
use crate::hub::Need;
use crate::machine::{Machine, available_memory};
use crate::model_source::find;
use crate::subject::read_template;
use crate::vocabulary;
use foundry_data::Message;
use foundry_data::chat::ChatTemplate;
use foundry_formats::{ModelFiles, Tokenizer};
use foundry_kernels::{Allocator, CpuBackend, Dtype, Meter};
use foundry_models::inference::{Generation, Request};
use foundry_models::{
    Checkpointing, Decoder, DecoderConfig, Inference, InferenceOptions, ModelError, Sampling, Storage,
    Tuning, decoder_config, quantized_weights, with_vocabulary,
};
use serde_json::{Map, Value};
use std::ops::ControlFlow;
use std::path::Path;

/// Tokens of a prompt that are computed at once: enough to keep matrix products fast, few enough to need little memory.
const PREFILL_TOKENS: usize = 512;
/// Default room for a conversation, in tokens.
const CONTEXT_TOKENS: usize = 4096;

/// A loaded model.
pub(crate) struct Answerer {
    pub(crate) tokenizer: Tokenizer,
    /// generation_config.json.
    pub(crate) generation_config: Option<Value>,
    backend: CpuBackend,
    decoder: Decoder,
    inference: Inference,
    eos_token_ids: Vec<u32>,
    template: Option<ChatTemplate>,
    /// Most tokens that the model can take.
    max_position_embeddings: usize,
}

impl Answerer {
    /// Finds, checks and loads a model, with its adapter.
    pub(crate) fn load(args: &ModelArgs, machine: &MachineArgs) -> Outcome<Self> {
        let quiet = machine.quiet;
        let machine = Machine::choose(machine, None)?;
        let compute = machine.compute(match args.dtype.as_str() {
            "float32" => ComputeDtype::Float32,
            "bfloat16" => ComputeDtype::Bfloat16,
            _ => ComputeDtype::Auto,
        });
        let path = find(&args.model, &args.revision, Need::Everything, quiet)?;
        let files = ModelFiles::open(&path).map_err(Failure::input)?;
        let (_, config) = decoder_config(&files.config)
            .map_err(|e| Failure::Input(format!("{}: {e}", files.config.path().display())))?;
        let tokenizer = tokenizer(args, &files)?;
        let template = template(args, &tokenizer)?;
        let adapter = AdapterChoice::open(&args.adapter)?;
        let config = vocabulary::grown(config, &tokenizer, args.adapter.iter().map(|a| a.dir.as_path()))?;
        let tuning = adapter.tuning();
        let room = args.max_length.unwrap_or(CONTEXT_TOKENS).min(config.max_position_embeddings).max(1);
        // Weights that are stored in few bits stay so.
        let quantization = quantized_weights(&files.config).map_err(Failure::input)?;
        let storage = Storage { checkpointing: Checkpointing::Full, quantization, ..Storage::default() };
        let shape = Shape { config: &config, tuning: &tuning, compute, room, storage };
        let weights = files.weights().map_err(Failure::input)?;
        let weights = with_vocabulary(weights, &config, adapter.dir()).map_err(Failure::input)?;
        shape.check_memory(args)?;
        let backend = machine.backend();
        let (mut decoder, inference) = shape.allocate(&backend)?;
        decoder
            .load(&backend, weights.as_ref())
            .map_err(|e| Failure::Input(format!("{}: {e}", path.display())))?;
        adapter.load(&mut decoder, &backend)?;
        let mut eos_token_ids = files.eos_token_ids();
        eos_token_ids.extend(tokenizer.eos_token_id().filter(|id| !eos_token_ids.contains(id)));
        let generation_config = files.generation_config;
        let max_position_embeddings = config.max_position_embeddings;
        Ok(Self {
            tokenizer,
            generation_config,
            backend,
            decoder,
            inference,
            eos_token_ids,
            template,
            max_position_embeddings,
        })
    }

    /// Token ids of a plain prompt, with the special tokens that the tokenizer adds.
    pub(crate) fn prompt_ids(&self, text: &str) -> Outcome<Vec<u32>> {
        self.tokenizer.encode(text, true).map_err(Failure::input)
    }

    /// Token ids of a conversation up to where the assistant speaks.
    pub(crate) fn chat_ids(&self, messages: &[Message], tools: Option<&Value>) -> Outcome<Vec<u32>> {
        let template = self.template.as_ref().ok_or_else(|| {
            Failure::Input(
                "this model's tokenizer has no chat template; give one with --chat-template FILE, or continue a plain \
                 text with `generate --prompt`"
                    .into(),
            )
        })?;
        let rendered = template.render(messages, tools, true, &Map::new()).map_err(Failure::input)?;
        self.tokenizer.encode(&rendered.text, false).map_err(Failure::input)
    }

    /// Continues `prompt`; `on_token` may stop it.
    pub(crate) fn answer(
        &mut self,
        prompt: &[u32],
        sampling: &Sampling,
        on_token: &mut dyn FnMut(u32) -> ControlFlow<()>,
    ) -> Outcome<Generation> {
        let Self { decoder, backend, inference, eos_token_ids, max_position_embeddings: most, .. } = self;
        let request = Request {
            tokens: prompt.to_vec(),
            sampling: sampling.clone(),
            eos_token_ids: eos_token_ids.clone(),
        };
        inference.generate(decoder, backend, request, on_token).map_err(|error| match error {
            ModelError::CacheFull { tokens, capacity } => Failure::Input(format!(
                "{tokens} tokens of prompt and answer do not fit --max-length, which is {capacity}; shorten the prompt, \
                 or raise --max-length (the model takes at most {most}: its max_position_embeddings)"
            )),
            error => Failure::input(error),
        })
    }

    /// Most tokens of a conversation.
    pub(crate) fn capacity(&self) -> usize {
        self.inference.options().max_sequence
    }
}

/// What decides how much memory a model needs.
struct Shape<'a> {
    config: &'a DecoderConfig,
    tuning: &'a Tuning,
    compute: Dtype,
    room: usize,
    storage: Storage,
}

impl Shape<'_> {
    fn allocate(&self, alloc: &dyn Allocator) -> Outcome<(Decoder, Inference)> {
        let max_tokens = PREFILL_TOKENS.min(self.room);
        let decoder = Decoder::allocate(
            alloc,
            self.config,
            self.tuning,
            self.compute,
            max_tokens,
            self.storage.clone(),
        );
        let options = InferenceOptions {
            max_sequence: self.room,
            cache_tokens: self.room,
            ..InferenceOptions::default()
        };
        let inference = Inference::allocate(alloc, self.config, self.compute, options);
        Ok((decoder.map_err(Failure::input)?, inference))
    }

    fn check_memory(&self, args: &ModelArgs) -> Outcome {
        let meter = Meter::default();
        self.allocate(&meter)?;
        let needed: u64 = meter.allocated().iter().fold(0, |sum, (_, bytes)| sum.saturating_add(*bytes));
        let Some(available) =
            available_memory().filter(|&available| needed > available && !args.no_memory_check)
        else {
            return Ok(());
        };
        Err(Failure::Input(format!(
            "not enough memory: {} needs {} for {} tokens, and {} are available\n  to need less: --dtype bfloat16, a \
             smaller --max-length, a smaller model\n  to try anyway: --no-memory-check",
            args.model,
            bytes(needed),
            console::thousands(self.room as u64),
            bytes(available)
        )))
    }
}

/// The adapters' tokenizer where they have one: training may have changed tokens or template.
fn tokenizer(args: &ModelArgs, files: &ModelFiles) -> Outcome<Tokenizer> {
    let adapters: Vec<&Path> = args.adapter.iter().map(|a| a.dir.as_path()).collect();
    match vocabulary::shared_tokenizer(&adapters)? {
        Some(tokenizer) => Ok(tokenizer),
        None => files.tokenizer().map_err(Failure::input),
    }
}

fn template(args: &ModelArgs, tokenizer: &Tokenizer) -> Outcome<Option<ChatTemplate>> {
    let source = match &args.chat_template {
        Some(path) => Some(read_template("--chat-template", &path.to_string_lossy())?),
        None => tokenizer.chat_template().map(str::to_owned),
    };
    let compile = |source: String| ChatTemplate::compile(&source, tokenizer.special_tokens());
    source.map(compile).transpose().map_err(|e| Failure::Input(format!("chat template: {e}")))
}
