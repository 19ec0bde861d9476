//! The `tojson` filter as transformers sets it up: Python's `json.dumps`, not Jinja's HTML-safe one.

use minijinja::value::{Kwargs, Value, ValueKind};
use minijinja::{Error, ErrorKind};

use super::nesting;
use super::pymethods::LONGEST;

/// Arguments of `json.dumps` that templates may give.
struct Style {
    ensure_ascii: bool,
    /// The text of one level; `None` for one line.
    indent: Option<String>,
    item_separator: String,
    key_separator: String,
    sort_keys: bool,
}

/// `value | tojson(ensure_ascii=false, indent=none, separators=none, sort_keys=false)`.
pub(super) fn filter(value: &Value, ensure_ascii: Option<bool>, kwargs: Kwargs) -> Result<String, Error> {
    let indent = kwargs
        .get::<Option<Value>>("indent")?
        .filter(|v| !v.is_none())
        .map(|v| indent_text(&v))
        .transpose()?;
    let separators = kwargs.get::<Option<Value>>("separators")?.filter(|v| !v.is_none());
    let (item_separator, key_separator) = match separators {
        Some(pair) => (pair.get_item_by_index(0)?.to_string(), pair.get_item_by_index(1)?.to_string()),
        None => (if indent.is_some() { "," } else { ", " }.to_owned(), ": ".to_owned()),
    };
    let ascii_keyword = kwargs.get::<Option<bool>>("ensure_ascii")?;
    let style = Style {
        ensure_ascii: ensure_ascii.or(ascii_keyword).unwrap_or(false),
        indent,
        item_separator,
        key_separator,
        sort_keys: kwargs.get::<Option<bool>>("sort_keys")?.unwrap_or(false),
    };
    kwargs.assert_all_used()?;
    nesting::check(value)?;
    let mut out = String::new();
    style.write(value, 0, &mut out)?;
    Ok(out)
}

fn indent_text(value: &Value) -> Result<String, Error> {
    if let Some(text) = value.as_str() {
        return Ok(text.to_owned());
    }
    match value.as_i64() {
        // Python takes a negative indent for 0.
        Some(n) if n <= 64 => Ok(" ".repeat(n.max(0) as usize)),
        _ => Err(Error::new(
            ErrorKind::InvalidOperation,
            "tojson: `indent` must be a number up to 64 or a text",
        )),
    }
}

impl Style {
    fn write(&self, value: &Value, level: usize, out: &mut String) -> Result<(), Error> {
        if out.len() > LONGEST {
            let message = format!("tojson: a text of more than {LONGEST} bytes is too long");
            return Err(Error::new(ErrorKind::InvalidOperation, message));
        }
        match value.kind() {
            ValueKind::None => out.push_str("null"),
            ValueKind::Bool => out.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => out.push_str(&number(value)?),
            ValueKind::String => self.string(value.as_str().unwrap_or_default(), out),
            ValueKind::Seq | ValueKind::Iterable => self.list(value, level, out)?,
            ValueKind::Map => self.object(value, level, out)?,
            other => {
                let message = format!("tojson: a value of kind {other} cannot be written as JSON");
                return Err(Error::new(ErrorKind::BadSerialization, message));
            }
        }
        Ok(())
    }

    fn list(&self, value: &Value, level: usize, out: &mut String) -> Result<(), Error> {
        out.push('[');
        let mut any = false;
        for item in value.try_iter()? {
            self.separate(any, level + 1, out);
            any = true;
            self.write(&item, level + 1, out)?;
        }
        self.close(any, level, out);
        out.push(']');
        Ok(())
    }

    fn object(&self, value: &Value, level: usize, out: &mut String) -> Result<(), Error> {
        let mut keys = Vec::new();
        for key in value.try_iter()? {
            keys.push((key_text(&key)?, key));
        }
        if self.sort_keys {
            keys.sort_by(|a, b| a.0.cmp(&b.0));
        }
        out.push('{');
        let any = !keys.is_empty();
        for (i, (text, key)) in keys.into_iter().enumerate() {
            self.separate(i > 0, level + 1, out);
            self.string(&text, out);
            out.push_str(&self.key_separator);
            self.write(&value.get_item(&key)?, level + 1, out)?;
        }
        self.close(any, level, out);
        out.push('}');
        Ok(())
    }

    fn separate(&self, follows: bool, level: usize, out: &mut String) {
        if follows {
            out.push_str(&self.item_separator);
        }
        self.new_line(level, out);
    }

    fn close(&self, any: bool, level: usize, out: &mut String) {
        if any {
            self.new_line(level, out);
        }
    }

    fn new_line(&self, level: usize, out: &mut String) {
        if let Some(indent) = &self.indent {
            out.push('\n');
            out.push_str(&indent.repeat(level));
        }
    }

    fn string(&self, text: &str, out: &mut String) {
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
                c if (c as u32) < 0x20 || (self.ensure_ascii && !matches!(c, ' '..='~')) => {
                    let mut units = [0u16; 2];
                    for unit in c.encode_utf16(&mut units) {
                        out.push_str(&format!("\\u{unit:04x}"));
                    }
                }
                c => out.push(c),
            }
        }
        out.push('"');
    }
}

/// JSON keys are texts; Python writes numbers and constants as such.
fn key_text(key: &Value) -> Result<String, Error> {
    Ok(match key.kind() {
        ValueKind::String => key.as_str().unwrap_or_default().to_owned(),
        ValueKind::None => "null".to_owned(),
        ValueKind::Bool => if key.is_true() { "true" } else { "false" }.to_owned(),
        ValueKind::Number => number(key)?,
        other => {
            let message = format!("tojson: a key of kind {other} cannot be written as JSON");
            return Err(Error::new(ErrorKind::BadSerialization, message));
        }
    })
}

fn number(value: &Value) -> Result<String, Error> {
    if value.is_integer() {
        return Ok(value.to_string());
    }
    Ok(python_float(f64::try_from(value.clone())?))
}

/// What Python prints for a float; `None` for any other value. (minijinja never uses an exponent.)
pub(super) fn float_text(value: &Value) -> Option<String> {
    if value.kind() != ValueKind::Number || value.is_integer() {
        return None;
    }
    let x = f64::try_from(value.clone()).ok()?;
    Some(if x.is_finite() { python_float(x) } else { x.to_string().to_lowercase() })
}

/// `repr` of a Python float (JSON's non-numbers as `json.dumps` spells them): the shortest digits, an exponent below
/// 1e-4 and from 1e16 on.
fn python_float(x: f64) -> String {
    if x.is_nan() {
        return "NaN".to_owned();
    }
    if x.is_infinite() {
        return if x > 0.0 { "Infinity" } else { "-Infinity" }.to_owned();
    }
    let scientific = format!("{x:e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..16).contains(&exponent) {
        let plain = format!("{x}");
        return if plain.contains('.') { plain } else { plain + ".0" };
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{mantissa}e{sign}{:02}", exponent.abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_are_written_as_python_writes_them() {
        // json.dumps of each, Python 3.11.
        let cases = [
            (1.0, "1.0"),
            (-0.0, "-0.0"),
            (0.1, "0.1"),
            (1e15, "1000000000000000.0"),
            (1e16, "1e+16"),
            (1.5e300, "1.5e+300"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (1.25e-7, "1.25e-07"),
            (5e-324, "5e-324"),
            (f64::NAN, "NaN"),
            (f64::NEG_INFINITY, "-Infinity"),
        ];
        for (x, expected) in cases {
            assert_eq!(python_float(x), expected);
        }
    }
}
