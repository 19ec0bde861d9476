//! From the named files to a data set: read, tokenise, split, truncate, pack, shuffle, count.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;

use foundry_formats::Tokenizer;

use crate::counter::{ExampleCounter, has_label};
use crate::dataset::{Dataset, PackedRow, Sequence};
use crate::error::DataError;
use crate::numpy_rng::NumpyRng;
use crate::pack::{one_per_row, pack};
use crate::pipeline::{Item, Pass, Pipeline, RowId, Tally};
use crate::prepare::Preparation;
use crate::report::DataReport;
use crate::spec::{DataSpec, Holdout};
use crate::tokenize::Tokenized;
use crate::tokens::check_holdout;

/// Rows that are read before they are tokenised.
const EXAMPLES_AT_ONCE: usize = 1024;

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
/// whose first part is held out. All rows of a conversation that is split are on the same side. Each part is then
/// prepared like a data set of its own, the held-out one as `eval` says (its sources are not read).
///
/// # Errors
/// As [`load`], [`DataError::BadHoldout`], and [`DataError::ExamplesUnknown`].
pub fn load_with_holdout(
    spec: &DataSpec,
    eval: &DataSpec,
    tokenizer: &Tokenizer,
    holdout: Holdout,
) -> Result<(Dataset, Dataset), DataError> {
    check_holdout(&spec.all_sources())?;
    let (mut rows, base) = read_and_tokenize(spec, tokenizer)?;
    let ids: Vec<(RowId, RowId)> = rows.iter().map(|row| (row.row, row.example())).collect();
    let dealt = deal(&ids, |index| rows[index].continues, spec.seed, holdout, spec.is_mixed());
    let (training, evaluation) = dealt?;
    let mut take = |indices: Vec<usize>| -> Vec<Tokenized> {
        indices.into_iter().map(|index| std::mem::take(&mut rows[index])).collect()
    };
    let (training, evaluation) = (take(training), take(evaluation));
    let training = finish(spec, tokenizer, training, base.clone())?;
    Ok((training, finish(eval, tokenizer, evaluation, base)?))
}

/// Deals rows, each known by itself and by its example, to training and evaluation: by a permutation of the examples,
/// the first ones are held out. `continues`: a row is of the same example as the one before. What a mixture repeats
/// (only with `repeats` it is looked for) is on one side, and is held out once.
pub(crate) fn deal<K: Copy + Eq + Hash>(
    rows: &[(K, K)],
    continues: impl Fn(usize) -> bool,
    seed: u64,
    holdout: Holdout,
    repeats: bool,
) -> Result<(Vec<usize>, Vec<usize>), DataError> {
    let is_first = |index: &usize| *index == 0 || !continues(*index) || rows[*index].1 != rows[*index - 1].1;
    let starts: Vec<usize> = (0..rows.len()).filter(is_first).collect();
    let rows_of = |part: usize| starts[part]..starts.get(part + 1).copied().unwrap_or(rows.len());
    // The parts of each example, in which it comes again or is continued apart.
    let mut examples: Vec<Vec<usize>> = Vec::new();
    if repeats {
        let mut numbers: HashMap<K, usize> = HashMap::new();
        for (part, &start) in starts.iter().enumerate() {
            let number = *numbers.entry(rows[start].1).or_insert(examples.len());
            examples.resize_with(examples.len().max(number + 1), Vec::new);
            examples[number].push(part);
        }
    }
    let count = if repeats { examples.len() } else { starts.len() };
    let bad = || DataError::BadHoldout { wanted: holdout.to_string(), examples: count };
    let wanted = holdout.count(count).ok_or_else(bad)?;
    let order = NumpyRng::seeded(seed).permutation(count);
    let (mut training, mut evaluation) = (Vec::new(), Vec::new());
    if !repeats {
        evaluation.extend(order[..wanted].iter().flat_map(|&part| rows_of(part)));
        training.extend(order[wanted..].iter().flat_map(|&part| rows_of(part)));
        return Ok((training, evaluation));
    }
    let (mut held_out, mut measured) = (HashSet::new(), HashSet::new());
    for part in order[..wanted].iter().flat_map(|&number| &examples[number]) {
        held_out.insert(*part);
        evaluation.extend(rows_of(*part).filter(|&row| !measured.contains(&rows[row].0)));
        measured.extend(rows_of(*part).map(|row| rows[row].0));
    }
    let parts = NumpyRng::seeded(seed).permutation(starts.len()).into_iter();
    training.extend(parts.filter(|part| !held_out.contains(part)).flat_map(rows_of));
    Ok((training, evaluation))
}

