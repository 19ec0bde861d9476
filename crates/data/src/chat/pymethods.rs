//! Python's methods of strings, lists and dicts, for templates that call them.
//!
//! minijinja-contrib's `pycompat` has most; those that it lacks and templates use are added here.

use minijinja::value::{Value, ValueKind, from_args};
use minijinja::{Error, ErrorKind, State};
use minijinja_contrib::pycompat;

use super::nesting;

/// Widest text that `ljust` and `rjust` make: templates come from strangers.
const WIDEST: usize = 4096;

/// Longest text that one method makes, bytes.
const LONGEST: usize = 64 << 20;

/// Calls `value.method(args)`.
pub(super) fn call(state: &mut State, value: &Value, method: &str, args: &[Value]) -> Result<Value, Error> {
    if let Some(text) = value.as_str()
        && let Some(result) = string_method(text, method, args)
    {
        return result;
    }
    if let Some(text) = value.as_str() {
        bound_growth(text, method, args)?;
    }
    if value.kind() == ValueKind::Seq && method == "index" {
        let (wanted,): (&Value,) = from_args(args)?;
        let position = value.try_iter()?.position(|item| item == *wanted);
        return position
            .map(Value::from)
            .ok_or_else(|| Error::new(ErrorKind::InvalidOperation, format!("{wanted} is not in the list")));
    }
    pycompat::unknown_method_callback(state, value, method, args)
}

/// A method of strings that `pycompat` lacks; `None` for any other.
fn string_method(text: &str, method: &str, args: &[Value]) -> Option<Result<Value, Error>> {
    Some(match method {
        "removeprefix" => one_text(args).map(|p| Value::from(text.strip_prefix(p).unwrap_or(text))),
        "removesuffix" => one_text(args).map(|p| Value::from(text.strip_suffix(p).unwrap_or(text))),
        "partition" => one_text(args).map(|p| match text.split_once(p) {
            Some((before, after)) => three(before, p, after),
            None => three(text, "", ""),
        }),
        "rpartition" => one_text(args).map(|p| match text.rsplit_once(p) {
            Some((before, after)) => three(before, p, after),
            None => three("", "", text),
        }),
        "ljust" => padding(text, args).map(|pad| Value::from(format!("{text}{pad}"))),
        "rjust" => padding(text, args).map(|pad| Value::from(format!("{pad}{text}"))),
        "join" => join(text, args),
        _ => return None,
    })
}

/// `text.join(items)`, which fails before the text gets too long.
fn join(text: &str, args: &[Value]) -> Result<Value, Error> {
    let (items,): (&Value,) = from_args(args)?;
    nesting::check(items)?;
    let mut joined = String::new();
    for (i, item) in items.try_iter()?.enumerate() {
        let item = item.to_string();
        let separator = if i > 0 { text } else { "" };
        bounded(joined.len().saturating_add(separator.len()).saturating_add(item.len()))?;
        joined.push_str(separator);
        joined.push_str(&item);
    }
    Ok(Value::from(joined))
}

/// Refuses calls of `pycompat`'s methods whose result would be too long. Calls with wrong arguments are left to it.
fn bound_growth(text: &str, method: &str, args: &[Value]) -> Result<(), Error> {
    match (method, args) {
        ("replace", [old, new, ..]) => {
            let (Some(old), Some(new)) = (old.as_str(), new.as_str()) else { return Ok(()) };
            let growth = text.matches(old).count().saturating_mul(new.len().saturating_sub(old.len()));
            bounded(text.len().saturating_add(growth))
        }
        ("format", _) => {
            args.iter().try_for_each(nesting::check)?;
            let numbers = text.split(|c: char| !c.is_ascii_digit()).filter(|n| !n.is_empty());
            for number in numbers {
                if number.parse::<usize>().map_or(true, |n| n > WIDEST) {
                    let message = format!("a number of {number} in a format is beyond {WIDEST}");
                    return Err(Error::new(ErrorKind::InvalidOperation, message));
                }
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

fn bounded(length: usize) -> Result<(), Error> {
    if length <= LONGEST {
        return Ok(());
    }
    Err(Error::new(ErrorKind::InvalidOperation, format!("a text of more than {LONGEST} bytes is too long")))
}

/// Python returns a tuple; templates index or unpack it, which a list allows as well.
fn three(before: &str, separator: &str, after: &str) -> Value {
    Value::from(vec![Value::from(before), Value::from(separator), Value::from(after)])
}

fn one_text(args: &[Value]) -> Result<&str, Error> {
    let (text,): (&str,) = from_args(args)?;
    Ok(text)
}

fn padding(text: &str, args: &[Value]) -> Result<String, Error> {
    let (width, fill): (usize, Option<&str>) = from_args(args)?;
    if width > WIDEST {
        return Err(Error::new(
            ErrorKind::InvalidOperation,
            format!("a width of {width} is beyond {WIDEST}"),
        ));
    }
    Ok(fill.unwrap_or(" ").repeat(width.saturating_sub(text.chars().count())))
}
