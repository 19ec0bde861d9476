//! The 25 kinds of instruction, read from a document, and whether a text follows each (lm_eval 0.4.13
//! `tasks/ifeval/instructions.py`).
//!
//! lm_eval draws at random what a document leaves open, and what it thinks impossible (a number of 0 or below, a
//! "letter" that is a mark). Here what is missing is an error, and what is given is taken as it is.

use super::{language, sentences, words};
use crate::python::json::is_json;
use crate::python::regex::{Pattern, PatternError};
use crate::python::text::{is_space, strip};
use serde_json::{Map, Value};

/// What must be found, and how often.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    count: i64,
    is_upper_bound: bool,
}

/// One instruction.
#[derive(Debug)]
pub(super) enum Instruction {
    Keywords(Vec<Pattern>),
    KeywordFrequency(Pattern, Wanted),
    ForbiddenWords(Vec<Pattern>),
    LetterFrequency(char, Wanted),
    Language(String),
    Sentences(Wanted),
    Paragraphs(i64),
    Words(Wanted),
    FirstWord { paragraphs: i64, nth: i64, word: String },
    Placeholders(i64),
    Postscript(Pattern),
    Bullets(i64),
    OneOfThreeAnswers,
    Highlights(i64),
    Sections(Pattern, i64),
    Json,
    Title,
    TwoResponses,
    RepeatPrompt(String),
    End(String),
    Quotation,
    CapitalWords(Wanted),
    Capitals,
    SmallLetters,
    NoComma,
}

/// What a document says about one instruction.
struct Arguments<'a> {
    id: &'a str,
    given: Map<String, Value>,
}

type Checked = Result<bool, PatternError>;

impl Instruction {
    /// `id` and `arguments`: an item of the document's `instruction_id_list` and of its `kwargs`.
    pub(super) fn read(id: &str, arguments: &Value) -> Result<Self, String> {
        let given = arguments.as_object().cloned().unwrap_or_default();
        let given: Map<String, Value> = given.into_iter().filter(|(_, value)| !value.is_null()).collect();
        let mut arguments = Arguments { id, given };
        let instruction = Self::of(id, &mut arguments)?;
        match arguments.given.keys().next() {
            Some(key) => Err(format!("`{id}` takes no `{key}`")),
            None => Ok(instruction),
        }
    }

    fn of(id: &str, arguments: &mut Arguments<'_>) -> Result<Self, String> {
        let (kind, name) = id.split_once(':').unwrap_or_default();
        let found = match kind {
            "keywords" => Self::about_words(name, arguments)?,
            "length_constraints" => Self::about_length(name, arguments)?,
            "detectable_content" | "detectable_format" => Self::about_form(id, arguments)?,
            _ => Self::about_the_rest(id, arguments)?,
        };
        found.ok_or_else(|| format!("there is no instruction `{id}`"))
    }

    fn about_words(name: &str, arguments: &mut Arguments<'_>) -> Result<Option<Self>, String> {
        Ok(Some(match name {
            "existence" => Self::Keywords(arguments.patterns("keywords", "", "(?i)")?),
            "frequency" => {
                let keyword = arguments.text("keyword")?;
                let keyword = arguments.pattern("keyword", &format!("(?i){}", strip(&keyword)))?;
                Self::KeywordFrequency(keyword, arguments.wanted("frequency", "relation")?)
            }
            "forbidden_words" => {
                // Python's `\b`, which knows no combining marks.
                let border = r"(?:(?<=W)(?!W)|(?<!W)(?=W))".replace('W', r"[\p{L}\p{N}_]");
                Self::ForbiddenWords(arguments.patterns("forbidden_words", &border, "(?i)")?)
            }
            "letter_frequency" => {
                let letter = arguments.text("letter")?.to_lowercase();
                let letter =
                    strip(&letter).chars().next().ok_or_else(|| arguments.wrong("letter", "a letter"))?;
                Self::LetterFrequency(letter, arguments.wanted("let_frequency", "let_relation")?)
            }
            _ => return Ok(None),
        }))
    }

