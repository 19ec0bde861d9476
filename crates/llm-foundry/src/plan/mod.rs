//! Everything about a run that is known before it starts: model, data, steps, memory, work. `plan` prints it, `train`
//! begins with it, and both stop where it cannot work.
//!
//! Sizes come from the functions that allocate, run over a [`Meter`] that only counts.

mod json;
mod text;

use crate::config::{Config, Resolved};
use crate::console;
use crate::corpus::{Corpus, CorpusFiles};
use crate::failure::{Failure, Outcome};
use crate::hub::Need;
use crate::machine::{self, Machine};
use crate::subject::Subject;
use foundry_engine::{Timetable, TrainingArgs, optim::AdamW};
use foundry_kernels::{Allocator, Dtype, MemoryClass, Meter};
use foundry_models::{Decoder, Tuning};

/// A planned run.
pub(crate) struct Plan {
    pub(crate) machine: Machine,
    pub(crate) subject: Subject,
    pub(crate) args: TrainingArgs,
    /// `None`: there is no tokenizer or no data here to count (only for `plan`).
    pub(crate) corpus: Option<Corpus>,
    /// `None` without data, unless `max_steps` decides.
    pub(crate) steps: Option<Steps>,
    /// The most tokens of one micro-batch.
    pub(crate) max_tokens: usize,
    pub(crate) memory: Memory,
    /// Numbers of the model, and those that are trained.
    pub(crate) parameters: u64,
    pub(crate) trainable: u64,
    /// Floating-point operations of one token, forward and backward, at the mean sequence length.
    pub(crate) flops_per_token: f64,
    /// Values that were not in the configuration.
    pub(crate) defaults: Vec<(String, String)>,
    /// What a reader should know.
    pub(crate) notes: Vec<String>,
}

/// How long a run is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Steps {
    /// Optimiser steps.
    pub(crate) total: u64,
    /// Optimiser steps of an epoch.
    pub(crate) per_epoch: Option<u64>,
    /// Tokens of the whole run, padding being unknown here.
    pub(crate) tokens: Option<u64>,
}

/// What a run needs to hold.
pub(crate) struct Memory {
    /// Bytes for each class of buffers.
    pub(crate) classes: Vec<(MemoryClass, u64)>,
    /// Bytes of the tokenised data.
    pub(crate) data: u64,
    /// Bytes that can be had.
    pub(crate) available: Option<u64>,
}

/// Code, stacks, tokenizer, and pieces of weights on their way from the file: measured at 60 to 150 MB.
const PROCESS_BYTES: u64 = 150_000_000;

impl Memory {
    /// All of it.
    pub(crate) fn total(&self) -> u64 {
        self.classes
            .iter()
            .fold(self.data.saturating_add(PROCESS_BYTES), |sum, (_, bytes)| sum.saturating_add(*bytes))
    }
}

impl Plan {
    /// Reads descriptions and data. With [`Need::Description`] (`plan`), a missing tokenizer or missing data files
    /// become notes; with [`Need::Everything`] (`train`) they are errors.
    pub(crate) fn make(resolved: &Resolved, machine: Machine, need: Need, quiet: bool) -> Outcome<Self> {
        let config = &resolved.config;
        let mut notes = Vec::new();
        let subject = Subject::open(config, machine, need, quiet)?;
        let corpus = corpus(config, &subject, machine, need, &mut notes)?;
        let has_eval = !config.data.eval.0.is_empty() || config.data.eval_fraction > 0.0;
        let args = config.training.arguments(config.lora.is_some(), has_eval);
        args.validate().map_err(Failure::input)?;
        let max_tokens = longest_batch(config, &subject, corpus.as_ref(), &mut notes);
        let length = mean_length(corpus.as_ref(), max_tokens, &args);
        let measured = measure(config, &subject, &args, max_tokens, length)?;
        let steps = steps(&args, corpus.as_ref());
        let defaults = filled_in(resolved, machine, &args);
        let memory = Memory {
            classes: measured.classes,
            data: corpus.as_ref().map_or(0, Corpus::bytes),
            available: machine::available_memory(),
        };
        Ok(Self {
            machine,
            subject,
            args,
            corpus,
            steps,
            max_tokens,
            memory,
            parameters: measured.parameters,
            trainable: measured.trainable,
            flops_per_token: measured.flops_per_token,
            defaults,
            notes,
        })
    }

