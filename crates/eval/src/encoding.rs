//! From texts to scored tokens, as lm_eval 0.4.13 does it (`api/model.py`, `models/huggingface.py`, `utils.py`).

use crate::python::text::is_space;
use crate::{EvalError, LanguageModel, ScoreRequest};

/// What an evaluation must know about a model besides its answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conventions {
    /// The most tokens that the model sees at once.
    pub max_length: usize,
    /// BOS, or EOS where there is no BOS: the context of a text that has none.
    pub prefix_token: u32,
    /// That token as text; a text that begins with it gets no second one.
    pub prefix_text: String,
    /// The token that ends a text, as text: generations stop where it is written out.
    pub eos_text: Option<String>,
}

/// `tok_encode` with `add_special_tokens=None`: the tokenizer's own default, but no second BOS.
pub(crate) fn encode_text(
    model: &mut dyn LanguageModel,
    conventions: &Conventions,
    text: &str,
) -> Result<Vec<u32>, EvalError> {
    let has_prefix = !conventions.prefix_text.is_empty() && text.starts_with(&conventions.prefix_text);
    model.encode(text, !has_prefix)
}

/// Tokens of `context` followed by `continuation`, the latter to be scored.
///
/// Trailing spaces of the context move to the continuation, the whole is encoded at once and cut where the encoded
/// context ends, so that tokens across the border come out as in running text. Too long a context loses its beginning:
/// the second value is how many tokens were cut off. An empty context is replaced by [`Conventions::prefix_token`].
pub fn encode_continuation(
    model: &mut dyn LanguageModel,
    conventions: &Conventions,
    context: &str,
    continuation: &str,
) -> Result<(ScoreRequest, usize), EvalError> {
    let stripped = context.trim_end_matches(is_space);
    // lm_eval 0.4.13 stops with an assertion when the context is nothing but spaces; here it counts as empty.
    let (mut tokens, scored) = if stripped.is_empty() {
        let continuation = format!("{context}{continuation}");
        let scored = model.encode(&continuation, false)?;
        with_prefix(conventions.prefix_token, scored)
    } else {
        let continuation = format!("{}{continuation}", &context[stripped.len()..]);
        let whole = encode_text(model, conventions, &format!("{stripped}{continuation}"))?;
        let context_tokens = encode_text(model, conventions, stripped)?;
        let scored = whole.get(context_tokens.len()..).unwrap_or_default();
        let tokens = [context_tokens.as_slice(), scored].concat();
        (tokens, scored.len())
    };
    if scored == 0 || scored > conventions.max_length {
        return Err(EvalError::ContinuationLength {
            text: continuation.chars().take(40).collect(),
            tokens: scored,
            max_length: conventions.max_length,
        });
    }
    let surplus = tokens.len().saturating_sub(conventions.max_length + 1);
    tokens.drain(..surplus);
    Ok((ScoreRequest { tokens, scored }, surplus))
}

/// The prefix token before `continuation`, unless the continuation brings it itself.
fn with_prefix(prefix: u32, continuation: Vec<u32>) -> (Vec<u32>, usize) {
    match continuation.first() {
        Some(&first) if first == prefix => {
            let scored = continuation.len() - 1;
            (continuation, scored)
        }
        _ => {
            let scored = continuation.len();
            ([&[prefix], continuation.as_slice()].concat(), scored)
        }
    }
}

