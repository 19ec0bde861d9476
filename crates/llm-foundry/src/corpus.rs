//! The data of a run: training rows, evaluation rows, and how many of them the model sees at once.

use crate::config::{AutoOr, Config, DataSection, SourceSection};
use crate::console;
use crate::data_files::Finder;
use crate::failure::{Failure, Outcome};
use crate::hub::{Fetch, Part};
use crate::row_count::RowCount;
use foundry_data::tokens::{Indexed, IndexedTokens, are_tokens, index, index_with_holdout};
use foundry_data::{
    DataError, DataFile, DataSpec, Dataset, Decontamination, Holdout, PackedRow, Rows, Source, StreamSpec,
    count_rows, held_out, load, load_with_holdout, sample,
};
use foundry_formats::Tokenizer;
use std::sync::Arc;
use std::time::Instant;

/// Bytes of data files above which rows are streamed.
const STREAM_ABOVE: u64 = 64 << 20;

/// Loaded data.
pub(crate) struct Corpus {
    /// All rows, or, of a stream, its first ones; of indexed token files only the report.
    pub(crate) train: Dataset,
    pub(crate) eval: Option<Dataset>,
    /// Training rows are token files, read in any order.
    pub(crate) indexed: Option<Arc<IndexedTokens>>,
    /// Training rows are read while training.
    pub(crate) stream: Option<Stream>,
}

/// Training data that is not held in memory.
#[derive(Clone, Debug)]
pub(crate) struct Stream {
    pub(crate) spec: StreamSpec,
    /// Bytes of all files.
    pub(crate) file_bytes: u64,
    /// Bytes of text in the rows that `Corpus::train` shows.
    pub(crate) sampled_bytes: u64,
}

/// The files that a configuration names, all of which exist.
#[derive(Debug)]
pub(crate) struct CorpusFiles {
    train: Vec<Source>,
    eval: Vec<Source>,
    decontaminate: Option<Decontamination>,
}

impl CorpusFiles {
    /// Finds them; those of the hub are fetched where that is allowed.
    pub(crate) fn find(config: &Config, fetch: Fetch) -> Outcome<Self> {
        let data = &config.data;
        let find = |key: &str, names: &[String], part| find(data, key, names, part, fetch);
        let mut train = Vec::new();
        if data.sources.is_empty() {
            train.extend(source(data, find("data.train", &data.train.0, Meant::Train)?));
        }
        let weights: f64 = data.sources.iter().filter_map(|section| section.weight).sum();
        for (index, section) in data.sources.iter().enumerate() {
            let key = format!("data.sources.{index}.path");
            let files = find(&key, &section.path.0, Meant::Source(index, section))?;
            let Some(mut source) = source(data, files) else {
                continue;
            };
            source.format = section.format.unwrap_or(data.format).hint();
            source.text_field = section.text_field.clone().unwrap_or(source.text_field);
            if !section.columns.is_empty() {
                source.columns.clone_from(&section.columns);
            }
            let own = format!("sources.{index}.");
            source
                .given
                .extend(data.given.iter().filter_map(|key| key.strip_prefix(&own).map(str::to_owned)));
            (source.skip, source.take, source.fraction) = (section.skip, section.take, section.fraction);
            source.probability = section.weight.map(|weight| weight / weights);
            train.push(source);
        }
        let mut eval: Vec<Source> =
            source(data, find("data.eval", &data.eval.0, Meant::Eval)?).into_iter().collect();
        // What is measured is all of it, as it is.
        let of_training = ["filter", "deduplicate", "decontaminate"];
        eval.iter_mut().for_each(|source| source.given.retain(|key| !of_training.contains(&key.as_str())));
        let decontaminate = match &data.decontaminate {
            None => None,
            Some(wanted) => Some(Decontamination {
                files: find("data.decontaminate.path", &wanted.path.0, Meant::Eval)?,
                ngram: wanted.ngram,
                drop: wanted.drop,
            }),
        };
        Ok(Self { train, eval, decontaminate })
    }

    /// What the data crate is told about the training files.
    pub(crate) fn training_spec(
        self,
        config: &Config,
        eos_token_ids: Vec<u32>,
        threads: usize,
        rendered_at: Option<i64>,
    ) -> DataSpec {
        let mut spec = config.data.spec(self.train, config.training.seed, eos_token_ids, threads);
        (spec.decontaminate, spec.rendered_at) = (self.decontaminate, rendered_at);
        spec
    }

