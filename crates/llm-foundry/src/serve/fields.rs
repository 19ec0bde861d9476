//! Reading a JSON request key by key, so that a wrong value is named and no key is ignored.

use serde_json::{Map, Value};

/// A request that cannot be done, as OpenAI's clients expect it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ApiError {
    pub(super) status: u16,
    pub(super) message: String,
    /// The key that is wrong.
    pub(super) param: Option<String>,
}

impl ApiError {
    pub(super) fn new(status: u16, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), param: None }
    }

    /// A value that is wrong.
    pub(super) fn of(key: &str, message: impl std::fmt::Display) -> Self {
        Self { status: 400, message: format!("`{key}`: {message}"), param: Some(key.to_owned()) }
    }

    /// The body of the answer.
    pub(super) fn body(&self) -> String {
        let kind = match self.status {
            429 => "rate_limit_exceeded",
            401 => "authentication_error",
            500.. => "server_error",
            _ => "invalid_request_error",
        };
        let error =
            serde_json::json!({"message": self.message, "type": kind, "param": self.param, "code": null});
        serde_json::json!({ "error": error }).to_string()
    }
}

/// What is left of a request.
pub(super) struct Fields(Map<String, Value>);

impl Fields {
    /// A JSON object.
    pub(super) fn parse(body: &[u8]) -> Result<Self, ApiError> {
        match serde_json::from_slice(body) {
            Ok(Value::Object(map)) => Ok(Self(map)),
            Ok(_) => Err(ApiError::new(400, "the body is not a JSON object")),
            Err(error) => Err(ApiError::new(400, format!("the body is not JSON: {error}"))),
        }
    }

    /// The value of a key; null counts as absent.
    pub(super) fn take(&mut self, key: &str) -> Option<Value> {
        self.0.remove(key).filter(|value| !value.is_null())
    }

    fn typed<T>(
        &mut self,
        key: &str,
        expected: &str,
        read: impl FnOnce(&Value) -> Option<T>,
    ) -> Result<Option<T>, ApiError> {
        let Some(value) = self.take(key) else { return Ok(None) };
        match read(&value) {
            Some(value) => Ok(Some(value)),
            None => Err(ApiError::of(key, format!("expected {expected}"))),
        }
    }

    pub(super) fn text(&mut self, key: &str) -> Result<Option<String>, ApiError> {
        self.typed(key, "a text", |value| value.as_str().map(str::to_owned))
    }

    pub(super) fn number(&mut self, key: &str) -> Result<Option<f64>, ApiError> {
        self.typed(key, "a number", Value::as_f64)
    }

    pub(super) fn integer(&mut self, key: &str) -> Result<Option<i64>, ApiError> {
        self.typed(key, "a whole number", Value::as_i64)
    }

    /// A whole number from `least` to `most`.
    pub(super) fn count(&mut self, key: &str, least: usize, most: usize) -> Result<Option<usize>, ApiError> {
        let range = match most {
            usize::MAX => format!("a whole number, {least} or more"),
            _ => format!("a whole number from {least} to {most}"),
        };
        let in_range = |value: &Value| {
            value.as_u64().and_then(|n| usize::try_from(n).ok()).filter(|n| (least..=most).contains(n))
        };
        self.typed(key, &range, in_range)
    }

    pub(super) fn flag(&mut self, key: &str) -> Result<bool, ApiError> {
        Ok(self.typed(key, "true or false", Value::as_bool)?.unwrap_or(false))
    }

    /// One text or several.
    pub(super) fn texts(&mut self, key: &str, most: usize) -> Result<Vec<String>, ApiError> {
        let list = self.typed(key, "a text or a list of texts", |value| match value {
            Value::String(text) => Some(vec![text.clone()]),
            Value::Array(list) => list.iter().map(|text| text.as_str().map(str::to_owned)).collect(),
            _ => None,
        })?;
        let list = list.unwrap_or_default();
        if list.len() > most || list.iter().any(String::is_empty) {
            return Err(ApiError::of(key, format!("at most {most} texts, none of them empty")));
        }
        Ok(list)
    }

    /// A key that is accepted with the value that changes nothing.
    pub(super) fn only(&mut self, key: &str, neutral: &[Value]) -> Result<(), ApiError> {
        match self.take(key) {
            Some(value) if !neutral.contains(&value) => {
                Err(ApiError::of(key, "is not supported by this server; leave it out"))
            }
            _ => Ok(()),
        }
    }

    /// Refuses keys that nobody read.
    pub(super) fn finish(self) -> Result<(), ApiError> {
        match self.0.iter().find(|(_, value)| !value.is_null()) {
            Some((key, _)) => Err(ApiError::of(key, "is not known to this server; leave it out")),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn fields(value: Value) -> Fields {
        Fields::parse(value.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn values_are_read_or_named() {
        let mut read = fields(json!({"n": 3, "t": 0.5, "s": ["a", "b"], "x": null, "b": true, "k": {}}));
        assert_eq!(read.count("n", 1, 4), Ok(Some(3)));
        assert_eq!(read.number("t"), Ok(Some(0.5)));
        assert_eq!(read.texts("s", 2).unwrap(), ["a", "b"]);
        assert_eq!(read.number("x"), Ok(None));
        assert_eq!(read.flag("b"), Ok(true));
        assert_eq!(read.only("k", &[json!({})]), Ok(()));
        assert_eq!(read.finish(), Ok(()));
        let error = fields(json!({"n": 5})).count("n", 1, 4).unwrap_err();
        assert_eq!((error.status, error.param.as_deref()), (400, Some("n")));
        assert!(error.message.contains("from 1 to 4"), "{error:?}");
        for (key, value) in [("n", json!(-1)), ("n", json!(1.5)), ("n", json!("1"))] {
            assert!(fields(json!({ key: value })).count(key, 0, 9).is_err());
        }
        assert!(fields(json!({"s": [""]})).texts("s", 2).is_err());
        assert!(fields(json!({"best_of": 2})).only("best_of", &[json!(1)]).is_err());
        assert!(fields(json!({"colour": 2})).finish().unwrap_err().message.contains("colour"));
        assert!(Fields::parse(b"[1]").is_err() && Fields::parse(b"{").is_err());
    }
}
