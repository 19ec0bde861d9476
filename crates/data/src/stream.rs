//! Rows without ever holding the data: read, mixed, shuffled, tokenised and packed ahead of the training loop, in
//! memory that does not depend on how much data there is.
//!
//! The stream is cut into chunks of [`PACKING_CHUNK`] rows, each tokenised and packed on its own as TRL does
//! (`datasets.map` in batches of 1000), earlier where its texts reach [`CHUNK_BYTES`]. A place in the stream is the
//! pipeline's state before the chunk and the number of packed rows used of it: to go on, one chunk is made again.
//! The stream of packed rows does not depend on the number of ranks; rank r of W takes every W-th batch of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use foundry_formats::Tokenizer;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::batches::{Batches, MicroBatch};
use crate::counter::ExampleCounter;
use crate::dataset::{Dataset, PackedRow};
use crate::error::DataError;
use crate::load::{finish, rows_of, take_items, without_examples};
use crate::pack::PACKING_CHUNK;
use crate::pipeline::{HeldOut, Part, Pass, Pipeline, PipelineState};
use crate::prepare::Preparation;
use crate::report::DataReport;
use crate::spec::{DataSpec, Source};
use crate::tokens::check_holdout;

/// Bytes of text after which a chunk ends early.
pub const CHUNK_BYTES: usize = 8 << 20;
/// Chunks that wait for the training loop, one more being made.
const CHUNKS_AHEAD: usize = 1;
/// Examples that are held out, about: an evaluation is no pass over the data.
const HELD_OUT: f64 = 1000.0;

/// What is streamed, and how.
#[derive(Clone, Debug)]
pub struct StreamSpec {
    /// Sources, shapes, packing.
    pub data: DataSpec,
    /// Rows in the shuffle buffer; 0: the order of the files.
    pub shuffle_buffer: usize,
    /// Seed of the shuffle buffer and of the mixture (Hugging Face's `data_seed`).
    pub order_seed: u64,
    /// Part of the rows that is held out (for [`held_out`]), by their numbers, until about 1000 are; 0: none.
    pub eval_fraction: f64,
    /// Packed rows of an epoch, as [`count_rows`] counts them. `None`: there are no epochs.
    pub rows_per_epoch: Option<u64>,
    /// Rows of a micro-batch.
    pub batch_size: usize,
    /// This rank, below `world_size`.
    pub rank: usize,
    /// Ranks.
    pub world_size: usize,
}

impl StreamSpec {
    /// Micro-batches of an epoch on each rank, where there are epochs.
    pub fn batches_per_epoch(&self) -> Option<usize> {
        let rows = usize::try_from(self.rows_per_epoch?).unwrap_or(usize::MAX);
        Some(rows.div_ceil(self.batch_size).div_ceil(self.world_size))
    }

    fn pass(&self, epoch: u64) -> Pass {
        let part = if self.eval_fraction > 0.0 { Part::Training(self.held_out()) } else { Part::Whole };
        Pass { epoch, order_seed: Some(self.order_seed), shuffle_buffer: self.shuffle_buffer, part }
    }

    /// The part of the rows at the start of each source that has about [`HELD_OUT`] of all sources.
    fn held_out(&self) -> HeldOut {
        let sources = self.data.all_sources();
        let skipped = sources.iter().map(|source| source.skip).max().unwrap_or(0);
        let chosen = sources.iter().filter_map(|source| source.fraction).fold(1.0, f64::min);
        let rows = HELD_OUT / (self.eval_fraction * chosen * sources.len().max(1) as f64);
        HeldOut { part: self.eval_fraction, within: skipped.saturating_add(rows.ceil() as u64) }
    }
}

/// A place in the stream of packed rows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StreamState {
    /// The pass over the data, from 0.
    epoch: u64,
    /// Packed rows of this pass before the chunk.
    rows: u64,
    /// The pipeline before the chunk; `None`: at the start of the pass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pipeline: Option<PipelineState>,
    /// Packed rows of the chunk that have been used.
    used: usize,
    /// Packed rows of the epoch that have been used, where there are epochs. Without packing and mixing an epoch is a
    /// pass; else a pass in another order may have a few rows more or less, and an epoch as many as the first.
    #[serde(default, skip_serializing_if = "is_zero")]
    of_epoch: u64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl StreamState {
    const START: Self = Self { epoch: 0, rows: 0, pipeline: None, used: 0, of_epoch: 0 };
}

