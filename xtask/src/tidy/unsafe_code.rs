//! `unsafe` lives in three places, and each use says why it is sound.

use super::{Finding, source::Source};

const PLACES: [&str; 3] =
    ["crates/kernels/src/simd/", "crates/kernels/src/buffer.rs", "crates/formats/src/mmap.rs"];
/// A statement may begin this many lines before its `unsafe`.
const REACH: usize = 3;

pub(super) fn check(source: &Source) -> Vec<Finding> {
    let Some(rust) = &source.rust else { return Vec::new() };
    let allowed = PLACES.iter().any(|place| source.path.starts_with(place));
    let lines: Vec<&str> = source.text.lines().collect();
    let uses = rust.tokens.iter().filter(|(token, _)| token == "unsafe").map(|&(_, line)| line);
    let judged = uses.filter_map(|line| {
        if !allowed {
            let message = format!("`unsafe` belongs in {} only", PLACES.join(", "));
            return Some(Finding::new(source, line, message));
        }
        let message = "`unsafe` with no `SAFETY:` comment above it: say why it is sound";
        (!has_reason(&lines, line)).then(|| Finding::new(source, line, message))
    });
    judged.collect()
}

/// The line itself, or the nearest comment block above it, says `SAFETY:` (a function's documentation: `# Safety`).
fn has_reason(lines: &[&str], line: usize) -> bool {
    let says = |text: &str| text.contains("SAFETY:") || text.contains("# Safety");
    if says(lines[line - 1]) {
        return true;
    }
    let mut code_between = 0;
    let mut in_comment = false;
    for text in lines[..line - 1].iter().rev().map(|text| text.trim_start()) {
        if text.starts_with("//") {
            in_comment = true;
            if says(text) {
                return true;
            }
        } else if in_comment || text.is_empty() {
            return false;
        } else if !text.starts_with("#[") {
            code_between += 1;
            if code_between > REACH {
                return false;
            }
        }
    }
    false
}
