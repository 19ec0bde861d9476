//! From questions to requests: everything of a model that answers but the model, for any thread to use.

use super::Question;
use crate::failure::{Failure, Outcome};
use foundry_data::Message;
use foundry_data::chat::ChatTemplate;
use foundry_formats::Tokenizer;
use foundry_models::Sampling;
use foundry_models::inference::Request;
use serde_json::{Map, Value};

/// Tokenizer, template and customs of a model.
pub(crate) struct Front {
    pub(crate) tokenizer: Tokenizer,
    /// generation_config.json.
    pub(crate) generation_config: Option<Value>,
    pub(super) eos_token_ids: Vec<u32>,
    pub(super) template: Option<ChatTemplate>,
    /// Most tokens of a conversation.
    pub(crate) capacity: usize,
}

impl Front {
    /// Token ids of a plain prompt, with the special tokens that the tokenizer adds.
    fn prompt_ids(&self, text: &str) -> Outcome<Vec<u32>> {
        self.tokenizer.encode(text, true).map_err(Failure::input)
    }

    /// Token ids of a conversation up to where the assistant speaks.
    pub(crate) fn chat_ids(&self, messages: &[Message], tools: Option<&Value>) -> Outcome<Vec<u32>> {
        let template = self.template.as_ref().ok_or_else(|| {
            Failure::Input(
                "this model's tokenizer has no chat template; give one with --chat-template FILE, or continue a plain \
                 text with `generate --prompt`"
                    .into(),
            )
        })?;
        let rendered = template.render(messages, tools, true, &Map::new()).map_err(Failure::input)?;
        self.tokenizer.encode(&rendered.text, false).map_err(Failure::input)
    }

    /// Token ids of what is to be answered, at least one.
    pub(crate) fn question_ids(&self, question: &Question) -> Outcome<Vec<u32>> {
        let ids = match question {
            Question::Prompt(text) => self.prompt_ids(text)?,
            Question::Chat(messages, tools) => self.chat_ids(messages, tools.as_ref())?,
        };
        if ids.is_empty() {
            return Err(Failure::Input("the prompt has no tokens; give some text".into()));
        }
        Ok(ids)
    }

    /// A request that ends where this model ends its answers.
    pub(crate) fn request(&self, tokens: Vec<u32>, sampling: Sampling) -> Request {
        Request::new(tokens, sampling, self.eos_token_ids.clone())
    }
}
