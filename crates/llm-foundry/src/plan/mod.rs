//! Everything about a run that is known before it starts: model, data, steps, memory, work. `plan` prints it, `train`
//! begins with it, and both stop where it cannot work.
//!
//! Sizes come from the functions that allocate, run over a [`Meter`] that only counts.

mod disk;
mod json;
mod memory;
mod text;

use crate::benchmarks;
use crate::config::{Config, GradientCheckpointing, OptimKind, Resolved};
use crate::console;
use crate::corpus::{Corpus, CorpusFiles};
use crate::failure::{Failure, Outcome};
use crate::hub::{Fetch, Need};
use crate::machine::{self, Machine};
use crate::subject::Subject;
pub(crate) use disk::Disk;
use disk::Written;
use foundry_engine::{Timetable, TrainingArgs};
use foundry_kernels::{Dtype, MemoryClass};
use foundry_models::{Storage, Tuning};
use memory::{Memory, Needs, measure};

/// A planned run.
pub(crate) struct Plan {
    pub(crate) machine: Machine,
    pub(crate) subject: Subject,
    pub(crate) args: TrainingArgs,
    /// `None`: there is no tokenizer or no data here to count (only for `plan`).
    pub(crate) corpus: Option<Corpus>,
    /// The moment that chat templates tell, in seconds since 1970, where this run's template asks for it.
    pub(crate) rendered_at: Option<i64>,
    /// `None` without data, unless `max_steps` decides.
    pub(crate) steps: Option<Steps>,
    /// The most tokens of one micro-batch.
    pub(crate) max_tokens: usize,
    pub(crate) memory: Memory,
    pub(crate) disk: Disk,
    /// What the blocks keep, and in which form.
    pub(crate) storage: Storage,
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

impl Plan {
    /// Reads descriptions and data. With [`Need::Description`] (`plan`), a missing tokenizer or missing data files
    /// become notes; with [`Need::Everything`] (`train`) they are errors.
    /// `rendered_at`: that of the run that is gone on with.
    pub(crate) fn make(
        resolved: &Resolved,
        machine: Machine,
        need: Need,
        quiet: bool,
        rendered_at: Option<i64>,
    ) -> Outcome<Self> {
        let config = &resolved.config;
        let mut notes = Vec::new();
        let subject = Subject::open(config, machine, need, quiet)?;
        notes.extend(subject.added_note());
        let template = subject.tokenizer.as_ref().and_then(|tokenizer| tokenizer.chat_template());
        let asks = template.is_some_and(|template| template.contains("strftime_now"));
        let rendered_at = asks.then(|| rendered_at.unwrap_or_else(seconds_since_1970));
        let corpus = corpus(config, &subject, machine, need, quiet, rendered_at, &mut notes)?;
        let has_eval = !config.data.eval.0.is_empty() || config.data.eval_fraction > 0.0;
        let args = arguments(config, has_eval)?;
        let max_tokens = longest_batch(config, &subject, corpus.as_ref(), &mut notes)?;
        let length = mean_length(corpus.as_ref(), max_tokens, &args);
        if config.training.bf16_stochastic_round && subject.compute != Dtype::Bf16 {
            return Err(Failure::Input(
                "training.bf16_stochastic_round keeps weights in bfloat16, but this machine's default is float32\n  set \
                 model.dtype=bfloat16, or remove it"
                    .into(),
            ));
        }
        let measured = measure(&Needs {
            config,
            subject: &subject,
            args: &args,
            max_tokens,
            length,
            data: corpus.as_ref().map_or(0, Corpus::bytes),
            threads: machine.threads,
            available: machine::available_memory(),
        })?;
        let steps = steps(&args, corpus.as_ref());
        let optimizer = measured.memory.classes.iter().filter(|(class, _)| *class == MemoryClass::Optimizer);
        let written = Written {
            saved: match &subject.tuning {
                // Saved with the first values of its matrices.
                Tuning::Lora(spec) if spec.init_lora_weights.changes_base() => 2 * measured.trainable,
                Tuning::Lora(_) => measured.trainable,
                _ => measured.parameters,
            },
            trainable: measured.trainable,
            optimizer: optimizer.map(|(_, bytes)| bytes).sum(),
            steps: steps.map(|steps| (steps.total, steps.per_epoch)),
        };
        let disk = Disk::of(&args, &written);
        let defaults = filled_in(resolved, machine, &args);
        Ok(Self {
            machine,
            subject,
            args,
            corpus,
            rendered_at,
            steps,
            max_tokens,
            memory: measured.memory,
            disk,
            storage: measured.storage,
            parameters: measured.parameters,
            trainable: measured.trainable,
            flops_per_token: measured.flops_per_token,
            defaults,
            notes,
        })
    }

