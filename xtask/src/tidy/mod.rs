//! `cargo xtask tidy`: the rules of the house that a machine can check, each with file, line and what to do.
//!
//! One rule, one file. A rule looks at one [`Source`] and returns what it finds; `walls` looks at the crate graph,
//! `guards` at the tests that ARCHITECTURE.md names.

mod guards;
mod leftovers;
mod lengths;
mod module_docs;
mod names;
mod process_access;
mod source;
mod unsafe_code;
mod walls;

use crate::shell;
use anyhow::{Context, Result, bail, ensure};
use source::Source;
use std::fs;
use std::path::{Path, PathBuf};

/// Something that breaks a rule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Finding {
    file: String,
    line: usize,
    message: String,
}

impl Finding {
    fn new(source: &Source, line: usize, message: impl Into<String>) -> Self {
        Self { file: source.path.clone(), line, message: message.into() }
    }
}

/// Folders that hold nothing of ours. Hidden folders are left out too, except those named in [`HIDDEN`].
const NOT_OURS: [&str; 4] = ["target", "runs", "outputs", "__pycache__"];
const HIDDEN: [&str; 3] = [".ci", ".config", ".cargo"];
/// Files that people read and write; data and fixtures are judged by tests.
const READ_BY_PEOPLE: [&str; 6] = ["rs", "md", "toml", "yaml", "py", "jinja"];

pub(crate) fn run(args: &[String]) -> Result<()> {
    ensure!(args.is_empty(), "`cargo xtask tidy` takes no arguments");
    let root = shell::root();
    let mut files = Vec::new();
    collect(&root, &root, &mut files)?;
    let mut findings = Vec::new();
    for file in &files {
        let text = fs::read_to_string(root.join(file)).with_context(|| format!("cannot read {file}"))?;
        match Source::new(file, text) {
            Ok(source) => {
                findings.extend(judge(&source));
                if file == "ARCHITECTURE.md" {
                    findings.extend(guards::check(&source, &root.join("crates")));
                }
            }
            Err(finding) => findings.push(finding),
        }
    }
    findings.extend(walls::check(&root)?);
    findings.sort();
    for Finding { file, line, message } in &findings {
        println!("{file}:{line}: {message}");
    }
    if !findings.is_empty() {
        bail!("{} of the house rules broken (listed above)", findings.len());
    }
    println!("      {} files follow the house rules", files.len());
    Ok(())
}

/// Every rule on one file.
fn judge(source: &Source) -> Vec<Finding> {
    let rules = [
        lengths::check,
        unsafe_code::check,
        names::check,
        process_access::check,
        leftovers::check,
        module_docs::check,
    ];
    rules.iter().flat_map(|rule| rule(source)).collect()
}