    /// Reads, tokenises and packs them; of a stream, the first rows.
    pub(crate) fn load(
        self,
        config: &Config,
        tokenizer: &Tokenizer,
        eos_token_ids: Vec<u32>,
        threads: usize,
        rendered_at: Option<i64>,
    ) -> Outcome<Corpus> {
        let data = &config.data;
        let file_bytes = bytes(&self.train)?;
        let is_tokens = are_tokens(&self.train);
        let streams = match data.streaming {
            AutoOr::Given(given) => given,
            AutoOr::Auto => file_bytes > STREAM_ABOVE && !is_tokens,
        };
        let eval = self.eval.clone();
        let spec = self.training_spec(config, eos_token_ids, threads, rendered_at);
        let eval_spec = data.eval_spec(&spec, eval);
        if streams {
            return stream(config, tokenizer, spec, &eval_spec, file_bytes);
        }
        let holdout = (data.eval_fraction > 0.0).then_some(Holdout::Fraction(data.eval_fraction));
        if is_tokens {
            return indexed(tokenizer, &spec, &eval_spec, holdout);
        }
        if let Some(holdout) = holdout {
            let (train, eval) =
                load_with_holdout(&spec, &eval_spec, tokenizer, holdout).map_err(Failure::input)?;
            return Ok(Corpus { train, eval: Some(eval), indexed: None, stream: None });
        }
        let train = load(&spec, tokenizer).map_err(Failure::input)?;
        Ok(Corpus { train, eval: eval_rows(&eval_spec, tokenizer)?, indexed: None, stream: None })
    }
}

/// Token files, whose rows stay where they are.
fn indexed(
    tokenizer: &Tokenizer,
    spec: &DataSpec,
    eval: &DataSpec,
    holdout: Option<Holdout>,
) -> Outcome<Corpus> {
    let (Indexed { rows, report }, eval) = match holdout {
        Some(holdout) => {
            let parts = index_with_holdout(spec, eval, tokenizer, holdout).map_err(Failure::input)?;
            (parts.0, Some(parts.1))
        }
        None => (index(spec, tokenizer).map_err(Failure::input)?, eval_rows(eval, tokenizer)?),
    };
    let train = Dataset { rows: Vec::new(), report };
    Ok(Corpus { train, eval, indexed: Some(rows), stream: None })
}

fn eval_rows(spec: &DataSpec, tokenizer: &Tokenizer) -> Outcome<Option<Dataset>> {
    if spec.sources.is_empty() {
        return Ok(None);
    }
    load(spec, tokenizer).map(Some).map_err(Failure::input)
}

/// Looks at the first rows of a stream.
fn stream(
    config: &Config,
    tokenizer: &Tokenizer,
    data: DataSpec,
    eval: &DataSpec,
    file_bytes: u64,
) -> Outcome<Corpus> {
    let spec = StreamSpec {
        data,
        shuffle_buffer: config.data.shuffle_buffer,
        order_seed: config.training.data_seed.unwrap_or(config.training.seed),
        eval_fraction: config.data.eval_fraction,
        rows_per_epoch: None,
        batch_size: config.training.per_device_train_batch_size,
        rank: 0,
        world_size: 1,
    };
    let first = sample(&spec, tokenizer).map_err(|error| {
        // Whoever did not ask for a stream should know what made it one.
        let is_about_streams =
            matches!(error, DataError::NotStreamed { .. } | DataError::StreamWithoutLength);
        let why = match config.data.streaming {
            AutoOr::Auto if is_about_streams => format!(
                "\n  (it is streamed because its files have {} MB; data.streaming=auto does so above {} MB)",
                file_bytes >> 20,
                STREAM_ABOVE >> 20
            ),
            _ => String::new(),
        };
        Failure::Input(format!("{error}{why}"))
    })?;
    let eval = match config.data.eval_fraction > 0.0 {
        true => {
            // What is not trained on because of its text is not measured either.
            let eval = DataSpec { filter: spec.data.filter, ..eval.clone() };
            Some(held_out(&spec, &eval, tokenizer).map_err(Failure::input)?)
        }
        false => eval_rows(eval, tokenizer)?,
    };
    let stream = Stream { spec, file_bytes, sampled_bytes: first.text_bytes };
    Ok(Corpus { train: first.data, eval, indexed: None, stream: Some(stream) })
}

