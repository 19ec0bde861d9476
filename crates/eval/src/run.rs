//! One task on one model: documents → prompts → requests → answers → metrics.

use crate::document::{Reading, Score, Scores};
use crate::fewshot::Examples;
use crate::native::Native;
use crate::prompt::{Context, PromptStyle, context};
use crate::request::{Request, answered, check_generation};
use crate::scoring::{Answers, right_choice, scores};
use crate::task::{OutputType, TaskSpec};
use crate::{Conventions, EvalError, LanguageModel, Metric, Sample, TaskResult};
use serde_json::{Map, Value};

/// Where documents come from.
pub trait Documents {
    /// All documents of a split of the task's data set, each an object.
    ///
    /// # Errors
    /// What is wrong with the data and what to do, for people.
    fn split(&mut self, task: &TaskSpec, split: &str) -> Result<Vec<Value>, String>;
}

/// How many documents of each task.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Limit {
    /// This many.
    Count(usize),
    /// This share of them, rounded up.
    Fraction(f64),
}

impl Limit {
    fn of(self, documents: usize) -> usize {
        match self {
            Self::Count(count) => count.min(documents),
            Self::Fraction(share) => ((documents as f64 * share).ceil() as usize).min(documents),
        }
    }
}

/// What a run may change about a task.
#[derive(Clone)]
pub struct RunOptions<'a> {
    /// Examples before each question in place of the task's number, unless that is 0.
    pub num_fewshot: Option<usize>,
    /// The first documents only.
    pub limit: Option<Limit>,
    /// How prompts are put together.
    pub style: PromptStyle<'a>,
    /// Of the examples' drawing; lm_eval's default is 1234.
    pub fewshot_seed: u64,
    /// Of drawn tokens.
    pub seed: u64,
    /// Over the task's `generation_kwargs`.
    pub gen_kwargs: Map<String, Value>,
    /// Samples for standard errors that have no formula; 0: no standard errors at all.
    pub bootstrap_iterations: usize,
    /// Keep each document with its prompt and answer.
    pub log_samples: bool,
}

impl Default for RunOptions<'_> {
    fn default() -> Self {
        Self {
            num_fewshot: None,
            limit: None,
            style: PromptStyle::default(),
            fewshot_seed: 1234,
            seed: 0,
            gen_kwargs: Map::new(),
            bootstrap_iterations: 100_000,
            log_samples: false,
        }
    }
}

/// A document with what is asked about it.
pub(crate) struct Asked<'a> {
    /// Its number in the split.
    pub(crate) index: usize,
    pub(crate) document: &'a Value,
    pub(crate) requests: Vec<Request>,
}

/// A task with its data.
struct Prepared {
    spec: TaskSpec,
    split: String,
    /// All documents of the split.
    all: Vec<Value>,
    /// What examples are drawn from.
    pool: Vec<Value>,
    num_fewshot: usize,
}

/// Evaluates a task.
///
/// # Errors
/// Data, templates or a model that cannot be used.
pub fn evaluate_task(
    spec: &TaskSpec,
    model: &mut dyn LanguageModel,
    conventions: &Conventions,
    documents: &mut dyn Documents,
    options: &RunOptions<'_>,
) -> Result<TaskResult, EvalError> {
    let prepared = prepared(spec, documents, options)?;
    let Prepared { spec, all, .. } = &prepared;
    let count = options.limit.map_or(all.len(), |limit| limit.of(all.len()));
    let (reading, asked) = prepared.ask(count, options)?;
    let unanswerable = unanswerable(&reading, &asked, all.len())?;
    let (answers, truncated) = answered(spec, model, conventions, &asked, options.seed)?;
    let (metrics, samples) = judged(&reading, &asked, &answers, options)?;
    Ok(TaskResult {
        task: spec.name.clone(),
        alias: spec.alias.clone(),
        version: spec.version.clone(),
        num_fewshot: prepared.num_fewshot,
        samples: count,
        original: all.len(),
        truncated,
        unanswerable,
        metrics,
        logged: samples,
        config: spec.dump(prepared.num_fewshot),
    })
}

/// Reads a task's data and puts its first question together, so that what is wrong with either is known before a model
/// is asked. `conventions`: of the model, if it is known.
///
/// # Errors
/// Data, templates or settings that cannot be used.
pub fn check_task(
    spec: &TaskSpec,
    conventions: Option<&Conventions>,
    documents: &mut dyn Documents,
    options: &RunOptions<'_>,
) -> Result<(), EvalError> {
    check_generation(&with_settings(spec, options), conventions)?;
    prepared(spec, documents, options)?.ask(1, options)?;
    Ok(())
}

/// The task under the run's settings of generation.
fn with_settings(spec: &TaskSpec, options: &RunOptions<'_>) -> TaskSpec {
    let mut spec = spec.clone();
    if spec.output_type == OutputType::GenerateUntil {
        spec.generation_kwargs.extend(options.gen_kwargs.clone());
    }
    spec
}