/// Packed rows that were made together.
#[derive(Debug)]
struct Chunk {
    /// The place before it.
    start: StreamState,
    rows: Vec<PackedRow>,
    /// Everything counted so far.
    report: DataReport,
}

/// Micro-batches from a stream; a thread works ahead.
pub struct StreamLoader {
    spec: StreamSpec,
    tokenizer: Arc<Tokenizer>,
    /// The place of the next row of the stream, wherever the thread is.
    place: StreamState,
    chunk: Vec<PackedRow>,
    report: DataReport,
    producer: Option<Producer>,
}

/// The thread that works ahead.
struct Producer {
    chunks: Receiver<Result<Chunk, DataError>>,
    stopped: Arc<AtomicBool>,
}

impl Drop for Producer {
    fn drop(&mut self) {
        // The thread ends with its next row or chunk. It is not waited for: it may be waiting for a server.
        self.stopped.store(true, Ordering::Relaxed);
    }
}

impl StreamLoader {
    /// A stream at its start. Nothing is read before the first batch is asked for.
    ///
    /// # Errors
    /// [`DataError::StreamWithoutLength`]: rows of a stream need a greatest length, for which memory is set aside.
    /// [`DataError::NotStreamed`]: settings that need all rows at once.
    pub fn new(spec: StreamSpec, tokenizer: Arc<Tokenizer>) -> Result<Self, DataError> {
        check(&spec)?;
        let report = DataReport::default();
        Ok(Self { spec, tokenizer, place: StreamState::START, chunk: Vec::new(), report, producer: None })
    }

    /// What has been noticed in the chunks that the training loop has reached.
    pub fn report(&self) -> &DataReport {
        &self.report
    }

    /// The next row of the stream, and its number in the pass.
    fn next_row(&mut self) -> Result<(u64, PackedRow), DataError> {
        while self.place.used >= self.chunk.len() {
            let from = self.place.clone();
            let producer = self.producer.get_or_insert_with(|| start(&self.spec, &self.tokenizer, from));
            let chunk = producer.chunks.recv().unwrap_or(Err(DataError::StreamEnded))?;
            self.place = StreamState { of_epoch: self.place.of_epoch, ..chunk.start };
            (self.chunk, self.report) = (chunk.rows, chunk.report);
        }
        let row = std::mem::take(&mut self.chunk[self.place.used]);
        let number = self.place.rows + self.place.used as u64;
        self.place.used += 1;
        self.place.of_epoch += u64::from(self.spec.rows_per_epoch.is_some());
        Ok((number, row))
    }

    /// An epoch ends here, and with it the batch. (Not of several ranks, which all need one: as with `even_batches`
    /// theirs goes on with the next rows.)
    fn ends_epoch(&mut self) -> bool {
        let Some(rows) = self.spec.rows_per_epoch.filter(|rows| self.place.of_epoch >= *rows) else {
            return false;
        };
        self.place.of_epoch -= rows;
        self.spec.world_size == 1
    }
}

impl Batches for StreamLoader {
    fn batches_per_epoch(&self) -> Option<usize> {
        self.spec.batches_per_epoch()
    }

    fn next_batch(&mut self) -> Result<MicroBatch, DataError> {
        let mut batch = MicroBatch::default();
        let StreamSpec { batch_size, rank, world_size, .. } = self.spec;
        for index in 0..batch_size * world_size {
            let (number, row) = self.next_row()?;
            if index / batch_size == rank {
                batch.row.append(&row);
                batch.numbers.push(number);
            }
            if self.ends_epoch() {
                break;
            }
        }
        Ok(batch)
    }

    fn state(&self) -> Value {
        serde_json::to_value(&self.place).expect("numbers and texts are plain data")
    }

    fn restore(&mut self, state: &Value) -> Result<(), DataError> {
        let place: StreamState = serde_json::from_value(state.clone())
            .map_err(|error| DataError::BadState { problem: error.to_string() })?;
        self.producer = None;
        self.chunk.clear();
        self.place = place;
        Ok(())
    }
}

/// What a stream cannot do.
fn check(stream: &StreamSpec) -> Result<(), DataError> {
    let spec = &stream.data;
    if stream.eval_fraction > 0.0 {
        check_holdout(&spec.all_sources())?;
    }
    if spec.max_length.is_none() {
        return Err(DataError::StreamWithoutLength);
    }
    // Tokens were made without duplicates where that was wanted.
    let has_text =
        spec.all_sources().iter().flat_map(|source| &source.files).any(|f| f.token_part().is_none());
    match (spec.deduplicate && has_text, spec.shuffle_dataset) {
        (true, _) => Err(DataError::NotStreamed {
            setting: "deduplicate",
            remedy: "it remembers every row; write the data once with `llm-foundry data tokenize` and train on that",
        }),
        (_, true) => Err(DataError::NotStreamed {
            setting: "shuffle_dataset",
            remedy: "it needs every row at once; use `shuffle_buffer`",
        }),
        _ => Ok(()),
    }
}

