//! `{% generation %} … {% endgeneration %}`: which part of the text is the assistant's.
//!
//! minijinja has no custom tags, so the two tags become `{% filter %}` and `{% endfilter %}`, one block tag for one
//! block tag, which keeps all white space control. The filter puts a mark on either side of its text; after
//! rendering the marks are taken out again and leave the spans.

use std::borrow::Cow;
use std::fmt;

use minijinja::{Error, State};
use serde_json::{Map, Value};

use super::{Rendered, nesting};

/// Name of the filter that stands for a generation block.
pub(super) const FILTER: &str = "__generation";
/// The variable that holds the two marks.
pub(super) const MARKS_VARIABLE: &str = "__generation_marks";
/// Private use plane 16: its characters mean nothing, so they serve as marks.
const FIRST_MARK: u32 = 0x10_0000;
const LAST_MARK: u32 = 0x10_FFFD;

/// Two characters that occur nowhere in the conversation: before and after the assistant's text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Marks {
    open: char,
    close: char,
}

impl Marks {
    /// The first two private characters that no text of `variables` contains.
    pub(super) fn absent_from(variables: &Map<String, Value>) -> Self {
        let mut used = Vec::new();
        for (key, value) in variables {
            collect_private(key, &mut used);
            collect_in(value, &mut used);
        }
        let mut free = (FIRST_MARK..=LAST_MARK).filter_map(char::from_u32).filter(|c| !used.contains(c));
        // A conversation that uses all 65,534 of them has no assistant spans worth telling apart.
        Self { open: free.next().unwrap_or('\u{10FFFC}'), close: free.next().unwrap_or('\u{10FFFD}') }
    }

    /// Takes the marks out of a rendered text.
    pub(super) fn take_from(self, marked: &str) -> Rendered {
        let mut rendered =
            Rendered { text: String::with_capacity(marked.len()), assistant_spans: Vec::new() };
        let mut open: Vec<usize> = Vec::new();
        for c in marked.chars() {
            if c == self.open {
                open.push(rendered.text.len());
            } else if c == self.close {
                if let Some(start) = open.pop() {
                    rendered.assistant_spans.push(start..rendered.text.len());
                }
            } else {
                rendered.text.push(c);
            }
        }
        rendered.assistant_spans.retain(|span| !span.is_empty());
        rendered.assistant_spans.sort_by_key(|span| span.start);
        rendered
    }
}

impl fmt::Display for Marks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.open, self.close)
    }
}

fn collect_private(text: &str, used: &mut Vec<char>) {
    for c in text.chars().filter(|&c| c as u32 >= FIRST_MARK) {
        if !used.contains(&c) {
            used.push(c);
        }
    }
}

fn collect_in(value: &Value, used: &mut Vec<char>) {
    match value {
        Value::String(text) => collect_private(text, used),
        Value::Array(items) => items.iter().for_each(|item| collect_in(item, used)),
        Value::Object(fields) => fields.iter().for_each(|(key, item)| {
            collect_private(key, used);
            collect_in(item, used);
        }),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// The filter that stands for a generation block.
pub(super) fn mark(state: &State, text: String) -> Result<String, Error> {
    let marks = state.lookup(MARKS_VARIABLE).unwrap_or_default();
    let mut marks = marks.as_str().unwrap_or_default().chars();
    let (open, close) = (marks.next().unwrap_or_default(), marks.next().unwrap_or_default());
    Ok(format!("{open}{text}{close}"))
}

/// Replaces the generation tags outside comments and texts, and bounds what set tags store; the flag says whether there
/// were generation tags.
pub(super) fn rewrite_tags(source: &str) -> (String, bool) {
    let mut out = String::with_capacity(source.len() + 64);
    let (mut rest, mut found) = (source, false);
    while let Some(start) = next_opening(rest) {
        out.push_str(&rest[..start]);
        rest = &rest[start..];
        let end = if rest.starts_with("{#") { after_comment(rest) } else { after_code(rest) };
        let piece = rewrite_tag(&rest[..end]);
        found |= code_in(&rest[..end])
            .is_some_and(|(_, code, _)| matches!(code.trim(), "generation" | "endgeneration"));
        out.push_str(&piece);
        let raw = code_in(&rest[..end]).is_some_and(|(_, code, _)| code.trim() == "raw");
        rest = &rest[end..];
        if raw {
            let (verbatim, after) = rest.split_at(rest.find("endraw").unwrap_or(rest.len()));
            out.push_str(verbatim);
            rest = after;
        }
    }
    out.push_str(rest);
    (out, found)
}

fn next_opening(text: &str) -> Option<usize> {
    text.char_indices().map(|(i, _)| i).find(|&i| ["{%", "{{", "{#"].iter().any(|o| text[i..].starts_with(o)))
}

fn after_comment(text: &str) -> usize {
    text.find("#}").map_or(text.len(), |i| i + 2)
}

/// The end of a `{% %}` or `{{ }}` at the start of `text`, string literals within it being skipped.
fn after_code(text: &str) -> usize {
    let close = if text.starts_with("{%") { "%}" } else { "}}" };
    let mut quote = None;
    let mut escaped = false;
    for (i, c) in text.char_indices().skip(2) {
        match quote {
            Some(_) if escaped => escaped = false,
            Some(_) if c == '\\' => escaped = true,
            Some(q) if c == q => quote = None,
            Some(_) => {}
            None if c == '\'' || c == '"' => quote = Some(c),
            None if text[i..].starts_with(close) => return i + 2,
            None => {}
        }
    }
    text.len()
}

/// The white space mark after `{%`, the code, and the mark before `%}`; `None` unless `tag` is a block tag.
fn code_in(tag: &str) -> Option<(&str, &str, &str)> {
    let inner = tag.strip_prefix("{%")?.strip_suffix("%}")?;
    let signs: &[char] = &['-', '+'];
    let (before, inner) = inner.split_at(usize::from(inner.starts_with(signs)));
    let (code, after) = inner.split_at(inner.len() - usize::from(inner.ends_with(signs)));
    Some((before, code, after))
}

/// A generation tag becomes a filter tag with the same white space marks, a set tag bounds its value; anything else
/// stays.
fn rewrite_tag(tag: &str) -> Cow<'_, str> {
    let Some((before, code, after)) = code_in(tag) else {
        return Cow::Borrowed(tag);
    };
    let replacement = match code.trim() {
        "generation" => format!("filter {FILTER}"),
        "endgeneration" => "endfilter".to_owned(),
        _ => {
            return match nesting::bound_set(code) {
                Some(code) => Cow::Owned(format!("{{%{before}{code}{after}%}}")),
                None => Cow::Borrowed(tag),
            };
        }
    };
    Cow::Owned(format!("{{%{before} {replacement} {after}%}}"))
}