    fn about_length(name: &str, arguments: &mut Arguments<'_>) -> Result<Option<Self>, String> {
        Ok(Some(match name {
            "number_sentences" => Self::Sentences(arguments.wanted("num_sentences", "relation")?),
            "number_paragraphs" => Self::Paragraphs(arguments.count("num_paragraphs")?),
            "number_words" => Self::Words(arguments.wanted("num_words", "relation")?),
            "nth_paragraph_first_word" => Self::FirstWord {
                paragraphs: arguments.count("num_paragraphs")?,
                nth: arguments.count("nth_paragraph")?,
                word: arguments.text("first_word")?.to_lowercase(),
            },
            _ => return Ok(None),
        }))
    }

    fn about_form(id: &str, arguments: &mut Arguments<'_>) -> Result<Option<Self>, String> {
        Ok(Some(match id {
            "detectable_content:number_placeholders" => {
                Self::Placeholders(arguments.count("num_placeholders")?)
            }
            "detectable_content:postscript" => {
                let marker = arguments.text("postscript_marker")?;
                let pattern = match strip(&marker) {
                    "P.P.S" => r"\s*p\.\s?p\.\s?s.*$".to_owned(),
                    "P.S." => r"\s*p\.\s?s\..*$".to_owned(),
                    other => format!(r"\s*{}.*$", other.to_lowercase()),
                };
                Self::Postscript(arguments.pattern("postscript_marker", &format!("(?m){pattern}"))?)
            }
            "detectable_format:number_bullet_lists" => Self::Bullets(arguments.count("num_bullets")?),
            "detectable_format:constrained_response" => Self::OneOfThreeAnswers,
            "detectable_format:number_highlighted_sections" => {
                Self::Highlights(arguments.count("num_highlights")?)
            }
            "detectable_format:multiple_sections" => {
                let marker = arguments.text("section_spliter")?;
                let pattern = format!(r"\s?{}\s?\d+\s?", strip(&marker));
                Self::Sections(
                    arguments.pattern("section_spliter", &pattern)?,
                    arguments.count("num_sections")?,
                )
            }
            "detectable_format:json_format" => Self::Json,
            "detectable_format:title" => Self::Title,
            _ => return Ok(None),
        }))
    }

    fn about_the_rest(id: &str, arguments: &mut Arguments<'_>) -> Result<Option<Self>, String> {
        Ok(Some(match id {
            "language:response_language" => Self::Language(arguments.text("language")?),
            "combination:two_responses" => Self::TwoResponses,
            "combination:repeat_prompt" => {
                Self::RepeatPrompt(strip(&arguments.text("prompt_to_repeat")?).to_lowercase())
            }
            "startend:end_checker" => Self::End(strip(&arguments.text("end_phrase")?).to_lowercase()),
            "startend:quotation" => Self::Quotation,
            "change_case:capital_word_frequency" => {
                Self::CapitalWords(arguments.wanted("capital_frequency", "capital_relation")?)
            }
            "change_case:english_capital" => Self::Capitals,
            "change_case:english_lowercase" => Self::SmallLetters,
            "punctuation:no_comma" => Self::NoComma,
            _ => return Ok(None),
        }))
    }