/// The source that consists of these files.
fn source(data: &DataSection, files: Vec<DataFile>) -> Option<Source> {
    (!files.is_empty()).then(|| Source {
        files,
        format: data.format.hint(),
        text_field: data.text_field.clone(),
        columns: data.columns.clone(),
        given: data.given.clone(),
        ..Source::default()
    })
}

/// What files are for, which says which part of a data set of the hub is meant.
#[derive(Clone, Copy)]
enum Meant<'a> {
    Train,
    Source(usize, &'a SourceSection),
    Eval,
}

/// The files that `names` under `key` stand for.
fn find(
    data: &DataSection,
    key: &str,
    names: &[String],
    meant: Meant,
    fetch: Fetch,
) -> Outcome<Vec<DataFile>> {
    // Of the section, keys that evaluation data share need not fit both.
    let given = |key: &str, value: &Option<String>| value.as_ref().map(|_| format!("data.{key}"));
    let (name, split, revision, part_keys) = match meant {
        Meant::Train => {
            let keys =
                [given("name", &data.name), given("split", &data.split), given("revision", &data.revision)];
            let keys = if data.eval.0.is_empty() { keys } else { [None, given("split", &data.split), None] };
            (data.name.clone(), data.split.clone(), data.revision.clone(), keys.to_vec())
        }
        Meant::Source(index, section) => {
            let own = |key: &str, value: &Option<String>| {
                value.as_ref().map(|_| format!("data.sources.{index}.{key}"))
            };
            let SourceSection { name, split, revision, .. } = section;
            let keys = vec![own("name", name), own("split", split), own("revision", revision)];
            let or = |own: &Option<String>, data: &Option<String>| own.clone().or_else(|| data.clone());
            (or(name, &data.name), or(split, &data.split), or(revision, &data.revision), keys)
        }
        Meant::Eval => {
            let split = data.eval_split.clone().or(Some("test".into()));
            let keys = vec![given("eval_split", &data.eval_split)];
            (data.name.clone(), split, data.revision.clone(), keys)
        }
    };
    let part = Part {
        name,
        split: split.unwrap_or_else(|| "train".into()),
        revision: revision.unwrap_or_else(|| "main".into()),
        files: None,
    };
    Finder { key, part, part_keys: part_keys.into_iter().flatten().collect(), fetch }.expand(names)
}

fn bytes(sources: &[Source]) -> Outcome<u64> {
    let files = sources.iter().flat_map(|source| &source.files);
    files.map(|file| file.size().map_err(Failure::input)).sum()
}

impl Corpus {
    /// Rows for training; of a stream, its first ones.
    pub(crate) fn rows(&self) -> usize {
        self.indexed.as_ref().map_or(self.train.rows.len(), |rows| rows.len())
    }

    /// The training rows, which are then no longer here.
    pub(crate) fn take_rows(&mut self) -> Arc<dyn Rows> {
        match self.indexed.take() {
            Some(rows) => rows,
            None => Arc::new(std::mem::take(&mut self.train.rows)),
        }
    }

    /// Training row `index`, which must be below [`Corpus::rows`].
    pub(crate) fn row(&self, index: usize) -> Outcome<PackedRow> {
        let Some(rows) = &self.indexed else { return Ok(self.train.rows[index].clone()) };
        let mut row = PackedRow::default();
        rows.append(index, &mut row).map_err(Failure::input)?;
        Ok(row)
    }