    /// The error of a machine that is too small, unless the configuration says not to look.
    pub(crate) fn check_memory(&self, config: &Config) -> Outcome {
        let (needed, Some(available)) = (self.memory.total(), self.memory.available) else { return Ok(()) };
        if needed <= available || !config.training.check_memory {
            return Ok(());
        }
        let mut classes: Vec<_> = self.memory.classes.iter().filter(|(_, bytes)| *bytes > 0).collect();
        classes.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
        let largest: Vec<String> = classes
            .iter()
            .take(3)
            .map(|(class, bytes)| format!("{} {}", text::class_name(*class), console::bytes(*bytes)))
            .collect();
        Err(Failure::Input(format!(
            "not enough memory: this run needs {}, and {} are available (largest parts: {})\n  to need less: {}\n  to \
             try anyway: training.check_memory=false",
            console::bytes(needed),
            console::bytes(available),
            largest.join(", "),
            self.remedies(config).join("; ")
        )))
    }

    fn remedies(&self, config: &Config) -> Vec<String> {
        let mut remedies = Vec::new();
        let training = &config.training;
        if training.per_device_train_batch_size > 1 {
            remedies.push(
                "a smaller training.per_device_train_batch_size (with more gradient_accumulation_steps the result is \
                 the same)"
                    .into(),
            );
        }
        remedies.push("a smaller data.max_length".into());
        if !training.gradient_checkpointing {
            remedies.push("training.gradient_checkpointing=true".into());
        }
        if self.subject.compute == Dtype::F32 {
            remedies.push("model.dtype=bfloat16".into());
        }
        if config.lora.is_none() {
            remedies.push("LoRA (a section `lora`) instead of training every weight".into());
        }
        remedies.push("a smaller model".into());
        remedies
    }
}

/// Loads the data, or says why it is not counted.
fn corpus(
    config: &Config,
    subject: &Subject,
    machine: Machine,
    need: Need,
    notes: &mut Vec<String>,
) -> Outcome<Option<Corpus>> {
    let files = match CorpusFiles::find(config) {
        Ok(files) => files,
        Err(Failure::Input(message)) if need == Need::Description => {
            notes.push(format!("the data is not counted: {message}"));
            return Ok(None);
        }
        Err(other) => return Err(other),
    };
    let Some(tokenizer) = &subject.tokenizer else {
        notes.push("the data is not counted: there are no tokenizer files here".into());
        return Ok(None);
    };
    if tokenizer.vocab_size() > subject.decoder.vocab_size {
        let (tokens, rows) = (tokenizer.vocab_size(), subject.decoder.vocab_size);
        return Err(Failure::Input(format!(
            "the tokenizer has {tokens} tokens, but the model's embedding only {rows} rows; they do not belong \
             together (check tokenizer.name_or_path)"
        )));
    }
    files.load(config, tokenizer, subject.eos_token_ids(), machine.threads).map(Some)
}

fn longest_batch(
    config: &Config,
    subject: &Subject,
    corpus: Option<&Corpus>,
    notes: &mut Vec<String>,
) -> usize {
    let batch_size = config.training.per_device_train_batch_size;
    let tokens = match corpus {
        Some(corpus) => corpus.longest_batch(batch_size).max(corpus.longest_eval_row()),
        None => batch_size * config.data.max_length.unwrap_or(subject.decoder.max_position_embeddings),
    };
    let longest = match corpus {
        Some(corpus) => {
            corpus.train.rows.iter().flat_map(|row| &row.seq_lens).copied().max().unwrap_or(0) as usize
        }
        None => config.data.max_length.unwrap_or(0),
    };
    if longest > subject.decoder.max_position_embeddings {
        notes.push(format!(
            "sequences of {longest} tokens are longer than the model was made for (max_position_embeddings {})",
            subject.decoder.max_position_embeddings
        ));
    }
    tokens.max(2)
}

