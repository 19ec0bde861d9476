//! Rows to examples: the shapes of the files become the four things that can be tokenised.

use serde_json::{Map, Value};

use crate::error::{DataError, Place};
use crate::shape::Shape;

/// One turn of a conversation.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    /// `system`, `user`, `assistant`, `tool`, … as the template knows them.
    pub role: String,
    /// A text, a list of parts, or null (rendered as an empty text).
    pub content: Value,
    /// All other keys (`tool_calls`, `name`, `reasoning_content`, …), for the template.
    pub rest: Map<String, Value>,
    /// Whether this turn is learned, where the row says so itself: `train: true | false` or `weight: 0 | 1`.
    pub learn: Option<bool>,
}

impl Message {
    /// A message of plain text.
    pub fn text(role: &str, content: impl Into<String>) -> Self {
        Self { role: role.to_owned(), content: Value::String(content.into()), rest: Map::new(), learn: None }
    }
}

impl Message {
    /// Whether it says nothing at all: no word, no call of a tool, no thought.
    pub(crate) fn is_empty(&self) -> bool {
        let says = |value: &Value| match value {
            Value::Null => false,
            Value::String(text) => !text.trim().is_empty(),
            Value::Array(items) => !items.is_empty(),
            _ => true,
        };
        let is_said = |(key, value): (&String, &Value)| key != "name" && says(value);
        !says(&self.content) && !self.rest.iter().any(is_said)
    }
}

/// What a conversation brings besides its messages.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ChatExtras {
    /// Tool definitions for the template.
    pub tools: Option<Value>,
    /// The row's own template variables.
    pub chat_template_kwargs: Map<String, Value>,
}

/// One example, ready to be rendered and tokenised.
#[derive(Clone, Debug, PartialEq)]
pub enum Example {
    /// Plain text: every token is learned.
    Text(String),
    /// Two texts: the completion is learned.
    PromptCompletion {
        /// What comes before.
        prompt: String,
        /// What is learned.
        completion: String,
    },
    /// A conversation.
    Messages {
        /// All turns.
        messages: Vec<Message>,
        /// Tools and template variables.
        extras: ChatExtras,
    },
    /// A conversation cut in two: the second part is learned.
    PromptCompletionMessages {
        /// The turns before.
        prompt: Vec<Message>,
        /// The turns that are learned.
        completion: Vec<Message>,
        /// Tools and template variables.
        extras: ChatExtras,
    },
}

impl Example {
    /// Whether an answer that may be learned says nothing, so that it teaches to stop at once.
    pub(crate) fn has_empty_answer(&self) -> bool {
        let is_empty = |m: &Message| m.role == "assistant" && m.learn != Some(false) && m.is_empty();
        match self {
            Example::Text(_) => false,
            Example::PromptCompletion { completion, .. } => completion.trim().is_empty(),
            Example::Messages { messages: answers, .. }
            | Example::PromptCompletionMessages { completion: answers, .. } => answers.iter().any(is_empty),
        }
    }
}

/// Turns a row of a known shape into an example.
pub(crate) fn from_row(
    row: Map<String, Value>,
    shape: Shape,
    text_field: &str,
    place: &Place,
) -> Result<Example, DataError> {
    let mut row = Row { fields: row };
    row.example(shape, text_field).map_err(|problem| {
        let keys = row.fields.keys().cloned().collect();
        DataError::BadRow { place: place.clone(), shape, problem, keys }
    })
}

/// Converts one row; errors are the problem alone, the place is added outside.
struct Row {
    fields: Map<String, Value>,
}

impl Row {
    /// The value of a key, which stays without it for messages.
    fn take(&mut self, key: &str) -> Option<Value> {
        self.fields.get_mut(key).map(Value::take)
    }

