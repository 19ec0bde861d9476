//! Which tokens are learned: completions by common prefix, assistants' turns by spans of the rendered text.

use std::ops::Range;

use foundry_formats::Tokenizer;
use serde_json::{Map, Value};

use crate::chat::{ChatTemplate, TemplateError};
use crate::example::{ChatExtras, Message};

/// Where the assistant's text is in a rendered conversation, or why that cannot be told.
#[derive(Debug)]
pub(crate) enum SpanProblem {
    /// A prefix could not be rendered.
    Template(TemplateError),
    /// The renderings do not fit together at this message.
    NotPrefixPreserving {
        /// Index of the assistant's message.
        message: usize,
        /// What differs.
        problem: &'static str,
    },
}

/// Number of leading tokens that two lists share (TRL's `common_prefix_length`): where the completion starts.
pub(crate) fn common_prefix(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(x, y)| x == y).count()
}

/// Tokens that overlap any of the byte spans.
///
/// transformers takes the tokens from the one that holds the span's first character to the one that holds its last;
/// overlap is the same wherever it finds both, and where it does not (white space that offsets leave out, a last
/// character of several tokens) overlap keeps what transformers loses.
pub(crate) fn tokens_in_spans(offsets: &[(usize, usize)], spans: &[Range<usize>]) -> Vec<bool> {
    let overlaps = |&(start, end): &(usize, usize)| {
        spans.iter().any(|span| start < span.end && span.start < end && start < end)
    };
    offsets.iter().map(overlaps).collect()
}

/// The assistant's spans for a template without generation tags, by rendering prefixes.
///
/// For each assistant's message i, the text up to it with a generation prompt (P), the text including it (F) and the
/// whole text must each begin with the one before; the span is what F adds to P: the words and the end of the turn. A
/// template for which this does not hold renders a message differently depending on what follows, and is refused.
pub(crate) fn spans_by_prefix(
    template: &ChatTemplate,
    messages: &[Message],
    extras: &ChatExtras,
    kwargs: &Map<String, Value>,
    whole: &str,
) -> Result<Vec<Range<usize>>, SpanProblem> {
    let render = |upto: usize, prompt: bool| {
        template
            .render(&messages[..upto], extras.tools.as_ref(), prompt, kwargs)
            .map(|r| r.text)
            .map_err(SpanProblem::Template)
    };
    let mut spans: Vec<Range<usize>> = Vec::new();
    for (message, _) in messages.iter().enumerate().filter(|(_, m)| m.role == "assistant") {
        let refuse = |problem| SpanProblem::NotPrefixPreserving { message, problem };
        let before = render(message, true)?;
        let with = render(message + 1, false)?;
        if !whole.starts_with(&with) {
            return Err(refuse("the template renders it differently once later messages follow"));
        }
        if !with.starts_with(&before) {
            return Err(refuse("the template's generation prompt is not how it begins this turn"));
        }
        // Turns of the assistant that follow each other: the second begins where the first ended.
        let start = spans.last().map_or(before.len(), |last| before.len().max(last.end));
        spans.push(start..with.len());
    }
    Ok(spans)
}

/// Whether the learned tokens of this span end, white space aside, with a special token: the end of the turn.
pub(crate) fn ends_with_special(
    tokenizer: &Tokenizer,
    tokens: &[u32],
    offsets: &[(usize, usize)],
    span: &Range<usize>,
) -> bool {
    let inside = tokens_in_spans(offsets, std::slice::from_ref(span));
    let learned = tokens.iter().zip(inside).filter(|(_, inside)| *inside).map(|(token, _)| *token);
    for token in learned.collect::<Vec<_>>().into_iter().rev() {
        let text = tokenizer.decode(&[token], false).unwrap_or_default();
        if text.trim().is_empty() {
            continue;
        }
        return tokenizer.decode(&[token], true).is_ok_and(|visible| visible.is_empty());
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_common_prefix_ends_at_the_first_difference() {
        assert_eq!(common_prefix(&[1, 2, 3], &[1, 2, 4, 3]), 2);
        assert_eq!(common_prefix(&[1, 2], &[1, 2, 4]), 2);
        assert_eq!(common_prefix(&[], &[1]), 0);
    }

    #[test]
    fn tokens_count_when_they_overlap_a_span() {
        // "ab cd": tokens "a", "b ", an added token without text, "cd".
        let offsets = [(0, 1), (1, 3), (3, 3), (3, 5)];
        assert_eq!(tokens_in_spans(&offsets, &[2..3, 9..9]), [false, true, false, false]);
        assert_eq!(tokens_in_spans(&offsets, &[0..1, 3..4]), [true, false, false, true]);
        assert_eq!(tokens_in_spans(&offsets, &[]), [false; 4]);
    }
}
