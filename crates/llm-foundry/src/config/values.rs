//! Kinds of values that sections share.

use foundry_data::TrainOn;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserialize, Deserializer, SeqAccess, Visitor};
use serde::{Serialize, Serializer};
use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

/// One text, or a list of texts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct OneOrMany(pub(crate) Vec<String>);

impl<'de> Deserialize<'de> for OneOrMany {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Texts;
        impl<'de> Visitor<'de> for Texts {
            type Value = OneOrMany;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text or a list of texts")
            }
            fn visit_unit<E: de::Error>(self) -> Result<OneOrMany, E> {
                Ok(OneOrMany::default())
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<OneOrMany, E> {
                Ok(OneOrMany(vec![text.to_owned()]))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<OneOrMany, A::Error> {
                let mut texts = Vec::new();
                while let Some(text) = list.next_element()? {
                    texts.push(text);
                }
                Ok(OneOrMany(texts))
            }
        }
        deserializer.deserialize_any(Texts)
    }
}

impl Serialize for OneOrMany {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.as_slice() {
            [one] => serializer.serialize_str(one),
            many => many.serialize(serializer),
        }
    }
}

impl JsonSchema for OneOrMany {
    fn schema_name() -> Cow<'static, str> {
        "OneOrMany".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [
            { "type": "string" },
            { "type": "array", "items": { "type": "string" } },
            { "type": "null" },
        ] })
    }
}

/// Modules named by one text (a pattern or a keyword) or by a list of suffixes: the two mean different things in PEFT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Modules {
    /// `all-linear`, or a regular expression that must match the whole name.
    Pattern(String),
    /// Exact names, or their last parts.
    Suffixes(Vec<String>),
}

impl<'de> Deserialize<'de> for Modules {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Names;
        impl<'de> Visitor<'de> for Names {
            type Value = Modules;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`all-linear`, a regular expression, or a list of module names")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Modules, E> {
                Ok(Modules::Pattern(text.to_owned()))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Modules, A::Error> {
                let mut names = Vec::new();
                while let Some(name) = list.next_element()? {
                    names.push(name);
                }
                Ok(Modules::Suffixes(names))
            }
        }
        deserializer.deserialize_any(Names)
    }
}

impl Serialize for Modules {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Modules::Pattern(text) => serializer.serialize_str(text),
            Modules::Suffixes(names) => names.serialize(serializer),
        }
    }
}

impl JsonSchema for Modules {
    fn schema_name() -> Cow<'static, str> {
        "Modules".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [{ "type": "string" }, { "type": "array", "items": { "type": "string" } }] })
    }
}

/// A length of time: seconds, or a text such as `90m`, `1h30m`, `2d` or `12:00:00` (days may stand before the hours).
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct TimeSpan(pub(crate) Duration);

impl TimeSpan {
    /// Reads a text; `None` where it is no length of time or longer than a hundred years.
    fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        if text.contains(':') {
            let parts: Vec<u64> = text.split(':').map(|part| part.parse().ok()).collect::<Option<_>>()?;
            let sizes = [1, 60, 3600, 86400];
            let fits = (2..=4).contains(&parts.len());
            let terms = parts.iter().rev().zip(sizes).map(|(part, size)| *part as f64 * f64::from(size));
            return fits.then(|| terms.sum::<f64>()).and_then(Self::seconds);
        }
        let (mut rest, mut total) = (text, 0.0);
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
            let number: f64 = rest[..digits].parse().ok()?;
            rest = rest[digits..].trim_start();
            let letters = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
            let size = match &rest[..letters] {
                "s" => 1.0,
                "m" | "min" => 60.0,
                "h" => 3600.0,
                "d" => 86400.0,
                "" if total == 0.0 => 1.0,
                _ => return None,
            };
            total += number * size;
            rest = rest[letters..].trim_start();
        }
        Self::seconds(total)
    }

    fn seconds(seconds: f64) -> Option<Self> {
        let is_sane = seconds > 0.0 && seconds < 100.0 * 365.0 * 86400.0;
        is_sane.then(|| Self(Duration::from_secs_f64(seconds)))
    }
}

impl<'de> Deserialize<'de> for TimeSpan {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Span;
        impl Visitor<'_> for Span {
            type Value = TimeSpan;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a length of time such as 90m, 1h30m, 2d, 12:00:00 or a number of seconds")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<TimeSpan, E> {
                TimeSpan::parse(text).ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
            }
            fn visit_u64<E: de::Error>(self, seconds: u64) -> Result<TimeSpan, E> {
                self.visit_f64(seconds as f64)
            }
            fn visit_i64<E: de::Error>(self, seconds: i64) -> Result<TimeSpan, E> {
                self.visit_f64(seconds as f64)
            }
            fn visit_f64<E: de::Error>(self, seconds: f64) -> Result<TimeSpan, E> {
                let span = TimeSpan::seconds(seconds);
                span.ok_or_else(|| E::invalid_value(de::Unexpected::Float(seconds), &self))
            }
        }
        deserializer.deserialize_any(Span)
    }
}

impl Serialize for TimeSpan {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let seconds = self.0.as_secs_f64();
        if seconds.fract() == 0.0 {
            serializer.serialize_str(&format!("{seconds:.0}s"))
        } else {
            serializer.serialize_f64(seconds)
        }
    }
}

impl JsonSchema for TimeSpan {
    fn schema_name() -> Cow<'static, str> {
        "TimeSpan".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [{ "type": "string" }, { "type": "number", "exclusiveMinimum": 0 }] })
    }
}

/// Turns of a conversation: `last`, `all`, or a list of roles.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TrainOnTurns(pub(crate) TrainOn);

