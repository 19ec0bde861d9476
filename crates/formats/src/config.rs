//! Hugging Face `config.json`: the object as it is, with typed getters whose errors name file and key.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::FormatError;
use crate::json::read_object;

/// A model's `config.json` (or its equivalent made from GGUF metadata).
///
/// The object itself is field 0, so that unknown keys survive loading and saving. Getters take dotted keys
/// (`rope_parameters.rope_theta`); a `null` counts as absent.
#[derive(Clone, Debug, PartialEq)]
pub struct HfConfig(pub Map<String, Value>, PathBuf);

impl HfConfig {
    /// A config made in memory; errors about it name `path`.
    pub fn new(values: Map<String, Value>, path: impl Into<PathBuf>) -> Self {
        Self(values, path.into())
    }

    /// A config from a JSON literal, for tests and generated models; errors about it name `config.json`.
    ///
    /// # Panics
    /// If `value` is not an object.
    pub fn from_json(value: Value) -> Self {
        match value {
            Value::Object(values) => Self::new(values, "config.json"),
            other => panic!("a config is a JSON object, not {other}"),
        }
    }

    /// Reads a `config.json`.
    ///
    /// # Errors
    /// [`FormatError::Io`], [`FormatError::InvalidJson`].
    pub fn read(path: &Path) -> Result<Self, FormatError> {
        Ok(Self(read_object(path)?, path.to_owned()))
    }

    /// The file this config came from.
    pub fn path(&self) -> &Path {
        &self.1
    }

    /// The value of a key (dotted for nested objects); `None` if absent or null.
    pub fn get(&self, key: &str) -> Option<&Value> {
        let mut parts = key.split('.');
        let mut value = self.0.get(parts.next()?)?;
        for part in parts {
            value = value.as_object()?.get(part)?;
        }
        (!value.is_null()).then_some(value)
    }

    /// A required unsigned integer. A float without fraction (`4096.0`) counts.
    ///
    /// # Errors
    /// [`FormatError::ConfigKeyMissing`], [`FormatError::ConfigKeyType`].
    pub fn usize(&self, key: &str) -> Result<usize, FormatError> {
        self.required(key, self.opt_usize(key)?)
    }

    /// An optional unsigned integer.
    ///
    /// # Errors
    /// [`FormatError::ConfigKeyType`].
    pub fn opt_usize(&self, key: &str) -> Result<Option<usize>, FormatError> {
        self.typed(key, "a non-negative integer", |v| {
            let whole = |f: f64| (f.fract() == 0.0 && (0.0..9e15).contains(&f)).then_some(f as u64);
            v.as_u64().or_else(|| v.as_f64().and_then(whole)).and_then(|n| usize::try_from(n).ok())
        })
    }

    /// A required number.
    ///
    /// # Errors
    /// [`FormatError::ConfigKeyMissing`], [`FormatError::ConfigKeyType`].
    pub fn f64(&self, key: &str) -> Result<f64, FormatError> {
        self.required(key, self.opt_f64(key)?)
    }

    /// An optional number.
    ///
    /// # Errors
    /// [`FormatError::ConfigKeyType`].
    pub fn opt_f64(&self, key: &str) -> Result<Option<f64>, FormatError> {
        self.typed(key, "a number", Value::as_f64)
    }

    /// A required boolean.
    ///
    /// # Errors
    /// [`FormatError::ConfigKeyMissing`], [`FormatError::ConfigKeyType`].
    pub fn bool(&self, key: &str) -> Result<bool, FormatError> {
        self.required(key, self.opt_bool(key)?)
    }

    /// An optional boolean.
    ///
    /// # Errors
    /// [`FormatError::ConfigKeyType`].
    pub fn opt_bool(&self, key: &str) -> Result<Option<bool>, FormatError> {
        self.typed(key, "true or false", Value::as_bool)
    }

    /// A required string.
    ///
    /// # Errors
    /// [`FormatError::ConfigKeyMissing`], [`FormatError::ConfigKeyType`].
    pub fn str(&self, key: &str) -> Result<&str, FormatError> {
        self.required(key, self.opt_str(key)?)
    }

    /// An optional string.
    ///
    /// # Errors
    /// [`FormatError::ConfigKeyType`].
    pub fn opt_str(&self, key: &str) -> Result<Option<&str>, FormatError> {
        self.typed(key, "a string", Value::as_str)
    }

    /// An optional list of strings.
    ///
    /// # Errors
    /// [`FormatError::ConfigKeyType`].
    pub fn opt_strings(&self, key: &str) -> Result<Option<Vec<&str>>, FormatError> {
        self.typed(key, "a list of strings", |v| v.as_array()?.iter().map(Value::as_str).collect())
    }

    /// An optional object.
    ///
    /// # Errors
    /// [`FormatError::ConfigKeyType`].
    pub fn opt_object(&self, key: &str) -> Result<Option<&Map<String, Value>>, FormatError> {
        self.typed(key, "an object", Value::as_object)
    }

    /// Token ids under a key that holds an integer or a list of integers, as `eos_token_id` does; empty if absent.
    ///
    /// # Errors
    /// [`FormatError::ConfigKeyType`].
    pub fn token_ids(&self, key: &str) -> Result<Vec<u32>, FormatError> {
        let ids = self.typed(key, "a token id or a list of token ids", token_ids)?;
        Ok(ids.unwrap_or_default())
    }

    fn required<T>(&self, key: &str, value: Option<T>) -> Result<T, FormatError> {
        value.ok_or_else(|| FormatError::ConfigKeyMissing { path: self.1.clone(), key: key.to_owned() })
    }

    fn typed<'a, T>(
        &'a self,
        key: &str,
        wanted: &'static str,
        convert: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, FormatError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        convert(value).map(Some).ok_or_else(|| FormatError::ConfigKeyType {
            path: self.1.clone(),
            key: key.to_owned(),
            wanted,
            found: value.to_string().chars().take(60).collect(),
        })
    }
}

/// An integer or a list of integers as token ids.
pub(crate) fn token_ids(value: &Value) -> Option<Vec<u32>> {
    let one = |v: &Value| v.as_u64().and_then(|id| u32::try_from(id).ok());
    match value {
        Value::Array(list) => list.iter().map(one).collect(),
        single => one(single).map(|id| vec![id]),
    }
}
