//! `llm-foundry schema`: the JSON schema of configuration files.
//!
//! The schema of the sections says what values are once a file is read. Editors look at what is written, so it is
//! opened for what people may write besides: `${…}` in place of any value, other names of a choice, a section with
//! nothing below it, `false` for `no`.

use crate::config::{Config, SYNONYMS};
use crate::failure::Outcome;
use serde_json::{Map, Value, json};
use std::io::Write;

/// Name of the definition of `${…}`.
const INTERPOLATION: &str = "Interpolation";

/// Prints it.
pub(crate) fn run() -> Outcome {
    let text = serde_json::to_string_pretty(&schema()).expect("a schema is JSON");
    writeln!(std::io::stdout(), "{text}")?;
    Ok(())
}

fn schema() -> Value {
    let schema = schemars::schema_for!(Config);
    let mut schema = serde_json::to_value(schema).expect("a schema is JSON");
    let definitions = schema["$defs"].as_object().cloned().unwrap_or_default();
    open(&mut schema, &definitions);
    let mut opened = definitions.clone();
    for definition in opened.values_mut() {
        synonyms(definition);
        open(definition, &definitions);
    }
    let interpolation = json!({
        "description": "The value of another key, `${training.seed}`, or of a variable of the environment, \
            `${oc.env:NAME,default}`.",
        "type": "string",
        "pattern": "\\$\\{",
    });
    opened.insert(INTERPOLATION.into(), interpolation);
    schema["$defs"] = Value::Object(opened);
    let properties = schema["properties"].as_object_mut().expect("a struct has properties");
    properties.extend(composition());
    refuse_empty_adapter(&mut schema);
    schema
}

/// `lora:` with nothing below it is refused where it cannot be meant to turn off the section of another file.
fn refuse_empty_adapter(schema: &mut Value) {
    schema["if"] = json!({ "not": { "anyOf": [{ "required": ["extends"] }, { "required": ["defaults"] }] } });
    schema["then"] = json!({ "properties": { "lora": { "not": { "type": "null" } } } });
}

/// Opens everything below a schema.
fn open(schema: &mut Value, definitions: &Map<String, Value>) {
    let Some(schema) = schema.as_object_mut() else { return };
    for key in ["properties", "items", "additionalProperties"] {
        match schema.get_mut(key) {
            Some(Value::Object(properties)) if key == "properties" => {
                for property in properties.values_mut() {
                    open(property, definitions);
                    admit(property, definitions);
                }
            }
            Some(inner @ Value::Object(_)) => {
                open(inner, definitions);
                admit(inner, definitions);
            }
            _ => {}
        }
    }
    for choice in schema.get_mut("anyOf").and_then(Value::as_array_mut).into_iter().flatten() {
        open(choice, definitions);
    }
}

/// Lets `${…}` stand where no other text may, and nothing where a section may.
fn admit(schema: &mut Value, definitions: &Map<String, Value>) {
    if takes_text(schema, definitions) {
        return;
    }
    let Some(fields) = schema.as_object_mut() else { return };
    let is_section = definition(fields, definitions).is_some_and(|d| d.get("properties").is_some());
    // What is said about the key stays outside.
    let outside = ["description", "default"];
    let said: Map<String, Value> =
        outside.iter().filter_map(|key| Some(((*key).to_owned(), fields.shift_remove(*key)?))).collect();
    let inner = std::mem::replace(fields, said);
    let mut choices = match inner.get("anyOf").and_then(Value::as_array) {
        Some(choices) if inner.len() == 1 => choices.clone(),
        _ => vec![Value::Object(inner)],
    };
    if is_section {
        choices.push(json!({ "type": "null" }));
    }
    choices.push(json!({ "$ref": format!("#/$defs/{INTERPOLATION}") }));
    fields.insert("anyOf".into(), choices.into());
}

/// The definition that a schema refers to.
fn definition<'d>(fields: &Map<String, Value>, definitions: &'d Map<String, Value>) -> Option<&'d Value> {
    definitions.get(fields.get("$ref")?.as_str()?.strip_prefix("#/$defs/")?)
}

/// Whether any text is right.
fn takes_text(schema: &Value, definitions: &Map<String, Value>) -> bool {
    let Some(fields) = schema.as_object() else { return true };
    if let Some(choices) = fields.get("anyOf").and_then(Value::as_array) {
        return choices.iter().any(|choice| takes_text(choice, definitions));
    }
    if let Some(definition) = definition(fields, definitions) {
        return takes_text(definition, definitions);
    }
    let of_kind = |kind: &Value| kind == "string";
    let is_text = match fields.get("type") {
        Some(Value::Array(kinds)) => kinds.iter().any(of_kind),
        Some(kind) => of_kind(kind),
        None => false,
    };
    is_text && !["const", "enum", "pattern"].iter().any(|key| fields.contains_key(*key))
}

