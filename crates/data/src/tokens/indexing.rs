//! From directories of token files to [`IndexedTokens`]: which documents, which are held out, and what is counted.

use std::sync::Arc;

use foundry_formats::Tokenizer;

use super::indexed::{Files, IndexedTokens, Look, PieceOf};
use super::set::check_holdout;
use crate::batches::Rows as _;
use crate::counter::ExampleCounter;
use crate::dataset::Dataset;
use crate::error::DataError;
use crate::load::{deal, finish, without_examples};
use crate::pipeline::{Pass, Pipeline, Tally};
use crate::prepare::Preparation;
use crate::report::DataReport;
use crate::spec::{DataSpec, Holdout, Source};
use crate::tokenize::Tokenized;

/// Tokens up to which everything is read for the report; of more, as many are read here and there.
const READ_FOR_REPORT: u64 = 1 << 24;

/// Rows of token files, and what is known of them.
#[derive(Debug)]
pub struct Indexed {
    /// The rows.
    pub rows: Arc<IndexedTokens>,
    /// Lengths and masks are counted in all documents; ends, duplicates and double BOS tokens in
    /// [`DataReport::examined`] of them.
    pub report: DataReport,
}

/// Whether all data are token files, so that [`index`] can have them.
pub fn are_tokens(sources: &[Source]) -> bool {
    let mut files = sources.iter().flat_map(|source| &source.files).peekable();
    files.peek().is_some() && files.all(|file| file.token_part().is_some())
}

/// Indexes token files: the rows that [`crate::load`] makes of them, without reading their tokens.
///
/// # Errors
/// As [`crate::load`]; [`DataError::TooManyDocuments`].
pub fn index(spec: &DataSpec, tokenizer: &Tokenizer) -> Result<Indexed, DataError> {
    let sources = spec.all_sources();
    let report = Preparation::new(spec, &sources, tokenizer)?.report;
    let files = Arc::new(Files::open(&sources)?);
    let documents = chosen(spec, &sources, &files)?;
    indexed(spec, tokenizer, &files, documents, report)
}

/// Indexes token files in two parts, as [`crate::load_with_holdout`] does; the part that is held out is loaded.
///
/// # Errors
/// As [`index`] and [`crate::load_with_holdout`].
pub fn index_with_holdout(
    spec: &DataSpec,
    eval: &DataSpec,
    tokenizer: &Tokenizer,
    holdout: Holdout,
) -> Result<(Indexed, Dataset), DataError> {
    let sources = spec.all_sources();
    check_holdout(&sources)?;
    let report = Preparation::new(spec, &sources, tokenizer)?.report;
    let files = Arc::new(Files::open(&sources)?);
    let documents = chosen(spec, &sources, &files)?;
    let mut examples = documents.clone();
    if files.have_continued() {
        let mut look = files.look()?;
        for document in &mut examples {
            *document = look.example(*document)?;
        }
    }
    let rows: Vec<(u32, u32)> = documents.into_iter().zip(examples).collect();
    let continues = |index: usize| rows[index].0 != rows[index].1;
    let (training, evaluation) = deal(&rows, continues, spec.seed, holdout, spec.is_mixed())?;
    let numbers = |indices: Vec<usize>| indices.into_iter().map(|index| rows[index].0).collect::<Vec<u32>>();
    let (training, evaluation) = (numbers(training), numbers(evaluation));
    let mut held_out = Vec::with_capacity(evaluation.len());
    for document in evaluation {
        held_out.push(tokenized(&files, document, tokenizer)?);
    }
    let held_out = finish(eval, tokenizer, held_out, report.clone())?;
    Ok((indexed(spec, tokenizer, &files, training, report)?, held_out))
}

/// The documents that a run uses, in the order in which they are read.
fn chosen(spec: &DataSpec, sources: &[Source], files: &Files) -> Result<Vec<u32>, DataError> {
    let mut pipeline = Pipeline::new(spec, sources, Pass::default());
    let mut tally = Tally { on_error: spec.on_error, ..Tally::default() };
    let mut documents = Vec::new();
    while let Some(item) = pipeline.next(&mut tally)? {
        documents.push(files.number(item.id.source, item.id.file, item.id.at.offset));
    }
    documents.shrink_to_fit();
    Ok(documents)
}