    /// The error of a machine that is too small, unless the configuration says not to look.
    pub(crate) fn check_memory(&self, config: &Config) -> Outcome {
        let Some((needed, limit)) = self.memory.excess().filter(|_| config.training.check_memory) else {
            return Ok(());
        };
        let limit = match self.memory.budget {
            Some(budget) if budget == limit => {
                format!("training.memory_budget allows {}", console::bytes(budget))
            }
            _ => format!("{} are available", console::bytes(limit)),
        };
        let mut classes: Vec<_> = self.memory.classes.iter().filter(|(_, bytes)| *bytes > 0).collect();
        classes.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
        let largest: Vec<String> = classes
            .iter()
            .take(3)
            .map(|(class, bytes)| format!("{} {}", text::class_name(*class), console::bytes(*bytes)))
            .collect();
        Err(Failure::Input(format!(
            "not enough memory: this run needs {}, and {limit} (largest parts: {})\n  to need less: {}\n  to \
             try anyway: training.check_memory=false",
            console::bytes(needed),
            largest.join(", "),
            self.remedies(config).join("; ")
        )))
    }

    /// The error of data from which a model would learn to answer but not to stop, unless the configuration allows it.
    pub(crate) fn check_data(&self, config: &Config) -> Outcome {
        let endless = self.corpus.as_ref().and_then(|corpus| corpus.train.report.never_ends());
        let Some(source) = endless.filter(|_| !config.data.allow_missing_eos) else { return Ok(()) };
        Err(Failure::Input(format!(
            "{}: no example trains an end-of-sequence token, so that the model would not learn to stop (`llm-foundry \
             data preview` shows what is learned)\n  if turns end with another token, such as <|im_end|>: set \
             tokenizer.eos_token to it\n  if the ends are cut off: raise data.max_length\n  if that is meant: \
             data.allow_missing_eos=true",
            source.first.display()
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
        if !matches!(
            training.gradient_checkpointing,
            GradientCheckpointing::Auto | GradientCheckpointing::Full
        ) {
            remedies.push("training.gradient_checkpointing=auto".into());
        }
        if self.subject.compute == Dtype::F32 {
            remedies.push("model.dtype=bfloat16".into());
        }
        if config.lora.is_none() {
            remedies.push("LoRA (a section `lora`) instead of training every weight".into());
            if training.optim == OptimKind::AdamwTorchFused {
                remedies.push("training.optim=adamw_bnb_8bit".into());
            }
        }
        remedies.push("a smaller model".into());
        remedies
    }
}

fn seconds_since_1970() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(0))
}

/// Loads the data, or says why it is not counted.
fn corpus(
    config: &Config,
    subject: &Subject,
    machine: Machine,
    need: Need,
    quiet: bool,
    rendered_at: Option<i64>,
    notes: &mut Vec<String>,
) -> Outcome<Option<Corpus>> {
    // A plan looks at what is here.
    let fetch = if need == Need::Description { Fetch::No } else { Fetch::unless_quiet(quiet) };
    let files = match CorpusFiles::find(config, fetch) {
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
    if tokenizer.rows() > subject.decoder.vocab_size {
        let (tokens, rows) = (tokenizer.rows(), subject.decoder.vocab_size);
        return Err(Failure::Input(format!(
            "the tokenizer has {tokens} tokens, but the model's embedding only {rows} rows; they do not belong \
             together (check tokenizer.name_or_path)"
        )));
    }
    let mut corpus = files.load(config, tokenizer, subject.eos_token_ids(), machine.threads, rendered_at)?;
    // A run that will be refused for what its first rows show need not wait for a count.
    let is_refused = !config.data.allow_missing_eos && corpus.train.report.never_ends().is_some();
    let counts = need == Need::Everything && !is_refused;
    notes.extend(corpus.find_end(config, tokenizer, counts, quiet)?);
    Ok(Some(corpus))
}

fn longest_batch(
    config: &Config,
    subject: &Subject,
    corpus: Option<&Corpus>,
    notes: &mut Vec<String>,
) -> Outcome<usize> {
    let batch_size = config.training.per_device_train_batch_size;
    let tokens = match corpus {
        Some(corpus) => corpus.longest_batch(batch_size)?.max(corpus.longest_eval_row()),
        None => batch_size
            .saturating_mul(config.data.max_length.unwrap_or(subject.decoder.max_position_embeddings)),
    };
    let longest = match corpus {
        Some(corpus) => corpus.longest_sequence(),
        None => config.data.max_length.unwrap_or(0),
    };
    if longest > subject.decoder.max_position_embeddings {
        notes.push(format!(
            "sequences of {longest} tokens are longer than the model was made for (max_position_embeddings {})",
            subject.decoder.max_position_embeddings
        ));
    }
    Ok(tokens.max(2))
}

fn steps(args: &TrainingArgs, corpus: Option<&Corpus>) -> Option<Steps> {
    let Some(corpus) = corpus else {
        let total = u64::try_from(args.max_steps).ok().filter(|&steps| steps > 0)?;
        return Some(Steps { total, per_epoch: None, tokens: None });
    };
    let batches = corpus.batches_per_epoch(args.per_device_train_batch_size);
    if let Some(stream) = &corpus.stream {
        let timetable = Timetable::of(args, batches).ok()?;
        let (total, report) = (timetable.total_steps, &corpus.train.report);
        let of_a_step = args.per_device_train_batch_size as f64 * args.gradient_accumulation_steps as f64;
        let rows = match stream.spec.rows_per_epoch {
            Some(rows) => timetable.epoch(total) * rows as f64,
            None => total as f64 * of_a_step,
        };
        let tokens = rows * report.tokens as f64 / report.rows.max(1) as f64;
        let per_epoch = batches.map(|_| timetable.steps_per_epoch);
        return Some(Steps { total, per_epoch, tokens: Some(tokens.round() as u64) });
    }
    let batches = batches.unwrap_or(1);
    let timetable = Timetable::new(args, batches);
    let tokens = timetable.epoch(timetable.total_steps) * corpus.train.report.tokens as f64;
    Some(Steps {
        total: timetable.total_steps,
        per_epoch: Some(timetable.steps_per_epoch),
        tokens: Some(tokens.round() as u64),
    })
}

/// The engine's arguments, checked; a benchmark that decides says which way is up.
fn arguments(config: &Config, has_eval: bool) -> Outcome<TrainingArgs> {
    let mut args = config.training.arguments(config.lora.is_some(), has_eval);
    let direction = benchmarks::direction(config, &args.metric_for_best_model)?;
    args.greater_is_better = args.greater_is_better.or(direction);
    args.validate().map_err(Failure::input)?;
    Ok(args)
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
        "training.greater_is_better" => Some(args.comparison().greater_is_better.to_string()),
        "data.eval_packing" => Some(config.data.packing.to_string()),
        "model.dtype" => Some(machine::dtype_name(machine.compute(config.model.dtype)).to_owned()),
        _ => None,
    };
    let defaults = resolved.defaults().into_iter();
    defaults.map(|(path, value)| (path.clone(), decided(&path).unwrap_or(value))).collect()
}
