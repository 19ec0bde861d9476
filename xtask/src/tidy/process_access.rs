//! Only the binary prints, reads argv or the environment, and ends the process.

use super::{Finding, source::Source};

const PRINTS: [&str; 4] = ["println", "eprintln", "print", "eprint"];
const PROCESS: [&str; 2] = ["env", "process"];
const MAY: [&str; 2] = ["crates/llm-foundry/", "xtask/"];

pub(super) fn check(source: &Source) -> Vec<Finding> {
    let Some(rust) = &source.rust else { return Vec::new() };
    if MAY.iter().any(|place| source.path.starts_with(place)) {
        return Vec::new();
    }
    let tokens: Vec<(&str, usize)> =
        rust.tokens.iter().map(|(token, line)| (token.as_str(), *line)).collect();
    let mut findings = Vec::new();
    for (index, &(token, line)) in tokens.iter().enumerate() {
        if source.is_test(line) {
            continue;
        }
        if PRINTS.contains(&token) && tokens.get(index + 1).is_some_and(|next| next.0 == "!") {
            let message = format!("`{token}!`: only the binary prints; return it, or hand it to a callback");
            findings.push(Finding::new(source, line, message));
        }
        if token == "std" && follows(&tokens, index, ":") {
            for (name, line) in roots(&tokens[index + 3..]) {
                if PROCESS.contains(&name) {
                    let message =
                        format!("`std::{name}`: only the binary asks the process; take it as an argument");
                    findings.push(Finding::new(source, line, message));
                }
            }
        }
    }
    findings
}

/// `std` is followed by `::`.
fn follows(tokens: &[(&str, usize)], index: usize, colon: &str) -> bool {
    [1, 2].iter().all(|step| tokens.get(index + step).is_some_and(|token| token.0 == colon))
}

/// The modules named right after `std::`: one, or those at the top of a `{…}` list.
fn roots<'a>(tokens: &[(&'a str, usize)]) -> Vec<(&'a str, usize)> {
    match tokens.first() {
        Some(&("{", _)) => {}
        Some(&first) => return vec![first],
        None => return Vec::new(),
    }
    let (mut depth, mut at_start, mut found) = (0, true, Vec::new());
    for &(token, line) in tokens {
        match token {
            "{" => depth += 1,
            "}" => depth -= 1,
            "," => at_start = true,
            name if depth == 1 && at_start => {
                found.push((name, line));
                at_start = false;
            }
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    found
}
