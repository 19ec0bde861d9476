//! Python's methods of texts and lists that tasks call, where `pycompat` lacks them or differs.

use super::jinja2::{centred, lacking};
use crate::python::text::is_space;
use minijinja::value::{Value as Jinja, ValueKind, from_args};
use minijinja::{Error, ErrorKind, State};
use minijinja_contrib::pycompat;

/// Python's methods that tasks call and `pycompat` lacks.
pub(super) fn method(state: &mut State, value: &Jinja, method: &str, args: &[Jinja]) -> Result<Jinja, Error> {
    if let Some(text) = value.as_str() {
        match method {
            "removeprefix" => {
                let (prefix,): (&str,) = from_args(args)?;
                return Ok(text.strip_prefix(prefix).unwrap_or(text).into());
            }
            "removesuffix" => {
                let (suffix,): (&str,) = from_args(args)?;
                return Ok(text.strip_suffix(suffix).unwrap_or(text).into());
            }
            "partition" => {
                let (at,): (&str,) = from_args(args)?;
                let (before, after) = text.split_once(at).unwrap_or((text, ""));
                let middle = if text.contains(at) { at } else { "" };
                return Ok([before, middle, after].into_iter().map(Jinja::from).collect());
            }
            "index" => {
                let (wanted,): (&str,) = from_args(args)?;
                let at = text.find(wanted).map(|at| text[..at].chars().count());
                return at.map(Jinja::from).ok_or_else(|| invalid(format!("{wanted:?} is not in the text")));
            }
            "rsplit" if !args.is_empty() => {
                let (at, most): (&str, Option<usize>) = from_args(args)?;
                let mut parts: Vec<&str> = text.rsplitn(most.map_or(usize::MAX, |m| m + 1), at).collect();
                parts.reverse();
                return Ok(parts.into_iter().map(Jinja::from).collect());
            }
            "title" => return Ok(titled(text).into()),
            "swapcase" => return Ok(text.chars().flat_map(swapped).collect::<String>().into()),
            "zfill" => {
                let (width,): (usize,) = from_args(args)?;
                let digits = text.trim_start_matches(['+', '-']);
                let (sign, digits) = match text.len() - digits.len() {
                    0 => ("", text),
                    _ => text.split_at(1),
                };
                let zeros = "0".repeat(lacking(text, width)?);
                return Ok(format!("{sign}{zeros}{digits}").into());
            }
            "center" | "ljust" | "rjust" => {
                let (width, fill): (usize, Option<char>) = from_args(args)?;
                let fill = fill.unwrap_or(' ');
                let filling: String = std::iter::repeat_n(fill, lacking(text, width)?).collect();
                return Ok(Jinja::from(match method {
                    "center" => centred(text, width, fill)?,
                    "ljust" => format!("{text}{filling}"),
                    _ => format!("{filling}{text}"),
                }));
            }
            // Python splits at more characters than `pycompat` does.
            "split" if args.is_empty() => {
                let parts: Vec<&str> = text.split(is_space).filter(|part| !part.is_empty()).collect();
                return Ok(parts.into_iter().map(Jinja::from).collect());
            }
            _ => {}
        }
    }
    if value.kind() == ValueKind::Seq && method == "index" {
        let (wanted,): (&Jinja,) = from_args(args)?;
        let position = value.try_iter()?.position(|item| item == *wanted);
        return position.map(Jinja::from).ok_or_else(|| invalid(format!("{wanted} is not in the list")));
    }
    pycompat::unknown_method_callback(state, value, method, args)
}

/// `str.title`: a letter that follows no letter is a capital.
fn titled(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut is_inside = false;
    for c in text.chars() {
        match is_inside {
            true => out.extend(c.to_lowercase()),
            false => out.extend(c.to_uppercase()),
        }
        is_inside = c.is_lowercase() || c.is_uppercase();
    }
    out
}

fn swapped(c: char) -> Vec<char> {
    if c.is_uppercase() { c.to_lowercase().collect() } else { c.to_uppercase().collect() }
}

fn invalid(message: String) -> Error {
    Error::new(ErrorKind::InvalidOperation, message)
}
