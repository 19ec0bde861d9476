//! Overrides on the command line, in Hydra's syntax: `key.sub=value` writes a value (read as YAML) over the file's,
//! `+key.sub=value` adds one that is not there yet, `++key.sub=value` does either, and `~key.sub` takes one away.

use super::compose;
use super::problem::{Problem, suggestion};
use super::tree::{Node, Place, Value};
use super::yaml;
use std::ops::Range;

/// Overrides of what a file is made of (`preset=trl`) come before it is put together, all others after.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Which {
    /// `extends`, `defaults` and `preset`.
    Composition,
    /// Everything else.
    Values,
}

/// What an override does.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Verb {
    /// `key=value`: known keys may be written whether the file has them or not.
    Set,
    /// `+key=value`: the key must be new.
    Add,
    /// `++key=value`.
    AddOrSet,
    /// `~key` or `~key=value`: the key must be there (and have that value).
    Delete,
}

impl Verb {
    /// The verb, and how many bytes of the argument it takes.
    fn of(argument: &str) -> (Verb, usize) {
        match argument.as_bytes() {
            [b'+', b'+', ..] => (Verb::AddOrSet, 2),
            [b'+', ..] => (Verb::Add, 1),
            [b'~', ..] => (Verb::Delete, 1),
            _ => (Verb::Set, 0),
        }
    }
}

/// Applies the overrides in their order. `known` lists every path of a configuration, for suggestions.
pub(crate) fn apply(tree: &mut Node, arguments: &[String], known: &[String], which: Which) -> Vec<Problem> {
    let composes = |argument: &str| {
        let (_, sign) = Verb::of(argument);
        let path = argument[sign..].split('=').next().unwrap_or("");
        compose::KEYS.contains(&path)
    };
    arguments
        .iter()
        .enumerate()
        .filter(|(_, argument)| composes(argument) == (which == Which::Composition))
        .filter_map(|(index, argument)| apply_one(tree, index, argument, known).err())
        .collect()
}

fn apply_one(tree: &mut Node, index: usize, argument: &str, known: &[String]) -> Result<(), Problem> {
    let (verb, sign) = Verb::of(argument);
    let at = |range: Range<usize>| Place::Argument(index, range.start + sign..range.end + sign);
    let body = &argument[sign..];
    let problem =
        |range, message: String, help: Option<String>| Problem { place: Some(at(range)), message, help };
    let (path, text) = match (verb, body.split_once('=')) {
        (Verb::Delete, None) => {
            return delete(tree, body, None, known).map_err(|(m, h)| problem(0..body.len(), m, h));
        }
        (_, Some((path, text))) => (path, text),
        (_, None) => {
            let help = "write section.key=value, for example training.learning_rate=1e-4";
            let message = format!("`{argument}` is not an override");
            return Err(problem(0..body.len(), message, Some(help.into())));
        }
    };
    let path_problem = |(message, help)| problem(0..path.len(), message, help);
    check_path(path, known).map_err(|(message, help)| path_problem((message, Some(help))))?;
    if verb == Verb::Add && tree.at(&path.split('.').collect::<Vec<_>>()).is_some() {
        let help = format!("write `{path}={text}` to change it, or `++` for either");
        return Err(path_problem((format!("`{path}` is there already, so `+` cannot add it"), Some(help))));
    }
    let start = path.len() + 1;
    let node = value(text, &|r| at(r.start + start..r.end + start)).map_err(|error| Problem {
        place: Some(at(start + error.at.min(text.len())..body.len())),
        message: format!("the value of `{path}` is not YAML: {}", error.message),
        help: Some("put texts with special characters in quotes".into()),
    })?;
    if verb == Verb::Delete {
        return delete(tree, path, Some(&node), known).map_err(path_problem);
    }
    let mut end = 0;
    let steps: Vec<(String, Place)> = path
        .split('.')
        .map(|key| {
            let begin = end;
            end = begin + key.len() + 1;
            (key.to_owned(), at(begin..begin + key.len()))
        })
        .collect();
    tree.set(&steps, node).map_err(|depth| {
        let parent = path.split('.').take(depth).collect::<Vec<_>>().join(".");
        Problem {
            place: Some(at(0..path.len())),
            message: format!("`{parent}` is a plain value in the file, so `{path}` cannot be set"),
            help: None,
        }
    })
}

/// Takes a key away; `expected`: only if it has this value.
fn delete(
    tree: &mut Node,
    path: &str,
    expected: Option<&Node>,
    known: &[String],
) -> Result<(), (String, Option<String>)> {
    check_path(path, known).map_err(|(message, help)| (message, Some(help)))?;
    let keys: Vec<String> = path.split('.').map(str::to_owned).collect();
    let found = tree.at(&path.split('.').collect::<Vec<_>>());
    let Some(found) = found else {
        let message = format!("`{path}` is not in the configuration, so it cannot be taken away");
        return Err((message, Some("remove the override: the key has its default already".into())));
    };
    if let Some(expected) = expected.filter(|expected| expected.value.describe() != found.value.describe()) {
        let (has, wanted) = (found.value.describe(), expected.value.describe());
        let message = format!("`{path}` is {has}, not {wanted}, so it is not taken away");
        return Err((message, Some(format!("write `~{path}` to take it away whatever it is"))));
    }
    tree.remove(&keys);
    Ok(())
}

/// The value as YAML; but `*.jsonl` is a pattern here, where there is nothing that an alias could refer to.
fn value(text: &str, place: &dyn Fn(Range<usize>) -> Place) -> Result<Node, yaml::SyntaxError> {
    if text.starts_with('*') {
        return Ok(Node { value: Value::Text(text.to_owned()), place: place(0..text.len()) });
    }
    yaml::parse(text, place)
}

/// A path must be a known one, or lie below one (`lr_scheduler_kwargs.num_cycles`).
fn check_path(path: &str, known: &[String]) -> Result<(), (String, String)> {
    let below =
        |parent: &String| path.strip_prefix(parent.as_str()).is_some_and(|rest| rest.starts_with('.'));
    let is_free_form = |parent: &String| parent.ends_with("kwargs");
    if known.iter().any(|k| k == path || (below(k) && is_free_form(k))) {
        return Ok(());
    }
    let (section, key) = path.rsplit_once('.').unwrap_or(("", path));
    let prefix = if section.is_empty() { String::new() } else { format!("{section}.") };
    let siblings: Vec<&str> =
        known.iter().filter_map(|k| k.strip_prefix(&prefix)).filter(|k| !k.contains('.')).collect();
    let help = match suggestion(key, &siblings, known) {
        Some(near) if siblings.contains(&near.as_str()) => format!("did you mean `{prefix}{near}`?"),
        Some(near) => format!("did you mean `{near}`?"),
        None if siblings.is_empty() => {
            let near = super::problem::nearest(path, known.iter().map(String::as_str));
            near.map_or("`llm-foundry schema` lists all keys".into(), |near| {
                format!("did you mean `{near}`?")
            })
        }
        None => format!("known keys here: {}", siblings.join(", ")),
    };
    Err((format!("unknown key `{path}`"), help))
}
