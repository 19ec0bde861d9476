//! The crate graph: what may know what (ARCHITECTURE.md, "Walls").

use super::Finding;
use crate::shell;
use anyhow::{Context, Result};
use serde_json::Value;
use std::path::Path;

/// Package, and the packages of this workspace that it may depend on.
const WALLS: [(&str, &[&str]); 10] = [
    ("foundry-kernels", &[]),
    ("foundry-formats", &[]),
    ("foundry-data", &["foundry-formats"]),
    ("foundry-models", &["foundry-kernels", "foundry-formats"]),
    ("foundry-comm", &["foundry-kernels"]),
    ("foundry-eval", &[]),
    ("foundry-tracking", &[]),
    (
        "foundry-engine",
        &[
            "foundry-kernels",
            "foundry-formats",
            "foundry-data",
            "foundry-models",
            "foundry-comm",
            "foundry-eval",
        ],
    ),
    (
        "llm-foundry",
        &[
            "foundry-kernels",
            "foundry-formats",
            "foundry-data",
            "foundry-models",
            "foundry-comm",
            "foundry-eval",
            "foundry-engine",
            "foundry-tracking",
        ],
    ),
    ("xtask", &[]),
];

/// Asks cargo for the graph and holds it against [`WALLS`].
pub(super) fn check(root: &Path) -> Result<Vec<Finding>> {
    let mut ask = shell::cargo(&["metadata", "--no-deps", "--offline", "--format-version", "1"]);
    let metadata: Value =
        serde_json::from_str(&shell::capture(&mut ask)?).context("cargo metadata is JSON")?;
    let packages = metadata["packages"].as_array().context("cargo metadata lists packages")?;
    let mut findings = Vec::new();
    for package in packages {
        let name = package["name"].as_str().unwrap_or_default();
        let manifest = Path::new(package["manifest_path"].as_str().unwrap_or_default());
        let file = manifest.strip_prefix(root).unwrap_or(manifest).to_string_lossy().replace('\\', "/");
        let dependencies = package["dependencies"].as_array().into_iter().flatten();
        let inner: Vec<&str> = dependencies
            .filter(|dependency| !dependency["path"].is_null())
            .filter_map(|dependency| dependency["name"].as_str())
            .collect();
        findings.extend(judge(name, &inner).into_iter().map(|message| Finding {
            file: file.clone(),
            line: 1,
            message,
        }));
    }
    Ok(findings)
}

/// What is wrong with package `name` depending on `inner`.
fn judge(name: &str, inner: &[&str]) -> Vec<String> {
    let Some((_, allowed)) = WALLS.iter().find(|(package, _)| *package == name) else {
        return vec![format!("package '{name}' has no row in the table of walls (xtask/src/tidy/walls.rs)")];
    };
    let over = inner.iter().filter(|dependency| !allowed.contains(dependency));
    over.map(|dependency| format!("{name} must not know {dependency} (ARCHITECTURE.md, \"Walls\")")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dependency_upwards_is_caught() {
        assert_eq!(judge("foundry-data", &["foundry-formats"]), Vec::<String>::new());
        let said = judge("foundry-data", &["foundry-formats", "foundry-kernels"]);
        assert_eq!(said, ["foundry-data must not know foundry-kernels (ARCHITECTURE.md, \"Walls\")"]);
        assert!(judge("foundry-new", &[])[0].contains("no row"));
    }

    #[test]
    fn the_table_lists_every_crate() {
        let findings = check(&shell::root()).expect("cargo metadata runs");
        assert_eq!(findings, Vec::new());
    }
}
