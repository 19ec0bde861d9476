//! Each file of a crate opens with what it is for.

use super::{Finding, source::Source};

pub(super) fn check(source: &Source) -> Vec<Finding> {
    let ours = source.path.starts_with("crates/") || source.path.starts_with("xtask/");
    if source.rust.is_none() || !ours || !source.path.contains("/src/") {
        return Vec::new();
    }
    let opening = source.text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
    if opening.starts_with("//!") {
        return Vec::new();
    }
    vec![Finding::new(source, 1, "starts without a `//!` comment: say in a line what the file is for")]
}
