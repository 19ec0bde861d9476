//! Every file in `configs/` plans, with nothing of its model at hand but `config.json` (in a hub cache's layout).

use assert_cmd::Command;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Every YAML file below `configs/`, as a path from the root.
fn configs() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root().join("configs")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("configs/ can be listed") {
            let path = entry.expect("configs/ can be listed").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "yaml") {
                found.push(path.strip_prefix(root()).expect("below the root").to_path_buf());
            }
        }
    }
    found.sort();
    found
}

/// `llm-foundry plan`, offline, in the root of the repository.
fn plan(config: &Path, overrides: &[&str]) -> std::process::Output {
    let cache = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/hub-cache");
    let mut command = Command::cargo_bin("llm-foundry").expect("the binary is built");
    command.current_dir(root()).env("HF_HUB_OFFLINE", "1").env("HF_HUB_CACHE", cache);
    command.env_remove("HF_HOME").env_remove("HF_TOKEN").env_remove("HF_ENDPOINT");
    command.arg("plan").arg(config).args(overrides).output().expect("the binary starts")
}

#[test]
fn every_config_plans() {
    let configs = configs();
    assert!(configs.len() >= 5, "the configs that the README names are here: {configs:?}");
    for config in configs {
        // This one starts from the result of configs/cpt/scratch_quickstart.yaml, which has not run here; the
        // architecture is the same.
        let overrides: &[&str] = match config.ends_with("sft/scratch_quickstart.yaml") {
            true => &["model.name_or_path=datasets/scratch/model"],
            false => &[],
        };
        // An 8-billion-parameter model need not fit into this machine: the plan is made all the same.
        let output = plan(&config, &[overrides, &["training.check_memory=false"]].concat());
        let (said, complained) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{}: {complained}\n{said}", config.display());
        assert!(!said.trim().is_empty(), "{}: the plan says something", config.display());
    }
}

#[test]
fn the_plan_of_a_broken_config_fails() {
    let output = plan(Path::new("configs/sft/smollm2_quickstart.yaml"), &["lora.rnak=8"]);
    assert_eq!(output.status.code(), Some(2), "an unknown key is the user's error");
    assert!(String::from_utf8_lossy(&output.stderr).contains("rnak"));
}

#[test]
fn every_config_tells_editors_its_schema() {
    for config in configs() {
        let text = fs::read_to_string(root().join(&config)).expect("a file");
        let first = text.lines().next().unwrap_or("");
        let schema = first.strip_prefix("# yaml-language-server: $schema=");
        let schema =
            schema.unwrap_or_else(|| panic!("{}: the first line names no schema: {first}", config.display()));
        let path = root().join(config.parent().expect("in a folder")).join(schema);
        assert!(path.is_file(), "{}: {schema} is not there", config.display());
    }
}