fn prepared(
    spec: &TaskSpec,
    documents: &mut dyn Documents,
    options: &RunOptions<'_>,
) -> Result<Prepared, EvalError> {
    let spec = with_settings(spec, options);
    let num_fewshot = match (options.num_fewshot, spec.num_fewshot) {
        (_, Some(0)) => 0,
        (Some(wanted), _) => wanted,
        (None, own) => own.unwrap_or(0),
    };
    let split = spec.evaluated_split().map(str::to_owned).ok_or_else(|| EvalError::Data {
        task: spec.name.clone(),
        problem: format!("{} names neither `test_split` nor `validation_split`", spec.place("dataset_path")),
    })?;
    let all = load(&spec, documents, &split, spec.process_docs)?;
    let count = options.limit.map_or(all.len(), |limit| limit.of(all.len()));
    let reading = Reading::new(&spec, &split, &[]);
    for (index, document) in all.iter().take(count).enumerate() {
        let checked = spec.pipelines.iter().try_for_each(|pipeline| pipeline.check(document));
        checked.map_err(|problem| reading.failed(index, document, "filter_list", problem))?;
    }
    let process = spec.fewshot.process_docs;
    let pool = match (num_fewshot, spec.example_split()) {
        (0, _) => Vec::new(),
        (_, Some(own)) if own == split && process == spec.process_docs => all.clone(),
        (_, Some(own)) => load(&spec, documents, own, process)?,
        (_, None) => spec.fewshot.samples.clone().unwrap_or_default(),
    };
    Ok(Prepared { spec, split, all, pool, num_fewshot })
}

impl Prepared {
    /// What is asked about the first `count` documents.
    fn ask(
        &self,
        count: usize,
        options: &RunOptions<'_>,
    ) -> Result<(Reading<'_>, Vec<Asked<'_>>), EvalError> {
        let reading = Reading::new(&self.spec, &self.split, &self.all);
        let mut examples = Examples::new(&self.spec, &self.pool, self.num_fewshot, options.fewshot_seed);
        let mut asked = Vec::with_capacity(count);
        for (index, document) in self.all.iter().take(count).enumerate() {
            let drawn = examples.next(document)?;
            let requests = requests(&reading, &options.style, index, document, &drawn)?;
            asked.push(Asked { index, document, requests });
        }
        Ok((reading, asked))
    }
}

fn load(
    spec: &TaskSpec,
    documents: &mut dyn Documents,
    split: &str,
    process: Option<Native>,
) -> Result<Vec<Value>, EvalError> {
    let raw = documents.split(spec, split);
    let mut raw = raw.map_err(|problem| EvalError::Data { task: spec.name.clone(), problem })?;
    if raw.is_empty() {
        return Err(EvalError::NoDocuments { task: spec.name.clone(), split: split.to_owned() });
    }
    if let Some(process) = process {
        let reading = Reading::new(spec, split, &[]);
        for (index, document) in raw.iter_mut().enumerate() {
            let processed = process.process(document);
            *document =
                processed.map_err(|problem| reading.failed(index, document, "process_docs", problem))?;
        }
    }
    Ok(raw)
}

