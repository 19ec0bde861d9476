//! How much memory a run needs, and how much the blocks may keep so that it fits.
//!
//! The buffers of a run come from the functions that allocate, over a [`Meter`]. What the process holds besides
//! (program, tokenizer, data) is there already when a run is planned, so it is measured, not guessed.

use crate::config::{Config, GradientCheckpointing};
use crate::failure::{Failure, Outcome};
use crate::subject::Subject;
use foundry_engine::{TrainingArgs, memory, optim};
use foundry_kernels::{Allocator, Dtype, MemoryClass, Meter, give_back_free_memory};
use foundry_models::{Checkpointing, Decoder, Storage, Tuning};

/// What a run needs to hold.
#[derive(Clone)]
pub(crate) struct Memory {
    /// Bytes for each class of buffers.
    pub(crate) classes: Vec<(MemoryClass, u64)>,
    /// Bytes of the tokenised data.
    pub(crate) data: u64,
    /// Bytes of the program, its libraries and the tokenizer.
    pub(crate) process: u64,
    /// Bytes that kernels keep between calls: packed panels of products.
    pub(crate) kernels: u64,
    /// Bytes that this process holds already.
    pub(crate) resident: u64,
    /// Bytes that can be had besides.
    pub(crate) available: Option<u64>,
    /// The limit of the configuration.
    pub(crate) budget: Option<u64>,
}

/// Program and tokenizer where they cannot be measured: a plan without a tokenizer, or a system that does not tell.
const PROCESS_BYTES: u64 = 80_000_000;

/// Pieces of weights on their way from the file, buffers of files, stacks of threads.
const TRANSIENT_BYTES: u64 = 12_000_000;

/// The share of the available memory that `auto` fills where no budget is given: other programs want to live too.
const SHARE: f64 = 0.9;

impl Memory {
    /// All of it.
    pub(crate) fn total(&self) -> u64 {
        self.classes
            .iter()
            .map(|(_, bytes)| *bytes)
            .chain([self.data, self.process, self.kernels])
            .fold(0, u64::saturating_add)
    }

    /// What is missing: the bytes needed and the limit that they exceed.
    pub(crate) fn excess(&self) -> Option<(u64, u64)> {
        let total = self.total();
        let limits = [self.budget, self.available.map(|bytes| bytes.saturating_add(self.resident))];
        limits.into_iter().flatten().find(|limit| total > *limit).map(|limit| (total, limit))
    }
}

/// What a run would allocate, and what that costs.
pub(super) struct Measured {
    pub(super) memory: Memory,
    pub(super) storage: Storage,
    pub(super) parameters: u64,
    pub(super) trainable: u64,
    pub(super) flops_per_token: f64,
}

/// What is known before the sizes of buffers.
pub(super) struct Needs<'a> {
    pub(super) config: &'a Config,
    pub(super) subject: &'a Subject,
    pub(super) args: &'a TrainingArgs,
    /// The most tokens of one micro-batch.
    pub(super) max_tokens: usize,
    /// Mean length of the sequences.
    pub(super) length: usize,
    /// Bytes of the tokenised data.
    pub(super) data: u64,
    pub(super) threads: usize,
    pub(super) available: Option<u64>,
}

/// Chooses what the blocks keep and measures the run.
pub(super) fn measure(needs: &Needs<'_>) -> Outcome<Measured> {
    match needs.config.training.gradient_checkpointing {
        GradientCheckpointing::None => measure_as(needs, Checkpointing::None),
        GradientCheckpointing::Selective => measure_as(needs, Checkpointing::Selective),
        GradientCheckpointing::Full => measure_as(needs, Checkpointing::Full),
        GradientCheckpointing::Auto => fastest_that_fits(needs),
    }
}

