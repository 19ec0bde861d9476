//! Raw rows to tokenised examples: columns, shape, filters, and the policy for rows that cannot be used.

use std::sync::atomic::{AtomicUsize, Ordering};

use foundry_formats::Tokenizer;
use serde_json::{Map, Value};

use crate::chat::limits;
use crate::error::{DataError, Place};
use crate::example::{Example, from_row, kind};
use crate::filter::{Deduplication, NgramSet};
use crate::pipeline::{Item, Pass, Pipeline, RowId, SourceStream, Tally};
use crate::report::{DataReport, FileCount, SourceCount};
use crate::shape::Shape;
use crate::source::Row;
use crate::spec::{DataSpec, Decontamination, FormatHint, Source};
use crate::tokenize::{Tokenized, Tokenizing};
use crate::tokens::{TokenRow, check_source};

/// Examples that a thread takes at once.
const EXAMPLES_OF_A_PART: usize = 16;
/// Unused keys that the report names.
const UNUSED_KEYS_LIMIT: usize = 50;

/// What is done with the rows of a source.
struct Plan<'a> {
    shape: Shape,
    /// `None` for rows that were tokenised before.
    tokenizing: Option<Tokenizing<'a>>,
}

/// A row that waits to be tokenised.
struct Waiting {
    id: RowId,
    /// The number of its file among all files.
    file: usize,
    place: Place,
    example: Kept,
}

/// A row that stays.
enum Kept {
    Example(Example),
    Tokens(TokenRow),
}

/// Everything between raw rows and tokenised examples.
pub(crate) struct Preparation<'a> {
    spec: &'a DataSpec,
    tokenizer: &'a Tokenizer,
    sources: &'a [Source],
    /// Shape and tokenisation of each source; `None` before its first row.
    plans: Vec<Option<Plan<'a>>>,
    bos: Option<u32>,
    threads: usize,
    deduplication: Option<Deduplication>,
    evaluation: Option<NgramSet>,
    pub(crate) tally: Tally,
    pub(crate) report: DataReport,
    /// Bytes of text in the rows so far.
    pub(crate) text_bytes: u64,
    /// Place of the first file of each source in `report.files`.
    files: Vec<usize>,
}

impl<'a> Preparation<'a> {
    /// Looks at the first row of each source, which decides over its shape.
    pub(crate) fn new(
        spec: &'a DataSpec,
        sources: &'a [Source],
        tokenizer: &'a Tokenizer,
    ) -> Result<Self, DataError> {
        check(spec, sources)?;
        let threads = match spec.dataset_num_proc {
            Some(threads) => threads.max(1),
            None => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        };
        let mut report = DataReport::default();
        let mut files = Vec::with_capacity(sources.len());
        for source in sources {
            let first = source.files.first().map(|file| file.path().to_path_buf());
            report.sources.push(SourceCount { first: first.unwrap_or_default(), ..SourceCount::default() });
            files.push(report.files.len());
            for file in &source.files {
                report.files.push(FileCount { path: file.path().to_path_buf(), examples: 0, tokens: 0 });
            }
        }
        let evaluation =
            spec.decontaminate.as_ref().map(|wanted| evaluation_texts(spec, wanted, &mut report));
        let evaluation = evaluation.transpose()?;
        let mut preparation = Self {
            spec,
            tokenizer,
            sources,
            plans: Vec::new(),
            bos: tokenizer.bos_token_id(),
            threads,
            deduplication: spec.deduplicate.then(Deduplication::default),
            evaluation,
            tally: Tally { on_error: spec.on_error, ..Tally::default() },
            report,
            text_bytes: 0,
            files,
        };
        for index in 0..sources.len() {
            let plan = preparation.plan(index)?;
            preparation.plans.push(None);
            if let Some(plan) = plan {
                preparation.adopt(index, plan);
            }
        }
        Ok(preparation)
    }