/// Every token of `tokens` scored exactly once, at most `max_length` of them at a time (lm_eval's
/// `get_rolling_token_windows` with `context_len` 1, then `make_disjoint_window`): the first window is conditioned on
/// the prefix token, each later one on as many earlier tokens as the model has room for: one for a full window.
pub fn rolling_windows(tokens: &[u32], conventions: &Conventions) -> Vec<ScoreRequest> {
    let max_length = conventions.max_length.max(1);
    let mut windows = Vec::new();
    let mut end = 0;
    for window in tokens.chunks(max_length) {
        end += window.len();
        let tokens = match end.checked_sub(max_length + 1) {
            Some(start) => tokens[start..end].to_vec(),
            None => [&[conventions.prefix_token], window].concat(),
        };
        windows.push(ScoreRequest { tokens, scored: window.len() });
    }
    windows
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{GenerateRequest, LogLikelihood};

    /// One token per character, except that `" x"` is the one token 1000; BOS is 1, written `^`.
    struct Characters;

    impl LanguageModel for Characters {
        fn encode(&mut self, text: &str, add_special_tokens: bool) -> Result<Vec<u32>, EvalError> {
            let mut ids = if add_special_tokens { vec![1] } else { vec![] };
            let mut rest = text;
            while let Some(c) = rest.chars().next() {
                if let Some(after) = rest.strip_prefix(" x") {
                    ids.push(1000);
                    rest = after;
                } else {
                    ids.push(if c == '^' { 1 } else { c as u32 });
                    rest = &rest[c.len_utf8()..];
                }
            }
            Ok(ids)
        }
        fn log_likelihood(&mut self, _: &[ScoreRequest]) -> Result<Vec<LogLikelihood>, EvalError> {
            Ok(Vec::new())
        }
        fn generate_until(&mut self, _: &[GenerateRequest]) -> Result<Vec<String>, EvalError> {
            Ok(Vec::new())
        }
    }

    fn conventions(max_length: usize) -> Conventions {
        Conventions { max_length, prefix_token: 1, prefix_text: "^".into(), eos_text: None }
    }

    fn encode(context: &str, continuation: &str) -> ScoreRequest {
        encode_continuation(&mut Characters, &conventions(100), context, continuation).unwrap().0
    }

    #[test]
    fn spaces_at_the_end_of_the_context_belong_to_the_continuation() {
        let request = encode("ab ", "x");
        assert_eq!(request, ScoreRequest { tokens: vec![1, 'a' as u32, 'b' as u32, 1000], scored: 1 });
        assert_eq!(encode("ab", " x"), request);
    }

    #[test]
    fn a_text_that_begins_with_bos_gets_no_second_one() {
        assert_eq!(encode("^a", "b").tokens, vec![1, 'a' as u32, 'b' as u32]);
    }

    #[test]
    fn an_empty_context_becomes_the_prefix_token() {
        assert_eq!(encode("", "ab"), ScoreRequest { tokens: vec![1, 'a' as u32, 'b' as u32], scored: 2 });
        assert_eq!(encode("", "^b"), ScoreRequest { tokens: vec![1, 'b' as u32], scored: 1 });
        assert_eq!(encode("  ", "b").scored, 3);
    }

    #[test]
    fn a_long_context_loses_its_beginning() {
        let (request, cut) = encode_continuation(&mut Characters, &conventions(3), "abcdef", "gh").unwrap();
        assert_eq!(cut, 5, "BOS and four letters");
        assert_eq!(request, ScoreRequest { tokens: "efgh".chars().map(|c| c as u32).collect(), scored: 2 });
    }

    #[test]
    fn continuations_of_no_or_too_many_tokens_are_refused() {
        let none = encode_continuation(&mut Characters, &conventions(3), "a", "").unwrap_err();
        assert!(matches!(none, EvalError::ContinuationLength { tokens: 0, .. }), "{none}");
        let many = encode_continuation(&mut Characters, &conventions(3), "a", "bcde").unwrap_err();
        assert!(matches!(many, EvalError::ContinuationLength { tokens: 4, max_length: 3, .. }), "{many}");
    }

    #[test]
    fn rolling_windows_score_each_token_once() {
        let windows = rolling_windows(&[10, 11, 12, 13, 14, 15, 16], &conventions(3));
        let expected = [
            ScoreRequest { tokens: vec![1, 10, 11, 12], scored: 3 },
            ScoreRequest { tokens: vec![12, 13, 14, 15], scored: 3 },
            // Not full, so that more context fits: lm_eval shows it all.
            ScoreRequest { tokens: vec![13, 14, 15, 16], scored: 1 },
        ];
        assert_eq!(windows, expected);
        let short = ScoreRequest { tokens: vec![1, 10], scored: 1 };
        assert_eq!(rolling_windows(&[10], &conventions(3)), [short]);
        assert!(rolling_windows(&[], &conventions(3)).is_empty());
    }
}
