//! From the named files to a data set: read, tokenise, split, truncate, pack, shuffle, count.

use std::num::NonZero;

use foundry_formats::Tokenizer;

use crate::counter::{ExampleCounter, has_label};
use crate::dataset::Dataset;
use crate::error::{DataError, Place};
use crate::example::{Example, from_row};
use crate::numpy_rng::NumpyRng;
use crate::pack::{one_per_row, pack};
use crate::report::{DataReport, FileCount};
use crate::shape::Shape;
use crate::source::{Row, read_file};
use crate::spec::{DataSpec, FormatHint, Holdout};
use crate::tokenize::{Tokenized, Tokenizing};

/// Examples that each thread tokenises between two looks at the file.
const EXAMPLES_PER_THREAD: usize = 256;
/// Unused keys that the report names.
const UNUSED_KEYS_LIMIT: usize = 50;

/// Loads a data set: all files of `spec`, tokenised by `tokenizer`, as rows.
///
/// # Errors
/// Any [`DataError`]: settings that do not fit the data, files that cannot be read (file and line are named), an empty
/// data set, or one without any label.
pub fn load(spec: &DataSpec, tokenizer: &Tokenizer) -> Result<Dataset, DataError> {
    let (examples, base) = read_and_tokenize(spec, tokenizer)?;
    finish(spec, tokenizer, examples, base)
}

/// Loads a data set in two parts: for training and, held out, for evaluation.
///
/// The examples are dealt as datasets' `train_test_split(test_size, seed)` does: a NumPy permutation by `spec.seed`
/// whose first part is held out. Each part is then prepared like a data set of its own.
///
/// # Errors
/// As [`load`], and [`DataError::BadHoldout`].
pub fn load_with_holdout(
    spec: &DataSpec,
    tokenizer: &Tokenizer,
    holdout: Holdout,
) -> Result<(Dataset, Dataset), DataError> {
    let (examples, base) = read_and_tokenize(spec, tokenizer)?;
    let bad = || DataError::BadHoldout { wanted: holdout.to_string(), examples: examples.len() };
    let held_out = holdout.count(examples.len()).ok_or_else(bad)?;
    let order = NumpyRng::seeded(spec.seed).permutation(examples.len());
    let mut examples: Vec<Option<Tokenized>> = examples.into_iter().map(Some).collect();
    let mut take = |indices: &[usize]| -> Vec<Tokenized> {
        indices.iter().filter_map(|&i| examples[i].take()).collect()
    };
    let evaluation = take(&order[..held_out]);
    let training = take(&order[held_out..]);
    let training = finish(spec, tokenizer, training, base.clone())?;
    Ok((training, finish(spec, tokenizer, evaluation, base)?))
}

/// Reads all files and tokenises their examples; the report has what belongs to the files.
fn read_and_tokenize(
    spec: &DataSpec,
    tokenizer: &Tokenizer,
) -> Result<(Vec<Tokenized>, DataReport), DataError> {
    if spec.files.is_empty() {
        return Err(DataError::NoFiles);
    }
    if spec.max_length == Some(0) {
        return Err(DataError::ZeroLength);
    }
    if spec.packing && spec.max_length.is_none() {
        return Err(DataError::PackingWithoutLength);
    }
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
    let threads = spec.dataset_num_proc.unwrap_or(cores).max(1);
    let mut reading = Reading {
        spec,
        tokenizer,
        threads,
        report: DataReport::default(),
        tokenizing: None,
        waiting: Vec::new(),
        examples: Vec::new(),
    };
    for path in &spec.files {
        let before = reading.count();
        let blank = read_file(path, spec.sample_by, &mut |place, row| reading.take(place, row))?;
        reading.report.blank += blank;
        let examples = reading.count() - before;
        reading.report.files.push(FileCount { path: path.clone(), examples, tokens: 0 });
    }
    reading.flush()?;
    if reading.examples.is_empty() {
        return Err(DataError::Empty { files: spec.files.clone() });
    }
    Ok((reading.examples, reading.report))
}

/// The state between two rows.
struct Reading<'a> {
    spec: &'a DataSpec,
    tokenizer: &'a Tokenizer,
    threads: usize,
    report: DataReport,
    /// Made when the first row has shown its shape.
    tokenizing: Option<Tokenizing<'a>>,
    waiting: Vec<(Place, Example)>,
    examples: Vec<Tokenized>,
}

