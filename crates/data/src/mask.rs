//! Which tokens are learned: completions by common prefix, turns by spans of the rendered text (`turns` finds them).

use std::ops::Range;

use foundry_formats::Tokenizer;
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
