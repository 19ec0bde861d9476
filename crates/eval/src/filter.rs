//! Filters: from generated texts to answers (lm_eval 0.4.13 `filters/`).

use crate::EvalError;
use crate::python::regex::{Match, Pattern};
use crate::python::text::{str_of, strip};
use crate::task::{Config, OutputType, definition, iterated, typed};
use serde_json::{Map, Value};

/// A named chain of filters.
#[derive(Debug, Clone)]
pub(crate) struct Pipeline {
    pub(crate) name: String,
    filters: Vec<Filter>,
}

/// One step.
#[derive(Debug, Clone)]
enum Filter {
    TakeFirst,
    TakeFirstK(usize),
    MajorityVote,
    Strip,
    Lower,
    Upper,
    Map(Map<String, Value>, Value),
    Regex(Extraction),
    MultiChoiceRegex(Extraction, Loosening),
}

/// Which match of a pattern is the answer.
#[derive(Debug, Clone)]
struct Extraction {
    pattern: Pattern,
    /// From the end if negative.
    group_select: i64,
    fallback: String,
}

/// What is taken off texts before choices are looked for.
#[derive(Debug, Clone, Default)]
struct Loosening {
    ignore_case: bool,
    ignore_punctuation: bool,
    regexes_to_ignore: Vec<Pattern>,
}

/// Names that lm_eval knows and this program refuses, with the reason.
const REFUSED: [(&str, &str); 4] = [
    ("custom", "it is a Python function"),
    ("regex_pos", "part-of-speech tags are not supported"),
    ("format_span", "named entities are not supported"),
    ("decontaminate", "it does nothing in lm_eval 0.4.13"),
];
const KNOWN: &str = "take_first, take_first_k, majority_vote, remove_whitespace, lowercase, uppercase, map, regex or multi_choice_regex";

impl Pipeline {
    /// The task's chains; without any, the first answer of each.
    /// `repeats`: answers to each question.
    pub(crate) fn list(
        config: &Config,
        output_type: OutputType,
        repeats: usize,
    ) -> Result<Vec<Self>, EvalError> {
        let default = || Self { name: "none".into(), filters: vec![Filter::TakeFirst] };
        let list = match config.fields.get("filter_list") {
            None | Some(Value::Null) => return Ok(vec![default()]),
            Some(Value::Array(list)) => list,
            Some(other) => return Err(config.wrong("filter_list", other, "a list")),
        };
        let mut pipelines = Vec::new();
        for item in list {
            let (Some(name), Some(steps)) =
                (item.get("name").and_then(Value::as_str), item.get("filter").and_then(Value::as_array))
            else {
                return Err(config.wrong("filter_list", item, "made of `name` and `filter`, a list"));
            };
            let filters: Result<Vec<Filter>, EvalError> =
                steps.iter().map(|step| Filter::read(config, step)).collect();
            let filters = filters?;
            if output_type != OutputType::GenerateUntil && !matches!(filters[..], [Filter::TakeFirst]) {
                return Err(definition(
                    config.place("filter_list"),
                    format!("filter `{name}` is about texts, and `{}` gives none", output_type.name()),
                    "take it away, or generate text with output_type: generate_until".into(),
                ));
            }
            if output_type == OutputType::GenerateUntil {
                let checked = check_chain(&filters, repeats);
                checked.map_err(|(problem, remedy)| {
                    definition(
                        config.place("filter_list"),
                        format!("filter `{name}`: {problem}"),
                        remedy.to_owned(),
                    )
                })?;
            }
            pipelines.push(Self { name: name.to_owned(), filters });
        }
        Ok(pipelines)
    }

    /// What the filters need of a document and do not find.
    pub(crate) fn check(&self, document: &Value) -> Result<(), String> {
        match self.filters.iter().any(|filter| matches!(filter, Filter::MultiChoiceRegex(..))) {
            true => Choices::texts(document).map(|_| ()),
            false => Ok(()),
        }
    }

