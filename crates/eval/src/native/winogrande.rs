//! Winogrande (lm_eval 0.4.13 `tasks/winogrande/preprocess_winogrande.py`): the sentence up to the blank with each
//! option is a context, and what follows the blank the one continuation.

use super::text as field;
use crate::python::text::strip;
use serde_json::{Value, json};

fn halves(document: &Value) -> Result<(&str, &str), String> {
    let sentence = field(document, "sentence")?;
    sentence.split_once('_').ok_or_else(|| format!("`sentence` has no blank `_`: {sentence:?}"))
}

/// The index of the right option, which stands in for a context.
pub(super) fn text(document: &Value) -> Result<Value, String> {
    let answer = match document.get("answer") {
        Some(Value::Number(number)) => number.to_string(),
        _ => field(document, "answer")?.to_owned(),
    };
    match answer.as_str() {
        "1" => Ok(0.into()),
        "2" => Ok(1.into()),
        other => Err(format!("`answer` is {other:?}, neither 1 nor 2")),
    }
}

pub(super) fn target(document: &Value) -> Result<Value, String> {
    Ok(strip(halves(document)?.1).into())
}

pub(super) fn choice(document: &Value) -> Result<Value, String> {
    let (before, _) = halves(document)?;
    let with = |key: &str| field(document, key).map(|option| format!("{before}{option}"));
    Ok(json!([with("option1")?, with("option2")?]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_contexts_and_the_rest_is_the_continuation() {
        let document = json!({"sentence": "The cup fits the box, as the _ is big.", "option1": "cup", "option2": "box",
                              "answer": "2"});
        assert_eq!(text(&document), Ok(json!(1)));
        assert_eq!(target(&document), Ok(json!("is big.")));
        assert_eq!(
            choice(&document),
            Ok(json!(["The cup fits the box, as the cup", "The cup fits the box, as the box"]))
        );
        assert!(text(&json!({"answer": ""})).is_err() && target(&json!({"sentence": "none"})).is_err());
    }
}
