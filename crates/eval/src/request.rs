//! Requests to the model, and its answers.

use crate::encoding::encode_text;
use crate::model::counted;
use crate::run::Asked;
use crate::scoring::Answers;
use crate::task::{OutputType, TaskSpec};
use crate::{
    Conventions, Drawing, EvalError, GenerateRequest, LanguageModel, LogLikelihood, ScoreRequest,
    encode_continuation, rolling_windows,
};
use serde_json::{Map, Value, json};

/// Tokens to generate where nothing says how many.
const MAX_GEN_TOKS: usize = 256;
/// Other names of `max_gen_toks`, the most important first.
const LENGTH_KEYS: [&str; 4] = ["max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens"];
const KEYS: [&str; 10] = [
    "max_gen_toks",
    "max_new_tokens",
    "max_tokens",
    "max_completion_tokens",
    "until",
    "do_sample",
    "temperature",
    "top_p",
    "top_k",
    "num_beams",
];

/// One thing that is asked about a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Request {
    /// How likely the continuation is.
    Continuation { context: String, continuation: String },
    /// How likely the whole text is.
    Whole(String),
    /// What comes after the context.
    Answer { context: String },
}

impl Request {
    /// As files of samples show it.
    pub(crate) fn arguments(&self, spec: &TaskSpec) -> Vec<Value> {
        match self {
            Self::Continuation { context, continuation } => vec![json!(context), json!(continuation)],
            Self::Whole(text) => vec![json!(text)],
            Self::Answer { context } => vec![json!(context), json!(spec.generation_kwargs)],
        }
    }

    /// The text before the model's part.
    pub(crate) fn first_argument(&self) -> &str {
        match self {
            Self::Continuation { context, .. } | Self::Answer { context } => context,
            Self::Whole(text) => text,
        }
    }
}