    /// The answer to each document out of its `responses`.
    pub(crate) fn apply(
        &self,
        responses: &[Vec<String>],
        documents: &[&Value],
    ) -> Result<Vec<Value>, String> {
        let mut answers: Vec<Value> =
            responses.iter().map(|texts| texts.iter().cloned().map(Value::String).collect()).collect();
        for filter in &self.filters {
            for (answer, document) in answers.iter_mut().zip(documents) {
                *answer =
                    filter.apply(answer, document).map_err(|e| format!("filter `{}`: {e}", self.name))?;
            }
        }
        Ok(answers)
    }
}

impl Filter {
    fn read(config: &Config, step: &Value) -> Result<Self, EvalError> {
        let wrong = |problem: String, remedy: &str| {
            definition(config.place("filter_list"), problem, remedy.to_owned())
        };
        let name = step.get("function").and_then(Value::as_str).unwrap_or_default();
        if let Some((_, reason)) = REFUSED.iter().find(|(refused, _)| *refused == name) {
            return Err(wrong(format!("filter `{name}`: {reason}"), "take it away"));
        }
        let keys: &[&str] = match name {
            "take_first" | "majority_vote" | "remove_whitespace" | "lowercase" | "uppercase" => &[],
            "take_first_k" => &["k"],
            "map" => &["mapping_dict", "default_value"],
            "regex" => &["regex_pattern", "group_select", "fallback"],
            "multi_choice_regex" => &[
                "regex_pattern",
                "group_select",
                "fallback",
                "ignore_case",
                "ignore_punctuation",
                "regexes_to_ignore",
            ],
            other => {
                return Err(wrong(format!("there is no filter `{other}`"), &format!("it must be {KNOWN}")));
            }
        };
        let given = step.as_object().into_iter().flat_map(Map::keys);
        if let Some(key) = given.filter(|key| *key != "function").find(|key| !keys.contains(&key.as_str())) {
            return Err(wrong(format!("filter `{name}` has no argument `{key}`"), "take it away"));
        }
        Ok(match name {
            "take_first" => Self::TakeFirst,
            "take_first_k" => {
                let count = step.get("k").and_then(Value::as_u64).filter(|&k| k > 0);
                let count =
                    count.ok_or_else(|| wrong("`take_first_k` without `k`".into(), "add k: 1 or more"))?;
                Self::TakeFirstK(count as usize)
            }
            "majority_vote" => Self::MajorityVote,
            "remove_whitespace" => Self::Strip,
            "lowercase" => Self::Lower,
            "uppercase" => Self::Upper,
            "map" => Self::Map(
                setting(step, "mapping_dict", Value::as_object, "keys and values", &wrong)?
                    .cloned()
                    .unwrap_or_default(),
                step.get("default_value").cloned().unwrap_or(Value::Null),
            ),
            "regex" => Self::Regex(Extraction::read(step, &wrong)?),
            _ => Self::MultiChoiceRegex(Extraction::read(step, &wrong)?, Loosening::read(step, &wrong)?),
        })
    }

    fn apply(&self, answer: &Value, document: &Value) -> Result<Value, String> {
        // Python goes through a text character by character.
        let items: Vec<Value> = match answer {
            Value::Array(items) => items.clone(),
            other => str_of(other).chars().map(|c| c.to_string().into()).collect(),
        };
        let each = |change: &dyn Fn(&str) -> Result<Value, String>| {
            items
                .iter()
                .map(|item| change(item.as_str().unwrap_or_default()))
                .collect::<Result<Value, String>>()
        };
        match self {
            // lm_eval stops where there is nothing to take.
            Self::TakeFirst => Ok(items.first().cloned().unwrap_or_else(|| "".into())),
            Self::TakeFirstK(count) if answer.is_string() => {
                Ok(str_of(answer).chars().take(*count).collect::<String>().into())
            }
            Self::TakeFirstK(count) => Ok(items.into_iter().take(*count).collect()),
            Self::MajorityVote => Ok(vec![most_frequent(&items)].into()),
            Self::Strip => each(&|text| Ok(strip(text).into())),
            Self::Lower => each(&|text| Ok(text.to_lowercase().into())),
            Self::Upper => each(&|text| Ok(text.to_uppercase().into())),
            Self::Map(mapping, default) => each(&|text| Ok(mapping.get(text).unwrap_or(default).clone())),
            Self::Regex(extraction) => each(&|text| {
                let found = extraction.select(&extraction.pattern, text)?;
                Ok(found.unwrap_or_else(|| extraction.fallback.clone()).into())
            }),
            Self::MultiChoiceRegex(extraction, loosening) => {
                let choices = Choices::of(document, loosening)?;
                each(&|text| choices.find(text, extraction, loosening))
            }
        }
    }
}

