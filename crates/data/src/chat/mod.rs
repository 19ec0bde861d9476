//! Chat templates: conversations to text, as transformers renders them.
//!
//! Templates are Jinja programs from strangers; minijinja runs them without access to anything, with bounded recursion
//! and bounded work. Its environment is set up like transformers 5.23's (`utils/chat_template_utils.py`): trimmed
//! blocks, `tojson` without HTML escapes, `raise_exception`, `strftime_now`, Python's methods of strings, lists and
//! dicts, `{% generation %}` blocks. The committed goldens (`golden/`) hold both against each other.

pub mod builtin;
mod generation;
pub(crate) mod limits;
mod nesting;
mod opened;
mod printf;
mod pymethods;
mod tojson;

use std::ops::Range;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Value as Jinja, ValueKind};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, State};
use serde_json::{Map, Value};

use crate::example::Message;
pub use generation::without_generation_tags;
use limits::Limits;
pub use opened::OpenConversation;

/// Work that one rendering may do, in minijinja's units of an instruction or 64 bytes. Real conversations need
/// thousands. It also bounds the memory a template can take, to some 640 MB.
const FUEL: u64 = 10_000_000;
const NAME: &str = "chat template";
/// Variables that the renderer sets itself, so that nobody may set them by keyword.
const RESERVED: [&str; 4] = ["messages", "tools", "documents", "add_generation_prompt"];
/// What is wrong with a template, or with a conversation in its eyes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TemplateError {
    /// The template is no valid Jinja.
    #[error("the chat template is no valid Jinja{}: {message}; fix it or set another `chat_template`", at_line(*line))]
    Syntax {
        /// Line in the template, from 1.
        line: Option<usize>,
        /// What minijinja said.
        message: String,
    },
    /// The template refused the conversation by `raise_exception`.
    #[error(
        "the chat template refuses this conversation: {message}; change the conversation to what the model was made for"
    )]
    Raised {
        /// The template's own words.
        message: String,
    },
    /// The template failed on the conversation.
    #[error("the chat template fails on this conversation{}: {message}; check the messages' keys or set another `chat_template`", at_line(*line))]
    Failed {
        /// Line in the template, from 1.
        line: Option<usize>,
        /// What minijinja said.
        message: String,
    },
    /// The template did not come to an end within bounds.
    #[error(
        "the chat template does more work than {FUEL} steps on this conversation; it loops or the conversation is far too long"
    )]
    TooMuchWork,
    /// A keyword argument that the renderer sets itself.
    #[error("`chat_template_kwargs` must not set `{name}`: the conversation sets it")]
    Reserved {
        /// The variable.
        name: String,
    },
}

fn at_line(line: Option<usize>) -> String {
    line.map(|l| format!(" (its line {l})")).unwrap_or_default()
}

/// A rendered conversation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rendered {
    /// The text, to be tokenised without adding special tokens.
    pub text: String,
    /// Byte ranges of `text` inside `{% generation %}` blocks, in order; empty for templates without such blocks.
    pub assistant_spans: Vec<Range<usize>>,
}

/// A compiled chat template with the tokenizer's special tokens.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    /// Names and texts of special tokens, as values.
    special_tokens: Vec<(String, Jinja)>,
    has_generation_tags: bool,
    limits: Limits,
}

impl ChatTemplate {
    /// Compiles a template. `special_tokens`: pairs like `("bos_token", "<s>")`, variables of the template.
    ///
    /// # Errors
    /// [`TemplateError::Syntax`].
    pub fn compile(source: &str, special_tokens: Vec<(String, String)>) -> Result<Self, TemplateError> {
        // Jinja reads all line breaks as \n, minijinja does not.
        let unix = source.replace("\r\n", "\n").replace('\r', "\n");
        let generation::Rewritten { source, has_generation_tags, limits } = generation::rewrite_tags(&unix);
        limits.check()?;
        let mut environment = environment();
        environment.add_template_owned(NAME, source).map_err(|e| syntax_error(&e))?;
        let special_tokens =
            special_tokens.into_iter().map(|(name, token)| (name, Jinja::from(token))).collect();
        Ok(Self { environment, special_tokens, has_generation_tags, limits })
    }

    /// Renders as if it were this moment, in seconds since 1970: what `strftime_now` tells then does not change while a
    /// run goes on, nor when it is resumed on another day.
    pub fn at(mut self, seconds: i64) -> Self {
        self.environment.add_function("strftime_now", move |format: String| {
            let moment = jiff::Timestamp::from_second(seconds).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
            formatted(&format, &moment.to_zoned(jiff::tz::TimeZone::system()))
        });
        self
    }

    /// Whether the template marks the assistant's text by `{% generation %}` blocks.
    pub fn has_generation_tags(&self) -> bool {
        self.has_generation_tags
    }

    /// Whether a rendering needs a thread of its own, unless it is on one that [`limits::thread`] made.
    pub(crate) fn needs_deep_stack(&self) -> bool {
        self.limits.needs_deep_stack()
    }

