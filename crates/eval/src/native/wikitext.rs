//! WikiText (lm_eval 0.4.13 `tasks/wikitext/preprocess_wikitext.py`): running text out of the tokenised one, scored,
//! and divided by the words and bytes of the **original** page.

use super::text;
use crate::document::{Score, Scores};
use crate::python::regex::Pattern;
use crate::python::text::is_space;
use serde_json::Value;
use std::sync::LazyLock;

/// Plain replacements before those of [`BRACKETS`].
const BEFORE: [(&str, &str); 9] = [
    (" @-@ ", "-"),
    (" @,@ ", ","),
    (" @.@ ", "."),
    (" : ", ": "),
    (" ; ", "; "),
    (" . ", ". "),
    (" ! ", "! "),
    (" ? ", "? "),
    (" , ", ", "),
];
/// Space just inside brackets and quotes.
static BRACKETS: LazyLock<Vec<(Pattern, &str)>> = LazyLock::new(|| {
    let patterns = [
        (r"\(\s*([^\)]*?)\s*\)", r"(\1)"),
        (r"\[\s*([^\]]*?)\s*\]", r"[\1]"),
        (r"\{\s*([^}]*?)\s*\}", r"{\1}"),
        (r#""\s*([^"]*?)\s*""#, r#""\1""#),
        (r"'\s*([^']*?)\s*'", r"'\1'"),
    ];
    patterns.map(|(p, r)| (Pattern::new(p).expect("a valid pattern"), r)).to_vec()
});
/// Plain replacements after them.
const AFTER: [(&str, &str); 8] = [
    ("= = = =", "===="),
    ("= = =", "==="),
    ("= =", "=="),
    (" \u{b0} ", "\u{b0}"),
    (" \n", "\n"),
    ("\n ", "\n"),
    (" N ", " 1 "),
    (" 's", "'s"),
];

pub(super) fn detokenized(document: &Value) -> Result<Value, String> {
    let mut page = text(document, "page")?.replace("s '", "s'");
    // `/' [0-9]/` between slashes, as in the peer, whose replacement is literal.
    static SLASHED: LazyLock<Pattern> =
        LazyLock::new(|| Pattern::new(r"/' [0-9]/").expect("a valid pattern"));
    let failed = |error: crate::python::regex::PatternError| error.0;
    page = SLASHED.substitute(&page, "/'[0-9]/", 0).map_err(failed)?;
    for (from, to) in BEFORE {
        page = page.replace(from, to);
    }
    for (pattern, to) in BRACKETS.iter() {
        page = pattern.substitute(&page, to, 0).map_err(failed)?;
    }
    for (from, to) in AFTER {
        page = page.replace(from, to);
    }
    Ok(page.into())
}

pub(super) fn scores(document: &Value, log_likelihoods: &[f64]) -> Result<Scores, String> {
    let page = text(document, "page")?;
    let [log_likelihood] = log_likelihoods else { return Err("one text has one log-likelihood".into()) };
    let (words, bytes) = (words(page) as f64, page.len() as f64);
    Ok(vec![
        ("word_perplexity".into(), Score::Weighted(*log_likelihood, words)),
        ("byte_perplexity".into(), Score::Weighted(*log_likelihood, bytes)),
        ("bits_per_byte".into(), Score::Weighted(*log_likelihood, bytes)),
    ])
}

/// `len(re.split(r"\s+", text))`, so that space at either end counts one more.
pub(crate) fn words(text: &str) -> usize {
    let mut separators = 0;
    let mut inside_space = false;
    for c in text.chars() {
        separators += usize::from(is_space(c) && !inside_space);
        inside_space = is_space(c);
    }
    separators + 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn running_text_comes_out() {
        // python: wikitext_detokenizer of the same page
        let page = " = Title = \n A ( well @-@ known ) man 's 1 @,@ 000 \" good \" [ x ] ; the dogs ' N = = a , b . \n";
        let expected = " = Title =\nA (well-known) man's 1,000 \"good\" [x]; the dogs' 1 == a, b.\n";
        let detokenized = detokenized(&json!({"page": page})).unwrap();
        assert_eq!(detokenized.as_str().unwrap(), expected);
    }

    #[test]
    fn words_are_counted_as_python_splits() {
        // python: [len(re.split(r"\s+", t)) for t in ("a b", " a  b ", "", "a\n\nb c")]
        assert_eq!(["a b", " a  b ", "", "a\n\nb c"].map(words), [2, 4, 1, 3]);
    }
}