/// What a chain has made of the answers to one question.
#[derive(Debug, Clone, Copy)]
struct Shape {
    /// How many there are, where that is certain; `None`: one, taken out of the list.
    listed: Option<usize>,
    /// All are texts.
    are_texts: bool,
}

/// Whether each filter can work on what those before it leave, so that none fails when everything is generated.
fn check_chain(filters: &[Filter], repeats: usize) -> Result<(), (String, &'static str)> {
    let mut shape = Shape { listed: Some(repeats), are_texts: true };
    for filter in filters {
        let wants_texts =
            matches!(filter, Filter::Strip | Filter::Lower | Filter::Upper | Filter::MultiChoiceRegex(..));
        if !shape.are_texts && (wants_texts || shape.listed.is_none()) {
            return Err((
                "a filter for texts comes after a `map` whose values are not all texts".into(),
                "put quotes around the values of mapping_dict, and give a default_value",
            ));
        }
        let are_texts = match filter {
            Filter::Map(mapping, default) => mapping.values().chain([default]).all(Value::is_string),
            Filter::TakeFirst | Filter::TakeFirstK(_) | Filter::MajorityVote => shape.are_texts,
            _ => true,
        };
        let listed = match filter {
            Filter::TakeFirst => None,
            Filter::TakeFirstK(count) => match shape.listed {
                Some(there) if there < *count => {
                    let problem = format!("take_first_k wants {count} answers of {there}");
                    return Err((problem, "raise `repeats`, or lower `k`"));
                }
                listed => listed.map(|_| *count),
            },
            Filter::MajorityVote => Some(1),
            // Of a text as many as it has characters: at least none.
            _ => shape.listed.or(Some(0)),
        };
        shape = Shape { listed, are_texts };
    }
    Ok(())
}

/// The first of the most frequent items.
fn most_frequent(items: &[Value]) -> Value {
    let count = |wanted: &Value| items.iter().filter(|item| *item == wanted).count();
    let best = items.iter().map(count).max().unwrap_or(0);
    items.iter().find(|item| count(item) == best).cloned().unwrap_or(Value::Null)
}

type Wrong<'a> = &'a dyn Fn(String, &str) -> EvalError;

fn setting<'v, T>(
    step: &'v Value,
    key: &str,
    read: impl Fn(&'v Value) -> Option<T>,
    expected: &str,
    wrong: Wrong<'_>,
) -> Result<Option<T>, EvalError> {
    typed(step, key, read, expected, &|problem, remedy| wrong(problem, &remedy))
}

fn pattern(text: &str, wrong: Wrong<'_>) -> Result<Pattern, EvalError> {
    Pattern::new(text)
        .map_err(|e| wrong(format!("the pattern {text:?} is not valid: {}", e.0), "correct it there"))
}

impl Extraction {
    fn read(step: &Value, wrong: Wrong<'_>) -> Result<Self, EvalError> {
        let source = setting(step, "regex_pattern", Value::as_str, "a pattern", wrong)?;
        Ok(Self {
            pattern: pattern(source.unwrap_or(r"#### (\-?[0-9\.\,]+)"), wrong)?,
            group_select: setting(step, "group_select", Value::as_i64, "a whole number", wrong)?.unwrap_or(0),
            fallback: step.get("fallback").map_or_else(|| "[invalid]".to_owned(), str_of),
        })
    }