/// Other names of a choice's values, and `false`, which YAML 1.1 reads for `no`.
fn synonyms(definition: &mut Value) {
    let Some(choices) = definition.get_mut("oneOf").and_then(Value::as_array_mut) else { return };
    let mut has_no = false;
    for choice in choices.iter_mut().filter_map(Value::as_object_mut) {
        let Some(name) = choice.get("const").and_then(Value::as_str).map(str::to_owned) else { continue };
        has_no |= name == "no";
        let others = SYNONYMS.iter().filter(|(ours, _)| *ours == name).flat_map(|(_, others)| *others);
        let names: Vec<&str> = std::iter::once(name.as_str()).chain(others.copied()).collect();
        if names.len() > 1 {
            choice.insert("enum".into(), json!(names));
            choice.shift_remove("const");
        }
    }
    if has_no {
        choices.push(json!({ "const": false }));
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    /// Every value that a choice offers to an editor is one that the program takes.
    #[test]
    fn names_of_choices_are_read() {
        let file = |key: &str, value: &Value| {
            let (section, key) = key.split_once('.').expect("section.key");
            let more = if key == "metric_for_best_model" { ", eval_strategy: epoch" } else { "" };
            let own = match section {
                "training" => format!("training: {{{key}: {value}{more}}}\nmodel: {{name_or_path: m}}"),
                _ => format!("model: {{name_or_path: m, {key}: {value}}}"),
            };
            format!("{own}\ndata: {{train: a.jsonl, eval: b.jsonl}}\noutput_dir: o\n")
        };
        let schema = schema();
        let mut seen = 0;
        for (definition, key) in [
            ("OptimKind", "training.optim"),
            ("Figure", "training.metric_for_best_model"),
            ("SaveWhen", "training.save_strategy"),
            ("EvalWhen", "training.eval_strategy"),
            ("ComputeDtype", "model.dtype"),
        ] {
            for choice in schema["$defs"][definition]["oneOf"].as_array().expect(definition) {
                let one = choice.get("const").cloned().into_iter();
                let names = one.chain(choice["enum"].as_array().cloned().unwrap_or_default());
                for name in names.filter(|name| name != "steps" && name != "best") {
                    let text = file(key, &name);
                    config::from_text("c.yaml", text.clone(), &[])
                        .unwrap_or_else(|e| panic!("{text}: {e:?}"));
                    seen += 1;
                }
            }
        }
        assert!(seen > 25, "{seen}");
        let used = serde_json::to_string(&schema).expect("JSON");
        for (ours, others) in SYNONYMS {
            assert!(others.iter().all(|other| used.contains(&format!("\"{other}\""))), "{ours}");
        }
    }

    #[test]
    fn what_may_stand_for_a_value_is_no_mistake() {
        let schema = schema();
        let property = |section: &str, key: &str| schema["$defs"][section]["properties"][key].clone();
        let seed = property("TrainingSection", "seed");
        assert_eq!(seed["anyOf"][0]["type"], "integer");
        assert_eq!(seed["anyOf"][1]["$ref"], "#/$defs/Interpolation");
        assert!(seed["description"].is_string() && seed["default"] == 42, "{seed}");
        assert!(property("ModelSection", "name_or_path").get("anyOf").is_none(), "any text is right there");
        // An empty section is all defaults, but an empty adapter is refused by the program, too.
        assert_eq!(schema["then"]["properties"]["lora"], json!({ "not": { "type": "null" } }));
        assert_eq!(schema["if"]["not"]["anyOf"][0]["required"], json!(["extends"]));
        let empty = "model: {name_or_path: m}\ndata: {train: a}\ntraining:\n";
        config::from_text("c.yaml", empty.into(), &[]).expect("defaults");
        config::from_text("c.yaml", format!("{empty}lora:\n"), &[]).expect_err("refused");
        let section = &schema["properties"]["training"]["anyOf"];
        assert_eq!(section[1]["type"], "null", "{section}");
        let items = &property("LoraSection", "layers_to_transform")["anyOf"][0]["items"];
        assert_eq!(items["anyOf"][1]["$ref"], "#/$defs/Interpolation", "{items}");
    }
}