/// Reads all files and tokenises their examples; the report has what belongs to the files.
fn read_and_tokenize(
    spec: &DataSpec,
    tokenizer: &Tokenizer,
) -> Result<(Vec<Tokenized>, DataReport), DataError> {
    let sources = spec.all_sources();
    let mut preparation = Preparation::new(spec, &sources, tokenizer)?;
    let mut pipeline = Pipeline::new(spec, &sources, Pass::default());
    let mut examples = Vec::new();
    loop {
        let items = take_items(&mut pipeline, &mut preparation.tally, EXAMPLES_AT_ONCE, usize::MAX)?;
        let is_end = items.is_empty();
        examples.extend(preparation.run(items)?);
        if is_end {
            break;
        }
    }
    if examples.is_empty() {
        return Err(without_examples(&preparation.report));
    }
    Ok((examples, preparation.report))
}

/// The error of data without a single example.
pub(crate) fn without_examples(report: &DataReport) -> DataError {
    let DataReport { skipped, filtered, deduplicated, .. } = *report;
    let contaminated = report.contaminated.unwrap_or(0);
    if skipped == 0 && filtered + deduplicated + contaminated == 0 {
        return DataError::Empty { files: report.files.iter().map(|file| file.path.clone()).collect() };
    }
    let first = report.problems.first().map_or_else(String::new, |problem| format!("\n  {problem}"));
    DataError::AllLeftOut { skipped, filtered, deduplicated, contaminated, first }
}

/// Up to `count` rows, or as many as have `bytes` bytes of text.
pub(crate) fn take_items(
    pipeline: &mut Pipeline,
    tally: &mut Tally,
    count: usize,
    bytes: usize,
) -> Result<Vec<Item>, DataError> {
    if let Some(error) = pipeline.pending.take() {
        return Err(error);
    }
    let (mut items, mut size) = (Vec::new(), 0);
    while items.len() < count && size < bytes {
        match pipeline.next(tally) {
            Ok(Some(item)) => {
                size += item.row.size();
                items.push(item);
            }
            Ok(None) => break,
            // What is wrong with the rows before it comes first.
            Err(error) if !items.is_empty() => {
                pipeline.pending = Some(error);
                break;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(items)
}

/// Tokenised examples to rows, as TRL's `_prepare_dataset`: with packing shuffle, pack (which truncates or splits) and
/// shuffle again; without it truncate, drop what has no label and shuffle.
pub(crate) fn finish(
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
    shuffle_if(spec.packing, spec, &mut sequences);
    let mut rows = rows_of(spec, sequences, counter.limit);
    // Without packing rows are examples, so that it does not matter which of them is shuffled.
    shuffle_if(true, spec, &mut rows);
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

/// Rows of sequences: packed (which truncates or splits), or truncated to `limit` and without those that have no label.
pub(crate) fn rows_of(spec: &DataSpec, mut sequences: Vec<Sequence>, limit: usize) -> Vec<PackedRow> {
    if spec.packing {
        return pack(&sequences, spec.max_length.unwrap_or(usize::MAX), spec.packing_strategy);
    }
    for sequence in &mut sequences {
        sequence.tokens.truncate(limit);
        sequence.labels.truncate(limit);
    }
    sequences.retain(|s| has_label(&s.labels));
    one_per_row(sequences)
}

/// datasets' `shuffle(seed)`.
fn shuffle_if<T: Default>(wanted: bool, spec: &DataSpec, items: &mut Vec<T>) {
    if wanted && spec.shuffle_dataset {
        let order = NumpyRng::seeded(spec.seed).permutation(items.len());
        *items = order.into_iter().map(|i| std::mem::take(&mut items[i])).collect();
    }
}

#[cfg(test)]
#[path = "load_tests.rs"]
mod tests;