fn indexed(
    spec: &DataSpec,
    tokenizer: &Tokenizer,
    files: &Arc<Files>,
    documents: Vec<u32>,
    report: DataReport,
) -> Result<Indexed, DataError> {
    if documents.is_empty() {
        return Err(without_examples(&report));
    }
    let mut counter = ExampleCounter::new(spec, tokenizer, report);
    count_documents(spec, files, &documents, tokenizer, &mut counter)?;
    let rows = IndexedTokens::arrange(files, documents, spec)?;
    count_rows(&rows, files, &mut counter.report)?;
    let report = counter.report;
    if report.labelled_tokens == 0 {
        let masked = report.dropped_unlabelled + report.kept_unlabelled;
        return Err(DataError::NothingToLearn {
            examples: report.examples,
            empty: report.dropped_empty,
            masked,
        });
    }
    Ok(Indexed { rows: Arc::new(rows), report })
}

/// Counts documents: all of them by their lengths and masks, and what only tokens tell in as many as are read.
fn count_documents(
    spec: &DataSpec,
    files: &Files,
    documents: &[u32],
    tokenizer: &Tokenizer,
    counter: &mut ExampleCounter,
) -> Result<(), DataError> {
    let mut look = files.look()?;
    let mut tokens = 0_u64;
    for &document in documents {
        counter.report.files[files.place(document).0].examples += 1;
        tokens += look.len(document)? as u64;
    }
    let every = tokens.div_ceil(READ_FOR_REPORT).max(1) as usize;
    if every == 1 {
        for &document in documents {
            counter.example(&tokenized(files, document, tokenizer)?);
        }
        return Ok(());
    }
    let mut sample = ExampleCounter::new(spec, tokenizer, counter.report.clone());
    for &document in documents.iter().step_by(every) {
        sample.example(&tokenized(files, document, tokenizer)?);
    }
    for &document in documents {
        let len = look.len(document)?;
        let has_label = look.learned(document, 0..counter.limit)? > 0;
        counter.lengths(files.place(document), len, has_label);
    }
    extrapolate(&mut counter.report, &sample.report);
    Ok(())
}

/// What only tokens tell, from a sample.
fn extrapolate(report: &mut DataReport, sample: &DataReport) {
    // Rounded up: what was seen once is there.
    let scaled = |count: usize, of: usize, to: usize| {
        (count as u128 * to as u128).div_ceil(of.max(1) as u128) as usize
    };
    for (all, seen) in report.sources.iter_mut().zip(&sample.sources) {
        all.eos_trained = scaled(seen.eos_trained, seen.learned, all.learned);
    }
    report.eos_trained = report.sources.iter().map(|source| source.eos_trained).sum();
    report.double_bos = scaled(sample.double_bos, sample.examples, report.examples);
    (report.duplicates, report.compared) = (sample.duplicates, sample.compared);
    report.examined = Some(sample.examples);
}

/// Counts the rows.
fn count_rows(rows: &IndexedTokens, files: &Files, report: &mut DataReport) -> Result<(), DataError> {
    let (mut lengths, mut masks) = (files.look()?, files.look()?);
    report.rows = rows.len();
    for row in 0..rows.len() {
        let pieces = rows.pieces(row, |document| lengths.len(document))?;
        let tokens: usize = pieces.iter().map(|piece| piece.part.len()).sum();
        report.sequences += if rows.is_wrapped() { 1 } else { pieces.len() };
        report.tokens += tokens;
        report.longest_row = report.longest_row.max(tokens);
        report.labelled_tokens += labelled(&pieces, rows.is_wrapped(), &mut masks)?;
    }
    Ok(())
}

/// Labels of a row that count: the first of each sequence does not.
fn labelled(pieces: &[PieceOf], is_wrapped: bool, look: &mut Look<'_>) -> Result<usize, DataError> {
    let mut labelled = 0;
    for (index, PieceOf { document, part }) in pieces.iter().enumerate() {
        let begins = index == 0 || !is_wrapped;
        labelled += look.learned(*document, part.start + usize::from(begins)..part.end)?;
    }
    Ok(labelled)
}

/// A whole document, as it is prepared for a data set in memory.
fn tokenized(files: &Files, document: u32, tokenizer: &Tokenizer) -> Result<Tokenized, DataError> {
    let (sequence, _) = files.whole(document)?;
    let bos = tokenizer.bos_token_id();
    let double_bos = bos.is_some_and(|bos| sequence.tokens.starts_with(&[bos, bos]));
    let (file_number, source_number) = files.place(document);
    Ok(Tokenized { sequence, double_bos, file_number, source_number, ..Tokenized::default() })
}