    /// The shape of a source by its first row of a known one.
    fn plan(&self, index: usize) -> Result<Option<Plan<'a>>, DataError> {
        let source = &self.sources[index];
        if let Some(shape) = check_source(self.spec, source, self.tokenizer)? {
            return Ok(Some(Plan { shape, tokenizing: None }));
        }
        let mut stream =
            SourceStream::new(index, source.clone(), self.spec.sample_by, self.spec.seed, Default::default());
        // What is left out is counted when the rows are read for good.
        let mut tally = Tally { on_error: self.spec.on_error, ..Tally::default() };
        while let Some(mut item) = stream.next(&mut tally)? {
            let shape = rename(source, &mut item).and_then(|()| found_shape(source, None, &item));
            match shape {
                Ok(shape) => return self.plan_for(shape).map(Some),
                Err(error) => tally.refuse(error)?,
            }
        }
        Ok(None)
    }

    fn plan_for(&self, shape: Shape) -> Result<Plan<'a>, DataError> {
        Ok(Plan { shape, tokenizing: Some(Tokenizing::new(self.spec, self.tokenizer, shape)?) })
    }

    fn adopt(&mut self, index: usize, plan: Plan<'a>) {
        self.report.format.get_or_insert(plan.shape);
        self.report.sources[index].format = Some(plan.shape);
        self.plans[index] = Some(plan);
    }

    /// Tokenises rows, in their order whatever the number of threads; those that are left out are counted.
    pub(crate) fn run(&mut self, items: Vec<Item>) -> Result<Vec<Tokenized>, DataError> {
        let mut examples = Vec::with_capacity(items.len());
        for item in items {
            let id = item.id;
            self.text_bytes += item.row.size() as u64;
            match self.example(item) {
                Ok(Some((place, example))) => {
                    let file = self.files[id.source] + id.file;
                    self.report.files[file].examples += 1;
                    examples.push(Waiting { id, file, place, example });
                }
                Ok(None) => {}
                Err(error) => self.tally.refuse(error)?,
            }
        }
        let mut tokenized = Vec::with_capacity(examples.len());
        for (result, from) in self.tokenize(&examples).into_iter().zip(&examples) {
            let since_example = match &from.example {
                Kept::Tokens(document) => document.since_example(),
                Kept::Example(_) => 0,
            };
            match result {
                Ok(rows) => tokenized.extend(rows.into_iter().enumerate().map(|(index, row)| Tokenized {
                    continues: index > 0 || since_example > 0,
                    source_number: from.id.source,
                    file_number: from.file,
                    row: from.id,
                    since_example,
                    ..row
                })),
                Err(error) => self.tally.refuse(error)?,
            }
        }
        self.report.blank = self.tally.blank;
        self.report.skipped = self.tally.skipped;
        self.report.rests = self.tally.rests;
        self.report.problems.clone_from(&self.tally.problems);
        Ok(tokenized)
    }

    /// One row as an example, unless it is filtered out.
    fn example(&mut self, mut item: Item) -> Result<Option<(Place, Kept)>, DataError> {
        let source = &self.sources[item.id.source];
        rename(source, &mut item)?;
        let expected = self.plans[item.id.source].as_ref().map(|plan| plan.shape);
        let shape = found_shape(source, expected, &item)?;
        if expected.is_none() {
            // A first look that found no usable row was at other rows.
            let plan = self.plan_for(shape)?;
            self.adopt(item.id.source, plan);
        }
        if let Some(expected) = expected.filter(|expected| *expected != shape) {
            return Err(DataError::MixedShapes { place: item.place, expected, found: shape });
        }
        let Item { place, row, .. } = item;
        let example = match row {
            Row::Text(text) => Example::Text(text),
            Row::Tokens(document) => return Ok(Some((place, Kept::Tokens(document)))),
            Row::Object(object) => {
                note_unused(&mut self.report, &object, shape, source);
                from_row(object, shape, &source.text_field, &place)?
            }
        };
        Ok(self.keeps(&example).then_some((place, Kept::Example(example))))
    }

    fn keeps(&mut self, example: &Example) -> bool {
        if !self.spec.filter.keeps(example) {
            self.report.filtered += 1;
            return false;
        }
        if self.deduplication.as_mut().is_some_and(|seen| !seen.is_new(example)) {
            self.report.deduplicated += 1;
            return false;
        }
        if let (Some(evaluation), Some(wanted)) = (&self.evaluation, &self.spec.decontaminate) {
            let touches = evaluation.touches(example);
            *self.report.contaminated.get_or_insert(0) += usize::from(touches);
            return !(touches && wanted.drop);
        }
        true
    }

    /// Tokenises on all threads; results are in the order of the examples.
    fn tokenize(&self, examples: &[Waiting]) -> Vec<Result<Vec<Tokenized>, DataError>> {
        let one = |waiting: &Waiting| match &waiting.example {
            Kept::Example(example) => {
                let plan = self.plans[waiting.id.source].as_ref().and_then(|plan| plan.tokenizing.as_ref());
                plan.expect("a source with a row has a plan").example(example, &waiting.place)
            }
            Kept::Tokens(document) => {
                document.sequence().map(|sequence| vec![Tokenized::before(sequence, self.bos)])
            }
        };
        let plans = self.plans.iter().flatten().filter_map(|plan| plan.tokenizing.as_ref());
        let is_deep = plans.into_iter().any(Tokenizing::needs_deep_stack);
        in_parts(examples, self.threads, is_deep, one)
    }
}

