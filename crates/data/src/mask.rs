//! Which tokens are learned: completions by common prefix, turns by spans of the rendered text (`turns` finds them).

use std::ops::Range;

use foundry_formats::Tokenizer;
/// Number of leading tokens that two lists share (TRL's `common_prefix_length`): where the completion starts.
pub(crate) fn common_prefix(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(x, y)| x == y).count()
}

/// Tokens of which a byte span has the first, the last, or any between them.
///
/// transformers takes the tokens from the one that holds the span's first character to the one that holds its last.
/// Overlap is the same wherever it finds both, and where it does not (a last character of several tokens) overlap keeps
/// what transformers loses. Between them every token counts, also white space that offsets leave out.
pub(crate) fn tokens_in_spans(offsets: &[(usize, usize)], spans: &[Range<usize>]) -> Vec<bool> {
    let in_order = offsets.is_sorted_by(|a, b| a.0 <= b.0 && a.1 <= b.1);
    let mut inside = vec![false; offsets.len()];
    for span in spans {
        inside[tokens_of(offsets, in_order, span)].fill(true);
    }
    inside
}

/// The tokens from the first to the last that overlap a span.
fn tokens_of(offsets: &[(usize, usize)], in_order: bool, span: &Range<usize>) -> Range<usize> {
    let overlaps = |&(start, end): &(usize, usize)| start < span.end && span.start < end && start < end;
    let near = match in_order {
        true => {
            let from = offsets.partition_point(|&(_, end)| end <= span.start);
            from..offsets.partition_point(|&(start, _)| start < span.end).max(from)
        }
        false => 0..offsets.len(),
    };
    let first = offsets[near.clone()].iter().position(overlaps);
    let last = offsets[near.clone()].iter().rposition(overlaps);
    match (first, last) {
        (Some(first), Some(last)) => near.start + first..near.start + last + 1,
        _ => near.start..near.start,
    }
}

/// Whether the learned tokens of this span end, white space aside, with a special token: the end of the turn.
pub(crate) fn ends_with_special(
    tokenizer: &Tokenizer,
    tokens: &[u32],
    offsets: &[(usize, usize)],
    span: &Range<usize>,
) -> bool {
    let in_order = offsets.is_sorted_by(|a, b| a.0 <= b.0 && a.1 <= b.1);
    for &token in tokens[tokens_of(offsets, in_order, span)].iter().rev() {
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
        // A line, its indentation, which offsets leave out, and a word.
        let trimmed = [(0, 3), (8, 8), (8, 12), (12, 13)];
        assert_eq!(tokens_in_spans(&trimmed, std::slice::from_ref(&(1..12))), [true, true, true, false]);
        assert_eq!(tokens_in_spans(&trimmed, std::slice::from_ref(&(12..13))), [false, false, false, true]);
        assert_eq!(tokens_in_spans(&offsets, &[2..3, 9..9]), [false, true, false, false]);
        assert_eq!(tokens_in_spans(&offsets, &[0..1, 3..4]), [true, false, false, true]);
        assert_eq!(tokens_in_spans(&offsets, &[]), [false; 4]);
    }
}