/// Starts the thread at a place.
fn start(spec: &StreamSpec, tokenizer: &Arc<Tokenizer>, from: StreamState) -> Producer {
    let (sender, chunks) = sync_channel(CHUNKS_AHEAD);
    let (spec, tokenizer) = (spec.clone(), Arc::clone(tokenizer));
    let stopped = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&stopped);
    std::thread::spawn(move || {
        if let Err(error) = produce(&spec, &tokenizer, from, &sender, seen) {
            // A receiver that is gone does not want to know.
            let _ = sender.send(Err(error));
        }
    });
    Producer { chunks, stopped }
}

/// Makes chunks until nobody wants them.
fn produce(
    spec: &StreamSpec,
    tokenizer: &Tokenizer,
    from: StreamState,
    sender: &SyncSender<Result<Chunk, DataError>>,
    stopped: Arc<AtomicBool>,
) -> Result<(), DataError> {
    let sources = spec.data.all_sources();
    let mut preparation = Preparation::new(&spec.data, &sources, tokenizer)?;
    preparation.tally.stopped = stopped;
    let counter = ExampleCounter::new(&spec.data, tokenizer, preparation.report.clone());
    let mut maker = Maker { spec, preparation, counter };
    let mut place = from;
    loop {
        let mut pipeline = Pipeline::new(&spec.data, &sources, spec.pass(place.epoch));
        if let Some(state) = &place.pipeline {
            pipeline.restore(state)?;
        }
        let before = place.rows;
        let learned = maker.counter.report.labelled_tokens;
        while let Some(rows) = maker.chunk(&mut pipeline)? {
            let next = StreamState {
                rows: place.rows + rows.len() as u64,
                pipeline: Some(pipeline.state()),
                used: 0,
                ..place
            };
            if place.used > rows.len() {
                return Err(DataError::BadState {
                    problem: format!("row {} of {} that were made together", place.used, rows.len()),
                });
            }
            let report = maker.counter.report.clone();
            if !rows.is_empty() && sender.send(Ok(Chunk { start: place, rows, report })).is_err() {
                return Ok(());
            }
            place = next;
        }
        // Without a row, or without anything to learn, the next pass would not be better.
        if before == 0 && (place.rows == 0 || maker.counter.report.labelled_tokens == learned) {
            return Err(maker.nothing());
        }
        place = StreamState { epoch: place.epoch + 1, ..StreamState::START };
    }
}

/// Makes chunks.
struct Maker<'a> {
    spec: &'a StreamSpec,
    preparation: Preparation<'a>,
    counter: ExampleCounter,
}

impl Maker<'_> {
    /// The packed rows of the next raw rows; `None` at the end of the pass.
    fn chunk(&mut self, pipeline: &mut Pipeline) -> Result<Option<Vec<PackedRow>>, DataError> {
        let items = take_items(pipeline, &mut self.preparation.tally, PACKING_CHUNK, CHUNK_BYTES)?;
        if items.is_empty() {
            return Ok(None);
        }
        let examples = self.preparation.run(items)?;
        if let Some(error) = pipeline.pending.take_if(|_| self.spec.data.packing) {
            // Packed without what comes behind the bad row, these rows would be others than those of a run that goes on
            // from here without that row.
            return Err(error);
        }
        self.counter.adopt(&self.preparation.report);
        let mut sequences = Vec::with_capacity(examples.len());
        for example in examples {
            self.counter.example(&example);
            sequences.push(example.sequence);
        }
        let rows = rows_of(&self.spec.data, sequences, self.counter.limit);
        rows.iter().for_each(|row| self.counter.row(row));
        Ok(Some(rows))
    }

    /// A pass without a row.
    fn nothing(&self) -> DataError {
        let report = &self.counter.report;
        if report.examples > 0 {
            let masked = report.dropped_unlabelled + report.kept_unlabelled;
            return DataError::NothingToLearn {
                examples: report.examples,
                empty: report.dropped_empty,
                masked,
            };
        }
        without_examples(&self.preparation.report)
    }
}

