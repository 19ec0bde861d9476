//! `key.sub=value` on the command line: the value is read as YAML and written over the file's.

use super::problem::{Problem, suggestion};
use super::tree::{Node, Place, Value};
use super::yaml;
use std::ops::Range;

/// Applies the overrides in their order. `known` lists every path of a configuration, for suggestions.
pub(crate) fn apply(tree: &mut Node, arguments: &[String], known: &[String]) -> Vec<Problem> {
    arguments
        .iter()
        .enumerate()
        .filter_map(|(index, argument)| apply_one(tree, index, argument, known).err())
        .collect()
}

fn apply_one(tree: &mut Node, index: usize, argument: &str, known: &[String]) -> Result<(), Problem> {
    let at = |range| Place::Argument(index, range);
    let Some((path, text)) = argument.split_once('=') else {
        return Err(Problem {
            place: Some(at(0..argument.len())),
            message: format!("`{argument}` is not an override"),
            help: Some("write section.key=value, for example training.learning_rate=1e-4".into()),
        });
    };
    check_path(path, known).map_err(|(message, help)| Problem {
        place: Some(at(0..path.len())),
        message,
        help: Some(help),
    })?;
    let start = path.len() + 1;
    let node = value(text, &|r| at(r.start + start..r.end + start)).map_err(|error| Problem {
        place: Some(at(start + error.at..argument.len())),
        message: format!("the value of `{path}` is not YAML: {}", error.message),
        help: Some("put texts with special characters in quotes".into()),
    })?;
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