    /// Renders a conversation.
    ///
    /// `tools`: a list of tool definitions. `add_generation_prompt`: end with the header of an assistant's turn.
    /// `kwargs`: further variables; they win over special tokens of the same name. As in transformers, keys of messages
    /// whose value is null are left out and reasoning is offered as `reasoning_content` and `thinking`; `content: null`
    /// is rendered as an empty text.
    ///
    /// # Errors
    /// [`TemplateError::Raised`], [`TemplateError::Failed`], [`TemplateError::TooMuchWork`],
    /// [`TemplateError::Reserved`].
    pub fn render(
        &self,
        messages: &[Message],
        tools: Option<&Value>,
        add_generation_prompt: bool,
        kwargs: &Map<String, Value>,
    ) -> Result<Rendered, TemplateError> {
        self.open(messages, tools, kwargs)?.render(messages.len(), add_generation_prompt)
    }

    /// A conversation made ready to be rendered more than once; see [`ChatTemplate::render`].
    ///
    /// # Errors
    /// [`TemplateError::Reserved`].
    pub fn open(
        &self,
        messages: &[Message],
        tools: Option<&Value>,
        kwargs: &Map<String, Value>,
    ) -> Result<OpenConversation<'_>, TemplateError> {
        if let Some(name) = kwargs.keys().find(|k| RESERVED.contains(&k.as_str())) {
            return Err(TemplateError::Reserved { name: name.clone() });
        }
        Ok(OpenConversation::new(self, messages, tools, kwargs))
    }
}

fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
    environment.set_syntax(syntax.expect("the default delimiters are valid"));
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_fuel(Some(FUEL));
    environment.set_recursion_limit(limits::RECURSION);
    environment.add_filter(generation::FILTER, generation::mark);
    environment.add_filter("tojson", tojson::filter);
    environment.add_filter(nesting::FILTER, nesting::bounded);
    environment.add_filter(nesting::NAMESPACE_FILTER, nesting::bounded_inside);
    environment.add_filter("int", lenient_int);
    environment.add_filter("float", lenient_float);
    environment.add_filter("string", |value: &Jinja| {
        nesting::check(value)?;
        Ok::<_, Error>(tojson::float_text(value).map_or_else(|| text_of(value), Jinja::from))
    });
    environment.set_formatter(|out, state, value| match tojson::float_text(value) {
        Some(text) => out.write_str(&text).map_err(Error::from),
        None => {
            nesting::check(value)?;
            minijinja::escape_formatter(out, state, value)
        }
    });
    environment.add_test("iterable", is_iterable);
    environment.add_function("raise_exception", raise_exception);
    environment.add_function("strftime_now", strftime_now);
    environment.set_unknown_method_callback(pymethods::call);
    environment
}

/// Jinja2's answer to what is no number is the default, 0.
fn lenient_int(
    state: &State,
    value: &Jinja,
    default: Option<Jinja>,
    base: Option<u32>,
    kwargs: Kwargs,
) -> Result<Jinja, Error> {
    let default = default.or(kwargs.get::<Option<Jinja>>("default")?).unwrap_or_else(|| Jinja::from(0));
    let number = minijinja::filters::int(state, value, Some(default.clone()), base, kwargs);
    number.or(Ok(default))
}

/// As [`lenient_int`].
fn lenient_float(
    state: &State,
    value: &Jinja,
    default: Option<Jinja>,
    kwargs: Kwargs,
) -> Result<Jinja, Error> {
    let default = default.or(kwargs.get::<Option<Jinja>>("default")?).unwrap_or_else(|| Jinja::from(0.0));
    minijinja::filters::float(state, value, Some(default.clone()), kwargs).or(Ok(default))
}

fn text_of(value: &Jinja) -> Jinja {
    if value.as_str().is_some() { value.clone() } else { Jinja::from(value.to_string()) }
}

/// Python's answer: minijinja would call none iterable, and templates ask `tools is iterable and tools | length`.
fn is_iterable(value: &Jinja) -> bool {
    !matches!(value.kind(), ValueKind::None | ValueKind::Bool | ValueKind::Number | ValueKind::Plain)
}

/// The source of errors that a template raises on purpose.
#[derive(Debug)]
struct RaisedByTemplate(String);

impl std::fmt::Display for RaisedByTemplate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for RaisedByTemplate {}

fn raise_exception(message: Jinja) -> Result<Jinja, Error> {
    let raised = RaisedByTemplate(message.to_string());
    Err(Error::new(ErrorKind::InvalidOperation, "raised by the template").with_source(raised))
}

/// The local time by a strftime format.
fn strftime_now(format: String) -> Result<String, Error> {
    formatted(&format, &jiff::Zoned::now())
}

fn formatted(format: &str, moment: &jiff::Zoned) -> Result<String, Error> {
    jiff::fmt::strtime::format(format, moment)
        .map_err(|e| Error::new(ErrorKind::InvalidOperation, format!("strftime_now(\"{format}\"): {e}")))
}

fn syntax_error(error: &Error) -> TemplateError {
    TemplateError::Syntax { line: error.line(), message: words(error) }
}

fn render_error(error: &Error) -> TemplateError {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(e) = cause {
        if let Some(raised) = e.downcast_ref::<RaisedByTemplate>() {
            return TemplateError::Raised { message: raised.0.clone() };
        }
        if e.downcast_ref::<Error>().is_some_and(|e| e.kind() == ErrorKind::OutOfFuel) {
            return TemplateError::TooMuchWork;
        }
        cause = e.source();
    }
    TemplateError::Failed { line: error.line(), message: words(error) }
}

fn words(error: &Error) -> String {
    match error.detail() {
        Some(detail) => format!("{}: {detail}", error.kind()),
        None => error.kind().to_string(),
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
