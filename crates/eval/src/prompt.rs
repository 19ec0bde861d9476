//! From a document to the text that a model continues: description, examples, question (lm_eval 0.4.13
//! `api/task.py::fewshot_context`), plain or through a chat template.

use crate::document::Reading;
use crate::python::text::is_space;
use serde_json::Value;

/// One message of a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Turn {
    /// `system`, `user` or `assistant`.
    pub role: &'static str,
    /// What is said.
    pub content: String,
    /// What follows it in a plain prompt.
    delimiter: String,
}

impl Turn {
    /// A question.
    pub fn user(content: &str) -> Self {
        Self::new("user", content.to_owned(), "")
    }

    fn new(role: &'static str, content: String, delimiter: &str) -> Self {
        Self { role, content, delimiter: delimiter.to_owned() }
    }
}

/// Renders a conversation; the flag asks for the header of the answer.
pub type ChatTemplate<'a> = &'a dyn Fn(&[Turn], bool) -> Result<String, String>;

/// How prompts are put together.
#[derive(Clone, Default)]
pub struct PromptStyle<'a> {
    /// Prompts are conversations.
    pub chat_template: Option<ChatTemplate<'a>>,
    /// Each example is a turn of its own and not part of one question.
    pub fewshot_as_multiturn: bool,
    /// What comes before the task's description.
    pub system_instruction: Option<String>,
}

/// One context, or one for each choice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Context {
    One(String),
    Several(Vec<String>),
}

/// The context of `document` after `examples`. Errors name the key of the task.
pub(crate) fn context(
    reading: &Reading<'_>,
    style: &PromptStyle<'_>,
    document: &Value,
    examples: &[&Value],
) -> Result<Context, (&'static str, String)> {
    let spec = reading.spec;
    let keyed = |key: &'static str| move |problem: String| (key, problem);
    let mut turns = Vec::new();
    let description = reading.plain(spec.description.as_ref(), document).map_err(keyed("description"))?;
    let system =
        delimited(style.system_instruction.as_deref(), description.as_deref(), &spec.fewshot_delimiter);
    if !system.is_empty() {
        turns.push(Turn::new("system", system, ""));
    }
    for example in examples {
        example_turns(reading, example, &mut turns)?;
    }
    let gen_prefix = reading.plain(spec.gen_prefix.as_ref(), document).map_err(keyed("gen_prefix"))?;
    let gen_prefix = gen_prefix.as_deref().filter(|prefix| !prefix.is_empty());
    let question = reading.text(&spec.doc_to_text, document).map_err(keyed("doc_to_text"))?;
    let rendered = |turns: Vec<Turn>| rendered(style, turns, gen_prefix.is_none());
    if question.is_i64() {
        let field =
            spec.doc_to_choice.as_ref().ok_or(("doc_to_choice", "an index without choices".to_owned()))?;
        let choices = reading.choices(field, document).map_err(keyed("doc_to_choice"))?;
        let contexts = choices.into_iter().map(|choice| {
            let mut all = turns.clone();
            question_turns(choice, gen_prefix, "", &mut all);
            rendered(all).map_err(keyed("doc_to_text"))
        });
        return contexts.collect::<Result<_, _>>().map(Context::Several);
    }
    let question = as_text(question).map_err(keyed("doc_to_text"))?;
    question_turns(question, gen_prefix, &spec.target_delimiter, &mut turns);
    rendered(turns).map(Context::One).map_err(keyed("doc_to_text"))
}

fn question_turns(question: String, gen_prefix: Option<&str>, delimiter: &str, turns: &mut Vec<Turn>) {
    match gen_prefix {
        None => turns.push(Turn::new("user", question, "")),
        Some(prefix) => {
            let between = if touches(&question, prefix) { delimiter } else { "" };
            turns.push(Turn::new("user", question, between));
            turns.push(Turn::new("assistant", prefix.to_owned(), ""));
        }
    }
}