impl Reading<'_> {
    fn count(&self) -> usize {
        self.examples.len() + self.waiting.len()
    }

    fn take(&mut self, place: Place, row: Row) -> Result<(), DataError> {
        let shape = self.shape_of(&place, &row)?;
        let example = match row {
            Row::Text(text) => Example::Text(text),
            Row::Object(object) => {
                self.note_unused(object.keys(), shape);
                from_row(object, shape, &self.spec.text_field, &place)?
            }
        };
        self.waiting.push((place, example));
        if self.waiting.len() >= self.threads * EXAMPLES_PER_THREAD { self.flush() } else { Ok(()) }
    }

    /// The shape of this row, which must be that of the rows before it.
    fn shape_of(&mut self, place: &Place, row: &Row) -> Result<Shape, DataError> {
        let found = self.found_shape(place, row)?;
        match self.report.format {
            Some(expected) if expected != found => {
                Err(DataError::MixedShapes { place: place.clone(), expected, found })
            }
            Some(expected) => Ok(expected),
            None => {
                self.report.format = Some(found);
                self.tokenizing = Some(Tokenizing::new(self.spec, self.tokenizer, found)?);
                Ok(found)
            }
        }
    }

    fn found_shape(&self, place: &Place, row: &Row) -> Result<Shape, DataError> {
        let object = match row {
            Row::Object(object) => object,
            Row::Text(_) if matches!(self.spec.format, FormatHint::Auto | FormatHint::Text) => {
                return Ok(Shape::Text);
            }
            Row::Text(_) => {
                let shape = Shape::demanded(self.spec.format, &serde_json::Map::new()).unwrap_or(Shape::Text);
                let problem =
                    "a .txt file holds plain text; leave `format` out or name a .jsonl file".to_owned();
                return Err(DataError::BadRow { place: place.clone(), shape, problem, keys: Vec::new() });
            }
        };
        if let Some(shape) = Shape::demanded(self.spec.format, object) {
            return Ok(shape);
        }
        let keys = || object.keys().cloned().collect();
        let mut shapes = Shape::candidates(object, &self.spec.text_field);
        match (shapes.pop(), shapes.is_empty()) {
            (Some(shape), true) => Ok(shape),
            (None, _) => Err(DataError::UnknownShape { place: place.clone(), keys: keys() }),
            (Some(last), false) => match self.report.format {
                // Later rows may have more keys than the first; they keep its shape.
                Some(expected) if expected == last || shapes.contains(&expected) => Ok(expected),
                _ => {
                    shapes.push(last);
                    Err(DataError::AmbiguousShape { place: place.clone(), keys: keys(), shapes })
                }
            },
        }
    }

    fn note_unused<'k>(&mut self, keys: impl Iterator<Item = &'k String>, shape: Shape) {
        for key in keys {
            let used = shape.keys().contains(&key.as_str())
                || (shape == Shape::Text && *key == self.spec.text_field);
            if !used
                && self.report.unused_keys.len() < UNUSED_KEYS_LIMIT
                && !self.report.unused_keys.contains(key)
            {
                self.report.unused_keys.insert(key.clone());
            }
        }
    }

    fn flush(&mut self) -> Result<(), DataError> {
        let waiting = std::mem::take(&mut self.waiting);
        if let Some(tokenizing) = &self.tokenizing {
            self.examples.extend(tokenizing.run(&waiting, self.threads)?);
        }
        Ok(())
    }
}

/// Tokenised examples to rows, as TRL's `_prepare_dataset`: with packing shuffle, pack (which truncates or splits) and
/// shuffle again; without it truncate, drop what has no label and shuffle.
fn finish(
    spec: &DataSpec,
    tokenizer: &Tokenizer,
    examples: Vec<Tokenized>,
    report: DataReport,
) -> Result<Dataset, DataError> {
    let mut counter = ExampleCounter::new(spec, tokenizer, report);
    let mut sequences = Vec::with_capacity(examples.len());
    for example in examples {
        counter.example(&example);
        sequences.push(example.sequence);
    }
    let rows = if spec.packing {
        shuffle(spec, &mut sequences);
        let mut rows = pack(&sequences, spec.max_length.unwrap_or(usize::MAX), spec.packing_strategy);
        shuffle(spec, &mut rows);
        rows
    } else {
        for sequence in &mut sequences {
            sequence.tokens.truncate(counter.limit);
            sequence.labels.truncate(counter.limit);
        }
        sequences.retain(|s| has_label(&s.labels));
        shuffle(spec, &mut sequences);
        one_per_row(sequences)
    };
    rows.iter().for_each(|row| counter.row(row));
    let report = counter.report;
    if report.labelled_tokens == 0 {
        let masked = report.dropped_unlabelled + report.kept_unlabelled;
        return Err(DataError::NothingToLearn {
            examples: report.examples,
            empty: report.dropped_empty,
            masked,
        });
    }
    Ok(Dataset { rows, report })
}

/// datasets' `shuffle(seed)`.
fn shuffle<T: Default>(spec: &DataSpec, items: &mut Vec<T>) {
    if spec.shuffle_dataset {
        let order = NumpyRng::seeded(spec.seed).permutation(items.len());
        *items = order.into_iter().map(|i| std::mem::take(&mut items[i])).collect();
    }
}

#[cfg(test)]
#[path = "load_tests.rs"]
mod tests;
