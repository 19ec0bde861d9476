//! What a task says about one document: context, target, choices. And what a metric says about its answer.

use crate::error::{DocumentError, EvalError};
use crate::python::literal::literal_eval;
use crate::python::text::is_digit;
use crate::task::{Field, TaskSpec};
use serde_json::{Value, json};
use std::collections::HashSet;

/// Values of metrics for one document, by metric.
pub(crate) type Scores = Vec<(String, Score)>;

/// What a metric says about one document; only some can be averaged.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Score {
    /// A number.
    Number(f64),
    /// A whole number, which files show as one.
    Whole(i64),
    /// Whether something holds.
    Flag(bool),
    /// Whether each of several things holds.
    Flags(Vec<bool>),
    /// A log-likelihood and what it is divided by over all documents.
    Weighted(f64, f64),
    /// The right class and the chosen one.
    Classes(Value, usize),
    /// The right class and the probability of each.
    Probabilities(Value, Vec<f64>),
    /// References and a generated text, for metrics of a whole corpus.
    Texts(Vec<String>, String),
}

impl Score {
    /// As it stands in files of samples.
    pub(crate) fn json(&self) -> Value {
        match self {
            Self::Number(number) => json!(number),
            Self::Whole(number) => json!(number),
            Self::Flag(flag) => json!(flag),
            Self::Flags(flags) => json!(flags),
            Self::Weighted(sum, weight) => json!([sum, *weight as u64]),
            Self::Classes(gold, chosen) => json!([gold, chosen]),
            Self::Probabilities(gold, probabilities) => json!([gold, probabilities]),
            Self::Texts(references, text) if references.len() == 1 => json!([references[0], text]),
            Self::Texts(references, text) => json!([references, text]),
        }
    }

    /// As a number to average.
    pub(crate) fn number(&self) -> Option<f64> {
        match self {
            Self::Number(number) => Some(*number),
            Self::Whole(number) => Some(*number as f64),
            Self::Flag(flag) => Some(f64::from(u8::from(*flag))),
            _ => None,
        }
    }
}

/// Reads documents of a split as the task wants them.
#[derive(Debug)]
pub(crate) struct Reading<'a> {
    pub(crate) spec: &'a TaskSpec,
    /// The columns of the evaluated documents: a `doc_to_…` of that name is the column.
    columns: HashSet<String>,
    split: String,
}

impl<'a> Reading<'a> {
    pub(crate) fn new(spec: &'a TaskSpec, split: &str, documents: &[Value]) -> Self {
        let fields = documents.iter().filter_map(Value::as_object).flat_map(|fields| fields.keys());
        Self { spec, columns: fields.cloned().collect(), split: split.to_owned() }
    }

    /// The context, or the index of the right one of several contexts.
    pub(crate) fn text(&self, field: &Field, document: &Value) -> Result<Value, String> {
        let text = self.raw(field, document)?;
        Ok(self.as_index(field, text))
    }

    /// The answer: a text, an index of the choices, or a list of either.
    pub(crate) fn target(&self, field: &Field, document: &Value) -> Result<Value, String> {
        let target = self.raw(field, document)?;
        let Value::String(text) = &target else { return Ok(target) };
        if self.is_column(field) {
            return Ok(target);
        }
        if text.len() >= 2 && text.starts_with('[') && text.ends_with(']') {
            let listed = match field {
                Field::Text { template, .. } => template.list(document).map(Value::Array),
                _ => None,
            };
            return Ok(listed.or_else(|| literal_eval(text)).unwrap_or(target));
        }
        Ok(self.as_index(field, target))
    }

    /// The choices.
    pub(crate) fn choices(&self, field: &Field, document: &Value) -> Result<Vec<String>, String> {
        let value = match field {
            Field::Text { template, .. } if !self.is_column(field) => match template.list(document) {
                Some(items) => Value::Array(items),
                None => {
                    let text = template.render(document)?;
                    literal_eval(&text).ok_or_else(|| format!("the choices are no list: {text:?}"))?
                }
            },
            _ => self.raw(field, document)?,
        };
        let items = value.as_array().ok_or_else(|| format!("the choices are no list but {value}"))?;
        let texts: Option<Vec<String>> = items.iter().map(|item| item.as_str().map(str::to_owned)).collect();
        match texts {
            Some(texts) if !texts.is_empty() => Ok(texts),
            Some(_) => Err("there are no choices".into()),
            None => Err(format!("the choices are not all texts: {value}")),
        }
    }

    /// A plain text such as a description: a field of the document or a template.
    pub(crate) fn plain(&self, field: Option<&Field>, document: &Value) -> Result<Option<String>, String> {
        let Some(field) = field else { return Ok(None) };
        if matches!(field, Field::Text { source, .. } if source.is_empty()) {
            return Ok(None);
        }
        let value = match field {
            Field::Text { source, template } => match document.get(source) {
                Some(value) => value.clone(),
                None => template.render(document)?.into(),
            },
            _ => self.raw(field, document)?,
        };
        match value {
            Value::String(text) => Ok(Some(text)),
            other => Err(format!("{other} is not a text")),
        }
    }

    fn is_column(&self, field: &Field) -> bool {
        matches!(field, Field::Text { source, .. } if self.columns.contains(source))
    }

    fn raw(&self, field: &Field, document: &Value) -> Result<Value, String> {
        match field {
            Field::Fixed(value) => Ok(value.clone()),
            Field::Native(native) => native.value(document),
            Field::Text { source, template } => {
                if !self.columns.contains(source) {
                    return template.render(document).map(Value::String);
                }
                let value = document.get(source).cloned();
                value.ok_or_else(|| format!("there is no field `{source}`, which other documents have"))
            }
        }
    }

    /// Digits are an index where there are choices.
    fn as_index(&self, field: &Field, value: Value) -> Value {
        match &value {
            Value::String(text)
                if self.spec.doc_to_choice.is_some()
                    && is_digit(text)
                    && matches!(field, Field::Text { .. })
                    && !self.is_column(field) =>
            {
                text.parse::<i64>().map_or(value.clone(), Value::from)
            }
            _ => value,
        }
    }

    /// The error about a document.
    pub(crate) fn failed(&self, index: usize, document: &Value, key: &str, problem: String) -> EvalError {
        let fields: Vec<&str> =
            document.as_object().into_iter().flat_map(|fields| fields.keys().map(String::as_str)).collect();
        EvalError::Document(Box::new(DocumentError {
            task: self.spec.name.clone(),
            split: self.split.clone(),
            index,
            key: key.into(),
            place: self.spec.place(key),
            problem,
            fields: fields.join(", "),
        }))
    }
}