impl<'de> Deserialize<'de> for TrainOnTurns {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Turns;
        impl<'de> Visitor<'de> for Turns {
            type Value = TrainOnTurns;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`last`, `all`, or a list of roles such as [assistant, tool]")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<TrainOnTurns, E> {
                match text {
                    "last" => Ok(TrainOnTurns(TrainOn::Last)),
                    "all" => Ok(TrainOnTurns(TrainOn::All)),
                    other => Err(E::unknown_variant(other, &["last", "all"])),
                }
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<TrainOnTurns, A::Error> {
                let mut roles = Vec::new();
                while let Some(role) = list.next_element()? {
                    roles.push(role);
                }
                Ok(TrainOnTurns(TrainOn::Roles(roles)))
            }
        }
        deserializer.deserialize_any(Turns)
    }
}

impl Serialize for TrainOnTurns {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0 {
            TrainOn::Last => serializer.serialize_str("last"),
            TrainOn::All => serializer.serialize_str("all"),
            TrainOn::Roles(roles) => roles.serialize(serializer),
        }
    }
}

impl JsonSchema for TrainOnTurns {
    fn schema_name() -> Cow<'static, str> {
        "TrainOnTurns".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [{ "enum": ["last", "all"] }, { "type": "array", "items": { "type": "string" } }] })
    }
}

/// Tokens of a vocabulary: `added`, or a list of ids and texts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TokenChoice {
    /// Those that the configuration adds.
    Added,
    /// These.
    Listed(Vec<TokenName>),
}

/// One token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, serde::Deserialize)]
#[serde(untagged, expecting = "must be a token or its id")]
pub(crate) enum TokenName {
    /// By its id.
    Id(u32),
    /// As the vocabulary writes it.
    Text(String),
}

impl TokenChoice {
    /// The ids, where ids are given.
    pub(crate) fn ids(&self) -> Option<Vec<u32>> {
        let id = |token: &TokenName| match token {
            TokenName::Id(id) => Some(*id),
            TokenName::Text(_) => None,
        };
        match self {
            Self::Added => None,
            Self::Listed(tokens) => tokens.iter().map(id).collect(),
        }
    }
}

impl<'de> Deserialize<'de> for TokenChoice {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Tokens;
        impl<'de> Visitor<'de> for Tokens {
            type Value = TokenChoice;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`added`, or a list of token ids or tokens")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<TokenChoice, E> {
                match text {
                    "added" => Ok(TokenChoice::Added),
                    other => Err(E::unknown_variant(other, &["added"])),
                }
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<TokenChoice, A::Error> {
                let mut tokens = Vec::new();
                while let Some(token) = list.next_element()? {
                    tokens.push(token);
                }
                Ok(TokenChoice::Listed(tokens))
            }
        }
        deserializer.deserialize_any(Tokens)
    }
}

impl Serialize for TokenChoice {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            TokenChoice::Added => serializer.serialize_str("added"),
            TokenChoice::Listed(tokens) => tokens.serialize(serializer),
        }
    }
}

impl JsonSchema for TokenChoice {
    fn schema_name() -> Cow<'static, str> {
        "TokenChoice".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [
            { "const": "added" },
            { "type": "array", "items": { "anyOf": [{ "type": "integer", "minimum": 0 }, { "type": "string" }] } },
        ] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_time() {
        let seconds = |text: &str| TimeSpan::parse(text).map(|span| span.0.as_secs_f64());
        for (text, expected) in [
            ("90m", 5400.0),
            ("1h30m", 5400.0),
            ("1h 30min", 5400.0),
            ("2d", 172_800.0),
            ("1.5h", 5400.0),
            ("45", 45.0),
            ("45s", 45.0),
            ("0.5", 0.5),
            ("12:00:00", 43200.0),
            ("01:02:03:04", 93784.0),
            ("10:00", 600.0),
        ] {
            assert_eq!(seconds(text), Some(expected), "{text}");
        }
        for text in [
            "",
            "h",
            "1x",
            "0s",
            "-5",
            "1:x",
            "1:2:3:4:5",
            "1h30",
            "99999999999999h",
            "18446744073709551615:0:0",
        ] {
            assert_eq!(seconds(text), None, "{text}");
        }
        let span = TimeSpan::parse("1h").expect("an hour");
        let written = serde_json::to_string(&span).expect("JSON");
        assert_eq!(serde_json::from_str::<TimeSpan>(&written).expect("read back"), span);
    }
}

/// `auto`, or yes or no.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum AutoOr {
    /// Decided by what there is.
    #[default]
    Auto,
    /// As the user says.
    Given(bool),
}

impl<'de> Deserialize<'de> for AutoOr {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Choice;
        impl Visitor<'_> for Choice {
            type Value = AutoOr;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("auto, true or false")
            }
            fn visit_bool<E: de::Error>(self, value: bool) -> Result<AutoOr, E> {
                Ok(AutoOr::Given(value))
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<AutoOr, E> {
                match text {
                    "auto" => Ok(AutoOr::Auto),
                    "true" => Ok(AutoOr::Given(true)),
                    "false" => Ok(AutoOr::Given(false)),
                    other => {
                        Err(E::custom(format_args!("unknown value `{other}`: expected auto, true or false")))
                    }
                }
            }
        }
        deserializer.deserialize_any(Choice)
    }
}

impl Serialize for AutoOr {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            AutoOr::Auto => serializer.serialize_str("auto"),
            AutoOr::Given(value) => serializer.serialize_bool(*value),
        }
    }
}

impl JsonSchema for AutoOr {
    fn schema_name() -> Cow<'static, str> {
        "AutoOr".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [{ "const": "auto" }, { "type": "boolean" }] })
    }
}