/// From what is fastest to what is smallest: the first that fits, or else the smallest.
fn fastest_that_fits(needs: &Needs<'_>) -> Outcome<Measured> {
    let fits = |measured: &Measured| {
        let memory = &measured.memory;
        let free = memory.available.map(|bytes| ((bytes + memory.resident) as f64 * SHARE) as u64);
        [memory.budget.or(free), free].into_iter().flatten().all(|limit| memory.total() <= limit)
    };
    for checkpointing in [Checkpointing::None, Checkpointing::Selective] {
        let measured = measure_as(needs, checkpointing)?;
        if fits(&measured) {
            return Ok(measured);
        }
    }
    let smallest = measure_as(needs, Checkpointing::Full)?;
    // The fewest blocks that must keep their inputs only, by bisection: with each more, less is needed.
    let (mut too_few, mut enough) = (1, needs.subject.decoder.num_hidden_layers);
    let mut best = smallest;
    if !fits(&best) {
        return Ok(best);
    }
    while enough - too_few > 1 {
        let full = usize::midpoint(too_few, enough);
        let measured = measure_as(needs, Checkpointing::Mixed { full })?;
        if fits(&measured) {
            (enough, best) = (full, measured);
        } else {
            too_few = full;
        }
    }
    Ok(best)
}

/// Allocates everything without allocating it.
fn measure_as(needs: &Needs<'_>, checkpointing: Checkpointing) -> Outcome<Measured> {
    let Needs { config, subject, args, max_tokens, .. } = *needs;
    let meter = Meter::default();
    let Subject { decoder, tuning, compute, .. } = subject;
    let storage = Storage {
        checkpointing,
        bf16_parameters: config.training.bf16_stochastic_round,
        quantization: subject.quantization.clone(),
    };
    let model = Decoder::allocate(&meter, decoder, tuning, *compute, max_tokens, storage.clone())
        .map_err(Failure::input)?;
    let trainable = model.parameters().iter().map(|p| p.elements() as u64).sum();
    optim::make(&meter, model.parameters(), args);
    // The model alone, in f32: four bytes a number, cache lines rounded up.
    let alone = Meter::default();
    Decoder::allocate(&alone, decoder, &Tuning::Frozen, Dtype::F32, 1, true).map_err(Failure::input)?;
    let weights = alone
        .allocated()
        .iter()
        .filter(|(class, _)| *class == MemoryClass::Weights)
        .map(|(_, b)| b)
        .sum::<u64>();
    // What reading tokenizer and data has left free would be counted, and buffers take it before they take more.
    give_back_free_memory();
    let resident = memory::rss_bytes().unwrap_or(0);
    let process = match subject.tokenizer {
        Some(_) if resident > 0 => resident.saturating_sub(needs.data),
        _ => PROCESS_BYTES,
    };
    Ok(Measured {
        memory: Memory {
            classes: meter.allocated(),
            data: needs.data,
            process: process.saturating_add(TRANSIENT_BYTES).saturating_add(whole_weight(needs)),
            kernels: kernel_scratch(needs),
            resident,
            available: needs.available,
            budget: config.training.memory_budget.and_then(|budget| budget.bytes(needs.available)),
        },
        storage,
        parameters: weights / 4,
        trainable,
        flops_per_token: model.flops_per_token(needs.length),
    })
}

/// A weight is quantised as a whole: the largest one in f32, once.
fn whole_weight(needs: &Needs<'_>) -> u64 {
    let decoder = &needs.subject.decoder;
    let largest = decoder.hidden_size.saturating_mul(decoder.intermediate_size.max(decoder.query_width()));
    if needs.subject.quantization.is_some() { 4 * largest as u64 } else { 0 }
}

/// Panels, copies and sums that products and attention keep between calls.
fn kernel_scratch(needs: &Needs<'_>) -> u64 {
    let decoder = &needs.subject.decoder;
    let widest = decoder.hidden_size.max(decoder.intermediate_size).max(decoder.query_width());
    foundry_kernels::scratch_bound(needs.threads, needs.max_tokens, widest, &decoder.attention())
}
