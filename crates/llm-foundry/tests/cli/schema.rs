//! The JSON schema: up to date, and what editors need.

use crate::support::Room;
use serde_json::Value;
use std::path::Path;

#[test]
fn the_schema_in_the_repository_is_up_to_date() {
    let said = Room::new().foundry(&["schema"]).expect_done();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs/schema.json");
    if std::env::var_os("UPDATE_SCHEMA").is_some() {
        std::fs::write(&path, &said.out).expect("written");
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(kept == said.out, "configs/schema.json is old: run this test with UPDATE_SCHEMA=1");
}

#[test]
fn every_key_is_documented_and_has_a_default() {
    let said = Room::new().foundry(&["schema"]).expect_done();
    let schema: Value = serde_json::from_str(&said.out).expect("JSON");
    let sections =
        ["ModelSection", "TokenizerSection", "DataSection", "LoraSection", "TrainingSection", "CardSection"];
    for section in sections {
        let definition = &schema["$defs"][section];
        assert_eq!(definition["additionalProperties"], false, "{section} refuses unknown keys");
        for (key, property) in definition["properties"].as_object().expect("keys") {
            assert!(property["description"].is_string(), "{section}.{key} is documented");
            assert!(property.get("default").is_some(), "{section}.{key} has a default");
        }
    }
}