    fn example(&mut self, shape: Shape, text_field: &str) -> Result<Example, String> {
        Ok(match shape {
            Shape::Text => Example::Text(self.text(text_field)?),
            Shape::PromptCompletionText => Example::PromptCompletion {
                prompt: self.text("prompt")?,
                completion: self.text("completion")?,
            },
            Shape::PromptCompletionMessages => Example::PromptCompletionMessages {
                prompt: self.messages("prompt")?,
                completion: self.messages("completion")?,
                extras: self.extras()?,
            },
            Shape::Messages => {
                let key = if self.fields.contains_key("messages") { "messages" } else { "conversations" };
                Example::Messages { messages: self.messages(key)?, extras: self.extras()? }
            }
            Shape::ShareGpt => self.sharegpt()?,
            Shape::Alpaca => self.alpaca()?,
        })
    }

    fn text(&mut self, key: &str) -> Result<String, String> {
        match self.take(key) {
            Some(Value::String(text)) => Ok(text),
            None => Err(format!("`{key}` is missing")),
            Some(other) => Err(format!("`{key}` must be a text, found {}", kind(&other))),
        }
    }

    /// A text that may be missing or null.
    fn optional_text(&mut self, key: &str) -> Result<Option<String>, String> {
        match self.fields.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(_) => self.text(key).map(Some),
        }
    }

    fn list(&mut self, key: &str) -> Result<Vec<Value>, String> {
        match self.take(key) {
            Some(Value::Array(list)) if list.is_empty() => Err(format!("`{key}` is an empty list")),
            Some(Value::Array(list)) => Ok(list),
            None => Err(format!("`{key}` is missing")),
            Some(other) => Err(format!("`{key}` must be a list of messages, found {}", kind(&other))),
        }
    }

    fn messages(&mut self, key: &str) -> Result<Vec<Message>, String> {
        let list = self.list(key)?;
        list.into_iter()
            .enumerate()
            .map(|(i, m)| message(m).map_err(|p| format!("`{key}`[{i}] {p}")))
            .collect()
    }

    fn extras(&mut self) -> Result<ChatExtras, String> {
        let tools = match self.take("tools") {
            None | Some(Value::Null) => None,
            // Data sets keep tools as JSON text where their table format has no free objects.
            Some(Value::String(text)) if text.trim().is_empty() => None,
            Some(Value::String(text)) => Some(
                serde_json::from_str::<Value>(&text)
                    .map_err(|e| format!("`tools` is a text that is no JSON: {e}"))?,
            ),
            Some(other) => Some(other),
        };
        let tools = match tools {
            Some(Value::Array(list)) if list.is_empty() => None,
            Some(Value::Array(list)) => Some(Value::Array(list)),
            None | Some(Value::Null) => None,
            Some(other) => return Err(format!("`tools` must be a list, found {}", kind(&other))),
        };
        let chat_template_kwargs = match self.take("chat_template_kwargs") {
            None | Some(Value::Null) => Map::new(),
            Some(Value::Object(map)) => map,
            Some(other) => {
                return Err(format!("`chat_template_kwargs` must be an object, found {}", kind(&other)));
            }
        };
        Ok(ChatExtras { tools, chat_template_kwargs })
    }

    fn sharegpt(&mut self) -> Result<Example, String> {
        let turns = self.list("conversations")?;
        let mut messages = Vec::with_capacity(turns.len() + 1);
        if let Some(system) = self.optional_text("system")?.filter(|s| !s.is_empty()) {
            messages.push(Message::text("system", system));
        }
        for (i, turn) in turns.into_iter().enumerate() {
            messages.push(sharegpt_turn(turn).map_err(|p| format!("`conversations`[{i}] {p}"))?);
        }
        Ok(Example::Messages { messages, extras: self.extras()? })
    }

    fn alpaca(&mut self) -> Result<Example, String> {
        let mut prompt = Vec::new();
        if let Some(system) = self.optional_text("system")?.filter(|s| !s.is_empty()) {
            prompt.push(Message::text("system", system));
        }
        for (i, pair) in self.history()?.into_iter().enumerate() {
            match pair.as_array().map(Vec::as_slice) {
                Some([Value::String(user), Value::String(assistant)]) => {
                    prompt.push(Message::text("user", user));
                    prompt.push(Message::text("assistant", assistant));
                }
                _ => return Err(format!("`history`[{i}] must be a pair of texts [question, answer]")),
            }
        }
        let mut question = self.text("instruction")?;
        if let Some(input) = self.optional_text("input")?.filter(|input| !input.is_empty()) {
            question.push('\n');
            question.push_str(&input);
        }
        prompt.push(Message::text("user", question));
        let completion = vec![Message::text("assistant", self.text("output")?)];
        Ok(Example::PromptCompletionMessages { prompt, completion, extras: ChatExtras::default() })
    }

    fn history(&mut self) -> Result<Vec<Value>, String> {
        match self.take("history") {
            None | Some(Value::Null) => Ok(Vec::new()),
            Some(Value::Array(pairs)) => Ok(pairs),
            Some(other) => Err(format!("`history` must be a list of pairs, found {}", kind(&other))),
        }
    }
}

