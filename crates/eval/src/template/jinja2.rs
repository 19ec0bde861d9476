//! Jinja2's environment as lm_eval makes it, where minijinja's own differs.

use super::methods::method;
use crate::python::regex::Pattern;
use crate::python::text::float_repr;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Value as Jinja, ValueKind};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, State, UndefinedBehavior};
use serde_json::Value;

/// Work that one rendering may do, in minijinja's units.
const FUEL: u64 = 10_000_000;

pub(super) fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    let syntax = SyntaxConfig::builder().keep_trailing_newline(true).build();
    environment.set_syntax(syntax.expect("the default delimiters are valid"));
    environment.set_fuel(Some(FUEL));
    environment.set_unknown_method_callback(method);
    environment.add_filter("regex_replace", regex_replace);
    environment.add_filter("int", lenient_int);
    environment.add_filter("float", lenient_float);
    environment.add_filter("string", text_of);
    environment.add_filter("join", join);
    environment
        .add_filter("center", |text: &str, width: Option<usize>| centred(text, width.unwrap_or(80), ' '));
    environment.add_filter("wordcount", wordcount);
    environment.add_filter("e", escaped);
    environment.add_filter("escape", escaped);
    environment.add_filter("tojson", to_json);
    environment.set_formatter(|out, state, value| match float_of(value) {
        Some(x) => out.write_str(&float_repr(x)).map_err(Error::from),
        None => minijinja::escape_formatter(out, state, value),
    });
    environment
}

/// A number that is not whole by its type.
fn float_of(value: &Jinja) -> Option<f64> {
    let is_float = value.kind() == ValueKind::Number && !value.is_integer();
    is_float.then(|| f64::try_from(value.clone()).ok()).flatten()
}

/// `re.sub(pattern, repl, string, count=count)`.
fn regex_replace(text: &str, pattern: &str, repl: &str, count: Option<usize>) -> Result<String, Error> {
    let failed = |error: crate::python::regex::PatternError| {
        Error::new(ErrorKind::InvalidOperation, format!("regex_replace: {}", error.0))
    };
    let pattern = Pattern::new(pattern).map_err(failed)?;
    pattern.substitute(text, repl, count.unwrap_or(0)).map_err(failed)
}

fn wordcount(text: &str) -> Result<usize, Error> {
    let words = Pattern::new(r"\w+").and_then(|pattern| pattern.find_all(text));
    let words = words.map_err(|error| Error::new(ErrorKind::InvalidOperation, error.0))?;
    Ok(words.len())
}

/// Jinja2's answer to what is no number is the default, 0.
fn lenient_int(
    state: &State,
    value: &Jinja,
    default: Option<Jinja>,
    base: Option<u32>,
    kwargs: Kwargs,
) -> Result<Jinja, Error> {
    let default = default.unwrap_or_else(|| Jinja::from(0));
    minijinja::filters::int(state, value, Some(default.clone()), base, kwargs).or(Ok(default))
}

/// Python's `float`, and the default, 0, of what is no number.
fn lenient_float(value: &Jinja, default: Option<f64>) -> Result<f64, Error> {
    let number = match value.as_str() {
        Some(text) => text.trim().parse().ok(),
        None if value.is_undefined() => return Err(ErrorKind::UndefinedError.into()),
        None => f64::try_from(value.clone()).ok(),
    };
    Ok(number.or(default).unwrap_or(0.0))
}

/// Python's `str`.
fn text_of(value: &Jinja) -> Result<String, Error> {
    match float_of(value) {
        Some(x) => Ok(float_repr(x)),
        None if value.is_undefined() => Err(ErrorKind::UndefinedError.into()),
        None => Ok(value.to_string()),
    }
}

