//! A model that answers: loaded for inference, with its tokenizer, chat template and inference.

mod conversation;
mod front;
mod sampling;

pub(crate) use conversation::{Question, messages};
pub(crate) use front::Front;
pub(crate) use sampling::{sampling, sampling_of_model};

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
use foundry_data::chat::ChatTemplate;
use foundry_formats::{ModelFiles, Tokenizer};
use foundry_kernels::{Allocator, CpuBackend, Dtype, Meter};
use foundry_models::inference::{Generation, special_stops};
use foundry_models::{
    Checkpointing, Decoder, DecoderConfig, Inference, InferenceOptions, ModelError, Sampling, Storage,
    Tuning, decoder_config, quantized_weights, with_vocabulary,
};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

/// Tokens of a prompt that are computed at once: enough to keep matrix products fast, few enough to need little memory.
const PREFILL_TOKENS: usize = 512;
/// Default room for a conversation, in tokens.
const CONTEXT_TOKENS: usize = 4096;
/// Room in the cache for each of many requests. Most need less; where they need more, some wait.
const SHARE_TOKENS: usize = 1024;

/// A loaded model.
pub(crate) struct Answerer {
    pub(crate) front: Arc<Front>,
    backend: CpuBackend,
    decoder: Decoder,
    inference: Inference,
    /// Most tokens that the model can take.
    max_position_embeddings: usize,
}

impl Answerer {
    /// Finds, checks and loads a model, with its adapter. `running`: requests that are to run at once.
    pub(crate) fn load(args: &ModelArgs, machine: &MachineArgs, running: usize) -> Outcome<Self> {
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
        AdapterChoice::check(&args.adapter)?;
        let tokenizer = tokenizer(args, &files)?;
        let template = template(args, &tokenizer)?;
        let adapter = AdapterChoice::open(&args.adapter)?;
        let config = vocabulary::grown(config, &tokenizer, args.adapter.iter().map(|a| a.dir.as_path()))?;
        let tuning = adapter.tuning();
        let room = args.max_length.unwrap_or(CONTEXT_TOKENS).min(config.max_position_embeddings).max(1);
        // Weights that are stored in few bits stay so.
        let quantization = quantized_weights(&files.config).map_err(Failure::input)?;
        let storage = Storage { checkpointing: Checkpointing::Full, quantization, ..Storage::default() };
        let shape = Shape { config: &config, tuning: &tuning, compute, room, running, storage };
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
        let front = Arc::new(Front {
            tokenizer,
            generation_config: files.generation_config,
            eos_token_ids,
            template,
            capacity: inference.options().max_sequence,
        });
        let max_position_embeddings = config.max_position_embeddings;
        Ok(Self { front, backend, decoder, inference, max_position_embeddings })
    }

    /// Continues `prompt`; `on_token` may stop it, and must where one of `stops` is in the text.
    pub(crate) fn answer(
        &mut self,
        prompt: &[u32],
        sampling: &Sampling,
        stops: &[String],
        on_token: &mut dyn FnMut(u32) -> ControlFlow<()>,
    ) -> Outcome<Generation> {
        let mut request = self.front.request(prompt.to_vec(), sampling.clone());
        request.eos_token_ids.extend(special_stops(&self.front.tokenizer, stops));
        let most = self.max_position_embeddings;
        let Self { decoder, backend, inference, .. } = self;
        inference.generate(decoder, backend, request, on_token).map_err(|error| match error {
            ModelError::CacheFull { tokens, capacity } => Failure::Input(format!(
                "{tokens} tokens of prompt and answer do not fit --max-length, which is {capacity}; shorten the prompt, \
                 or raise --max-length (the model takes at most {most}: its max_position_embeddings)"
            )),
            error => Failure::input(error),
        })
    }

    /// What answers many requests at once, and the tokenizer of their texts.
    pub(crate) fn parts(&mut self) -> (&mut Inference, &mut Decoder, &CpuBackend, &Tokenizer) {
        (&mut self.inference, &mut self.decoder, &self.backend, &self.front.tokenizer)
    }
}

/// What decides how much memory a model needs.
struct Shape<'a> {
    config: &'a DecoderConfig,
    tuning: &'a Tuning,
    compute: Dtype,
    room: usize,
    running: usize,
    storage: Storage,
}

impl Shape<'_> {
    fn allocate(&self, alloc: &dyn Allocator) -> Outcome<(Decoder, Inference)> {
        let max_tokens = PREFILL_TOKENS.min(self.room).max(self.running);
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
            cache_tokens: self.room.max(self.running * self.room.min(SHARE_TOKENS)),
            max_running: self.running,
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