/// Applies `one` to all items on `threads` threads, which take a part after the other: a long one does not keep others
/// waiting. Results are in the order of the items. `is_deep`: on threads with room for templates that need it.
fn in_parts<T: Sync, R: Send>(
    items: &[T],
    threads: usize,
    is_deep: bool,
    one: impl Fn(&T) -> R + Sync,
) -> Vec<R> {
    let parts: Vec<&[T]> = items.chunks(EXAMPLES_OF_A_PART).collect();
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(part) = parts.get(number) else { return done };
            done.push((number, part.iter().map(&one).collect::<Vec<R>>()));
        }
    };
    let threads = threads.min(parts.len());
    let mut done = std::thread::scope(|scope| {
        let spawned = if is_deep { threads } else { threads.saturating_sub(1) };
        // Where the system gives no more threads, fewer do the work.
        let start =
            |_| limits::thread(is_deep).spawn_scoped(scope, || limits::on_its_stack(is_deep, work)).ok();
        let started: Vec<_> = (0..spawned).filter_map(start).collect();
        let mut done = if is_deep && !started.is_empty() { Vec::new() } else { work() };
        for thread in started {
            done.extend(thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        }
        done
    });
    done.sort_by_key(|(number, _)| *number);
    done.into_iter().flat_map(|(_, results)| results).collect()
}

/// Settings that no data fits.
fn check(spec: &DataSpec, sources: &[Source]) -> Result<(), DataError> {
    if sources.iter().all(|source| source.files.is_empty()) {
        return Err(DataError::NoFiles);
    }
    if spec.max_length == Some(0) {
        return Err(DataError::ZeroLength);
    }
    if spec.packing && spec.max_length.is_none() {
        return Err(DataError::PackingWithoutLength);
    }
    let given: Vec<f64> = sources.iter().filter_map(|source| source.probability).collect();
    let is_one = given.iter().all(|p| p.is_finite() && *p > 0.0);
    if !given.is_empty() && (given.len() < sources.len() || !is_one) {
        return Err(DataError::BadProbabilities { sources: sources.len(), given });
    }
    Ok(())
}

/// The runs of words of the evaluation data; what cannot be read of it is in the report.
fn evaluation_texts(
    spec: &DataSpec,
    wanted: &Decontamination,
    report: &mut DataReport,
) -> Result<NgramSet, DataError> {
    let source = Source { files: wanted.files.clone(), ..Source::default() };
    let mut pipeline = Pipeline::new(spec, &[source], Pass::default());
    let mut tally = Tally { on_error: spec.on_error, ..Tally::default() };
    let mut set = NgramSet::new(wanted.ngram);
    while let Some(item) = pipeline.next(&mut tally)? {
        match item.row {
            Row::Object(object) => set.add(&Value::Object(object)),
            Row::Text(text) => set.add(&Value::String(text)),
            Row::Tokens(_) => {
                return Err(DataError::TokensWithoutText { path: item.place.path.to_path_buf() });
            }
        }
    }
    report.decontaminated = wanted.drop;
    (report.evaluation_skipped, report.evaluation_problems) = (tally.skipped, tally.problems);
    Ok(set)
}

