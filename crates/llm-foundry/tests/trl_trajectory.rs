//! The ordinary `train` command on the quickstart's data takes TRL's road: the same rows in the same order, the same
//! adapter from the same seed, the same losses.
//!
//! `fixtures/trl_quickstart.json` comes from `interop/trl_trajectory.py`, which runs TRL on the same GGUF file.

use assert_cmd::Command;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

/// Both sides compute in float32, in another order of additions: ten steps make 5e-6 of that here, and
/// other instruction sets add in yet other orders.
const LOSS_TOLERANCE: f64 = 2e-4;
/// Relative; 1e-5 here.
const GRAD_NORM_TOLERANCE: f64 = 1e-3;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn golden() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/trl_quickstart.json");
    serde_json::from_str(&fs::read_to_string(path).expect("the golden is there")).expect("the golden is JSON")
}

/// Trains with the golden's settings; the logged steps.
fn train(model: &str, golden: &Value, output_dir: &Path) -> Vec<Value> {
    let mut command = Command::cargo_bin("llm-foundry").expect("the binary is built");
    command.current_dir(root()).args(["train", "configs/sft/smollm2_quickstart.yaml"]);
    command.arg(format!("model.name_or_path={model}")).arg(format!("output_dir={}", output_dir.display()));
    for (key, value) in golden["overrides"].as_object().expect("the overrides are a map") {
        command.arg(format!("{key}={}", value.to_string().trim_matches('"')));
    }
    command.assert().success();
    let metrics = fs::read_to_string(output_dir.join("metrics.jsonl")).expect("the run wrote its metrics");
    let lines = metrics.lines().map(|line| serde_json::from_str::<Value>(line).expect("a line is JSON"));
    lines.filter(|line| line.get("event").is_none()).collect()
}

#[test]
fn smollm2_follows_trl_on_the_quickstart_data() {
    let model = std::env::var("FOUNDRY_SMOLLM2_GGUF")
        .expect("FOUNDRY_SMOLLM2_GGUF names the model; `cargo xtask test` fetches it and sets this");
    let golden = golden();
    let output = tempfile::tempdir().expect("a temporary directory");
    let steps = train(&model, &golden, &output.path().join("run"));
    let expected = golden["steps"].as_array().expect("the golden has steps");
    assert_eq!(steps.len(), expected.len());
    let mut seen = 0;
    for (index, (step, wanted)) in steps.iter().zip(expected).enumerate() {
        let number =
            |value: &Value, key: &str| value[key].as_f64().unwrap_or_else(|| panic!("{key} of step {index}"));
        // Rows first: with other rows no loss can agree. `tokens` counts from the start of the run.
        let row = number(step, "tokens") as u64 - seen;
        seen += row;
        assert_eq!(row, wanted["row_tokens"].as_u64().expect("a count"), "tokens of step {index}");
        let (loss, trl) = (number(step, "loss"), number(wanted, "loss"));
        assert!((loss - trl).abs() <= LOSS_TOLERANCE, "step {index}: loss {loss}, TRL {trl}");
        let (norm, trl) = (number(step, "grad_norm"), number(wanted, "grad_norm"));
        assert!(
            (norm / trl - 1.0).abs() <= GRAD_NORM_TOLERANCE,
            "step {index}: gradient norm {norm}, TRL {trl}"
        );
        let (rate, trl) = (number(step, "learning_rate"), number(wanted, "learning_rate"));
        assert!((rate - trl).abs() <= 1e-12, "step {index}: learning rate {rate}, TRL {trl}");
    }
}
