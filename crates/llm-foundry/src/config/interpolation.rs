//! Interpolation, in OmegaConf's syntax: `${training.seed}` is another value, `${.seed}` one of the same section,
//! `${oc.env:VAR,default}` a variable of the environment, `${oc.decode:TEXT}` a text read as YAML, and
//! `${oc.select:key,default}` a value that may be missing. `\${` is a plain `${`.
//!
//! A text that is one interpolation takes over the value with its type; elsewhere the value is written into the text.
//! A key that was not written has its default.

use super::problem::{Problem, nearest};
use super::tree::{Node, Value};
use super::yaml;
use std::cell::Cell;

/// Interpolations inside each other deeper than this are a circle.
const DEEPEST: usize = 32;
/// No value of a configuration is longer: interpolations that double each other end here.
const LONGEST: usize = 1 << 20;
/// More interpolations than this are a circle of another kind: texts that double each other without growing.
const MOST: usize = 100_000;
/// Resolvers that exist.
const RESOLVERS: [&str; 3] = ["oc.env", "oc.decode", "oc.select"];

/// Replaces every interpolation of `tree`. `defaults` has every key; `environment` looks a variable up.
pub(crate) fn resolve(
    tree: &mut Node,
    defaults: &Node,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Vec<Problem> {
    let written = tree.clone();
    let scope = Scope { written: &written, defaults, environment, count: Cell::new(0) };
    let mut problems = Vec::new();
    scope.walk(tree, &mut Vec::new(), &mut problems);
    problems
}

struct Scope<'a> {
    written: &'a Node,
    defaults: &'a Node,
    environment: &'a dyn Fn(&str) -> Option<String>,
    /// Interpolations so far.
    count: Cell<usize>,
}

/// What is wrong, and what to do.
type Wrong = (String, Option<String>);

fn wrong<T>(message: impl Into<String>, help: impl Into<String>) -> Result<T, Wrong> {
    Err((message.into(), Some(help.into())))
}