struct Measured {
    classes: Vec<(MemoryClass, u64)>,
    parameters: u64,
    trainable: u64,
    flops_per_token: f64,
}

/// Allocates everything without allocating it.
fn measure(
    config: &Config,
    subject: &Subject,
    args: &TrainingArgs,
    max_tokens: usize,
    length: usize,
) -> Outcome<Measured> {
    let meter = Meter::default();
    let Subject { decoder, tuning, compute, .. } = subject;
    let checkpointing = config.training.gradient_checkpointing;
    let model = Decoder::allocate(&meter, decoder, tuning, *compute, max_tokens, checkpointing)
        .map_err(Failure::input)?;
    let trainable = model.parameters().iter().map(|p| p.elements() as u64).sum();
    AdamW::allocate(&meter, model.parameters(), args);
    // The model alone, in f32: four bytes a number, cache lines rounded up.
    let alone = Meter::default();
    Decoder::allocate(&alone, decoder, &Tuning::Frozen, Dtype::F32, 1, true).map_err(Failure::input)?;
    let weights = |classes: &[(MemoryClass, u64)]| {
        classes
            .iter()
            .filter(|(class, _)| *class == MemoryClass::Weights)
            .map(|(_, bytes)| bytes)
            .sum::<u64>()
    };
    Ok(Measured {
        classes: meter.allocated(),
        parameters: weights(&alone.allocated()) / 4,
        trainable,
        flops_per_token: model.flops_per_token(length),
    })
}

fn steps(args: &TrainingArgs, corpus: Option<&Corpus>) -> Option<Steps> {
    let Some(corpus) = corpus else {
        let total = u64::try_from(args.max_steps).ok().filter(|&steps| steps > 0)?;
        return Some(Steps { total, per_epoch: None, tokens: None });
    };
    let batches = corpus.train.rows.len().div_ceil(args.per_device_train_batch_size);
    let timetable = Timetable::new(args, batches);
    let tokens = timetable.epoch(timetable.total_steps) * corpus.train.report.tokens as f64;
    Some(Steps {
        total: timetable.total_steps,
        per_epoch: Some(timetable.steps_per_epoch),
        tokens: Some(tokens.round() as u64),
    })
}

/// Mean length of the sequences, for the cost of attention.
fn mean_length(corpus: Option<&Corpus>, max_tokens: usize, args: &TrainingArgs) -> usize {
    match corpus {
        Some(corpus) => corpus.train.report.tokens / corpus.train.report.sequences.max(1),
        None => max_tokens / args.per_device_train_batch_size,
    }
}

/// The configuration's defaults, those that depend on other values resolved.
fn filled_in(resolved: &Resolved, machine: Machine, args: &TrainingArgs) -> Vec<(String, String)> {
    let config = &resolved.config;
    let decided = |path: &str| match path {
        "training.learning_rate" => Some(args.learning_rate.to_string()),
        "training.threads" => Some(machine.threads.to_string()),
        "training.data_seed" => Some(args.data_seed().to_string()),
        "training.eval_strategy" => Some(format!("{:?}", args.eval_strategy).to_lowercase()),
        "data.eval_packing" => Some(config.data.packing.to_string()),
        "model.dtype" => Some(machine::dtype_name(machine.compute(config.model.dtype)).to_owned()),
        _ => None,
    };
    let defaults = resolved.defaults().into_iter().filter(|(path, _)| path != "lora");
    defaults.map(|(path, value)| (path.clone(), decided(&path).unwrap_or(value))).collect()
}