/// What is asked about a document.
fn requests(
    reading: &Reading<'_>,
    style: &PromptStyle<'_>,
    index: usize,
    document: &Value,
    examples: &[&Value],
) -> Result<Vec<Request>, EvalError> {
    let spec = reading.spec;
    let failed = |(key, problem): (&'static str, String)| reading.failed(index, document, key, problem);
    let target = || {
        let target = reading.target(&spec.doc_to_target, document);
        target.map_err(|problem| reading.failed(index, document, "doc_to_target", problem))
    };
    let text = |value: Value| match value {
        Value::String(text) => Ok(text),
        other => {
            Err(reading.failed(index, document, "doc_to_target", format!("the target {other} is not a text")))
        }
    };
    if spec.output_type == OutputType::Rolling {
        return Ok(vec![Request::Whole(text(target()?)?)]);
    }
    let context = context(reading, style, document, examples).map_err(failed)?;
    let one = |context: Context| match context {
        Context::One(context) => Ok(context),
        Context::Several(_) => {
            let problem =
                format!("several contexts are for multiple_choice, not {}", spec.output_type.name());
            Err(reading.failed(index, document, "doc_to_text", problem))
        }
    };
    match spec.output_type {
        OutputType::LogLikelihood => {
            Ok(vec![Request::Continuation { context: one(context)?, continuation: text(target()?)? }])
        }
        OutputType::GenerateUntil => Ok(vec![Request::Answer { context: one(context)? }]),
        _ => {
            let field = spec.doc_to_choice.as_ref().expect("a multiple_choice task is read with its choices");
            let choices =
                reading.choices(field, document).map_err(|problem| failed(("doc_to_choice", problem)))?;
            let delimiter = choice_delimiter(spec, style, &spec.config_text("gen_prefix"));
            let of = |context: &str, continuation: &str| Request::Continuation {
                context: context.to_owned(),
                continuation: format!("{delimiter}{continuation}"),
            };
            let mut requests: Vec<Request> = match context {
                Context::One(context) => choices.iter().map(|choice| of(&context, choice)).collect(),
                Context::Several(contexts) => {
                    let continuation = text(target()?)?;
                    contexts.iter().map(|context| of(context, &continuation)).collect()
                }
            };
            if spec.metrics.iter().any(|metric| metric.name == "acc_mutual_info") {
                requests.extend(choices.iter().map(|choice| of("", choice)));
            }
            Ok(requests)
        }
    }
}

/// How many questions have a right answer that is none of their choices; an error where all of the task's `documents`
/// do. (Those of a limited run may be an unlucky few.)
fn unanswerable(reading: &Reading<'_>, asked: &[Asked<'_>], documents: usize) -> Result<usize, EvalError> {
    let spec = reading.spec;
    if spec.output_type != OutputType::MultipleChoice || spec.process_results.is_some() {
        return Ok(0);
    }
    let mut count = 0;
    for asked in asked {
        let right = right_choice(reading, asked.document);
        let (_, right) =
            right.map_err(|(key, problem)| reading.failed(asked.index, asked.document, key, problem))?;
        let is_choice = |right: &Value| right.as_i64().is_some_and(|at| at >= 0);
        count += usize::from(!match &right {
            Value::Array(all) => all.iter().any(is_choice),
            one => is_choice(one),
        });
    }
    match asked.first() {
        Some(first) if count == documents => {
            let problem =
                "the right answer is none of the choices, here and in every other document".to_owned();
            Err(reading.failed(first.index, first.document, "doc_to_target", problem))
        }
        _ => Ok(count),
    }
}

/// With a chat template there is no delimiter, unless the answer was begun without space at its end.
fn choice_delimiter<'a>(spec: &'a TaskSpec, style: &PromptStyle<'_>, gen_prefix: &str) -> &'a str {
    let begins = !gen_prefix.is_empty() && !gen_prefix.ends_with(crate::python::text::is_space);
    if style.chat_template.is_some() && !begins { "" } else { &spec.target_delimiter }
}

/// Metrics over all documents for each filter, and the samples where they are wanted.
fn judged(
    reading: &Reading<'_>,
    asked: &[Asked<'_>],
    answers: &Answers,
    options: &RunOptions<'_>,
) -> Result<(Vec<Metric>, Vec<Sample>), EvalError> {
    let spec = reading.spec;
    let (mut metrics, mut samples) = (Vec::new(), Vec::new());
    for pipeline in &spec.pipelines {
        let filtered = answers.filtered(pipeline, asked);
        let filtered = filtered.map_err(|problem| EvalError::Definition {
            place: spec.place("filter_list"),
            problem,
            remedy: "correct the task".into(),
        })?;
        let mut by_metric: Vec<(String, Vec<Score>)> = Vec::new();
        let first = asked.first().map(|asked| reading.target(&spec.doc_to_target, asked.document));
        let has_several_targets = matches!(first, Some(Ok(Value::Array(_))));
        for (at, asked) in asked.iter().enumerate() {
            let answer = answers.of(at, &filtered);
            let scores: Scores = scores(reading, asked, &answer, has_several_targets)?;
            if options.log_samples {
                samples.push(Sample::new(reading, asked, answers, at, &filtered, &pipeline.name, &scores)?);
            }
            for (name, score) in scores {
                match by_metric.iter_mut().find(|(known, _)| *known == name) {
                    Some((_, scores)) => scores.push(score),
                    None => by_metric.push((name, vec![score])),
                }
            }
        }
        for (name, scores) in by_metric {
            let metric = spec.metrics.iter().find(|metric| metric.name == name);
            let aggregation = metric.map_or(crate::metrics::Aggregation::Mean, |metric| metric.aggregation);
            let aggregate =
                aggregation.apply(&scores.iter().collect::<Vec<_>>(), options.bootstrap_iterations);
            let aggregate = aggregate.map_err(|problem| EvalError::Definition {
                place: spec.place("metric_list"),
                problem: format!("metric `{name}` of task `{}`: {problem}", spec.name),
                remedy: "choose another aggregation".into(),
            })?;
            metrics.push(Metric {
                name,
                filter: pipeline.name.clone(),
                value: aggregate.value,
                stderr: aggregate.stderr,
                higher_is_better: metric.is_none_or(|metric| metric.higher_is_better),
            });
        }
    }
    Ok((metrics, samples))
}