    /// How long an epoch is, where a run over a stream is to end by epochs: as known from an earlier run, else counted
    /// by reading everything once if `counts`, else guessed. What a reader should know about it.
    pub(crate) fn find_end(
        &mut self,
        config: &Config,
        tokenizer: &Tokenizer,
        counts: bool,
        quiet: bool,
    ) -> Outcome<Option<String>> {
        let (guess, steps) = self.guess(config);
        let Some(stream) = self.stream.as_mut().filter(|_| config.training.max_steps < 1) else {
            return Ok(None);
        };
        let known = RowCount::of(&config.data, config.training.seed, stream, &self.train.rows)?;
        let (rows, note) = match known.read() {
            Some(rows) => (rows, format!("an epoch of the stream has {rows} rows, as counted before")),
            None if counts => {
                let megabytes = stream.file_bytes / 1_000_000;
                let said = format!(
                    "counting the rows of {megabytes} MB of files, as the run is to end after \
                     training.num_train_epochs={} (about {guess} rows; training.max_steps={steps} would begin at \
                     once)",
                    config.training.num_train_epochs
                );
                console::say(quiet, said);
                let began = Instant::now();
                let rows = count_rows(&stream.spec, tokenizer, &mut |_| {}).map_err(Failure::input)?;
                known.write(rows);
                let seconds = began.elapsed().as_secs_f64();
                (rows, format!("an epoch of the stream has {rows} rows, counted in {seconds:.1} s"))
            }
            None => {
                let note = format!(
                    "an epoch of the stream has about {guess} rows, a guess from the first ones and the size of the \
                     files (too low for compressed ones); `train` counts them, as training.max_steps does not say \
                     when to end"
                );
                (guess.max(1), note)
            }
        };
        stream.spec.rows_per_epoch = Some(rows);
        Ok(Some(note))
    }

    /// Micro-batches of an epoch; `None` for a stream without epochs.
    pub(crate) fn batches_per_epoch(&self, batch_size: usize) -> Option<usize> {
        match &self.stream {
            Some(stream) => stream.spec.batches_per_epoch(),
            None => Some(self.rows().div_ceil(batch_size)),
        }
    }

    /// The most tokens that a micro-batch of `batch_size` rows can have, whatever the order of the rows.
    pub(crate) fn longest_batch(&self, batch_size: usize) -> Outcome<usize> {
        if let Some(length) = self.stream.as_ref().and_then(|stream| stream.spec.data.max_length) {
            return Ok(batch_size.saturating_mul(length));
        }
        match &self.indexed {
            Some(rows) => rows.longest(batch_size).map_err(Failure::input),
            None => Ok(longest(&self.train.rows, batch_size)),
        }
    }

    /// The longest training sequence that is at hand, in tokens; of indexed rows the longest row.
    pub(crate) fn longest_sequence(&self) -> usize {
        match self.indexed {
            Some(_) => self.train.report.lengths.longest().min(self.train.report.longest_row),
            None => self.train.rows.iter().flat_map(|row| &row.seq_lens).copied().max().unwrap_or(0) as usize,
        }
    }

    /// The longest row of the evaluation data.
    pub(crate) fn longest_eval_row(&self) -> usize {
        self.eval.as_ref().map_or(0, |eval| longest(&eval.rows, 1))
    }

    /// Bytes of the rows in memory: a token id and a label for each token. Of a stream: what it holds at most three
    /// times (used, waiting, being made), text and tokens, and its shuffle buffer.
    pub(crate) fn bytes(&self) -> u64 {
        let tokens = |data: &Dataset| 8 * data.report.tokens as u64;
        let eval = self.eval.as_ref().map_or(0, tokens);
        if let Some(rows) = &self.indexed {
            // And the order of an epoch, 8 bytes a row.
            return rows.bytes() + 8 * rows.len() as u64 + eval;
        }
        let held = tokens(&self.train) + eval;
        let Some(stream) = &self.stream else { return held };
        let text = stream.sampled_bytes / (self.train.report.examples as u64).max(1);
        let buffered = text * stream.spec.shuffle_buffer as u64;
        // Values of a parsed row take about twice their text.
        held + 2 * tokens(&self.train) + 2 * (stream.sampled_bytes + buffered)
    }

    /// Rows and steps of one pass over a stream, guessed from its first rows.
    fn guess(&self, config: &Config) -> (u64, u64) {
        let Some(stream) = &self.stream else { return (self.train.rows.len() as u64, 0) };
        let passes = stream.file_bytes as f64 / stream.sampled_bytes.max(1) as f64;
        let rows = (self.train.report.rows as f64 * passes.max(1.0)).round();
        let training = &config.training;
        let of_a_step =
            training.per_device_train_batch_size.saturating_mul(training.gradient_accumulation_steps);
        (rows as u64, (rows / of_a_step.max(1) as f64).ceil() as u64)
    }
}

fn longest(rows: &[PackedRow], batch_size: usize) -> usize {
    let mut lengths: Vec<usize> = rows.iter().map(|row| row.tokens.len()).collect();
    lengths.sort_unstable_by(|a, b| b.cmp(a));
    lengths.into_iter().take(batch_size).sum()
}