/// Gives columns the names that the shapes know.
fn rename(source: &Source, item: &mut Item) -> Result<(), DataError> {
    let Row::Object(object) = &mut item.row else { return Ok(()) };
    let mut renamed: Vec<(&String, Value)> = Vec::new();
    for (name, column) in &source.columns {
        let Some(value) = object.remove(column) else {
            let keys = object.keys().cloned().collect();
            let (name, column) = (name.clone(), column.clone());
            return Err(DataError::NoColumn { place: item.place.clone(), name, column, keys });
        };
        renamed.push((name, value));
    }
    object.extend(renamed.into_iter().map(|(name, value)| (name.clone(), value)));
    Ok(())
}

/// The shape of a row; `expected` is that of the rows before it.
fn found_shape(source: &Source, expected: Option<Shape>, item: &Item) -> Result<Shape, DataError> {
    let place = &item.place;
    let object = match &item.row {
        Row::Object(object) => object,
        Row::Tokens(_) => return Ok(expected.unwrap_or(Shape::Text)),
        Row::Text(_) if matches!(source.format, FormatHint::Auto | FormatHint::Text) => {
            return Ok(Shape::Text);
        }
        Row::Text(_) => {
            let shape = Shape::demanded(source.format, &Map::new()).unwrap_or(Shape::Text);
            let problem = "a .txt file holds plain text; leave `format` out or name a .jsonl file".to_owned();
            return Err(DataError::BadRow { place: place.clone(), shape, problem, keys: Vec::new() });
        }
    };
    if let Some(shape) = Shape::demanded(source.format, object) {
        return Ok(shape);
    }
    let keys = || object.keys().cloned().collect();
    let mut shapes = Shape::candidates(object, &source.text_field);
    // Whoever maps columns has said what is to be learned.
    if expected.is_none() && source.columns.is_empty() && is_preference(object) {
        return Err(DataError::PreferencePairs { place: place.clone(), shape: shapes.pop() });
    }
    match (shapes.pop(), shapes.is_empty()) {
        (Some(shape), true) => Ok(shape),
        // What is wrong with the values is said when they are taken.
        (None, _) if expected.is_some() => Ok(expected.unwrap_or(Shape::Text)),
        (None, _) => {
            let is_odd = |(key, value): &(&String, &Value)| value.is_null() || **key == source.text_field;
            let values = object.iter().filter(is_odd).take(UNUSED_KEYS_LIMIT);
            let values = values.map(|(key, value)| format!("`{key}` is {}", kind(value))).collect();
            Err(DataError::UnknownShape { place: place.clone(), keys: keys(), values })
        }
        (Some(last), false) => match expected {
            // Later rows may have more keys than the first; they keep its shape.
            Some(expected) if expected == last || shapes.contains(&expected) => Ok(expected),
            _ => {
                shapes.push(last);
                Err(DataError::AmbiguousShape { place: place.clone(), keys: keys(), shapes })
            }
        },
    }
}

/// Whether a row says which of two answers is the better one.
fn is_preference(object: &Map<String, Value>) -> bool {
    ["chosen", "rejected"].iter().all(|key| object.get(*key).is_some_and(|value| !value.is_null()))
}

fn note_unused(report: &mut DataReport, object: &Map<String, Value>, shape: Shape, source: &Source) {
    for key in object.keys() {
        let used =
            shape.keys().contains(&key.as_str()) || (shape == Shape::Text && *key == source.text_field);
        let is_news = !used && !report.unused_keys.contains(key);
        if is_news && report.unused_keys.len() < UNUSED_KEYS_LIMIT {
            report.unused_keys.insert(key.clone());
        }
    }
}
