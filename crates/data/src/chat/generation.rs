//! `{% generation %} … {% endgeneration %}`: which part of the text is the assistant's.
//!
//! minijinja has no custom tags, so the two tags become `{% filter %}` and `{% endfilter %}`, one block tag for one
//! block tag, which keeps all white space control. The filter puts a mark on either side of its text; after
//! rendering the marks are taken out again and leave the spans.

use std::borrow::Cow;
use std::fmt;

use minijinja::{Error, State};
use serde_json::Value;

use super::limits::Limits;
use super::{Rendered, nesting, printf};

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
    /// The first two private characters that neither `values` nor `names` contain.
    pub(super) fn absent_from<'v>(
        values: impl Iterator<Item = &'v Value>,
        names: impl Iterator<Item = &'v str>,
    ) -> Self {
        let mut used = Vec::new();
        names.for_each(|name| collect_private(name, &mut used));
        values.for_each(|value| collect_in(value, &mut used));
        let mut free = (FIRST_MARK..=LAST_MARK).filter_map(char::from_u32).filter(|c| !used.contains(c));
        // A conversation that uses all 65,534 of them has no assistant spans worth telling apart.
        Self { open: free.next().unwrap_or('\u{10FFFC}'), close: free.next().unwrap_or('\u{10FFFD}') }
    }

    /// Takes the marks out of a rendered text.
    pub(super) fn take_from(self, marked: &str) -> Rendered {
        let mut rendered =
            Rendered { text: String::with_capacity(marked.len()), assistant_spans: Vec::new() };
        let mut open: Vec<usize> = Vec::new();
        let mut rest = marked;
        while let Some(at) = rest.find([self.open, self.close]) {
            rendered.text.push_str(&rest[..at]);
            if rest[at..].starts_with(self.open) {
                open.push(rendered.text.len());
            } else if let Some(start) = open.pop() {
                rendered.assistant_spans.push(start..rendered.text.len());
            }
            rest = &rest[at + self.open.len_utf8()..];
        }
        rendered.text.push_str(rest);
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

/// A template made ready for minijinja.
pub(super) struct Rewritten {
    pub(super) source: String,
    pub(super) has_generation_tags: bool,
    pub(super) limits: Limits,
}

/// Replaces the generation tags outside comments and texts, rewrites percent formats, bounds what set tags store, and
/// counts what bounds the depth of values.
pub(super) fn rewrite_tags(source: &str) -> Rewritten {
    let mut limits = Limits::default();
    let mut has_generation_tags = false;
    let source = map_tags(source, &mut limits, |tag| {
        has_generation_tags |= generation_tag(tag).is_some();
        rewrite_tag(tag)
    });
    Rewritten { source, has_generation_tags, limits }
}

/// The template with `{% if true %}` blocks in place of generation blocks: the same text, for programs that do not know
/// the tag.
pub fn without_generation_tags(source: &str) -> String {
    map_tags(source, &mut Limits::default(), |tag| match generation_tag(tag) {
        Some((before, opens, after)) => {
            Cow::Owned(format!("{{%{before} {} {after}%}}", if opens { "if true" } else { "endif" }))
        }
        None => Cow::Borrowed(tag),
    })
}

/// Sends every tag through `change`, comments and raw blocks being left alone.
fn map_tags<'s>(
    source: &'s str,
    limits: &mut Limits,
    mut change: impl FnMut(&'s str) -> Cow<'s, str>,
) -> String {
    let mut out = String::with_capacity(source.len() + 64);
    let mut rest = source;
    while let Some(start) = next_opening(rest) {
        let (text, tags) = rest.split_at(start);
        out.push_str(text);
        limits.text(text);
        if tags.starts_with("{#") {
            let (comment, after) = tags.split_at(after_comment(tags));
            out.push_str(comment);
            limits.text(comment);
            rest = after;
            continue;
        }
        let (tag, after) = tags.split_at(after_code(tags));
        limits.tag(tag);
        out.push_str(&change(tag));
        rest = after;
        if code_in(tag).is_some_and(|(_, code, _)| code.trim() == "raw") {
            let (verbatim, after) = rest.split_at(rest.find("endraw").unwrap_or(rest.len()));
            out.push_str(verbatim);
            limits.text(verbatim);
            rest = after;
        }
    }
    out.push_str(rest);
    out
}

/// The white space marks of a generation tag, and whether it opens a block; `None` for any other tag.
fn generation_tag(tag: &str) -> Option<(&str, bool, &str)> {
    let (before, code, after) = code_in(tag)?;
    match code.trim() {
        "generation" => Some((before, true, after)),
        "endgeneration" => Some((before, false, after)),
        _ => None,
    }
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

/// A generation tag becomes a filter tag with the same white space marks, a set tag bounds its value, `'…' % x` becomes
/// a filter; anything else stays.
fn rewrite_tag(tag: &str) -> Cow<'_, str> {
    if let Some((before, opens, after)) = generation_tag(tag) {
        let code = if opens { format!("filter {FILTER}") } else { "endfilter".to_owned() };
        return Cow::Owned(format!("{{%{before} {code} {after}%}}"));
    }
    // The ends of the tag are no part of an expression: `{{ '%s' %}}` is no format.
    let inside = tag.get(2..tag.len().saturating_sub(2)).and_then(printf::rewrite);
    let formatted = match &inside {
        Some(code) => Cow::Owned(format!("{}{code}{}", &tag[..2], &tag[tag.len() - 2..])),
        None => Cow::Borrowed(tag),
    };
    match code_in(&formatted)
        .and_then(|(before, code, after)| Some((before, nesting::bound_set(code)?, after)))
    {
        Some((before, code, after)) => Cow::Owned(format!("{{%{before}{code}{after}%}}")),
        None => formatted,
    }
}
