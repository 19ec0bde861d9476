//! Words as nltk counts them: runs of letters and digits (`RegexpTokenizer(r"\w+")`), and the Penn Treebank's tokens
//! (`word_tokenize`), of which only those in capitals are wanted.

use crate::python::regex::{Pattern, PatternError};
use crate::python::text::is_space;
use std::sync::LazyLock;

/// `len(RegexpTokenizer(r"\w+").tokenize(text))`. nltk 3.10 asks the package `regex`, whose words have combining
/// marks.
pub(super) fn count(text: &str) -> Result<usize, PatternError> {
    static WORDS: LazyLock<Pattern> = LazyLock::new(|| Pattern::new(r"\w+").expect("a valid pattern"));
    Ok(WORDS.find_all(text)?.len())
}

/// Where tokens end, in the order in which the tokenizer looks: opening quotes, punctuation and brackets, closing
/// quotes and the clitics of English. What only moves marks without letters is left away.
const CUTS: [(&str, &str); 17] = [
    ("([\u{ab}\u{201c}\u{2018}\u{201e}]|`+)", r" \1 "),
    (r#"^""#, " \" "),
    (r#"([ (\[{<])("|'')"#, r"\1 \2 "),
    (r"(?i)(?<!\w)(')(?!(?:re|ve|ll|m|t|s|d|n)\b)(?=\w)", r"\1 "),
    (r"([:,])([^\d])", r" \1 \2"),
    (r"([:,])$", r" \1 "),
    (r"\.{2,}", " .. "),
    (r"([;@#$%&?!*\u2012-\u2015\]\[(){}<>])", r" \1 "),
    (r"([^'])' ", r"\1 ' "),
    (r"--", " -- "),
    (r"^|$", " "),
    ("([\u{bb}\u{201d}\u{2019}])", r" \1 "),
    (r#"''|""#, " '' "),
    (r"\s+", " "),
    (r"([^' ])('[sS]|'[mM]|'[dD]|') ", r"\1 \2 "),
    (r"([^' ])('ll|'LL|'re|'RE|'ve|'VE|n't|N'T) ", r"\1 \2 "),
    (
        r"(?i)\b(can(?=not\b)|(?:gim|lem)(?=me\b)|gon(?=na\b)|got(?=ta\b)|wan(?=na\s)|d(?='ye\b)|more(?='n\b))",
        r" \1 ",
    ),
];

/// `sum(token.isupper() for token in word_tokenize(text))`. Sentences need not be told apart: that only cuts a last
/// full stop off, which is no letter.
pub(super) fn in_capitals(text: &str) -> Result<usize, PatternError> {
    static PATTERNS: LazyLock<Vec<(Pattern, &str)>> = LazyLock::new(|| {
        CUTS.iter().map(|(pattern, to)| (Pattern::new(pattern).expect("a valid pattern"), *to)).collect()
    });
    let mut text = text.to_owned();
    for (pattern, to) in PATTERNS.iter() {
        text = pattern.substitute(&text, to, 0)?;
    }
    Ok(text.split(is_space).filter(|token| is_upper(token)).count())
}

/// `text.isupper()`.
pub(super) fn is_upper(text: &str) -> bool {
    text.chars().any(char::is_uppercase) && !text.chars().any(|c| c.is_lowercase() || is_title(c))
}

/// `text.islower()`.
pub(super) fn is_lower(text: &str) -> bool {
    text.chars().any(char::is_lowercase) && !text.chars().any(|c| c.is_uppercase() || is_title(c))
}

/// Letters of two letters, of which the first is in a capital (category Lt).
fn is_title(c: char) -> bool {
    matches!(c as u32, 0x1c5 | 0x1c8 | 0x1cb | 0x1f2 | 0x1f88..=0x1f8f | 0x1f98..=0x1f9f | 0x1fa8..=0x1faf
        | 0x1fbc | 0x1fcc | 0x1ffc)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_runs_of_letters_and_digits() {
        // python: len(nltk.tokenize.RegexpTokenizer(r"\w+").tokenize(text))
        for (text, expected) in [("", 0), ("It's a_b 3.5", 5), ("नमस्ते दुनिया", 2), ("m² ½ é", 2)]
        {
            assert_eq!(count(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn tokens_in_capitals_are_those_of_the_treebank() {
        // python: sum(token.isupper() for token in nltk.word_tokenize(text))
        let cases = [
            ("", 0),
            ("I AM here. A B-C d.E", 4),
            ("IT'S MINE, DON'T! YOU'LL", 7),
            ("(NASA/ESA) \"WOW\" 'HEY' U.S. A.M., X:Y", 7),
            ("CANNOT GONNA LEMME 'TIS", 7),
            ("A,B 1,A A--B A\u{2014}B **BOLD** [X]", 9),
        ];
        for (text, expected) in cases {
            assert_eq!(in_capitals(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn case_is_that_of_letters_with_case() {
        assert!(is_upper("A 1!") && !is_upper("1!") && !is_upper("Aa") && !is_upper("A\u{1c5}"));
        assert!(is_lower("a 1!") && !is_lower("") && !is_lower("aB"));
    }
}
