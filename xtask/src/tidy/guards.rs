//! ARCHITECTURE.md names a test for each invariant, as `crate/path.rs::test`. The tests exist.

use super::{Finding, source::Source};
use std::fs;
use std::path::Path;

/// What is wrong with the tests that `document` names; their files lie below `crates`.
pub(super) fn check(document: &Source, crates: &Path) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (index, line) in document.text.lines().enumerate() {
        // Odd pieces stand between backticks.
        for name in line.split('`').skip(1).step_by(2) {
            let Some((file, test)) = name.split_once(".rs::") else { continue };
            let text = fs::read_to_string(crates.join(format!("{file}.rs"))).unwrap_or_default();
            if !text.contains(&format!("fn {test}(")) {
                let message =
                    format!("there is no test `{test}` in crates/{file}.rs: name the one that guards this");
                findings.push(Finding::new(document, index + 1, message));
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shell;

    #[test]
    fn a_test_that_is_gone_is_caught() {
        let text = "`kernels/src/pool.rs::no_such_test`\n`kernels/src/pool.rs::new` and `pool.rs`\n";
        let document = Source::new("ARCHITECTURE.md", text.to_string()).expect("no Rust to parse");
        let findings = check(&document, &shell::root().join("crates"));
        assert_eq!(findings.iter().map(|finding| finding.line).collect::<Vec<_>>(), [1]);
    }
}
