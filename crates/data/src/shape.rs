//! The shapes of rows that can be read, and how a row's shape is told from its keys.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::spec::FormatHint;

/// What error messages list; keep it in step with [`Shape`].
pub(crate) const SUPPORTED_SHAPES: &str = "
  messages: [{\"role\": …, \"content\": …}, …], optional `tools`
  prompt + completion: two texts, or two lists of messages
  instruction + output, optional `input`, `system`, `history` (Alpaca)
  conversations: [{\"from\": …, \"value\": …}, …], optional `system`, `tools` (ShareGPT)
  text: one plain text (another key: set `text_field`)
preference data (chosen / rejected) is not for fine-tuning on examples";

/// The shape that all rows of a data set share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Shape {
    /// Conversations as `messages` (or `conversations`) of role and content.
    Messages,
    /// `prompt` and `completion` as texts.
    PromptCompletionText,
    /// `prompt` and `completion` as lists of messages.
    PromptCompletionMessages,
    /// `instruction`, `input`, `output`.
    Alpaca,
    /// `conversations` of `from` and `value`.
    #[serde(rename = "sharegpt")]
    ShareGpt,
    /// One text per row.
    Text,
}

impl Shape {
    /// The name that messages and `format:` use; the two prompt/completion shapes share theirs.
    pub fn name(self) -> &'static str {
        match self {
            Shape::Messages => "messages",
            Shape::PromptCompletionText | Shape::PromptCompletionMessages => "prompt_completion",
            Shape::Alpaca => "alpaca",
            Shape::ShareGpt => "sharegpt",
            Shape::Text => "text",
        }
    }

    /// Whether rows are conversations, rendered by the chat template.
    pub fn is_chat(self) -> bool {
        !matches!(self, Shape::PromptCompletionText | Shape::Text)
    }

    /// Whether rows have a completion apart from a prompt.
    pub fn has_completion(self) -> bool {
        matches!(self, Shape::PromptCompletionText | Shape::PromptCompletionMessages | Shape::Alpaca)
    }

    /// Keys that rows of this shape may use.
    pub(crate) fn keys(self) -> &'static [&'static str] {
        match self {
            Shape::Messages => &["messages", "conversations", "tools", "chat_template_kwargs"],
            Shape::PromptCompletionText => &["prompt", "completion"],
            Shape::PromptCompletionMessages => &["prompt", "completion", "tools", "chat_template_kwargs"],
            Shape::Alpaca => &["instruction", "input", "output", "system", "history"],
            Shape::ShareGpt => &["conversations", "system", "tools", "chat_template_kwargs"],
            Shape::Text => &[],
        }
    }

    /// The shape that `format:` demands of this row; `None` for `auto`.
    pub(crate) fn demanded(hint: FormatHint, row: &Map<String, Value>) -> Option<Shape> {
        Some(match hint {
            FormatHint::Auto => return None,
            FormatHint::Messages => Shape::Messages,
            FormatHint::PromptCompletion if row.get("prompt").is_some_and(Value::is_array) => {
                Shape::PromptCompletionMessages
            }
            FormatHint::PromptCompletion => Shape::PromptCompletionText,
            FormatHint::Alpaca => Shape::Alpaca,
            FormatHint::ShareGpt => Shape::ShareGpt,
            FormatHint::Text => Shape::Text,
        })
    }

    /// All shapes that the keys of this row fit.
    pub(crate) fn candidates(row: &Map<String, Value>, text_field: &str) -> Vec<Shape> {
        let has = |key: &str| row.get(key).is_some_and(|v| !v.is_null());
        let mut found = Vec::new();
        if has("messages") {
            found.push(Shape::Messages);
        }
        if let Some(turns) = row.get("conversations").and_then(Value::as_array) {
            let from_value = turns.first().is_some_and(|t| t.get("from").is_some());
            found.push(if from_value { Shape::ShareGpt } else { Shape::Messages });
        }
        if has("prompt") && has("completion") {
            let lists = row["prompt"].is_array();
            found.push(if lists { Shape::PromptCompletionMessages } else { Shape::PromptCompletionText });
        }
        if has("instruction") && has("output") {
            found.push(Shape::Alpaca);
        }
        if row.get(text_field).is_some_and(Value::is_string) {
            found.push(Shape::Text);
        }
        found.dedup();
        found
    }
}
