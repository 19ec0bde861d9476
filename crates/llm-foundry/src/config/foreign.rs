//! Configurations of other programs: YAML as plain data.

use super::tree::{Node, Place, Value};
use super::yaml;
use serde_json::{Map, Value as Json};

/// The mapping that a text holds, in its order; else what is wrong, with the line.
pub(crate) fn mapping(text: &str) -> Result<Map<String, Json>, String> {
    let tree = yaml::parse(text, &|range| Place::File(0, range)).map_err(|error| {
        let line = text.as_bytes()[..error.at.min(text.len())].iter().filter(|&&b| b == b'\n').count() + 1;
        format!("line {line} is not YAML: {}", error.message)
    })?;
    match json(tree) {
        Json::Object(map) => Ok(map),
        _ => Err("this is no mapping of keys to values".into()),
    }
}

fn json(node: Node) -> Json {
    match node.value {
        Value::Null => Json::Null,
        Value::Bool(flag) => Json::Bool(flag),
        Value::Int(number) => {
            i64::try_from(number).map_or_else(|_| Json::from(number.to_string()), Json::from)
        }
        Value::Float(number) => Json::from(number),
        Value::Text(text) => Json::from(text),
        Value::List(items) => items.into_iter().map(json).collect(),
        Value::Map(entries) => entries.into_iter().map(|entry| (entry.key, json(entry.node))).collect(),
    }
}
