//! Values that are nested too deeply, or contain themselves: walking, comparing or dropping them recursively would
//! overflow the stack, so they are refused where a template stores or prints them.

use minijinja::value::{Value, ValueKind};
use minijinja::{Error, ErrorKind};

/// Name of the filter that every `{% set %}` of a template goes through.
pub(super) const FILTER: &str = "__bounded";
/// Deepest value: JSON from a file is at most 128 deep, templates add a few levels.
const DEEPEST: usize = 160;
/// Most values inside one value, a shared one counted each time it occurs: `[x, x]` doubles with every level.
const MOST: usize = 1_000_000;

/// Refuses a value that is nested too deeply or holds too much. Does not recurse.
pub(super) fn check(value: &Value) -> Result<(), Error> {
    let mut seen = 0_usize;
    let mut waiting = vec![(value.clone(), 1_usize)];
    while let Some((value, depth)) = waiting.pop() {
        if depth > DEEPEST {
            return Err(refused(format!("a value is nested too deeply: more than {DEEPEST} levels")));
        }
        let mut add = |inner: Value| {
            seen += 1;
            if seen > MOST {
                return Err(refused(format!("a value is too large: more than {MOST} values inside")));
            }
            waiting.push((inner, depth + 1));
            Ok(())
        };
        match value.kind() {
            ValueKind::Seq | ValueKind::Iterable => value.try_iter()?.try_for_each(&mut add)?,
            ValueKind::Map => {
                for key in value.try_iter()? {
                    add(value.get_item(&key)?)?;
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// The value that a `{% set %}` stores. Lazy slices become lists, as in Python: stored in each other they would nest
/// without end.
pub(super) fn bounded(value: &Value) -> Result<Value, Error> {
    check(value)?;
    if value.kind() != ValueKind::Iterable {
        return Ok(value.clone());
    }
    Ok(Value::from(value.try_iter()?.collect::<Vec<Value>>()))
}

fn refused(message: String) -> Error {
    Error::new(ErrorKind::InvalidOperation, message)
}

/// `inner`, the inside of a set tag, with its expression sent through [`FILTER`]; `None` for anything else.
pub(super) fn bound_set(inner: &str) -> Option<String> {
    if !inner.trim_start().strip_prefix("set")?.starts_with(char::is_whitespace) {
        return None;
    }
    let (target, expression) = inner.split_once('=')?;
    // A bar before the equals sign is the filter of a block set; unbalanced brackets are a syntax error, to be kept.
    if target.contains('|') || expression.trim().is_empty() || !is_balanced(expression) {
        return None;
    }
    Some(format!("{target}= ({expression})|{FILTER} "))
}

/// Whether no bracket outside texts closes what the expression did not open, nor stays open.
fn is_balanced(expression: &str) -> bool {
    let (mut depth, mut quote, mut escaped) = (0_usize, None, false);
    for c in expression.chars() {
        match quote {
            Some(_) if escaped => escaped = false,
            Some(_) if c == '\\' => escaped = true,
            Some(q) if c == q => quote = None,
            Some(_) => {}
            None if c == '\'' || c == '"' => quote = Some(c),
            None if "([{".contains(c) => depth += 1,
            None if ")]}".contains(c) => match depth.checked_sub(1) {
                Some(less) => depth = less,
                None => return false,
            },
            None => {}
        }
    }
    depth == 0 && quote.is_none()
}
