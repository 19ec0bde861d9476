//! A conversation as values of the template language, made once for all renderings of it and of its beginnings.

use std::sync::Arc;

use minijinja::value::{Enumerator, Object, Serde, Value as Jinja};
use serde_json::{Map, Value};

use super::generation::{self, Marks};
use super::{ChatTemplate, NAME, Rendered, TemplateError, render_error};
use crate::example::Message;

/// Names that a message's reasoning comes under; templates read the first.
const REASONING: [&str; 3] = ["reasoning_content", "thinking", "reasoning"];

/// A conversation that a template can render, whole or up to a message.
#[derive(Debug)]
pub struct OpenConversation<'t> {
    template: &'t ChatTemplate,
    messages: Vec<Jinja>,
    /// All variables but `messages` and `add_generation_prompt`.
    variables: Arc<Vec<(String, Jinja)>>,
    /// What marks the assistant's text; `None` for templates that do not tell it.
    marks: Option<Marks>,
}

impl<'t> OpenConversation<'t> {
    pub(super) fn new(
        template: &'t ChatTemplate,
        messages: &[Message],
        tools: Option<&Value>,
        kwargs: &Map<String, Value>,
    ) -> Self {
        let mut variables = template.special_tokens.clone();
        for (name, value) in kwargs {
            let value = Jinja::from(Serde(value));
            match variables.iter_mut().find(|(known, _)| known == name) {
                Some((_, old)) => *old = value,
                None => variables.push((name.clone(), value)),
            }
        }
        variables.push(("tools".to_owned(), tools.map_or_else(none, |tools| Jinja::from(Serde(tools)))));
        variables.push(("documents".to_owned(), none()));
        let messages: Vec<Value> = messages.iter().map(template_message).collect();
        let marks = template.has_generation_tags.then(|| {
            let texts = messages.iter().chain(tools).chain(kwargs.values());
            let special = template.special_tokens.iter().filter_map(|(_, token)| token.as_str());
            Marks::absent_from(texts, kwargs.keys().map(String::as_str).chain(special))
        });
        if let Some(marks) = marks {
            variables.push((generation::MARKS_VARIABLE.to_owned(), Jinja::from(marks.to_string())));
        }
        let messages = messages.iter().map(|message| Jinja::from(Serde(message))).collect();
        Self { template, messages, variables: Arc::new(variables), marks }
    }

    /// Renders the first `count` messages (all of them if there are fewer); `add_generation_prompt`: with the header
    /// of an assistant's turn at the end.
    ///
    /// # Errors
    /// As [`ChatTemplate::render`].
    pub fn render(&self, count: usize, add_generation_prompt: bool) -> Result<Rendered, TemplateError> {
        let messages = &self.messages[..count.min(self.messages.len())];
        self.rendered(messages.to_vec(), add_generation_prompt)
    }

    /// Renders the messages up to and with number `index`, which is replaced by `message`.
    ///
    /// # Errors
    /// As [`ChatTemplate::render`].
    pub fn render_with(&self, index: usize, message: &Message) -> Result<Rendered, TemplateError> {
        let mut messages = self.messages[..index.min(self.messages.len())].to_vec();
        messages.push(Jinja::from(Serde(template_message(message))));
        self.rendered(messages, false)
    }

    fn rendered(&self, messages: Vec<Jinja>, add_generation_prompt: bool) -> Result<Rendered, TemplateError> {
        let (shared, messages) = (Arc::clone(&self.variables), Jinja::from(messages));
        let prompt = Jinja::from(add_generation_prompt);
        let variables = Jinja::from_object(Variables { shared, messages, prompt });
        let text = self.template.limits.run(|| {
            let template = self.template.environment.get_template(NAME).map_err(|e| render_error(&e))?;
            template.render(variables).map_err(|e| render_error(&e))
        })??;
        Ok(match self.marks {
            Some(marks) => marks.take_from(&text),
            None => Rendered { text, assistant_spans: Vec::new() },
        })
    }
}

/// What a template sees: nothing is copied for a rendering.
#[derive(Debug)]
struct Variables {
    shared: Arc<Vec<(String, Jinja)>>,
    messages: Jinja,
    prompt: Jinja,
}

/// Variables that differ between renderings.
const OWN: [&str; 2] = ["messages", "add_generation_prompt"];

impl Object for Variables {
    fn get_value(self: &Arc<Self>, key: &Jinja) -> Option<Jinja> {
        match key.as_str()? {
            "messages" => Some(self.messages.clone()),
            "add_generation_prompt" => Some(self.prompt.clone()),
            name => self.shared.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone()),
        }
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        let shared = self.shared.iter().map(|(name, _)| name.as_str());
        Enumerator::Values(shared.chain(OWN).map(Jinja::from).collect())
    }
}

fn none() -> Jinja {
    Jinja::from(())
}

/// A message as templates see it.
fn template_message(message: &Message) -> Value {
    let mut fields = Map::new();
    let reasoning = REASONING.iter().find_map(|key| message.rest.get(*key).filter(|v| !v.is_null()));
    if let Some(reasoning) = reasoning {
        fields.insert("thinking".to_owned(), reasoning.clone());
    }
    fields.insert("role".to_owned(), Value::String(message.role.clone()));
    let content =
        if message.content.is_null() { Value::String(String::new()) } else { message.content.clone() };
    fields.insert("content".to_owned(), content);
    for (key, value) in message.rest.iter().filter(|(_, value)| !value.is_null()) {
        fields.insert(key.clone(), value.clone());
    }
    if let Some(reasoning) = reasoning {
        fields.insert("reasoning_content".to_owned(), reasoning.clone());
    }
    Value::Object(fields)
}