/// Asks everything; also returns how many prompts lost their beginning.
pub(crate) fn answered(
    spec: &TaskSpec,
    model: &mut dyn LanguageModel,
    conventions: &Conventions,
    asked: &[Asked<'_>],
    seed: u64,
) -> Result<(Answers, usize), EvalError> {
    match spec.output_type {
        OutputType::GenerateUntil => generated(spec, model, conventions, asked, seed),
        OutputType::Rolling => rolled(spec, model, conventions, asked),
        OutputType::LogLikelihood | OutputType::MultipleChoice => scored(spec, model, conventions, asked),
    }
}

fn scored(
    spec: &TaskSpec,
    model: &mut dyn LanguageModel,
    conventions: &Conventions,
    asked: &[Asked<'_>],
) -> Result<(Answers, usize), EvalError> {
    let (mut requests, mut truncated) = (Vec::new(), 0);
    for request in asked.iter().flat_map(|asked| &asked.requests) {
        let Request::Continuation { context, continuation } = request else { continue };
        let (request, cut) = encode_continuation(model, conventions, context, continuation)?;
        truncated += usize::from(cut > 0);
        requests.push(request);
    }
    let counts = asked.iter().map(|asked| asked.requests.len());
    let answers = model.log_likelihood(&requests).map_err(|error| of_document(spec, asked, counts, error))?;
    let answers = counted(answers, requests.len())?;
    let mut answers = answers.into_iter();
    let by_document: Vec<Vec<LogLikelihood>> =
        asked.iter().map(|asked| answers.by_ref().take(asked.requests.len()).collect()).collect();
    check(spec, asked, &by_document)?;
    Ok((Answers::Scored(by_document, spec.repeats), truncated))
}

fn rolled(
    spec: &TaskSpec,
    model: &mut dyn LanguageModel,
    conventions: &Conventions,
    asked: &[Asked<'_>],
) -> Result<(Answers, usize), EvalError> {
    let (mut windows, mut counts): (Vec<ScoreRequest>, Vec<usize>) = (Vec::new(), Vec::new());
    for asked in asked {
        let text = asked.requests.first().map_or("", Request::first_argument);
        let tokens = encode_text(model, conventions, text)?;
        let own = rolling_windows(&tokens, conventions);
        counts.push(own.len());
        windows.extend(own);
    }
    let answers = model.log_likelihood(&windows);
    let answers = answers.map_err(|error| of_document(spec, asked, counts.iter().copied(), error))?;
    let answers = counted(answers, windows.len())?;
    let mut answers = answers.into_iter();
    let sums: Vec<Vec<LogLikelihood>> = counts
        .iter()
        .map(|&count| {
            let own: Vec<LogLikelihood> = answers.by_ref().take(count).collect();
            let log_prob = own.iter().map(|answer| answer.log_prob).sum();
            vec![LogLikelihood { log_prob, is_greedy: own.iter().all(|answer| answer.is_greedy) }]
        })
        .collect();
    check(spec, asked, &sums)?;
    Ok((Answers::Rolled(sums, spec.repeats), 0))
}

/// An error about a request as one about its document; `counts`: requests of each.
fn of_document(
    spec: &TaskSpec,
    asked: &[Asked<'_>],
    counts: impl Iterator<Item = usize>,
    error: EvalError,
) -> EvalError {
    let EvalError::NotFinite { request } = error else { return error };
    let ends = counts.scan(0, |sum, count| {
        *sum += count;
        Some(*sum)
    });
    match asked.iter().zip(ends).find(|(_, end)| request < *end) {
        Some((asked, _)) => EvalError::NotANumber { task: spec.name.clone(), index: asked.index },
        None => error,
    }
}

fn check(spec: &TaskSpec, asked: &[Asked<'_>], answers: &[Vec<LogLikelihood>]) -> Result<(), EvalError> {
    let broken = answers.iter().position(|answers| answers.iter().any(|answer| answer.log_prob.is_nan()));
    match broken {
        Some(at) => Err(EvalError::NotANumber { task: spec.name.clone(), index: asked[at].index }),
        None => Ok(()),
    }
}

/// What is wrong with the task's settings of generation, if it generates.
pub(crate) fn check_generation(spec: &TaskSpec, conventions: Option<&Conventions>) -> Result<(), EvalError> {
    if spec.output_type == OutputType::GenerateUntil {
        let kwargs = Generation::read(spec, &spec.generation_kwargs)?;
        conventions.map(|conventions| kwargs.room(spec, conventions)).transpose()?;
    }
    Ok(())
}

fn generated(
    spec: &TaskSpec,
    model: &mut dyn LanguageModel,
    conventions: &Conventions,
    asked: &[Asked<'_>],
    seed: u64,
) -> Result<(Answers, usize), EvalError> {
    let kwargs = Generation::read(spec, &spec.generation_kwargs)?;
    let room = kwargs.room(spec, conventions)?;
    let mut until = kwargs.until.clone();
    if let Some(end) = conventions.eos_text.as_ref().filter(|end| !end.is_empty() && !until.contains(end)) {
        until.push(end.clone());
    }
    let (mut requests, mut truncated) = (Vec::new(), 0);
    for asked in asked {
        let context = asked.requests.first().map_or("", Request::first_argument);
        let mut tokens = encode_text(model, conventions, context)?;
        if tokens.is_empty() {
            tokens.push(conventions.prefix_token);
        }
        let surplus = tokens.len().saturating_sub(room);
        truncated += usize::from(surplus > 0);
        tokens.drain(..surplus);
        for _ in 0..spec.repeats {
            requests.push(GenerateRequest {
                tokens: tokens.clone(),
                until: until.clone(),
                max_new_tokens: kwargs.max_new_tokens,
                drawing: Drawing { seed: seed.wrapping_add(requests.len() as u64), ..kwargs.drawing },
            });
        }
    }
    let counts = asked.iter().map(|_| spec.repeats);
    let answers = model.generate_until(&requests).map_err(|error| of_document(spec, asked, counts, error))?;
    let answers = counted(answers, requests.len())?;
    let texts: Vec<Vec<String>> = answers.chunks(spec.repeats).map(<[String]>::to_vec).collect();
    Ok((Answers::Generated(texts), truncated))
}

/// `generation_kwargs`, understood.
struct Generation {
    until: Vec<String>,
    max_new_tokens: usize,
    drawing: Drawing,
}

impl Generation {
    /// Tokens of a prompt that there is room for.
    fn room(&self, spec: &TaskSpec, conventions: &Conventions) -> Result<usize, EvalError> {
        let room = conventions.max_length.checked_sub(self.max_new_tokens).filter(|&room| room > 0);
        room.ok_or_else(|| EvalError::NoRoom {
            task: spec.name.clone(),
            wanted: self.max_new_tokens,
            max_length: conventions.max_length,
        })
    }

    fn read(spec: &TaskSpec, kwargs: &Map<String, Value>) -> Result<Self, EvalError> {
        let wrong = |key: &str, expected: &str| EvalError::Definition {
            place: spec.place("generation_kwargs"),
            problem: format!("`{key}` of task `{}`'s generation_kwargs is {}", spec.name, kwargs[key]),
            remedy: format!("it must be {expected}"),
        };
        if let Some(key) = kwargs.keys().find(|key| !KEYS.contains(&key.as_str())) {
            return Err(EvalError::Definition {
                place: spec.place("generation_kwargs"),
                problem: format!("`{key}` of task `{}`'s generation_kwargs is not supported", spec.name),
                remedy: format!("what is: {}", KEYS.join(", ")),
            });
        }
        let number = |key: &str| match kwargs.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => {
                let number = value.as_f64().filter(|x| x.is_finite() && *x >= 0.0);
                number.map(Some).ok_or_else(|| wrong(key, "a number, 0 or more"))
            }
        };
        if number("num_beams")?.is_some_and(|beams| beams != 1.0) {
            return Err(wrong("num_beams", "1: there is no beam search here"));
        }
        let mut max_new_tokens = MAX_GEN_TOKS;
        for key in LENGTH_KEYS.iter().rev() {
            if let Some(count) = number(key)? {
                max_new_tokens = count as usize;
            }
        }
        let given = number("temperature")?;
        let do_sample = match kwargs.get("do_sample") {
            None | Some(Value::Null) => given.is_some_and(|temperature| temperature > 0.0),
            Some(Value::Bool(flag)) => *flag,
            Some(_) => return Err(wrong("do_sample", "true or false")),
        };
        let until = match kwargs.get("until") {
            Some(Value::String(text)) => vec![text.clone()],
            Some(Value::Array(texts)) => {
                let texts: Option<Vec<String>> =
                    texts.iter().map(|text| text.as_str().map(str::to_owned)).collect();
                texts.ok_or_else(|| wrong("until", "a text or a list of texts"))?
            }
            None | Some(Value::Null) => Vec::new(),
            Some(_) => return Err(wrong("until", "a text or a list of texts")),
        };
        Ok(Self {
            until: until.into_iter().filter(|text| !text.is_empty()).collect(),
            max_new_tokens,
            drawing: Drawing {
                do_sample: do_sample && given != Some(0.0),
                temperature: given.filter(|temperature| *temperature > 0.0),
                top_p: number("top_p")?,
                top_k: number("top_k")?.map(|k| k as usize),
                seed: 0,
            },
        })
    }
}