    /// Whether a text that is not blank follows it.
    pub(super) fn is_followed(&self, text: &str) -> Checked {
        Ok(match self {
            Self::Keywords(patterns) => all(patterns.iter().map(|pattern| pattern.is_found(text)))?,
            Self::KeywordFrequency(pattern, wanted) => wanted.is_met(pattern.find_all(text)?.len()),
            Self::ForbiddenWords(patterns) => {
                all(patterns.iter().map(|pattern| pattern.is_found(text).map(|found| !found)))?
            }
            Self::LetterFrequency(letter, wanted) => {
                wanted.is_met(text.to_lowercase().chars().filter(|c| c == letter).count())
            }
            Self::Language(wanted) => language::of(text).is_none_or(|language| language == *wanted),
            Self::Sentences(wanted) => wanted.is_met(sentences::count(text)),
            Self::Paragraphs(count) => paragraphs(text)? == Some(*count),
            Self::Words(wanted) => wanted.is_met(words::count(text)?),
            Self::FirstWord { paragraphs, nth, word } => has_first_word(text, *paragraphs, *nth, word),
            Self::Placeholders(count) => found(r"\[.*?\]", text)? >= *count,
            Self::Postscript(pattern) => pattern.is_found(&text.to_lowercase())?,
            Self::Bullets(count) => {
                found(r"(?m)^\s*\*[^\*].*$", text)? + found(r"(?m)^\s*-.*$", text)? == *count
            }
            Self::OneOfThreeAnswers => ["My answer is yes.", "My answer is no.", "My answer is maybe."]
                .iter()
                .any(|a| text.contains(a)),
            Self::Highlights(count) => highlights(text)? >= *count,
            Self::Sections(pattern, count) => pattern.find_all(text)?.len() as i64 >= *count,
            Self::Json => is_json_answer(text),
            Self::Title => {
                let titles = Pattern::new(r"<<[^\n]+>>")?.find_all(text)?;
                titles.iter().any(|title| {
                    let title = title.text().trim_start_matches('<').trim_end_matches('>');
                    !strip(title).is_empty()
                })
            }
            Self::TwoResponses => has_two_responses(text),
            Self::RepeatPrompt(prompt) => strip(text).to_lowercase().starts_with(prompt),
            Self::End(phrase) => strip(text).trim_matches('"').to_lowercase().ends_with(phrase),
            Self::Quotation => {
                let text = strip(text);
                text.len() > 1 && text.starts_with('"') && text.ends_with('"')
            }
            Self::CapitalWords(wanted) => wanted.is_met(words::in_capitals(text)?),
            Self::Capitals => words::is_upper(text) && is_english(text),
            Self::SmallLetters => words::is_lower(text) && is_english(text),
            Self::NoComma => !text.contains(','),
        })
    }
}

fn all(mut checks: impl Iterator<Item = Checked>) -> Checked {
    checks.try_fold(true, |all, check| check.map(|check| all && check))
}

fn found(pattern: &str, text: &str) -> Result<i64, PatternError> {
    Ok(Pattern::new(pattern)?.find_all(text)?.len() as i64)
}

/// A text whose language cannot be told counts as English.
fn is_english(text: &str) -> bool {
    language::of(text).is_none_or(|language| language == "en")
}

/// Parts between `***`; `None`: one of those in the middle is blank.
fn paragraphs(text: &str) -> Result<Option<i64>, PatternError> {
    let parts = Pattern::new(r"\s?\*\*\*\s?")?.split(text)?;
    let is_blank = |part: &&str| strip(part).is_empty();
    let last = parts.len() - 1;
    if parts.iter().enumerate().any(|(at, part)| at > 0 && at < last && is_blank(part)) {
        return Ok(None);
    }
    Ok(Some(parts.iter().filter(|part| !is_blank(part)).count() as i64))
}

/// Blank paragraphs do not count for the number of all, but do for the place of one.
fn has_first_word(text: &str, wanted: i64, nth: i64, word: &str) -> bool {
    let paragraphs: Vec<&str> = text.split("\n\n").map(strip).collect();
    let count = paragraphs.iter().filter(|paragraph| !paragraph.is_empty()).count() as i64;
    let at = usize::try_from(nth).ok().and_then(|nth| nth.checked_sub(1)).filter(|_| nth <= count);
    let Some(first) = at.and_then(|at| paragraphs.get(at)?.split(is_space).next()) else { return false };
    if first.is_empty() {
        return false;
    }
    let first = first.trim_start_matches('\'').trim_start_matches('"');
    let first = first.split(['.', ',', '?', '!', '\'', '"']).next().unwrap_or_default();
    // Letter by letter, as the peer does it: the Greek final s is none in a letter by itself.
    let first: String = first.chars().flat_map(char::to_lowercase).collect();
    count == wanted && first == word
}