/// A message of role and content.
fn message(value: Value) -> Result<Message, String> {
    let Value::Object(mut fields) = value else {
        return Err(format!("must be an object with `role` and `content`, found {}", kind(&value)));
    };
    let role = match fields.remove("role") {
        Some(Value::String(role)) => role,
        None => return Err("has no `role`".to_owned()),
        Some(other) => return Err(format!("`role` must be a text, found {}", kind(&other))),
    };
    let content = fields.remove("content").unwrap_or(Value::Null);
    check_content(&content)?;
    let learn = take_learn(&mut fields)?;
    Ok(Message { role, content, rest: fields, learn })
}

/// A turn of `from` and `value`, with the role names of ShareGPT and its descendants.
fn sharegpt_turn(value: Value) -> Result<Message, String> {
    let Value::Object(mut fields) = value else {
        return Err(format!("must be an object with `from` and `value`, found {}", kind(&value)));
    };
    let role = match fields.remove("from").as_ref().and_then(Value::as_str) {
        Some("human" | "user") => "user",
        Some("gpt" | "assistant" | "model" | "chatgpt" | "bing" | "bard") => "assistant",
        Some("system") => "system",
        Some("tool" | "observation" | "function_response") => "tool",
        Some(other) => {
            return Err(format!(
                "`from` is \"{other}\"; known are human, user, gpt, assistant, model, chatgpt, bing, bard, system, tool, \
                 observation, function_response"
            ));
        }
        None => return Err("has no `from`".to_owned()),
    };
    let content = fields.remove("value").ok_or("has no `value`")?;
    check_content(&content)?;
    let learn = take_learn(&mut fields)?;
    Ok(Message { role: role.to_owned(), content, rest: fields, learn })
}

/// `train` (Axolotl) and `weight` (OpenAI, Mistral) of a message, which its template does not see.
fn take_learn(fields: &mut Map<String, Value>) -> Result<Option<bool>, String> {
    let train = match fields.remove("train") {
        None | Some(Value::Null) => None,
        Some(Value::Bool(train)) => Some(train),
        Some(other) => return Err(format!("`train` must be true or false, found {}", kind(&other))),
    };
    let weight = match fields.remove("weight") {
        None | Some(Value::Null) => None,
        Some(weight) => match weight.as_f64() {
            Some(0.0) => Some(false),
            Some(1.0) => Some(true),
            _ => return Err(format!("`weight` must be 0 (not learned) or 1 (learned), found {weight}")),
        },
    };
    match (train, weight) {
        (Some(train), Some(weight)) if train != weight => {
            Err("`train` and `weight` contradict each other".to_owned())
        }
        _ => Ok(train.or(weight)),
    }
}

fn check_content(content: &Value) -> Result<(), String> {
    match content {
        Value::String(_) | Value::Array(_) | Value::Null => Ok(()),
        other => Err(format!("content must be a text or a list of parts, found {}", kind(other))),
    }
}

/// What a JSON value is, in words.
pub(crate) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a truth value",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
#[path = "example_tests.rs"]
mod tests;
