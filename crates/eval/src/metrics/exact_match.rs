//! `exact_match`: whether two texts are equal, after taking off what does not count (Hugging Face's `evaluate`).

use crate::EvalError;
use crate::python::regex::Pattern;
use crate::task::{iterated, typed};
use serde_json::Value;

/// What does not count.
#[derive(Debug, Clone, Default)]
pub(crate) struct ExactMatch {
    regexes_to_ignore: Vec<Pattern>,
    ignore_case: bool,
    ignore_punctuation: bool,
    ignore_numbers: bool,
}

const KEYS: [&str; 4] = ["regexes_to_ignore", "ignore_case", "ignore_punctuation", "ignore_numbers"];
const OF_EVERY_METRIC: [&str; 4] = ["metric", "aggregation", "higher_is_better", "hf_evaluate"];

/// How like a key of every metric another one is when it was meant.
const MEANT: f64 = 0.92;

/// The arguments of a metric whose function lm_eval does not call, or calls without them: they do nothing, whatever
/// they are. Misspelt keys of every metric are refused nevertheless.
pub(super) fn check_names(
    item: &Value,
    wrong: &dyn Fn(String, String) -> EvalError,
) -> Result<(), EvalError> {
    for key in item.as_object().into_iter().flat_map(|item| item.keys()) {
        let is_meant = |known: &&&str| *known != key && strsim::jaro_winkler(known, key) > MEANT;
        let is_known = OF_EVERY_METRIC.contains(&key.as_str());
        if let Some(known) = OF_EVERY_METRIC.iter().find(is_meant).filter(|_| !is_known) {
            return Err(wrong(
                format!("a metric has no argument `{key}`"),
                format!("did you mean `{known}`?"),
            ));
        }
    }
    Ok(())
}

impl ExactMatch {
    /// Reads the arguments of `exact_match` of generated texts.
    pub(super) fn read(item: &Value, wrong: &dyn Fn(String, String) -> EvalError) -> Result<Self, EvalError> {
        let given = item.as_object().into_iter().flat_map(|item| item.keys());
        let is_known = |key: &str| OF_EVERY_METRIC.contains(&key) || KEYS.contains(&key);
        if let Some(key) = given.map(String::as_str).find(|key| !is_known(key)) {
            return Err(wrong(format!("`exact_match` has no argument `{key}`"), "take it away".into()));
        }
        let flag = |key: &str| {
            Ok::<bool, EvalError>(typed(item, key, Value::as_bool, "true or false", wrong)?.unwrap_or(false))
        };
        let patterns = typed(item, "regexes_to_ignore", iterated, "a list of patterns", wrong)?;
        let compile = |source: &String| {
            let pattern = Pattern::new(source);
            pattern.map_err(|e| {
                wrong(format!("the pattern {source:?} is not valid: {}", e.0), "correct it there".into())
            })
        };
        Ok(Self {
            regexes_to_ignore: patterns.iter().flatten().map(compile).collect::<Result<_, _>>()?,
            ignore_case: flag("ignore_case")?,
            ignore_punctuation: flag("ignore_punctuation")?,
            ignore_numbers: flag("ignore_numbers")?,
        })
    }

    /// Whether a prediction is the reference.
    pub(crate) fn is_match(&self, prediction: &str, reference: &str) -> Result<bool, String> {
        Ok(self.stripped(prediction)? == self.stripped(reference)?)
    }

    fn stripped(&self, text: &str) -> Result<String, String> {
        let mut text = text.to_owned();
        for pattern in &self.regexes_to_ignore {
            text = pattern.substitute(&text, "", 0).map_err(|e| e.0)?;
        }
        if self.ignore_case {
            text = text.to_lowercase();
        }
        if self.ignore_punctuation {
            text.retain(|c| !c.is_ascii_punctuation());
        }
        if self.ignore_numbers {
            text.retain(|c| !c.is_ascii_digit());
        }
        // numpy's text arrays end where only NUL follows.
        text.truncate(text.trim_end_matches('\0').len());
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn metric(item: Value) -> ExactMatch {
        ExactMatch::read(&item, &|problem, remedy| panic!("{problem} {remedy}")).unwrap()
    }

    #[test]
    fn what_is_ignored_does_not_count() {
        let gsm8k = metric(json!({"metric": "exact_match", "ignore_case": true,
            "regexes_to_ignore": [",", "\\$", "(?s).*#### ", "\\.$"]}));
        assert!(gsm8k.is_match("$1,234.", "so\nit is #### 1234").unwrap());
        assert!(!gsm8k.is_match("1234.0", "#### 1234").unwrap());
        let all = metric(json!({"ignore_case": true, "ignore_punctuation": true, "ignore_numbers": true}));
        assert!(all.is_match("It's 5!", "its ").unwrap());
        assert!(!metric(json!({})).is_match("A", "a").unwrap());
        // Python goes through a text character by character.
        assert!(metric(json!({"regexes_to_ignore": ",;"})).is_match("1,2;", "12").unwrap());
    }

    #[test]
    fn arguments_that_nothing_reads_are_no_mistake_but_misspelt_keys_are() {
        let said = |item: Value| {
            let wrong = |problem: String, remedy: String| EvalError::Data { task: problem, problem: remedy };
            check_names(&item, &wrong).map_err(|error| error.to_string())
        };
        said(json!({"metric": "f1", "average": "macro", "weight_by_size": true, "aggregation": "f1"}))
            .unwrap();
        assert!(said(json!({"agregation": "mean"})).unwrap_err().contains("did you mean `aggregation`?"));
        assert!(said(json!({"higher_is_beter": true})).unwrap_err().contains("`higher_is_better`"));
    }

    #[test]
    fn settings_of_another_type_are_refused() {
        for item in
            [json!({"ignore_case": "true"}), json!({"regexes_to_ignore": 5}), json!({"ignore_numbers": 1})]
        {
            let wrong = |problem: String, _: String| EvalError::Data { task: String::new(), problem };
            assert!(ExactMatch::read(&item, &wrong).is_err(), "{item}");
        }
    }
}