/// Paths, relative to `root` and with `/`, of the files that people read.
fn collect(root: &Path, folder: &Path, files: &mut Vec<String>) -> Result<()> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?;
    let mut paths: Vec<PathBuf> = entries.filter_map(|entry| entry.ok().map(|entry| entry.path())).collect();
    paths.sort();
    for path in paths {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let hidden = name.starts_with('.') && !HIDDEN.contains(&name.as_str());
        if path.is_dir() {
            if !hidden && !NOT_OURS.contains(&name.as_str()) {
                collect(root, &path, files)?;
            }
            continue;
        }
        let extension = path.extension().unwrap_or_default().to_string_lossy();
        if READ_BY_PEOPLE.contains(&extension.as_ref()) || path.parent() == Some(&root.join(".ci")) {
            let relative = path.strip_prefix(root).expect("found below the root");
            files.push(relative.to_string_lossy().replace('\\', "/"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the rules say of a snippet, were it the file `path`.
    fn said(path: &str, text: &str) -> Vec<String> {
        let source = Source::new(path, text.to_string()).expect("the snippet is Rust");
        judge(&source).into_iter().map(|finding| format!("{}: {}", finding.line, finding.message)).collect()
    }

    fn caught(path: &str, text: &str, part: &str) {
        let found = said(path, text);
        assert!(found.iter().any(|message| message.contains(part)), "expected '{part}' in {found:?}");
    }

    fn passes(path: &str, text: &str) {
        let found = said(path, text);
        assert!(found.is_empty(), "{found:?}");
    }

    #[test]
    fn a_good_file_passes() {
        passes("crates/data/src/lib.rs", "//! Rows.\n\n/// One.\npub fn one() -> u32 {\n    1\n}\n");
    }

    #[test]
    fn long_files_lines_and_functions_are_caught() {
        let lines = "//! A.\n".to_string() + &"// x\n".repeat(600);
        caught("crates/data/src/a.rs", &lines, "601 lines");
        let function = format!("//! A.\nfn long() {{\n{}}}\n", "    work();\n".repeat(69));
        caught("crates/data/src/a.rs", &function, "2: function `long` has 71 lines");
        let wide = format!("//! A.\n// {}\n", "w".repeat(118));
        caught("crates/data/src/a.rs", &wide, "2: 121 columns");
        let method = format!("//! A.\nimpl A {{\nfn long() {{\n{}}}\n}}\n", "work();\n".repeat(69));
        caught("crates/data/src/a.rs", &method, "3: function `long`");
    }

    #[test]
    fn a_family_is_a_short_table() {
        let table = "//! A.\n".to_string() + &"// x\n".repeat(120);
        caught("crates/models/src/families/llama.rs", &table, "121 lines");
        passes("crates/models/src/families/mod.rs", &table);
    }

    #[test]
    fn unsafe_is_caught_outside_its_places_and_without_a_reason() {
        let bare = "//! A.\nfn f() {\n    unsafe { g() }\n}\n";
        let reasoned = "//! A.\nfn f() {\n    // SAFETY: because.\n    unsafe { g() }\n}\n";
        caught("crates/models/src/a.rs", reasoned, "4: `unsafe` belongs");
        caught("crates/kernels/src/simd/a.rs", bare, "no `SAFETY:` comment");
        passes("crates/kernels/src/simd/a.rs", reasoned);
        let split = "//! A.\nfn f() {\n    // SAFETY: a reason\n    // of two lines.\n    let x =\n"
            .to_string()
            + "        unsafe { g() };\n}\n";
        passes("crates/formats/src/mmap.rs", &split);
        let in_macro = "//! A.\nmacro_rules! m { () => { unsafe { g() } } }\n";
        caught("crates/data/src/a.rs", in_macro, "`unsafe`");
    }

    #[test]
    fn folders_without_a_noun_are_caught() {
        caught("crates/data/src/utils.rs", "//! A.\n", "1: 'utils'");
        caught("crates/data/tests/common/mod.rs", "//! A.\n", "'common'");
        caught("crates/data/src/a.rs", "//! A.\nmod helpers {\n}\n", "2: 'helpers'");
        passes("crates/data/src/commonplace.rs", "//! A.\n");
    }

    #[test]
    fn only_the_binary_prints_and_asks_the_process() {
        let prints = "//! A.\nfn f() {\n    println!(\"x\");\n}\n";
        caught("crates/engine/src/a.rs", prints, "3: `println!`");
        passes("crates/llm-foundry/src/a.rs", prints);
        passes("crates/engine/tests/a.rs", prints);
        caught("crates/engine/src/a.rs", "//! A.\nuse std::{fs, env};\n", "2: `std::env`");
        caught("crates/engine/src/a.rs", "//! A.\nfn f() { std::process::exit(1) }\n", "2: `std::process`");
        let tested = "//! A.\n#[cfg(test)]\nmod tests {\n    fn f() { std::env::temp_dir(); }\n}\n";
        passes("crates/engine/src/a.rs", tested);
    }

    #[test]
    fn what_was_left_behind_is_caught() {
        let open = ["TO", "DO"].concat();
        caught("crates/data/src/a.rs", &format!("//! A.\n// {open}: more\n"), "2: ");
        caught("docs/a.md", &format!("{open}\n"), "1: ");
        caught("crates/data/src/a.rs", "//! A.\nfn f() { todo!() }\n", "2: `todo!`");
        caught("crates/data/src/a.rs", "//! A.\n#[ignore = \"slow\"]\nfn f() {}\n", "2: `#[ignore]`");
        passes("crates/data/src/a.rs", "//! A.\nconst IGNORED: i32 = -100;\nfn ignore(ignore: i32) {}\n");
        let path = ["/ho", "me/me/model"].concat();
        caught("README.md", &format!("see `{path}`\n"), "1: a path of one machine");
        passes("README.md", "https://example.org/home/model and ./tmp/x\n");
    }

    #[test]
    fn a_file_says_what_it_is_for() {
        caught("crates/data/src/a.rs", "fn f() {}\n", "1: starts without");
        passes("crates/data/src/a.rs", "\n//! Late, but there.\n");
        passes("crates/data/examples/a.rs", "fn f() {}\n");
    }
}
