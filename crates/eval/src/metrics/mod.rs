//! Metrics: which a task has, what each says about a document, and how that becomes one number.

mod aggregation;
mod bleu;
mod chrf;
mod classification;
mod exact_match;
mod ter;

pub(crate) use aggregation::Aggregation;
pub(crate) use exact_match::ExactMatch;

use crate::EvalError;
use crate::native::Native;
use crate::task::{Config, OutputType, definition, function, typed};
use serde_json::Value;

/// A metric of a task.
#[derive(Debug, Clone)]
pub(crate) struct MetricSpec {
    pub(crate) name: String,
    pub(crate) aggregation: Aggregation,
    pub(crate) higher_is_better: bool,
    /// How texts are compared, for `exact_match`.
    pub(crate) exact_match: ExactMatch,
}

/// A metric as lm_eval registers it: name, where it can be asked for, aggregation, which way is up.
type Registered = (&'static str, &'static [OutputType], Aggregation, bool);

use OutputType::{GenerateUntil, LogLikelihood, MultipleChoice, Rolling};
const REGISTRY: [Registered; 17] = [
    ("acc", &[LogLikelihood, MultipleChoice], Aggregation::Mean, true),
    ("acc_norm", &[MultipleChoice], Aggregation::Mean, true),
    ("acc_bytes", &[MultipleChoice], Aggregation::Mean, true),
    ("acc_mutual_info", &[MultipleChoice], Aggregation::Mean, true),
    ("exact_match", &[GenerateUntil, MultipleChoice], Aggregation::Mean, true),
    ("f1", &[MultipleChoice], Aggregation::F1, true),
    ("mcc", &[MultipleChoice], Aggregation::Matthews, true),
    ("brier_score", &[MultipleChoice], Aggregation::Brier, false),
    ("perplexity", &[LogLikelihood], Aggregation::Perplexity, false),
    ("word_perplexity", &[Rolling], Aggregation::WeightedPerplexity, false),
    ("byte_perplexity", &[Rolling], Aggregation::WeightedPerplexity, false),
    ("bits_per_byte", &[Rolling], Aggregation::BitsPerByte, false),
    ("bleu", &[GenerateUntil], Aggregation::Bleu, true),
    ("chrf", &[GenerateUntil], Aggregation::Chrf { words: false }, true),
    ("chrf++", &[GenerateUntil], Aggregation::Chrf { words: true }, true),
    ("ter", &[GenerateUntil], Aggregation::Ter, false),
    ("bypass", &[LogLikelihood, MultipleChoice, GenerateUntil], Aggregation::Bypass, true),
];

impl MetricSpec {
    /// The task's metrics; without a list, the usual ones of its output type.
    pub(crate) fn list(
        config: &Config,
        output_type: OutputType,
        process_results: Option<Native>,
    ) -> Result<Vec<Self>, EvalError> {
        let items: Vec<Value> = match config.fields.get("metric_list") {
            None | Some(Value::Null) => {
                let names: &[&str] = match output_type {
                    LogLikelihood => &["perplexity", "acc"],
                    Rolling => &["word_perplexity", "byte_perplexity", "bits_per_byte"],
                    MultipleChoice => &["acc", "acc_norm"],
                    GenerateUntil => &["exact_match"],
                };
                names.iter().map(|name| serde_json::json!({"metric": name})).collect()
            }
            Some(Value::Array(items)) => items.clone(),
            Some(other) => return Err(config.wrong("metric_list", other, "a list")),
        };
        items.iter().map(|item| Self::read(config, output_type, process_results, item)).collect()
    }

    fn read(
        config: &Config,
        output_type: OutputType,
        process_results: Option<Native>,
        item: &Value,
    ) -> Result<Self, EvalError> {
        let wrong =
            |problem: String, remedy: String| definition(config.place("metric_list"), problem, remedy);
        let name = item.get("metric").and_then(Value::as_str).unwrap_or_default();
        let registered = REGISTRY.iter().find(|(registered, ..)| *registered == name);
        let is_ours = registered.is_some_and(|(_, types, ..)| types.contains(&output_type));
        let flag = |key: &str| typed(item, key, Value::as_bool, "true or false", &wrong);
        if process_results.is_none() && flag("hf_evaluate")?.unwrap_or(false) {
            return Err(wrong(
                format!(
                    "metric `{name}` is to come from the package evaluate (`hf_evaluate`), which is Python"
                ),
                "take `hf_evaluate` away where the metric is one of lm_eval's own".into(),
            ));
        }
        if process_results.is_none() && !is_ours {
            let known: Vec<&str> =
                REGISTRY.iter().filter(|(_, types, ..)| types.contains(&output_type)).map(|m| m.0).collect();
            return Err(wrong(
                format!("there is no metric `{name}` for `{}` here", output_type.name()),
                format!("it must be one of {}", known.join(", ")),
            ));
        }
        let aggregation = match item.get("aggregation") {
            None | Some(Value::Null) => registered.map(|metric| metric.2),
            Some(Value::String(text)) => match function(&Value::String(text.clone())) {
                Some(called) => Aggregation::native(&config.path, called),
                None => Some(Aggregation::named(text).ok_or_else(|| {
                    wrong(
                        format!("there is no aggregation `{text}`"),
                        format!("it must be {}", Aggregation::NAMES),
                    )
                })?),
            },
            Some(other) => return Err(config.wrong("metric_list", other, "the name of an aggregation")),
        };
        let higher = flag("higher_is_better")?;
        Ok(Self {
            name: name.to_owned(),
            aggregation: aggregation.unwrap_or(Aggregation::Mean),
            higher_is_better: higher.unwrap_or(registered.is_none_or(|metric| metric.3)),
            exact_match: match name {
                "exact_match" if output_type == GenerateUntil && process_results.is_none() => {
                    ExactMatch::read(item, &wrong)?
                }
                _ => {
                    exact_match::check_names(item, &wrong)?;
                    ExactMatch::default()
                }
            },
        })
    }
}
