//! The only module that knows the YAML crate: text in, a [`Node`] tree with byte places out.

use super::tree::{Entry, Node, Place, Value};
use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{Location, NonFiniteFloatPolicy, Spanned};
use std::fmt;
use std::ops::Range;

/// Text that is not YAML: what is wrong, and the byte where it was noticed.
#[derive(Debug)]
pub(crate) struct SyntaxError {
    pub(crate) message: String,
    pub(crate) at: usize,
}

/// Reads one YAML document. `place` turns a range of bytes of `text` into a [`Place`]. An empty document is an empty
/// mapping.
pub(crate) fn parse(text: &str, place: &dyn Fn(Range<usize>) -> Place) -> Result<Node, SyntaxError> {
    let options = serde_saphyr::options! {
        with_snippet: false,
        non_finite_float_policy: NonFiniteFloatPolicy::PassThrough,
    };
    let raw: Spanned<Raw> = match serde_saphyr::from_str_with_options(text, options) {
        Ok(raw) => raw,
        Err(error) => {
            let at = error.location().map_or(0, |location| byte_of(text, &location));
            let message = plain_message(&error);
            return Err(SyntaxError { message, at: at.min(text.len()) });
        }
    };
    Ok(placed(raw, place))
}

/// The crate's own words without its place, which is shown by our snippet.
fn plain_message(error: &serde_saphyr::Error) -> String {
    let full = error.without_snippet().to_string();
    let cut = full.find(" at line ").or_else(|| full.find("\n")).unwrap_or(full.len());
    plain_words(full[..cut].trim_start_matches("error: "))
}

/// Messages that speak to programmers of the YAML crate, in words for writers of YAML.
fn plain_words(message: &str) -> String {
    if let Some(rest) = message.strip_prefix("duplicate mapping key") {
        let key = rest.split(", set DuplicateKeyPolicy").next().unwrap_or(rest).trim_start_matches(": ");
        return format!("duplicate key `{key}`: it is written twice; keep one of them");
    }
    if message.starts_with("multiple YAML documents") {
        return "more than one YAML document; keep one, and remove the line `---` before the others".into();
    }
    if message.contains("recursive references require weak recursion types") {
        return "an alias (`*name`) is inside of what it stands for; write the value out".into();
    }
    if message.contains("budget breached") || message.contains("recursion limit exceeded") {
        return "nested too deeply, too large, or too many aliases for a configuration; make it simpler"
            .into();
    }
    message.to_owned()
}

/// Syntax errors have a line and a column (both from 1, in characters), but no bytes.
fn byte_of(text: &str, location: &Location) -> usize {
    let (line, column) = (location.line().max(1) as usize, location.column().max(1) as usize);
    let start: usize = text.split_inclusive('\n').take(line - 1).map(str::len).sum();
    let rest = &text[start..];
    start + rest.char_indices().nth(column - 1).map_or(rest.len(), |(at, _)| at)
}

/// A value as the YAML crate hands it out.
enum Raw {
    Null,
    Bool(bool),
    Int(i128),
    Float(f64),
    Text(String),
    List(Vec<Spanned<Raw>>),
    Map(Vec<(Spanned<String>, Spanned<Raw>)>),
}

fn bytes(location: &Location) -> Range<usize> {
    let start = location.span().byte_offset().unwrap_or(0) as usize;
    start..start + location.span().byte_len().unwrap_or(0) as usize
}

fn placed(raw: Spanned<Raw>, place: &dyn Fn(Range<usize>) -> Place) -> Node {
    let at = place(bytes(&raw.referenced));
    let value = match raw.value {
        Raw::Null => Value::Null,
        Raw::Bool(b) => Value::Bool(b),
        Raw::Int(i) => Value::Int(i),
        Raw::Float(x) => Value::Float(x),
        Raw::Text(s) => Value::Text(s),
        Raw::List(items) => Value::List(items.into_iter().map(|item| placed(item, place)).collect()),
        Raw::Map(entries) => Value::Map(
            entries
                .into_iter()
                .map(|(key, value)| Entry {
                    key_place: place(bytes(&key.referenced)),
                    key: key.value,
                    node: placed(value, place),
                })
                .collect(),
        ),
    };
    Node { value, place: at }
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyValue)
    }
}