    /// The chosen match, its first group that is not empty. `None`: no such match, or only empty groups.
    fn select(&self, pattern: &Pattern, text: &str) -> Result<Option<String>, String> {
        let mut found = pattern.find_all(text).map_err(|e| format!("the pattern takes too long: {}", e.0))?;
        if found.is_empty() {
            return Ok(None);
        }
        let index =
            if self.group_select < 0 { found.len() as i64 + self.group_select } else { self.group_select };
        // lm_eval stops where there are fewer matches than that, after everything was generated.
        let Some(index) = usize::try_from(index).ok().filter(|&index| index < found.len()) else {
            return Ok(None);
        };
        Ok(match found.swap_remove(index) {
            Match::Whole(text) => Some(strip(&text).to_owned()),
            Match::Groups(groups) => groups.iter().find(|g| !g.is_empty()).map(|g| strip(g).to_owned()),
        })
    }
}

impl Loosening {
    fn read(step: &Value, wrong: Wrong<'_>) -> Result<Self, EvalError> {
        let flag = |key: &str| {
            Ok::<bool, EvalError>(
                setting(step, key, Value::as_bool, "true or false", wrong)?.unwrap_or(false),
            )
        };
        let texts = setting(step, "regexes_to_ignore", iterated, "a list of patterns", wrong)?;
        let patterns = texts.iter().flatten().map(|text| pattern(text, wrong));
        Ok(Self {
            ignore_case: flag("ignore_case")?,
            ignore_punctuation: flag("ignore_punctuation")?,
            regexes_to_ignore: patterns.collect::<Result<_, _>>()?,
        })
    }

    fn apply(&self, text: &str) -> Result<String, String> {
        let mut text = text.to_owned();
        for pattern in &self.regexes_to_ignore {
            text = pattern.substitute(&text, "", 0).map_err(|e| e.0)?;
        }
        if self.ignore_case {
            text = text.to_lowercase();
        }
        if self.ignore_punctuation {
            static PUNCTUATION: std::sync::LazyLock<Pattern> =
                std::sync::LazyLock::new(|| Pattern::new(r"\p{P}").expect("a valid pattern"));
            text = PUNCTUATION.substitute(&text, "", 0).map_err(|e| e.0)?;
        }
        Ok(text)
    }
}

/// The choices of a document, and the letters that stand for them.
struct Choices {
    texts: Vec<String>,
    any_text: Pattern,
    any_letter: Pattern,
}

impl Choices {
    /// What Python iterates over: items, keys or characters of the document's `choices`.
    fn texts(document: &Value) -> Result<Vec<String>, String> {
        match document.get("choices") {
            Some(Value::Array(items)) => Ok(items.iter().map(str_of).collect()),
            Some(Value::Object(fields)) => Ok(fields.keys().cloned().collect()),
            Some(Value::String(text)) => Ok(text.chars().map(String::from).collect()),
            Some(other) => Err(format!("multi_choice_regex wants a list `choices`, which is {other}")),
            None => Err("multi_choice_regex wants a list `choices`, and there is no such field".into()),
        }
    }

    fn of(document: &Value, loosening: &Loosening) -> Result<Self, String> {
        let texts = Self::texts(document)?;
        let texts: Result<Vec<String>, String> =
            texts.iter().map(|choice| loosening.apply(strip(choice))).collect();
        let texts = texts?;
        let mut longest_first: Vec<String> = texts.iter().map(|text| escaped(text)).collect();
        longest_first.sort_by_key(|text| std::cmp::Reverse(text.chars().count()));
        let letters: Vec<String> = (0..texts.len()).map(|i| letter(i).to_string()).collect();
        let compile = |source: String| Pattern::new(&source).map_err(|e| e.0);
        Ok(Self {
            any_text: compile(longest_first.join("|"))?,
            any_letter: compile(format!(r":[\s]*({})", letters.join("|")))?,
            texts,
        })
    }