impl Scope<'_> {
    fn walk(&self, node: &mut Node, path: &mut Vec<String>, problems: &mut Vec<Problem>) {
        match &mut node.value {
            Value::Map(entries) => {
                for entry in entries {
                    path.push(entry.key.clone());
                    self.walk(&mut entry.node, path, problems);
                    path.pop();
                }
            }
            Value::List(items) => items.iter_mut().for_each(|item| self.walk(item, path, problems)),
            Value::Text(text) if text.contains("${") => match self.text(text, path, 0) {
                Ok(value) => node.value = value,
                Err((message, help)) => {
                    problems.push(Problem { place: Some(node.place.clone()), message, help });
                    node.value = Value::Null;
                }
            },
            _ => {}
        }
    }

    /// The value of a text with interpolations. `path`: of the value that holds it.
    fn text(&self, text: &str, path: &[String], depth: usize) -> Result<Value, Wrong> {
        self.count.set(self.count.get() + 1);
        if depth > DEEPEST || self.count.get() > MOST {
            return wrong("interpolations refer to each other in a circle", "break the circle");
        }
        let mut result = String::new();
        let mut rest = text;
        while let Some(at) = rest.find("${") {
            if let Some(before) = rest[..at].strip_suffix('\\') {
                result.push_str(before);
                result.push_str("${");
                rest = &rest[at + 2..];
                continue;
            }
            let inside = &rest[at + 2..];
            let Some(end) = closing(inside) else {
                return wrong(
                    format!("`${{` without `}}` in `{text}`"),
                    "close it, or write `\\${` for a plain `${`",
                );
            };
            let value = self.expression(&inside[..end], path, depth + 1)?;
            if at == 0 && result.is_empty() && end + 1 == inside.len() {
                return Ok(value);
            }
            result.push_str(&rest[..at]);
            result.push_str(&plain(&value, &inside[..end])?);
            if result.len() > LONGEST {
                return wrong("an interpolated text is longer than 1 MiB", "shorten it");
            }
            rest = &inside[end + 1..];
        }
        result.push_str(rest);
        Ok(Value::Text(result))
    }

    /// What stands between `${` and `}`.
    fn expression(&self, inside: &str, path: &[String], depth: usize) -> Result<Value, Wrong> {
        // Inner interpolations first: `${oc.env:${name}}`.
        let inside = match inside.contains("${") {
            true => plain(&self.text(inside, path, depth)?, inside)?,
            false => inside.to_owned(),
        };
        let Some((resolver, arguments)) = inside.split_once(':') else {
            return self.reference(inside.trim(), path, depth, None);
        };
        let (first, default) = match arguments.split_once(',') {
            Some((first, default)) => (first.trim(), Some(default.trim())),
            None => (arguments.trim(), None),
        };
        match resolver.trim() {
            "oc.env" => match ((self.environment)(first), default) {
                (Some(value), _) => Ok(Value::Text(value)),
                (None, Some(default)) => decoded(default),
                (None, None) => wrong(
                    format!("the environment has no variable `{first}`"),
                    format!("set it, or give a default: `${{oc.env:{first},value}}`"),
                ),
            },
            "oc.decode" => decoded(arguments.trim()),
            "oc.select" => self.reference(first, path, depth, Some(default.unwrap_or("null"))),
            other => {
                let near = nearest(other, RESOLVERS.into_iter()).unwrap_or("oc.env");
                wrong(
                    format!("unknown resolver `{other}` in `${{{inside}}}`"),
                    format!("did you mean `{near}`? Possible: {}", RESOLVERS.join(", ")),
                )
            }
        }
    }

    /// The value of another key.
    fn reference(
        &self,
        key: &str,
        path: &[String],
        depth: usize,
        default: Option<&str>,
    ) -> Result<Value, Wrong> {
        let up = key.len() - key.trim_start_matches('.').len();
        let name = &key[up..];
        // One dot is the section that holds the value, each further one the section around it.
        let base = if up == 0 { &[] } else { &path[..path.len().saturating_sub(up)] };
        let keys: Vec<&str> = base.iter().map(String::as_str).chain(name.split('.')).collect();
        if let Some(node) = self.written.at(&keys) {
            let path: Vec<String> = keys.iter().map(|&k| k.to_owned()).collect();
            return self.whole(&node.value, &path, depth);
        }
        match (self.defaults.at(&keys), default) {
            (Some(node), _) => Ok(node.value.clone()),
            (None, Some(default)) => decoded(default),
            (None, None) => wrong(
                format!("`${{{key}}}` refers to `{}`, which does not exist", keys.join(".")),
                "name a key by its whole path, for example `${training.seed}`",
            ),
        }
    }

    /// A referred value with its own interpolations replaced.
    fn whole(&self, value: &Value, path: &[String], depth: usize) -> Result<Value, Wrong> {
        match value {
            Value::Text(text) if text.contains("${") => self.text(text, path, depth + 1),
            Value::List(items) => Ok(Value::List(
                items
                    .iter()
                    .map(|item| {
                        let value = self.whole(&item.value, path, depth + 1)?;
                        Ok(Node { value, place: item.place.clone() })
                    })
                    .collect::<Result<_, Wrong>>()?,
            )),
            Value::Map(_) => {
                wrong(format!("`{}` is a section, not a value", path.join(".")), "refer to one of its keys")
            }
            value => Ok(value.clone()),
        }
    }
}

/// Where the `}` is that closes what precedes `inside`.
fn closing(inside: &str) -> Option<usize> {
    let mut open = 0;
    let bytes = inside.as_bytes();
    for (at, byte) in bytes.iter().enumerate() {
        match byte {
            b'{' if at > 0 && bytes[at - 1] == b'$' => open += 1,
            b'}' if open == 0 => return Some(at),
            b'}' => open -= 1,
            _ => {}
        }
    }
    None
}

/// A text read as a YAML value.
fn decoded(text: &str) -> Result<Value, Wrong> {
    if text.is_empty() {
        return Ok(Value::Text(String::new()));
    }
    let node = yaml::parse(text, &|r| super::Place::File(0, r));
    node.map(|node| node.value).map_err(|error| {
        (format!("`{text}` is not a YAML value: {}", error.message), Some("put it in quotes".into()))
    })
}