struct AnyValue;

impl<'de> Visitor<'de> for AnyValue {
    type Value = Raw;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }
    fn visit_unit<E: Error>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }
    fn visit_none<E: Error>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }
    fn visit_bool<E: Error>(self, v: bool) -> Result<Raw, E> {
        Ok(Raw::Bool(v))
    }
    fn visit_i64<E: Error>(self, v: i64) -> Result<Raw, E> {
        Ok(Raw::Int(v.into()))
    }
    fn visit_u64<E: Error>(self, v: u64) -> Result<Raw, E> {
        Ok(Raw::Int(v.into()))
    }
    fn visit_i128<E: Error>(self, v: i128) -> Result<Raw, E> {
        Ok(Raw::Int(v))
    }
    fn visit_f64<E: Error>(self, v: f64) -> Result<Raw, E> {
        Ok(Raw::Float(v))
    }
    fn visit_str<E: Error>(self, v: &str) -> Result<Raw, E> {
        Ok(Raw::Text(v.to_owned()))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Raw, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element()? {
            items.push(item);
        }
        Ok(Raw::List(items))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Raw, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Raw::Map(entries))
    }
}

/// A text as a YAML scalar: plain where that is safe, quoted otherwise.
pub(crate) fn scalar(text: &str) -> String {
    let plain = !text.is_empty()
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "_-./".contains(c))
        && !text.starts_with('-')
        && !text.ends_with('.')
        && matches!(
            parse(text, &|r| Place::File(0, r)),
            Ok(Node { value: Value::Text(back), .. }) if back == text
        );
    // JSON strings are YAML's double-quoted scalars.
    if plain { text.to_owned() } else { serde_json::Value::from(text).to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Node {
        parse(text, &|r| Place::File(0, r)).expect("valid YAML")
    }

    #[test]
    fn places_are_the_bytes_of_keys_and_values() {
        let text = "# Überschrift\nlora:\n  r: 16\n  target: [a, \"b\"]\n";
        let tree = read(text);
        let entry = tree.entry(&["lora", "r"]).expect("there");
        let Place::File(_, key) = entry.key_place.clone() else { panic!("a file place") };
        let Place::File(_, value) = entry.node.place.clone() else { panic!("a file place") };
        assert_eq!((&text[key], &text[value]), ("r", "16"));
        let Value::List(items) = &tree.at(&["lora", "target"]).expect("there").value else {
            panic!("a list")
        };
        let Place::File(_, second) = items[1].place.clone() else { panic!("a file place") };
        assert_eq!(&text[second], "\"b\"");
    }

    #[test]
    fn scalars_keep_their_type_when_written_back() {
        for text in [
            "plain",
            "a b",
            "1e-4",
            "yes",
            "null",
            "~",
            "a: b",
            "#x",
            "ü",
            "",
            "-",
            "line\nbreak",
            "a'b\"c",
            "010",
        ] {
            let back = read(&format!("k: {}\n", scalar(text)));
            assert_eq!(back.at(&["k"]).expect("there").value, Value::Text(text.into()), "{text:?}");
        }
    }

    #[test]
    fn broken_yaml_has_a_byte() {
        let error = parse("a: 1\nb: [1, 2\nc: 3\n", &|r| Place::File(0, r)).expect_err("unclosed list");
        assert!(error.at >= 5, "{error:?}");
        let error = parse("a: 1\na: 2\n", &|r| Place::File(0, r)).expect_err("duplicate key");
        assert_eq!(error.message, "duplicate key `a`: it is written twice; keep one of them");
    }

    #[test]
    fn messages_are_for_writers_of_yaml() {
        let deep = format!("a: {}1{}", "[".repeat(5000), "]".repeat(5000));
        for (text, words) in [
            ("a: 1\n---\nb: 2\n", "more than one YAML document"),
            ("a: &x [*x]\n", "alias"),
            (deep.as_str(), "nested too deeply"),
        ] {
            let error = parse(text, &|r| Place::File(0, r)).expect_err(words);
            assert!(error.message.contains(words), "{error:?}");
        }
    }
}
