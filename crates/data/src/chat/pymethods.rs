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
pub(super) const LONGEST: usize = 64 << 20;

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
        let (wanted, start): (&Value, Option<usize>) = from_args(args)?;
        let from = start.unwrap_or(0);
        let position = value.try_iter()?.skip(from).position(|item| item == *wanted).map(|at| at + from);
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
        "center" => centered(text, args),
        "zfill" => zero_filled(text, args),
        "swapcase" => Ok(Value::from(text.chars().flat_map(swapped).collect::<String>())),
        "casefold" => Ok(Value::from(text.to_lowercase().replace('ß', "ss"))),
        "isdecimal" => Ok(Value::from(!text.is_empty() && text.chars().all(|c| c.is_ascii_digit()))),
        "index" | "rindex" => index(text, method, args),
        "rsplit" => rsplit(text, args),
        "expandtabs" => expand_tabs(text, args),
        "join" => join(text, args),
        _ => return None,
    })
}

/// Python puts the odd blank on the left where the width is odd.
fn centered(text: &str, args: &[Value]) -> Result<Value, Error> {
    let (width, _): (usize, Option<&str>) = from_args(args)?;
    let pad = padding(text, args)?;
    let count = pad.chars().count();
    let left = count / 2 + (count & width & 1);
    let split = pad.char_indices().nth(left).map_or(pad.len(), |(at, _)| at);
    Ok(Value::from(format!("{}{text}{}", &pad[..split], &pad[split..])))
}

fn zero_filled(text: &str, args: &[Value]) -> Result<Value, Error> {
    let (width,): (usize,) = from_args(args)?;
    let zeros = padding(text, &[Value::from(width), Value::from("0")])?;
    let digits = text.trim_start_matches(['+', '-']);
    let sign = if text.len() > digits.len() { &text[..1] } else { "" };
    Ok(Value::from(format!("{sign}{zeros}{}", &text[sign.len()..])))
}

fn swapped(c: char) -> Vec<char> {
    if c.is_uppercase() { c.to_lowercase().collect() } else { c.to_uppercase().collect() }
}

/// `index` and `rindex` count characters and fail where `find` says -1.
fn index(text: &str, method: &str, args: &[Value]) -> Result<Value, Error> {
    let part = one_text(args)?;
    let at = if method == "index" { text.find(part) } else { text.rfind(part) };
    let at =
        at.ok_or_else(|| Error::new(ErrorKind::InvalidOperation, format!("{part:?} is not in the text")))?;
    Ok(Value::from(text[..at].chars().count()))
}

/// `rsplit(separator=None, maxsplit=-1)`.
fn rsplit(text: &str, args: &[Value]) -> Result<Value, Error> {
    let (separator, most): (Option<&str>, Option<i64>) = from_args(args)?;
    let most = most.and_then(|n| usize::try_from(n).ok()).map_or(usize::MAX, |n| n.saturating_add(1));
    let mut parts: Vec<&str> = match separator {
        Some("") => return Err(Error::new(ErrorKind::InvalidOperation, "the separator is empty")),
        Some(separator) => text.rsplitn(most, separator).collect(),
        None => {
            let (mut rest, mut parts) = (text.trim(), Vec::new());
            while !rest.is_empty() && parts.len() + 1 < most {
                let Some(at) = rest.rfind(char::is_whitespace) else { break };
                parts.push(rest[at..].trim_start());
                rest = rest[..at].trim_end();
            }
            parts.extend((!rest.is_empty()).then_some(rest));
            parts
        }
    };
    parts.reverse();
    Ok(Value::from(parts.into_iter().map(Value::from).collect::<Vec<_>>()))
}

fn expand_tabs(text: &str, args: &[Value]) -> Result<Value, Error> {
    let (size,): (Option<usize>,) = from_args(args)?;
    let size = size.unwrap_or(8);
    if size > WIDEST {
        return Err(Error::new(ErrorKind::InvalidOperation, format!("tabs of {size} are beyond {WIDEST}")));
    }
    let tabs = text.matches('\t').count();
    bounded(text.len().saturating_add(tabs.saturating_mul(size)))?;
    let (mut out, mut column) = (String::new(), 0);
    for c in text.chars() {
        match c {
            '\t' => {
                let blanks = if size == 0 { 0 } else { size - column % size };
                out.push_str(&" ".repeat(blanks));
                column += blanks;
            }
            '\n' | '\r' => {
                out.push(c);
                column = 0;
            }
            c => {
                out.push(c);
                column += 1;
            }
        }
    }
    Ok(Value::from(out))
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
