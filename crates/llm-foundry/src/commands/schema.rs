//! `llm-foundry schema`: the JSON schema of configuration files.

use crate::config::Config;
use crate::failure::Outcome;
use serde_json::{Map, Value, json};
use std::io::Write;

/// Prints it.
pub(crate) fn run() -> Outcome {
    let mut schema = schemars::schema_for!(Config);
    let properties = schema.get_mut("properties").and_then(serde_json::Value::as_object_mut);
    properties.expect("a struct has properties").extend(composition());
    let text = serde_json::to_string_pretty(&schema).expect("a schema is JSON");
    writeln!(std::io::stdout(), "{text}")?;
    Ok(())
}

/// The keys that say what a file is made of: they are gone before the sections are read.
fn composition() -> Map<String, Value> {
    let one_or_many = json!([{"type": "string"}, {"type": "array", "items": {"type": "string"}}]);
    let keys = json!({
        "extends": {
            "description": "Files that this one builds on, the first lowest. Paths are relative to this file.",
            "anyOf": one_or_many,
        },
        "defaults": {
            "description": "Hydra's list of what this file builds on: `base.yaml`, `lora: small` (the file \
                lora/small.yaml as the section lora), `preset: trl`, `_self_`.",
            "type": "array",
            "items": {"anyOf": [{"type": "string"}, {"type": "object"}]},
        },
        "preset": {
            "description": "A built-in set of defaults below every file: `trl` (TRL 1.16's defaults) or `unsloth`.",
            "anyOf": one_or_many,
        },
    });
    match keys {
        Value::Object(keys) => keys,
        _ => unreachable!("an object was written"),
    }
}