/// The first rows of a stream, and how much of the data they are.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Them, and their report.
    pub data: Dataset,
    /// Bytes of text in the raw rows of the sample.
    pub text_bytes: u64,
}

/// Makes the first chunk of a stream that has something to learn, for a plan; what is counted includes the chunks
/// before it, whose rows are left out.
///
/// # Errors
/// As [`crate::load`], for what these chunks show.
pub fn sample(spec: &StreamSpec, tokenizer: &Tokenizer) -> Result<Sample, DataError> {
    let mut kept = Vec::new();
    let (report, text_bytes) = pass_over(spec, tokenizer, 0, &mut |rows, report| {
        kept = rows;
        kept.is_empty() || report.labelled_tokens == 0
    })?;
    Ok(Sample { data: Dataset { rows: kept, report }, text_bytes })
}

/// One pass over a stream in the order of its sources, a chunk in memory at a time: `take` has the rows of each chunk
/// and says whether to go on.
///
/// # Errors
/// As [`crate::load`].
pub fn survey(
    spec: &StreamSpec,
    tokenizer: &Tokenizer,
    take: &mut dyn FnMut(Vec<PackedRow>) -> bool,
) -> Result<DataReport, DataError> {
    pass_over(spec, tokenizer, 0, &mut |rows, _| take(rows)).map(|(report, _)| report)
}

/// The packed rows of the first pass of a stream, in the order of that pass, on which packing depends. All of it is
/// read and tokenised, a chunk in memory at a time; `watch` hears how many rows there are so far.
///
/// # Errors
/// As [`crate::load`].
pub fn count_rows(
    spec: &StreamSpec,
    tokenizer: &Tokenizer,
    watch: &mut dyn FnMut(u64),
) -> Result<u64, DataError> {
    let mut count = 0;
    pass_over(spec, tokenizer, spec.shuffle_buffer, &mut |rows, _| {
        count += rows.len() as u64;
        watch(count);
        true
    })?;
    Ok(count)
}

/// The chunks of a pass until `take` has seen enough; the counts, and the bytes of text in the raw rows.
fn pass_over(
    spec: &StreamSpec,
    tokenizer: &Tokenizer,
    shuffle_buffer: usize,
    take: &mut dyn FnMut(Vec<PackedRow>, &DataReport) -> bool,
) -> Result<(DataReport, u64), DataError> {
    check(spec)?;
    let sources = spec.data.all_sources();
    let preparation = Preparation::new(&spec.data, &sources, tokenizer)?;
    let counter = ExampleCounter::new(&spec.data, tokenizer, preparation.report.clone());
    let mut maker = Maker { spec, preparation, counter };
    let mut pipeline = Pipeline::new(&spec.data, &sources, Pass { shuffle_buffer, ..spec.pass(0) });
    while let Some(rows) = maker.chunk(&mut pipeline)? {
        // Whoever has seen enough does not ask what the rest would have been.
        if !take(rows, &maker.counter.report) {
            return Ok((maker.counter.report, maker.preparation.text_bytes));
        }
    }
    if maker.counter.report.labelled_tokens == 0 {
        return Err(maker.nothing());
    }
    Ok((maker.counter.report, maker.preparation.text_bytes))
}

/// The examples that the stream leaves out for evaluation: about [`HELD_OUT`] from the start of the sources, without
/// reading the rest.
///
/// # Errors
/// As [`crate::load`].
pub fn held_out(spec: &StreamSpec, eval: &DataSpec, tokenizer: &Tokenizer) -> Result<Dataset, DataError> {
    let sources = spec.data.all_sources();
    let mut preparation = Preparation::new(eval, &sources, tokenizer)?;
    let pass = Pass { part: Part::HeldOut(spec.held_out()), ..Pass::default() };
    // All sources, each from its start, whatever their shares in the mixture.
    let in_turn: Vec<Source> =
        sources.iter().map(|source| Source { probability: None, ..source.clone() }).collect();
    let mut pipeline = Pipeline::new(eval, &in_turn, pass);
    let mut examples = Vec::new();
    loop {
        let items = take_items(&mut pipeline, &mut preparation.tally, PACKING_CHUNK, CHUNK_BYTES)?;
        if items.is_empty() {
            break;
        }
        examples.extend(preparation.run(items)?);
    }
    if examples.is_empty() {
        let wanted = format!("{} of the examples", spec.eval_fraction);
        return Err(DataError::BadHoldout { wanted, examples: 0 });
    }
    finish(eval, tokenizer, examples, preparation.report)
}

#[cfg(test)]
#[path = "stream_tests.rs"]
mod tests;
