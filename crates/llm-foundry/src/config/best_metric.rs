//! The figure by which models are compared: `training.metric_for_best_model`.

use foundry_engine::{EvalMetric, TaskMetric};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Error, IntoDeserializer};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::borrow::Cow;

/// `training.metric_for_best_model`: a figure of the held-out split, or `TASK/METRIC` of section `eval`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum BestMetric {
    /// Of the held-out split.
    Figure(Figure),
    /// Of a benchmark.
    Task(TaskMetric),
}

impl BestMetric {
    /// The default.
    pub(crate) const LOSS: Self = Self::Figure(Figure::Loss);

    /// As the engine calls it.
    pub(crate) fn for_engine(&self) -> EvalMetric {
        match self {
            Self::Figure(Figure::Loss) => EvalMetric::Loss,
            Self::Figure(Figure::Perplexity) => EvalMetric::Perplexity,
            Self::Figure(Figure::MeanTokenAccuracy) => EvalMetric::MeanTokenAccuracy,
            Self::Figure(Figure::Entropy) => EvalMetric::Entropy,
            Self::Task(metric) => EvalMetric::Task(metric.clone()),
        }
    }
}

impl Serialize for BestMetric {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Figure(figure) => figure.serialize(serializer),
            Self::Task(metric) => metric.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for BestMetric {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text.contains('/') {
            return TaskMetric::try_from(text).map(Self::Task).map_err(D::Error::custom);
        }
        Figure::deserialize(text.into_deserializer()).map(Self::Figure)
    }
}

impl JsonSchema for BestMetric {
    fn schema_name() -> Cow<'static, str> {
        "BestMetric".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let figure = generator.subschema_for::<Figure>();
        json_schema!({ "anyOf": [figure, { "type": "string", "pattern": "^[^/]+/.+$" }] })
    }
}

/// A figure of the held-out split; transformers' `eval_` may stand before the name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Figure {
    /// Mean cross-entropy of a token.
    #[serde(alias = "eval_loss")]
    Loss,
    /// Its exponential.
    #[serde(alias = "eval_perplexity")]
    Perplexity,
    /// Share of the tokens that had the highest logit.
    #[serde(alias = "eval_mean_token_accuracy")]
    MeanTokenAccuracy,
    /// Mean entropy of the predictions.
    #[serde(alias = "eval_entropy")]
    Entropy,
}
