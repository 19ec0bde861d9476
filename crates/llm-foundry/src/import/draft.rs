//! A configuration of ours in the making, and what did not get into it.

use super::is_hub_data;
use crate::config;
use indexmap::IndexMap;
use serde_json::{Map, Value, json};
use std::fmt::Write;

/// A key of another program's file that is not in ours.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Note {
    pub(crate) key: String,
    pub(crate) value: String,
    pub(crate) why: String,
}

/// What becomes of a key.
pub(super) enum Rule {
    /// The same thing under our name.
    To(&'static str),
    /// It has a meaning that is not carried over.
    Lost(&'static str),
    /// It has no meaning here, and nothing is lost.
    Unneeded(&'static str),
    /// More than one of these; the whole file is at hand.
    By(fn(&mut Draft, &str, &Value, &Map<String, Value>)),
}

/// Where training rows come from.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Rows {
    pub(super) paths: Vec<String>,
    pub(super) format: Option<&'static str>,
    pub(super) text_field: Option<String>,
    pub(super) columns: Vec<(&'static str, String)>,
    /// Which part of a data set of the hub: `name`, `split`, `revision`.
    pub(super) part: Vec<(&'static str, String)>,
    pub(super) weight: Option<f64>,
    pub(super) take: Option<u64>,
    /// The key that named them, for the comment.
    pub(super) comment: String,
}

/// Values under our names, each with a comment.
#[derive(Clone, Debug, Default)]
pub(super) struct Draft {
    values: IndexMap<String, (Value, String)>,
    pub(super) lost: Vec<Note>,
    pub(super) unneeded: Vec<Note>,
    pub(super) rows: Vec<Rows>,
    /// Where rows for evaluation come from.
    pub(super) eval: Vec<Rows>,
    /// Why the file cannot be carried over at all.
    refusal: Option<String>,
    /// How often something was set, lost or skipped: a rule that does none of it has not understood its key.
    told: usize,
}

/// The order of sections in a file.
const SECTIONS: [&str; 5] = ["model", "tokenizer", "data", "lora", "training"];

impl Draft {
    /// Applies the rules to every key; keys without one are lost.
    pub(super) fn apply(&mut self, program: &str, file: &Map<String, Value>, rules: &[&[(&str, Rule)]]) {
        for (key, value) in file {
            let unset =
                value.is_null() || value.as_str() == Some("") || value.as_array().is_some_and(Vec::is_empty);
            if unset {
                continue;
            }
            let found = rules.iter().find_map(|table| table.iter().find(|(name, _)| name == key));
            match found.map(|(_, rule)| rule) {
                Some(Rule::To(path)) => self.set(path, plain(path, value), key),
                Some(Rule::Unneeded(why)) => self.skip(key, value, why),
                Some(Rule::Lost(_)) if is_off(value) => self.skip(key, value, "off here too"),
                Some(Rule::Lost(why)) => self.lose(key, value, why),
                Some(Rule::By(rule)) => {
                    let before = (self.told, self.rows.len(), self.eval.len());
                    rule(self, key, value, file);
                    if before == (self.told, self.rows.len(), self.eval.len()) {
                        let why = if is_off(value) { "off here too" } else { "this value is not understood" };
                        let note = if is_off(value) { Self::skip } else { Self::lose };
                        note(self, key, value, why);
                    }
                }
                None => {
                    let why = format!("not known here as a key of {program}");
                    self.lose(key, value, &why);
                }
            }
        }
    }

    /// Sets `section.key`; `comment` says why.
    pub(super) fn set(&mut self, path: &str, value: Value, comment: &str) {
        self.told += 1;
        let before = self.values.insert(path.into(), (value.clone(), comment.into()));
        match before.filter(|(_, from)| from != comment && !from.contains(' ')) {
            Some((old, from)) if old == value => self.skip(&from, &old, &format!("{comment} says the same")),
            Some((old, from)) => self.lose(&from, &old, &format!("`{path}` is set by {comment} too")),
            None => {}
        }
    }

    /// Sets what the other program would do where nothing is said, and ours would not.
    pub(super) fn default_of(&mut self, path: &str, value: Value, program: &str) {
        if !self.values.contains_key(path) {
            self.set(path, value, &format!("default of {program}"));
        }
    }

    pub(super) fn has(&self, path: &str) -> bool {
        self.values.contains_key(path)
    }

    /// The text that is set, if it is one.
    pub(super) fn text_of(&self, path: &str) -> Option<String> {
        self.values.get(path).and_then(|(value, _)| value.as_str()).map(str::to_owned)
    }

    /// Takes a value out again.
    pub(super) fn remove(&mut self, path: &str) -> Option<(Value, String)> {
        self.values.shift_remove(path)
    }

    pub(super) fn lose(&mut self, key: &str, value: &Value, why: &str) {
        self.told += 1;
        self.lost.push(note(key, value, why));
    }

    pub(super) fn skip(&mut self, key: &str, value: &Value, why: &str) {
        self.told += 1;
        self.unneeded.push(note(key, value, why));
    }

    /// The file is for something else. The first reason counts.
    pub(super) fn refuse(&mut self, why: String) {
        self.told += 1;
        self.refusal.get_or_insert(why);
    }

    /// Why the file cannot be carried over, if it cannot.
    pub(super) fn refusal(&mut self) -> Option<String> {
        self.refusal.take()
    }

    /// Some of the training rows are conversations.
    pub(super) fn has_chats(&self) -> bool {
        self.rows.iter().any(|rows| matches!(rows.format, Some("messages" | "sharegpt")))
    }

    /// Writes the evaluation rows as `data.eval`. They are read as the training rows are: what they say of their own
    /// shape is lost where it differs.
    fn settle_evaluation(&mut self) {
        let eval = std::mem::take(&mut self.eval);
        let Some(comment) = eval.first().map(|rows| rows.comment.clone()) else { return };
        let paths: Vec<&String> = eval.iter().flat_map(|rows| &rows.paths).collect();
        self.set("data.eval", json!(paths), &comment);
        self.settle_split(&eval, &comment);
        let of_training = self.rows.first().cloned().unwrap_or_default();
        for rows in &eval {
            let is_alike = rows.format == of_training.format
                && rows.text_field == of_training.text_field
                && rows.columns == of_training.columns;
            let is_read_so = self.rows.iter().all(|other| {
                (other.format, &other.text_field, &other.columns)
                    == (of_training.format, &of_training.text_field, &of_training.columns)
            });
            if !(is_alike && is_read_so) {
                let shape = json!({
                    "format": rows.format,
                    "text_field": rows.text_field,
                    "columns": columns(&rows.columns),
                });
                let why = "evaluation data has the shape of the training data, or is recognised from its first example";
                self.lose(&format!("{comment}.{}", rows.paths.join(",")), &shape, why);
            }
            for (key, value) in rows.part.iter().filter(|(key, _)| *key != "split") {
                match *key {
                    _ if of_training.part.iter().any(|part| part == &(*key, value.clone())) => {}
                    _ => self.lose(
                        &format!("{comment}.{key}"),
                        &json!(value),
                        "that of the training data is used",
                    ),
                }
            }
        }
    }

    /// Writes which split of the hub's data sets is evaluated on: one for all of them, that of the first.
    fn settle_split(&mut self, eval: &[Rows], comment: &str) {
        let named = |rows: &Rows| Some(rows.part.iter().find(|(key, _)| *key == "split")?.1.clone());
        let is_hub = |rows: &&Rows| rows.paths.iter().any(|path| is_hub_data(path)) || named(rows).is_some();
        let mut hub = eval.iter().filter(is_hub);
        let Some(first) = hub.next() else { return };
        // What a data set without a word about it is read by, here and there.
        let split = |rows: &Rows| named(rows).unwrap_or_else(|| "test".to_owned());
        if let Some(split) = named(first) {
            self.set("data.eval_split", json!(split), comment);
        }
        let kept = split(first);
        for other in hub.filter(|other| split(other) != kept) {
            let key = format!("{comment}.{}.split", other.paths.join(","));
            let why = format!("`data.eval_split` is one for all data sets: {kept}, that of the first");
            self.lose(&key, &json!(split(other)), &why);
        }
    }

    /// Writes the training rows as `data.train`, or as `data.sources` where they differ; and the evaluation rows.
    pub(super) fn settle_rows(&mut self) {
        self.settle_evaluation();
        let rows = std::mem::take(&mut self.rows);
        let Some(first) = rows.first() else { return };
        let mut comments: Vec<&str> = rows.iter().map(|rows| rows.comment.as_str()).collect();
        comments.dedup();
        let comment = comments.join(", ");
        let plain = Rows { paths: Vec::new(), comment: String::new(), ..first.clone() };
        let alike =
            |other: &Rows| Rows { paths: Vec::new(), comment: String::new(), ..other.clone() } == plain;
        if plain.weight.is_none() && plain.take.is_none() && rows.iter().all(alike) {
            let paths: Vec<&String> = rows.iter().flat_map(|rows| &rows.paths).collect();
            let train = if let [path] = paths.as_slice() { json!(path) } else { json!(paths) };
            self.set("data.train", train, &comment);
            if let Some(format) = plain.format {
                self.set("data.format", json!(format), &comment);
            }
            if let Some(field) = plain.text_field {
                self.set("data.text_field", json!(field), &comment);
            }
            for (key, value) in plain.part {
                self.set(&format!("data.{key}"), json!(value), &comment);
            }
            if !plain.columns.is_empty() {
                self.set("data.columns", columns(&plain.columns), &comment);
            }
            return;
        }
        let sources = rows.iter().map(source).collect();
        self.set("data.sources", Value::Array(sources), &comment);
    }

    /// The file, and for each of its lines the path that it sets.
    pub(super) fn text(&self, head: &str, program: &str) -> (String, Vec<Option<String>>) {
        let mut text = head.to_owned();
        let mut lines: Vec<Option<String>> = text.lines().map(|_| None).collect();
        let of = |section: &str| {
            let prefix = format!("{section}.");
            self.values
                .iter()
                .filter_map(move |(path, value)| Some((path.strip_prefix(&prefix)?.to_owned(), value)))
        };
        for section in SECTIONS {
            if of(section).next().is_none() {
                continue;
            }
            let _ = write!(text, "\n{section}:\n");
            lines.extend([None, None]);
            for (key, (value, comment)) in of(section) {
                let _ = writeln!(text, "  {key}: {}{}", config::yaml_flow(value), said(comment, program));
                lines.push(Some(format!("{section}.{key}")));
            }
        }
        if let Some((value, comment)) = self.values.get("output_dir") {
            let _ = write!(text, "\noutput_dir: {}{}\n", config::yaml_flow(value), said(comment, program));
            lines.extend([None, Some("output_dir".to_owned())]);
        }
        (text, lines)
    }
}

/// On one line: notes become comments.
fn note(key: &str, value: &Value, why: &str) -> Note {
    let line = |text: &str| text.replace(char::is_control, " ");
    Note { key: line(key), value: shown(value), why: line(why) }
}

fn said(comment: &str, program: &str) -> String {
    match comment {
        "" => String::new(),
        comment if comment.contains(' ') => format!("  # {comment}"),
        key => format!("  # {program}: {key}"),
    }
}

fn source(rows: &Rows) -> Value {
    let mut source = Map::new();
    source.insert("path".into(), json!(rows.paths));
    source.extend(rows.part.iter().map(|(key, value)| ((*key).to_owned(), json!(value))));
    let more = [
        ("format", rows.format.map(Value::from)),
        ("text_field", rows.text_field.clone().map(Value::from)),
        ("columns", (!rows.columns.is_empty()).then(|| columns(&rows.columns))),
        ("weight", rows.weight.map(Value::from)),
        ("take", rows.take.map(Value::from)),
    ];
    source.extend(more.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))));
    Value::Object(source)
}

fn columns(columns: &[(&'static str, String)]) -> Value {
    columns.iter().map(|(ours, theirs)| ((*ours).to_owned(), json!(theirs))).collect::<Map<_, _>>().into()
}

/// PyYAML reads `1e-4` as a text, so that files have numbers in quotes.
fn plain(path: &str, value: &Value) -> Value {
    let is_numeric = |text: &str| text.chars().all(|c| c.is_ascii_digit() || "+-.eE".contains(c));
    let number = value.as_str().filter(|text| is_numeric(text)).and_then(|text| text.parse::<f64>().ok());
    match number.filter(|_| path.starts_with("training.") || path.starts_with("lora.")) {
        Some(number) => json!(number),
        None => value.clone(),
    }
}

/// What an option is when it is not used.
pub(super) fn is_off(value: &Value) -> bool {
    value == &Value::Bool(false)
        || value
            .as_str()
            .is_some_and(|text| ["no", "none", "false", "off"].contains(&text.to_lowercase().as_str()))
}

/// A truth value, also as a text.
pub(super) fn is_on(value: &Value) -> bool {
    value == &Value::Bool(true) || value.as_str().is_some_and(|text| text.eq_ignore_ascii_case("true"))
}

/// On one line, not too long.
fn shown(value: &Value) -> String {
    let text = config::yaml_flow(value).replace(char::is_control, " ");
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// Texts of a list, or of one text with commas.
pub(super) fn texts(value: &Value) -> Vec<String> {
    match value {
        Value::String(text) => {
            text.split(',').map(|part| part.trim().to_owned()).filter(|part| !part.is_empty()).collect()
        }
        Value::Array(items) => items.iter().filter_map(|item| Some(item.as_str()?.to_owned())).collect(),
        _ => Vec::new(),
    }
}