/// A value as part of a text.
fn plain(value: &Value, expression: &str) -> Result<String, Wrong> {
    Ok(match value {
        Value::Null => "null".into(),
        Value::Bool(b) => b.to_string(),
        Value::Int(i) => i.to_string(),
        Value::Float(x) => x.to_string(),
        Value::Text(text) => text.clone(),
        Value::List(_) | Value::Map(_) => {
            let message = format!("`${{{expression}}}` is {}, and stands inside a text", value.describe());
            return wrong(message, "let the interpolation be the whole value");
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Place;

    fn read(text: &str) -> Node {
        yaml::parse(text, &|r| Place::File(0, r)).expect("valid YAML")
    }

    fn resolved(text: &str) -> (Node, Vec<Problem>) {
        let mut tree = read(text);
        let defaults = read("training: {seed: 42}\n");
        let environment = |name: &str| (name == "HERE").then(|| "value".to_owned());
        let problems = resolve(&mut tree, &defaults, &environment);
        (tree, problems)
    }

    #[track_caller]
    fn value(text: &str) -> Value {
        let (tree, problems) = resolved(text);
        assert_eq!(problems, [], "{text}");
        tree.at(&["x", "y"]).expect("x.y").value.clone()
    }

    #[track_caller]
    fn refused(text: &str, words: &str) {
        let (_, problems) = resolved(text);
        assert!(problems.iter().any(|p| p.message.contains(words)), "{problems:?}");
    }

    #[test]
    fn a_whole_value_keeps_its_type_and_a_part_becomes_text() {
        assert_eq!(value("a: 3\nx: {y: '${a}'}"), Value::Int(3));
        assert_eq!(value("a: {b: 1.5}\nx: {y: '${a.b}'}"), Value::Float(1.5));
        assert_eq!(value("a: 3\nx: {y: 'run-${a}/${a}'}"), Value::Text("run-3/3".into()));
        assert_eq!(value("x: {y: '${.z}', z: true}"), Value::Bool(true));
        assert_eq!(value("x: {y: 's${training.seed}'}"), Value::Text("s42".into()));
        assert_eq!(value("a: '${b}'\nb: 7\nx: {y: '${a}'}"), Value::Int(7));
        assert!(
            matches!(value("a: [1, '${b}']\nb: 7\nx: {y: '${a}'}"), Value::List(items) if items.len() == 2)
        );
    }

    #[test]
    fn resolvers() {
        assert_eq!(value("x: {y: '${oc.env:HERE}'}"), Value::Text("value".into()));
        assert_eq!(value("x: {y: '${oc.env:GONE,5}'}"), Value::Int(5));
        assert_eq!(value("x: {y: '${oc.decode:\"[1, 2]\"}'}"), Value::Text("[1, 2]".into()));
        assert_eq!(value("n: HERE\nx: {y: '${oc.env:${n}}'}"), Value::Text("value".into()));
        assert_eq!(value("x: {y: '${oc.select:no.such,dflt}'}"), Value::Text("dflt".into()));
        assert_eq!(value(r"x: {y: 'a\${b}'}"), Value::Text("a${b}".into()));
    }

    #[test]
    fn mistakes_are_told() {
        refused("x: {y: '${oc.env:GONE}'}", "no variable `GONE`");
        refused("x: {y: '${no.such}'}", "`no.such`, which does not exist");
        refused("x: {y: '${x.y}'}", "circle");
        refused("a: '${b}'\nb: '${a}'\nx: {y: '${a}'}", "circle");
        refused("x: {y: '${a'}", "without `}`");
        refused("x: {y: '${oc.evn:HERE}'}", "unknown resolver `oc.evn`");
        refused("a: [1]\nx: {y: 'a${a}'}", "inside a text");
        refused("a: {b: 1}\nx: {y: '${a}'}", "is a section");
    }

    #[test]
    fn doubling_ends() {
        let long = "0123456789".repeat(20);
        let mut text = format!("a0: {long}\n");
        for i in 1..30 {
            text.push_str(&format!("a{i}: '${{a{}}}${{a{}}}'\n", i - 1, i - 1));
        }
        refused(&(text.clone() + "x: {y: '${a29}'}"), "1 MiB");
        refused(&(text.replace(&long, "''") + "x: {y: '${a29}'}"), "circle");
    }
}