fn join(items: &Jinja, between: Option<&str>, kwargs: Kwargs) -> Result<String, Error> {
    let given: Option<String> = kwargs.get("d")?;
    let attribute: Option<String> = kwargs.get("attribute")?;
    kwargs.assert_all_used()?;
    let texts: Result<Vec<String>, Error> = match items.as_str() {
        Some(text) => Ok(text.chars().map(String::from).collect()),
        None => items
            .try_iter()?
            .map(|item| match &attribute {
                None => text_of(&item),
                Some(path) => {
                    let inner = path.split('.').try_fold(item, |value, key| value.get_attr(key))?;
                    text_of(&inner)
                }
            })
            .collect(),
    };
    Ok(texts?.join(between.or(given.as_deref()).unwrap_or_default()))
}

/// Most letters that a template may fill a text up to: a task file is somebody else's, and Python would run out of
/// memory as well.
const WIDEST: usize = 1 << 20;

/// The letters that `text` lacks to be `width` wide.
pub(super) fn lacking(text: &str, width: usize) -> Result<usize, Error> {
    if width > WIDEST {
        let problem = format!("a text {width} letters wide; the most are {WIDEST}");
        return Err(Error::new(ErrorKind::InvalidOperation, problem));
    }
    Ok(width.saturating_sub(text.chars().count()))
}

/// `str.center`.
pub(super) fn centred(text: &str, width: usize, fill: char) -> Result<String, Error> {
    let pad = lacking(text, width)?;
    // CPython puts the odd one to the left of odd widths.
    let left = pad / 2 + (pad & width & 1);
    let filling = |count: usize| std::iter::repeat_n(fill, count).collect::<String>();
    Ok(format!("{}{text}{}", filling(left), filling(pad - left)))
}

/// markupsafe's `escape`.
fn escaped(value: &Jinja) -> Result<String, Error> {
    let text = text_of(value)?;
    Ok(text
        .replace('&', "&amp;")
        .replace('>', "&gt;")
        .replace('<', "&lt;")
        .replace('\'', "&#39;")
        .replace('"', "&#34;"))
}

/// `json.dumps` with sorted keys and nothing that HTML could take for its own.
fn to_json(value: &Jinja, indent: Option<usize>, kwargs: Kwargs) -> Result<String, Error> {
    let named: Option<usize> = kwargs.get("indent")?;
    kwargs.assert_all_used()?;
    lacking("", indent.or(named).unwrap_or(0))?;
    let value = serde_json::to_value(value)
        .map_err(|error| Error::new(ErrorKind::BadSerialization, error.to_string()))?;
    let mut out = String::new();
    write_json(&value, indent.or(named), 0, &mut out);
    Ok(out)
}

fn write_json(value: &Value, indent: Option<usize>, depth: usize, out: &mut String) {
    let line = |depth: usize, out: &mut String| {
        if let Some(width) = indent {
            out.push('\n');
            out.push_str(&" ".repeat(width * depth));
        }
    };
    let between = if indent.is_some() { "," } else { ", " };
    match value {
        Value::String(text) => write_json_text(text, out),
        Value::Number(number) => match number.as_f64().filter(|_| number.is_f64()) {
            Some(x) => out.push_str(&float_repr(x)),
            None => out.push_str(&number.to_string()),
        },
        Value::Array(items) if !items.is_empty() => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                out.push_str(if i > 0 { between } else { "" });
                line(depth + 1, out);
                write_json(item, indent, depth + 1, out);
            }
            line(depth, out);
            out.push(']');
        }
        Value::Object(fields) if !fields.is_empty() => {
            out.push('{');
            let mut sorted: Vec<(&String, &Value)> = fields.iter().collect();
            sorted.sort_by_key(|(key, _)| *key);
            for (i, (key, item)) in sorted.into_iter().enumerate() {
                out.push_str(if i > 0 { between } else { "" });
                line(depth + 1, out);
                write_json_text(key, out);
                out.push_str(": ");
                write_json(item, indent, depth + 1, out);
            }
            line(depth, out);
            out.push('}');
        }
        other => out.push_str(&other.to_string()),
    }
}

fn write_json_text(text: &str, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            ' '..='~' if !"<>&'".contains(c) => out.push(c),
            _ => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    out.push_str(&format!("\\u{unit:04x}"));
                }
            }
        }
    }
    out.push('"');
}
