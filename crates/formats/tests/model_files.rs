//! A model by its directory: config, generation config, and what is refused.

mod fixture;

use fixture::fixture;
use foundry_formats::{FormatError, HfConfig, ModelFiles};
use serde_json::json;

fn dir_with(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::write(dir.path().join(name), text).unwrap();
    }
    dir
}

#[test]
fn eos_ids_are_the_union_of_both_configs() {
    let dir = dir_with(&[
        ("config.json", r#"{"model_type": "llama", "eos_token_id": 2}"#),
        ("generation_config.json", r#"{"eos_token_id": [7, 2, 9]}"#),
    ]);
    let files = ModelFiles::open(dir.path()).unwrap();
    assert_eq!(files.eos_token_ids(), [7, 2, 9]);
    assert!(!files.is_gguf());
    let dir = dir_with(&[("config.json", r#"{"eos_token_id": null}"#)]);
    let files = ModelFiles::open(dir.path()).unwrap();
    assert!(files.eos_token_ids().is_empty() && files.generation_config.is_none());
    assert!(matches!(files.weights().err().unwrap(), FormatError::NotFound { .. }));
    assert!(matches!(files.tokenizer().err().unwrap(), FormatError::NotFound { .. }));
}

#[test]
fn opening_needs_no_weights_and_pickle_is_refused_when_they_are_wanted() {
    let dir = dir_with(&[("config.json", "{}"), ("pytorch_model.bin", "x")]);
    let files = ModelFiles::open(dir.path()).unwrap();
    assert!(matches!(files.weights().err().unwrap(), FormatError::PickleOnly { .. }));
    let error = ModelFiles::open(&dir.path().join("pytorch_model.bin")).unwrap_err();
    assert!(matches!(error, FormatError::PickleOnly { .. }), "{error}");
}

#[test]
fn what_is_no_model_is_said() {
    let empty = dir_with(&[]);
    let cases = [
        (empty.path().to_owned(), "no config.json"),
        (empty.path().join("gone"), "no model here"),
        (fixture("mixed_lines.json"), "name the directory"),
        (fixture("gguf"), "name one of them"),
    ];
    for (path, words) in cases {
        let error = ModelFiles::open(&path).unwrap_err();
        assert!(matches!(error, FormatError::NotFound { .. }), "{error}");
        assert!(error.to_string().contains(words), "{error}");
    }
    let broken = dir_with(&[("config.json", "{\n  \"a\": ,\n}")]);
    let error = ModelFiles::open(broken.path()).unwrap_err();
    assert!(
        matches!(error, FormatError::InvalidJson { .. }) && error.to_string().contains("line 2"),
        "{error}"
    );
    let bad_generation = dir_with(&[("config.json", "{}"), ("generation_config.json", "[]")]);
    assert!(matches!(ModelFiles::open(bad_generation.path()).unwrap_err(), FormatError::InvalidJson { .. }));
}

#[test]
fn getters_are_typed_and_name_file_and_key() {
    let config = HfConfig::new(
        json!({ "n": 4, "whole": 4.0, "half": 0.5, "neg": -1, "yes": true, "s": "x", "list": ["a", "b"], "ids": [1, 2],
            "none": null, "rope_parameters": { "rope_theta": 1e4, "rope_type": "default" } })
        .as_object()
        .unwrap()
        .clone(),
        "dir/config.json",
    );
    assert_eq!((config.usize("n").unwrap(), config.usize("whole").unwrap()), (4, 4));
    assert_eq!((config.f64("half").unwrap(), config.f64("n").unwrap()), (0.5, 4.0));
    assert!(config.bool("yes").unwrap());
    assert_eq!(
        (config.str("s").unwrap(), config.str("rope_parameters.rope_type").unwrap()),
        ("x", "default")
    );
    assert_eq!(config.f64("rope_parameters.rope_theta").unwrap(), 1e4);
    assert_eq!(config.opt_strings("list").unwrap().unwrap(), ["a", "b"]);
    assert_eq!(config.token_ids("ids").unwrap(), [1, 2]);
    assert_eq!(config.token_ids("n").unwrap(), [4]);
    assert!(config.token_ids("none").unwrap().is_empty());
    assert!(config.opt_usize("none").unwrap().is_none() && config.opt_bool("gone").unwrap().is_none());
    assert!(config.opt_object("rope_parameters").unwrap().is_some());
    assert!(config.get("s.deeper").is_none() && config.get("").is_none());
    let missing = config.usize("rope_parameters.factor").unwrap_err();
    assert!(matches!(missing, FormatError::ConfigKeyMissing { .. }), "{missing}");
    let message = missing.to_string();
    assert!(message.contains("config.json") && message.contains("`rope_parameters.factor`"), "{message}");
    for error in [
        config.usize("neg").unwrap_err(),
        config.usize("half").unwrap_err(),
        config.opt_f64("s").unwrap_err(),
        config.opt_bool("n").unwrap_err(),
        config.opt_str("n").unwrap_err(),
        config.opt_strings("ids").unwrap_err(),
        config.token_ids("neg").unwrap_err(),
        config.opt_object("n").unwrap_err(),
    ] {
        assert!(matches!(error, FormatError::ConfigKeyType { .. }), "{error}");
        assert!(error.to_string().contains("should be"), "{error}");
    }
}
