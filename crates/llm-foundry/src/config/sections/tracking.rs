//! Where a run is reported to: kinds of values of `training.report_to`.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserialize, Deserializer, SeqAccess, Visitor};
use serde::{Serialize, Serializer};
use std::borrow::Cow;
use std::fmt;

/// A tracker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TrackerKind {
    /// Weights & Biases.
    Wandb,
    /// TensorBoard's event files.
    Tensorboard,
    /// An MLflow server.
    Mlflow,
}

impl TrackerKind {
    const ALL: [Self; 3] = [Self::Wandb, Self::Tensorboard, Self::Mlflow];

    /// As configurations write it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Wandb => "wandb",
            Self::Tensorboard => "tensorboard",
            Self::Mlflow => "mlflow",
        }
    }
}

/// Every word of `report_to`.
const WORDS: [&str; 5] = ["none", "all", "wandb", "tensorboard", "mlflow"];

/// `training.report_to`: `none`, `all`, a tracker, or a list of trackers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ReportTo {
    kinds: Vec<TrackerKind>,
    /// `all` was said: trackers for which something is missing are left out.
    pub(crate) is_all: bool,
}

impl ReportTo {
    /// The run is reported to this tracker.
    pub(crate) fn names(&self, kind: TrackerKind) -> bool {
        self.kinds.contains(&kind)
    }

    /// The run is reported to no tracker.
    pub(crate) fn is_none(&self) -> bool {
        self.kinds.is_empty()
    }

    fn add<E: de::Error>(&mut self, word: &str) -> Result<(), E> {
        let named = TrackerKind::ALL.into_iter().filter(|kind| word == "all" || word == kind.name());
        let named: Vec<TrackerKind> = named.collect();
        if named.is_empty() && word != "none" {
            return Err(E::unknown_variant(word, &WORDS));
        }
        self.is_all |= word == "all";
        for kind in named {
            if !self.kinds.contains(&kind) {
                self.kinds.push(kind);
            }
        }
        Ok(())
    }
}

impl<'de> Deserialize<'de> for ReportTo {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Trackers;
        impl<'de> Visitor<'de> for Trackers {
            type Value = ReportTo;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "one of {}, or a list of them", WORDS.join(", "))
            }
            fn visit_unit<E: de::Error>(self) -> Result<ReportTo, E> {
                Ok(ReportTo::default())
            }
            fn visit_str<E: de::Error>(self, word: &str) -> Result<ReportTo, E> {
                let mut trackers = ReportTo::default();
                trackers.add(word)?;
                Ok(trackers)
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<ReportTo, A::Error> {
                let mut trackers = ReportTo::default();
                while let Some(word) = list.next_element::<String>()? {
                    trackers.add(&word)?;
                }
                Ok(trackers)
            }
        }
        deserializer.deserialize_any(Trackers)
    }
}

impl Serialize for ReportTo {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.kinds.as_slice() {
            _ if self.is_all => serializer.serialize_str("all"),
            [] => serializer.serialize_str("none"),
            [one] => serializer.serialize_str(one.name()),
            many => serializer.collect_seq(many.iter().map(|kind| kind.name())),
        }
    }
}

impl JsonSchema for ReportTo {
    fn schema_name() -> Cow<'static, str> {
        "ReportTo".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [{ "enum": WORDS }, { "type": "array", "items": { "enum": WORDS } }, { "type": "null" }] })
    }
}
