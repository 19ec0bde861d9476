//! Conversations as JSON has them.

use foundry_data::Message;
use serde_json::Value;

/// What is to be answered.
#[derive(Debug)]
pub(crate) enum Question {
    /// A text to continue.
    Prompt(String),
    /// Messages to answer, and tools.
    Chat(Vec<Message>, Option<Value>),
}

/// A list of messages, each an object with a `role`.
///
/// # Errors
/// What is wrong, for a message that says where.
pub(crate) fn messages(value: Value) -> Result<Vec<Message>, String> {
    let Value::Array(list) = value else { return Err("no list of messages".into()) };
    let mut messages = Vec::new();
    for (i, message) in list.into_iter().enumerate() {
        let Value::Object(mut rest) = message else {
            return Err(format!("message {} is not an object", i + 1));
        };
        let Some(Value::String(role)) = rest.shift_remove("role") else {
            return Err(format!("message {} has no `role`", i + 1));
        };
        let content = rest.shift_remove("content").unwrap_or(Value::Null);
        messages.push(Message { role, content, rest, learn: None });
    }
    if messages.is_empty() {
        return Err("the list of messages is empty".into());
    }
    Ok(messages)
}
