//! Nothing unfinished and nothing of one machine stays in the tree.

use super::{Finding, source::Source};

/// Written in two halves, so that this file may hold them.
const MARKS: [(&str, &str); 3] = [("TO", "DO"), ("FIX", "ME"), ("XX", "X")];
const MACHINE_PATHS: [(&str, &str); 6] =
    [("/wo", "rk/"), ("/fa", "rm/"), ("/ho", "me/"), ("/ro", "ot/"), ("/Us", "ers/"), ("/tm", "p/")];
const MACROS: [&str; 3] = ["dbg", "todo", "unimplemented"];

pub(super) fn check(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (index, line) in source.text.lines().enumerate() {
        for mark in MARKS.map(|(a, b)| format!("{a}{b}")) {
            if line.split(|c: char| !c.is_alphanumeric()).any(|word| word == mark) {
                let message = format!("'{mark}' is left open: do it, or open an issue");
                findings.push(Finding::new(source, index + 1, message));
            }
        }
        for path in MACHINE_PATHS.map(|(a, b)| format!("{a}{b}")) {
            if names_path(line, &path) {
                let message = format!("a path of one machine ('{path}'): make it relative or an argument");
                findings.push(Finding::new(source, index + 1, message));
            }
        }
    }
    findings.extend(left_in_code(source));
    findings
}

/// `path` occurs as the start of an absolute path, not inside an address or a relative path.
fn names_path(line: &str, path: &str) -> bool {
    line.match_indices(path).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        before.is_none_or(|c| !c.is_alphanumeric() && !"_.-/}".contains(c))
    })
}

fn left_in_code(source: &Source) -> Vec<Finding> {
    let Some(rust) = &source.rust else { return Vec::new() };
    let mut findings = Vec::new();
    for window in rust.tokens.windows(3) {
        let [(first, line), (second, _), (third, _)] = window else { continue };
        if MACROS.contains(&first.as_str()) && second == "!" {
            findings.push(Finding::new(source, *line, format!("`{first}!` is left in the code")));
        }
        // Comparisons with the peers' own files run by hand, in the profile of that name.
        let by_hand = source.path.contains("/tests/parity_");
        if first == "#" && second == "[" && third == "ignore" && !by_hand {
            findings.push(Finding::new(source, *line, "`#[ignore]`: a test runs or does not exist"));
        }
    }
    findings
}
