//! Reading `lr_scheduler_kwargs`: every key must be asked for by the family, or it is an error.

use super::{ScheduleError, SchedulerType};
use serde_json::{Map, Value};

/// The options of one schedule while they are being read.
pub(crate) struct Kwargs<'a> {
    family: SchedulerType,
    given: &'a Map<String, Value>,
    known: Vec<&'static str>,
}

impl<'a> Kwargs<'a> {
    pub(crate) fn new(family: SchedulerType, given: &'a Map<String, Value>) -> Self {
        Self { family, given, known: Vec::new() }
    }

    /// The value under `key`; null counts as absent, as `None` does in Python.
    fn value(&mut self, key: &'static str) -> Option<&'a Value> {
        self.known.push(key);
        self.given.get(key).filter(|value| !value.is_null())
    }

    fn wrong(&self, key: &'static str, value: &Value, expected: &'static str) -> ScheduleError {
        ScheduleError::Value { family: self.family, key, value: value.clone(), expected }
    }

    /// A finite number.
    pub(crate) fn number(&mut self, key: &'static str) -> Result<Option<f64>, ScheduleError> {
        let Some(value) = self.value(key) else { return Ok(None) };
        match value.as_f64() {
            Some(number) if number.is_finite() => Ok(Some(number)),
            _ => Err(self.wrong(key, value, "a number")),
        }
    }

    /// A number of steps, at least `least` (0 or 1).
    pub(crate) fn steps(&mut self, key: &'static str, least: u64) -> Result<Option<u64>, ScheduleError> {
        let Some(value) = self.value(key) else { return Ok(None) };
        match value.as_u64() {
            Some(steps) if steps >= least => Ok(Some(steps)),
            _ if least == 0 => Err(self.wrong(key, value, "a number of steps, 0 or more")),
            _ => Err(self.wrong(key, value, "a number of steps, 1 or more")),
        }
    }

    /// The value under `key` as `read` understands it; `expected` says what it does understand.
    pub(crate) fn choice<T>(
        &mut self,
        key: &'static str,
        expected: &'static str,
        read: impl Fn(&str) -> Option<T>,
    ) -> Result<Option<T>, ScheduleError> {
        let Some(value) = self.value(key) else { return Ok(None) };
        value.as_str().and_then(read).map(Some).ok_or_else(|| self.wrong(key, value, expected))
    }

    /// An error that says what the options must satisfy.
    pub(crate) fn requirement(&self, requirement: impl Into<String>) -> ScheduleError {
        ScheduleError::Requirement { family: self.family, requirement: requirement.into() }
    }

    /// The least factor of the cosine families: exactly one of `min_lr` and `min_lr_rate`.
    pub(crate) fn min_lr_rate(&mut self, learning_rate: f64) -> Result<f64, ScheduleError> {
        match (self.number("min_lr")?, self.number("min_lr_rate")?) {
            (Some(_), Some(_)) => {
                Err(self.requirement("min_lr and min_lr_rate exclude each other, keep one"))
            }
            (Some(min_lr), None) => Ok(min_lr / learning_rate),
            (None, Some(rate)) => Ok(rate),
            (None, None) => Err(self.requirement("set min_lr, or min_lr_rate as a share of learning_rate")),
        }
    }

    /// Errors if a key was given that nobody asked for.
    pub(crate) fn finish(self) -> Result<(), ScheduleError> {
        match self.given.keys().find(|key| !self.known.contains(&key.as_str())) {
            Some(key) => {
                Err(ScheduleError::UnknownKey { family: self.family, key: key.clone(), known: self.known })
            }
            None => Ok(()),
        }
    }
}