/// Texts between single and between double asterisks.
fn highlights(text: &str) -> Result<i64, PatternError> {
    let single = Pattern::new(r"\*[^\n\*]*\*")?.find_all(text)?;
    let double = Pattern::new(r"\*\*[^\n\*]*\*\*")?.find_all(text)?;
    let shows = |inside: &str| !strip(inside).is_empty();
    let single = single.iter().filter(|found| shows(found.text().trim_matches('*'))).count();
    let inside = |text: &str| {
        let text = text.strip_prefix("**").unwrap_or(text).to_owned();
        text.strip_suffix("**").map_or(text.clone(), str::to_owned)
    };
    let double = double.iter().filter(|found| shows(&inside(found.text()))).count();
    Ok((single + double) as i64)
}

/// JSON, perhaps in a block of code.
fn is_json_answer(text: &str) -> bool {
    let mut text = strip(text);
    for fence in ["```json", "```Json", "```JSON", "```"] {
        text = text.strip_prefix(fence).unwrap_or(text);
    }
    is_json(strip(text.strip_suffix("```").unwrap_or(text)))
}

/// Two different answers with `******` between them.
fn has_two_responses(text: &str) -> bool {
    let parts: Vec<&str> = text.split("******").map(strip).collect();
    let last = parts.len() - 1;
    if parts.iter().enumerate().any(|(at, part)| at > 0 && at < last && part.is_empty()) {
        return false;
    }
    let answers: Vec<&&str> = parts.iter().filter(|part| !part.is_empty()).collect();
    matches!(answers[..], [one, two] if one != two)
}

impl Wanted {
    fn is_met(self, found: usize) -> bool {
        let found = i64::try_from(found).unwrap_or(i64::MAX);
        if self.is_upper_bound { found < self.count } else { found >= self.count }
    }
}

impl Arguments<'_> {
    fn wrong(&self, key: &str, expected: &str) -> String {
        format!("`{key}` of the instruction `{}` must be {expected}", self.id)
    }

    fn take(&mut self, key: &str) -> Result<Value, String> {
        self.given.remove(key).ok_or_else(|| format!("the instruction `{}` has no `{key}`", self.id))
    }

    fn text(&mut self, key: &str) -> Result<String, String> {
        match self.take(key)? {
            Value::String(text) if !text.is_empty() => Ok(text),
            _ => Err(self.wrong(key, "a text")),
        }
    }

    fn count(&mut self, key: &str) -> Result<i64, String> {
        let value = self.take(key)?;
        let whole = value.as_f64().filter(|x| x.fract() == 0.0 && x.abs() < 1e15);
        whole.map(|x| x as i64).ok_or_else(|| self.wrong(key, "a whole number"))
    }

    fn wanted(&mut self, count: &str, relation: &str) -> Result<Wanted, String> {
        let count = self.count(count)?;
        match self.text(relation)?.as_str() {
            "less than" => Ok(Wanted { count, is_upper_bound: true }),
            "at least" => Ok(Wanted { count, is_upper_bound: false }),
            _ => Err(self.wrong(relation, "`less than` or `at least`")),
        }
    }

    fn pattern(&self, key: &str, pattern: &str) -> Result<Pattern, String> {
        let problem = |error: PatternError| self.wrong(key, &format!("a regular expression: {}", error.0));
        Pattern::new(pattern).map_err(problem)
    }

    fn patterns(&mut self, key: &str, border: &str, flags: &str) -> Result<Vec<Pattern>, String> {
        let Value::Array(words) = self.take(key)? else { return Err(self.wrong(key, "a list of texts")) };
        let text = |word: &Value| word.as_str().map(str::to_owned);
        let texts: Option<Vec<String>> = words.iter().map(text).collect();
        let texts =
            texts.filter(|texts| !texts.is_empty()).ok_or_else(|| self.wrong(key, "a list of texts"))?;
        texts.iter().map(|word| self.pattern(key, &format!("{flags}{border}{word}{border}"))).collect()
    }
}