/// Question and answer of an example.
fn example_turns(
    reading: &Reading<'_>,
    example: &Value,
    turns: &mut Vec<Turn>,
) -> Result<(), (&'static str, String)> {
    let fewshot = &reading.spec.fewshot;
    let keyed = |key: &'static str| move |problem: String| (key, format!("as an example: {problem}"));
    let mut question = reading.text(&fewshot.doc_to_text, example).map_err(keyed("doc_to_text"))?;
    let choices = match &fewshot.doc_to_choice {
        Some(field) => Some(reading.choices(field, example).map_err(keyed("doc_to_choice"))?),
        None => None,
    };
    let target = reading.target(&fewshot.doc_to_target, example).map_err(keyed("doc_to_target"))?;
    let prefix = reading.plain(fewshot.gen_prefix.as_ref(), example).map_err(keyed("gen_prefix"))?;
    let prefix = prefix.as_deref().filter(|prefix| !prefix.is_empty());
    let chosen = |index: &Value| -> Result<String, String> {
        let choices = choices.as_ref().ok_or("an index without choices")?;
        let at = whole(index).and_then(|index| usize::try_from(index).ok());
        let choice = at.and_then(|at| choices.get(at));
        choice.cloned().ok_or_else(|| format!("there is no choice {index}, only {}", choices.len()))
    };
    let mut is_indexed = choices.is_some();
    if question.is_i64() {
        question = chosen(&question).map_err(keyed("doc_to_text"))?.into();
        is_indexed = false;
    }
    let question = as_text(question).map_err(keyed("doc_to_text"))?;
    let answer = match &target {
        index if is_indexed && whole(index).is_some() => chosen(index).map_err(keyed("doc_to_target"))?,
        Value::Array(items) => {
            let first = items.first().cloned().unwrap_or("".into());
            as_text(first).map_err(keyed("doc_to_target"))?
        }
        Value::Null => String::new(),
        other => as_text(other.clone()).map_err(keyed("doc_to_target"))?,
    };
    let delimiter = match prefix {
        None if !answer.is_empty() => fewshot.target_delimiter.as_str(),
        Some(prefix) if touches(&question, prefix) => fewshot.target_delimiter.as_str(),
        _ => "",
    };
    turns.push(Turn::new("user", question, delimiter));
    if !answer.is_empty() {
        let answer = delimited(prefix, Some(&answer), " ");
        turns.push(Turn::new("assistant", answer, &fewshot.fewshot_delimiter));
    } else if let Some(prefix) = prefix {
        turns.push(Turn::new("assistant", prefix.to_owned(), ""));
    }
    Ok(())
}

/// Python's `int`s, `True` and `False` among them.
pub(crate) fn whole(value: &Value) -> Option<i64> {
    match value {
        Value::Bool(flag) => Some(i64::from(*flag)),
        Value::Number(number) => number.as_i64(),
        _ => None,
    }
}

fn as_text(value: Value) -> Result<String, String> {
    match value {
        Value::String(text) => Ok(text),
        other => Err(format!("{other} is not a text")),
    }
}

fn rendered(style: &PromptStyle<'_>, mut turns: Vec<Turn>, asks_answer: bool) -> Result<String, String> {
    let Some(template) = style.chat_template else {
        return Ok(turns.iter().flat_map(|turn| [turn.content.as_str(), turn.delimiter.as_str()]).collect());
    };
    if !style.fewshot_as_multiturn {
        turns = as_one_question(turns);
    }
    let first = template(&turns, asks_answer);
    let has_system = turns.iter().any(|turn| turn.role == "system");
    if first.is_err() && has_system {
        turns.retain(|turn| turn.role != "system");
        return template(&turns, asks_answer).or(first);
    }
    first
}

/// All turns but the system's and a last answer's beginning as one question.
fn as_one_question(mut turns: Vec<Turn>) -> Vec<Turn> {
    let answer = turns.pop_if(|turn| turn.role == "assistant");
    let system =
        if turns.first().is_some_and(|turn| turn.role == "system") { Some(turns.remove(0)) } else { None };
    if let Some(last) = turns.last_mut() {
        last.delimiter.clear();
    }
    let question = turns.iter().flat_map(|turn| [turn.content.as_str(), turn.delimiter.as_str()]).collect();
    system.into_iter().chain([Turn::new("user", question, "")]).chain(answer).collect()
}

/// Neither has space where they meet.
fn touches(before: &str, after: &str) -> bool {
    !before.is_empty() && !before.ends_with(is_space) && !after.starts_with(is_space)
}

/// Two texts, with the delimiter where neither has space at the border.
fn delimited(before: Option<&str>, after: Option<&str>, delimiter: &str) -> String {
    let (before, after) = (before.unwrap_or(""), after.unwrap_or(""));
    if !after.is_empty() && touches(before, after) {
        return format!("{before}{delimiter}{after}");
    }
    format!("{before}{after}")
}
