//! Values about memory: what the blocks keep (`gradient_checkpointing`) and the limit (`memory_budget`).

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserialize, Deserializer, Visitor};
use serde::{Serialize, Serializer};
use std::borrow::Cow;
use std::fmt;

/// `training.gradient_checkpointing`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum GradientCheckpointing {
    /// The fastest that fits.
    #[default]
    Auto,
    /// Keep everything (`false`).
    None,
    /// Make norms and activations again.
    Selective,
    /// Keep the inputs of the blocks only (`true`).
    Full,
}

impl GradientCheckpointing {
    const NAMES: [(&'static str, Self); 4] =
        [("auto", Self::Auto), ("none", Self::None), ("selective", Self::Selective), ("full", Self::Full)];

    /// As configurations write it.
    pub(crate) fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(_, value)| *value == self).map_or("", |(name, _)| name)
    }
}

impl<'de> Deserialize<'de> for GradientCheckpointing {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Name;
        impl Visitor<'_> for Name {
            type Value = GradientCheckpointing;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("auto, none, selective, full, true or false")
            }
            fn visit_bool<E: de::Error>(self, is_on: bool) -> Result<Self::Value, E> {
                Ok(if is_on { GradientCheckpointing::Full } else { GradientCheckpointing::None })
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
                let found = GradientCheckpointing::NAMES.iter().find(|(name, _)| *name == text);
                found.map(|(_, value)| *value).ok_or_else(|| {
                    E::custom(format_args!("unknown value `{text}`: possible are {}", NamesOf(&self)))
                })
            }
        }
        deserializer.deserialize_any(Name)
    }
}

/// What a visitor expects, as text.
struct NamesOf<'a, V>(&'a V);

impl<'de, V: Visitor<'de>> fmt::Display for NamesOf<'_, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.expecting(f)
    }
}

impl Serialize for GradientCheckpointing {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl JsonSchema for GradientCheckpointing {
    fn schema_name() -> Cow<'static, str> {
        "GradientCheckpointing".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "enum": ["auto", "none", "selective", "full", true, false] })
    }
}

/// `training.memory_budget`: a limit on the memory of the whole process.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum MemoryBudget {
    /// So many bytes.
    Bytes(u64),
    /// A share of what is available when the run is planned, in percent.
    Percent(f64),
}

impl MemoryBudget {
    /// `2GB`, `1.5 GiB`, `800MB`, `50%`, or a number of bytes.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let number: f64 = text[..digits].parse().ok()?;
        let factor = match text[digits..].trim().to_ascii_lowercase().as_str() {
            "%" => return (number > 0.0 && number <= 100.0).then_some(Self::Percent(number)),
            "" | "b" => 1.0,
            "kb" => 1e3,
            "mb" => 1e6,
            "gb" => 1e9,
            "tb" => 1e12,
            "kib" => 1024.0,
            "mib" => 1024.0 * 1024.0,
            "gib" => 1024.0 * 1024.0 * 1024.0,
            "tib" => 1024.0 * 1024.0 * 1024.0 * 1024.0,
            _ => return None,
        };
        let bytes = number * factor;
        (1.0..1e18).contains(&bytes).then_some(Self::Bytes(bytes as u64))
    }

    /// The limit in bytes; `None`: a share of an unknown amount.
    pub(crate) fn bytes(self, available: Option<u64>) -> Option<u64> {
        match self {
            Self::Bytes(bytes) => Some(bytes),
            Self::Percent(percent) => available.map(|bytes| (bytes as f64 * percent / 100.0) as u64),
        }
    }
}

impl<'de> Deserialize<'de> for MemoryBudget {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Amount;
        impl Visitor<'_> for Amount {
            type Value = MemoryBudget;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an amount such as 2GB, 800MiB or 50%")
            }
            fn visit_u64<E: de::Error>(self, bytes: u64) -> Result<Self::Value, E> {
                self.visit_str(&bytes.to_string())
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
                MemoryBudget::parse(text).ok_or_else(|| {
                    E::custom(format_args!("unknown value `{text}`: expected {}", NamesOf(&self)))
                })
            }
        }
        deserializer.deserialize_any(Amount)
    }
}

impl Serialize for MemoryBudget {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Bytes(bytes) => serializer.serialize_u64(*bytes),
            Self::Percent(percent) => serializer.serialize_str(&format!("{percent}%")),
        }
    }
}

impl JsonSchema for MemoryBudget {
    fn schema_name() -> Cow<'static, str> {
        "MemoryBudget".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["string", "integer"] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_as_people_write_them() {
        let cases = [
            ("2GB", Some(MemoryBudget::Bytes(2_000_000_000))),
            ("1.5 GiB", Some(MemoryBudget::Bytes(1_610_612_736))),
            ("800mb", Some(MemoryBudget::Bytes(800_000_000))),
            ("4096", Some(MemoryBudget::Bytes(4096))),
            ("50%", Some(MemoryBudget::Percent(50.0))),
            ("150%", None),
            ("0%", None),
            ("0", None),
            ("-1GB", None),
            ("GB", None),
            ("2 giga", None),
            ("1.2.3GB", None),
            ("9999999999TB", None),
        ];
        for (text, expected) in cases {
            assert_eq!(MemoryBudget::parse(text), expected, "{text}");
        }
        assert_eq!(MemoryBudget::Percent(25.0).bytes(Some(1000)), Some(250));
        assert_eq!(MemoryBudget::Percent(25.0).bytes(None), None);
    }
}
