//! Values that are nested too deeply, or contain themselves: walking, comparing or dropping them recursively would
//! overflow the stack, so they are refused where a template stores or prints them.

use minijinja::value::{Value, ValueKind};
use minijinja::{Error, ErrorKind};

/// Name of the filter that every `{% set %}` of a template goes through.
pub(super) const FILTER: &str = "__bounded";
/// Name of the filter for what is stored in a namespace.
pub(super) const NAMESPACE_FILTER: &str = "__bounded_inside";
/// Deepest value: JSON from a file is at most 128 deep, templates add a few levels.
const DEEPEST: usize = 160;
/// Most values inside one value, a shared one counted each time it occurs: `[x, x]` doubles with every level.
const MOST: usize = 1_000_000;

/// Refuses a value that is nested too deeply or holds too much. Does not recurse.
pub(super) fn check(value: &Value) -> Result<(), Error> {
    walk(value, true)
}

fn walk(value: &Value, namespaces: bool) -> Result<(), Error> {
    if matches!(value.kind(), ValueKind::String | ValueKind::Number | ValueKind::Bool | ValueKind::None) {
        return Ok(());
    }
    let mut seen = 0_usize;
    let mut waiting = vec![(value.clone(), 1_usize)];
    while let Some((value, depth)) = waiting.pop() {
        if depth > DEEPEST {
            return Err(refused(format!("a value is nested too deeply: more than {DEEPEST} levels")));
        }
        if !namespaces && is_namespace(&value) {
            return Err(refused(
                "a namespace must not be stored in a namespace: it could contain itself".to_owned(),
            ));
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
    stored(value, true)
}

/// The same for a value that is stored in a namespace, the only thing of a template that can change: without namespaces
/// in it nothing can come to contain itself.
pub(super) fn bounded_inside(value: &Value) -> Result<Value, Error> {
    stored(value, false)
}

/// minijinja keeps the type to itself, but not its name.
fn is_namespace(value: &Value) -> bool {
    value.as_object().is_some_and(|object| object.type_name().ends_with("::Namespace"))
}

fn stored(value: &Value, namespaces: bool) -> Result<Value, Error> {
    walk(value, namespaces)?;
    if value.kind() != ValueKind::Iterable {
        return Ok(value.clone());
    }
    Ok(Value::from(value.try_iter()?.collect::<Vec<Value>>()))
}

fn refused(message: String) -> Error {
    Error::new(ErrorKind::InvalidOperation, message)
}

/// `inner`, the inside of a set tag, with what it stores sent through [`FILTER`] or [`NAMESPACE_FILTER`]; `None` for
/// anything else.
pub(super) fn bound_set(inner: &str) -> Option<String> {
    if !inner.trim_start().strip_prefix("set")?.starts_with(char::is_whitespace) {
        return None;
    }
    let filter = |target: &str| if target.contains('.') { NAMESPACE_FILTER } else { FILTER };
    // A bar before the equals sign is the filter of a block set, which may make anything of its text.
    if let Some((target, filters)) = inner.split_once('|')
        && !target.contains('=')
    {
        return is_balanced(filters).then(|| format!("{target}|{filters}|{} ", filter(target)));
    }
    let (target, expression) = inner.split_once('=')?;
    // Unbalanced brackets are a syntax error, to be kept.
    if expression.trim().is_empty() || !is_balanced(expression) {
        return None;
    }
    Some(format!("{target}= ({expression})|{} ", filter(target)))
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
