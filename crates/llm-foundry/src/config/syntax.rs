//! What to do about a text that is not YAML.

use super::yaml::SyntaxError;

/// The remedy, where the parser's message does not say it.
pub(super) fn help(text: &str, error: &SyntaxError) -> Option<String> {
    let says = |words: &str| error.message.contains(words);
    if says("alias") {
        return Some("put a text that begins with * in quotes".into());
    }
    if says("tab") {
        return Some("indent with spaces".into());
    }
    if let Some((open, line)) = unclosed(text, error.at) {
        return Some(format!("the `{open}` of line {line} may not be closed"));
    }
    says("mapping values are not allowed").then(|| {
        "keys of one section begin in the same column; a text that contains `: ` must be in quotes".into()
    })
}

/// The innermost bracket, brace or quote that is open at a byte, with its line from 1. (Comments and quotes are seen as
/// YAML sees them, apart from quotes inside plain texts.)
fn unclosed(text: &str, at: usize) -> Option<(char, usize)> {
    let mut open: Vec<(char, usize)> = Vec::new();
    for (index, line) in text[..at.min(text.len())].lines().enumerate() {
        let mut before = ' ';
        for c in line.chars() {
            let quote = open.last().map(|(c, _)| *c).filter(|c| ['"', '\''].contains(c));
            match (quote, c) {
                (Some(quote), c) if c == quote && before != '\\' => {
                    open.pop();
                }
                (Some(_), _) => {}
                (None, '#') if before == ' ' => break,
                (None, '"' | '\'') if " [{,:".contains(before) => open.push((c, index + 1)),
                (None, '[' | '{') => open.push((c, index + 1)),
                (None, ']' | '}') => {
                    open.pop();
                }
                (None, _) => {}
            }
            before = c;
        }
    }
    open.pop()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bracket_that_was_forgotten_is_named() {
        assert_eq!(unclosed("a: [1, 2\nb: 3\n", 10), Some(('[', 1)));
        assert_eq!(unclosed("# [\na: [1]\nb: {c: \"x\nd: 1\n", 24), Some(('"', 3)));
        assert_eq!(unclosed("a: [1, {b: 'it]'}]\nc: it's [\n", 19), None);
    }

    #[test]
    fn common_slips_have_a_remedy() {
        for (text, words) in [
            ("a:\n\tb: 1\n", "spaces"),
            ("a: [1\nb: 2\n", "`[` of line 1"),
            ("a:\n  b: 1\n   c: 2\n", "same column"),
            ("a: *.jsonl\n", "quotes"),
        ] {
            let place = |range| crate::config::tree::Place::File(0, range);
            let error = crate::config::yaml::parse(text, &place).expect_err(text);
            let help = help(text, &error).unwrap_or_else(|| panic!("{text}: {error:?}"));
            assert!(help.contains(words), "{text}: {help}");
        }
    }
}
