//! HellaSwag's documents (lm_eval 0.4.13 `tasks/hellaswag/utils.py`): query, choices and gold from the raw fields.

use super::{text, with_fields};
use crate::python::text::{capitalize, strip};
use serde_json::{Map, Value, json};

pub(super) fn process(document: &Value) -> Result<Value, String> {
    let (activity, before, after) =
        (text(document, "activity_label")?, text(document, "ctx_a")?, text(document, "ctx_b")?);
    let query = cleaned(&format!("{activity}: {before} {}", capitalize(after)));
    let endings = document.get("endings").and_then(Value::as_array).ok_or("there is no list `endings`")?;
    let choices: Option<Vec<String>> = endings.iter().map(|ending| ending.as_str().map(cleaned)).collect();
    let label = match document.get("label") {
        Some(Value::String(digits)) => digits.trim().parse::<i64>().ok(),
        Some(Value::Number(number)) => number.as_i64(),
        _ => None,
    };
    let mut fields = Map::new();
    fields.insert("query".into(), query.into());
    fields.insert("choices".into(), json!(choices.ok_or("`endings` must be texts")?));
    fields.insert("gold".into(), label.ok_or("`label` must be a whole number")?.into());
    Ok(with_fields(document, fields))
}

/// Leftovers of WikiHow: `[title]` ends a sentence, other brackets go.
fn cleaned(raw: &str) -> String {
    let mut rest = strip(raw).replace(" [title]", ". ");
    let mut out = String::with_capacity(rest.len());
    // `\[.*?\]`, which does not go over a line break.
    while let Some(start) = rest.find('[') {
        let inside = &rest[start..];
        match inside.find(']').filter(|&end| !inside[..end].contains('\n')) {
            Some(end) => {
                out.push_str(&rest[..start]);
                rest = inside[end + 1..].to_owned();
            }
            None => {
                out.push_str(&rest[..=start]);
                rest = inside[1..].to_owned();
            }
        }
    }
    out.push_str(&rest);
    out.replace("  ", " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brackets_and_double_spaces_go() {
        let document = json!({"activity_label": "Cooking", "ctx_a": "A man [x] cooks.", "ctx_b": "he IS",
                              "endings": [" tall [title] man", "a [b\nc] d]", "e    f"], "label": "2", "ind": 1});
        let processed = process(&document).unwrap();
        assert_eq!(processed["query"], "Cooking: A man cooks. He is");
        assert_eq!(processed["choices"], json!(["tall. man", "a [b\nc] d]", "e  f"]));
        assert_eq!((&processed["gold"], &processed["ind"]), (&json!(2), &json!(1)));
        assert!(process(&json!({"ctx_a": ""})).unwrap_err().contains("`activity_label`"));
    }
}
