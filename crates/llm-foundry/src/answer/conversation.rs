//! Conversations as JSON has them.

use foundry_data::Message;
use serde_json::{Map, Value};

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
        let content = content(&mut rest).map_err(|what| format!("message {} {what}", i + 1))?;
        messages.push(Message { role, content, rest, learn: None });
    }
    if messages.is_empty() {
        return Err("the list of messages is empty".into());
    }
    Ok(messages)
}

/// A message's text. Parts of text, as OpenAI's clients send them, are put on lines of their own, as llama.cpp and vLLM
/// do. A message that calls tools need not say anything.
fn content(message: &mut Map<String, Value>) -> Result<Value, String> {
    match message.shift_remove("content") {
        Some(text @ Value::String(_)) => Ok(text),
        Some(Value::Array(parts)) => {
            let text = |part: &Value| match (part["type"].as_str(), part["text"].as_str()) {
                (Some("text"), Some(text)) => Ok(text.to_owned()),
                (Some("text"), None) => Err("has a part of `content` without `text`".to_owned()),
                (Some(kind), _) => {
                    Err(format!("has a part of `content` of type `{kind}`; only `text` is taken"))
                }
                (None, _) => Err("has a part of `content` without `type`".to_owned()),
            };
            let texts: Vec<String> = parts.iter().map(text).collect::<Result<_, _>>()?;
            Ok(texts.join("\n").into())
        }
        None | Some(Value::Null) => match message.get("tool_calls") {
            Some(Value::Array(calls)) if !calls.is_empty() => Ok(Value::Null),
            _ => Err("has no `content`".into()),
        },
        Some(_) => Err("has a `content` that is neither a text nor a list of parts".into()),
    }
}