    fn find(&self, text: &str, extraction: &Extraction, loosening: &Loosening) -> Result<Value, String> {
        let is_found = |found: &Option<String>| found.as_ref().is_some_and(|text| !text.is_empty());
        let named = |index: usize| format!("({})", letter(index));
        let mut found = extraction.select(&extraction.pattern, text)?;
        if !is_found(&found) {
            found = extraction.select(&self.any_text, &loosening.apply(text)?)?;
            // Of equal texts the last letter counts, as in a dict.
            let index = found.as_ref().and_then(|found| self.texts.iter().rposition(|text| text == found));
            found = index.map(named).or(found);
        }
        if !is_found(&found) {
            found = extraction.select(&self.any_letter, text)?;
            let index = found
                .as_ref()
                .and_then(|found| (0..self.texts.len()).find(|&i| *found == letter(i).to_string()));
            found = index.map(named).or(found);
        }
        Ok(found.filter(|text| !text.is_empty()).unwrap_or_else(|| extraction.fallback.clone()).into())
    }
}

/// A, B, C, …
fn letter(index: usize) -> char {
    char::from_u32('A' as u32 + index as u32).unwrap_or('?')
}

/// `re.escape`.
fn escaped(text: &str) -> String {
    let special = |c: char| r"()[]{}?*+-|^$\.&~# ".contains(c) || c.is_ascii_whitespace();
    let mut out = String::new();
    for c in text.chars() {
        if special(c) {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::path::Path;

    fn pipeline(steps: Value) -> Result<Pipeline, EvalError> {
        let yaml = json!({"filter_list": [{"name": "f", "filter": steps}]}).to_string();
        let read = |_: &Path| Ok(yaml.clone());
        let config = Config::read(Path::new("t.yaml"), &read).unwrap();
        Pipeline::list(&config, OutputType::GenerateUntil, 3).map(|mut list| list.remove(0))
    }

    fn answer(steps: Value, texts: &[&str], document: Value) -> Value {
        let texts = texts.iter().map(|text| text.to_string()).collect();
        pipeline(steps).unwrap().apply(&[texts], &[&document]).unwrap().remove(0)
    }

    #[test]
    fn regex_takes_the_chosen_match() {
        let strict = json!([{"function": "regex", "regex_pattern": r"#### (\-?[0-9\.\,]+)"}, {"function": "take_first"}]);
        assert_eq!(answer(strict.clone(), &["x #### 12. #### 3"], json!({})), "12.");
        assert_eq!(answer(strict, &["none"], json!({})), "[invalid]");
        let flexible = json!([{"function": "regex", "group_select": -1,
                               "regex_pattern": "(-?[$0-9.,]{2,})|(-?[0-9]+)"}, {"function": "take_first"}]);
        assert_eq!(answer(flexible, &["5 apples cost $12 or 7"], json!({})), "7");
    }

    #[test]
    fn votes_maps_and_cases() {
        let vote = json!([{"function": "remove_whitespace"}, {"function": "majority_vote"}, {"function": "take_first"}]);
        assert_eq!(answer(vote, &["b", " a", "a ", "b"], json!({})), "b", "the first of the most frequent");
        let map = json!([{"function": "lowercase"}, {"function": "map", "mapping_dict": {"yes": "1"}, "default_value": "0"}]);
        assert_eq!(answer(map, &["YES", "no"], json!({})), json!(["1", "0"]));
        assert_eq!(
            answer(json!([{"function": "take_first_k", "k": 2}]), &["a", "b", "c"], json!({})),
            json!(["a", "b"])
        );
    }

    #[test]
    fn choices_are_found_by_text_or_letter() {
        let steps = json!([{"function": "multi_choice_regex", "regex_pattern": r"(\([A-Z]\))", "group_select": 0,
                            "ignore_case": true, "ignore_punctuation": true}, {"function": "take_first"}]);
        let document = json!({"choices": ["Guilty", "Guilty of Romance", "No."]});
        let find = |text: &str| answer(steps.clone(), &[text], document.clone());
        assert_eq!(find("it is (C) I think"), "(C)");
        assert_eq!(find("It's guilty of romance!"), "(B)");
        assert_eq!(find("Answer: A"), "(A)");
        assert_eq!(find("?"), "[invalid]");
    }

    #[test]
    fn a_text_is_gone_through_by_character_as_in_python() {
        // polemo2's chain in lm_eval.
        let steps = json!([{"function": "regex", "regex_pattern": "(\\b([ABCD])\\b)"}, {"function": "take_first"},
                           {"function": "map", "mapping_dict": {"A": "0", "B": "1"}, "default_value": "-1"},
                           {"function": "take_first"}]);
        assert_eq!(answer(steps.clone(), &["it is B", "A"], json!({})), "1");
        assert_eq!(answer(steps, &["nothing"], json!({})), "-1");
        let first = json!([{"function": "take_first"}, {"function": "take_first_k", "k": 2}]);
        assert_eq!(answer(first.clone(), &["abc"], json!({})), "ab");
        let twice = json!([{"function": "take_first"}, {"function": "take_first"}]);
        assert_eq!(answer(twice, &[""], json!({})), "");
        let third = json!([{"function": "regex", "regex_pattern": "[0-9]", "group_select": 2}, {"function": "take_first"}]);
        assert_eq!(answer(third.clone(), &["1 2 3"], json!({})), "3");
        assert_eq!(answer(third, &["1 2"], json!({})), "[invalid]");
    }

    #[test]
    fn chains_that_cannot_work_are_refused_when_they_are_read() {
        let said = |steps| pipeline(steps).unwrap_err().to_string();
        let map = json!({"function": "map", "mapping_dict": {"A": 1}, "default_value": 0});
        let first = json!({"function": "take_first"});
        let texts = "whose values are not all texts";
        assert!(said(json!([map, {"function": "lowercase"}])).contains(texts));
        assert!(said(json!([map, first, {"function": "regex"}])).contains(texts));
        pipeline(json!([map, {"function": "regex"}, {"function": "lowercase"}, first])).unwrap();
        let vote = json!({"function": "majority_vote"});
        assert!(said(json!([{"function": "take_first_k", "k": 4}])).contains("4 answers of 3"));
        assert!(said(json!([vote, {"function": "take_first_k", "k": 2}])).contains("2 answers of 1"));
    }

    #[test]
    fn choices_may_be_keys() {
        let steps = json!([{"function": "multi_choice_regex", "regex_pattern": "(\\([A-Z]\\))"}]);
        let pipeline = pipeline(steps.clone()).unwrap();
        let document = json!({"choices": {"text": ["x"], "label": ["A"]}});
        assert_eq!(answer(steps, &["it is the label"], document), json!(["(B)"]));
        pipeline.check(&json!({"choices": "ab"})).unwrap();
        assert!(pipeline.check(&json!({"choices": 3})).unwrap_err().contains("which is 3"));
        assert!(pipeline.check(&json!({})).unwrap_err().contains("no such field"));
    }

    #[test]
    fn what_is_not_known_is_refused() {
        let said = |steps| pipeline(steps).unwrap_err().to_string();
        assert!(
            said(json!([{"function": "regx"}])).contains("there is no filter `regx`; it must be take_first")
        );
        assert!(said(json!([{"function": "custom"}])).contains("it is a Python function"));
        assert!(said(json!([{"function": "regex", "regex_pattern": "("}])).contains("is not valid"));
        assert!(said(json!([{"function": "lowercase", "x": 1}])).contains("no argument `x`"));
        assert!(said(json!([{"function": "take_first_k"}])).contains("without `k`"));
    }
}
