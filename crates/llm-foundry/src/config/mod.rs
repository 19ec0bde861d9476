//! Reading a configuration: file and command line in, a typed [`Config`] or all that is wrong with it out. No model or
//! data file is touched here.

mod best_metric;
mod compose;
mod foreign;
mod interpolation;
mod memory;
mod optim_args;
mod overrides;
mod problem;
mod read;
mod resolved;
mod sections;
mod syntax;
mod tree;
mod validate;
mod values;
mod yaml;

pub(crate) use best_metric::BestMetric;
pub(crate) use foreign::mapping as foreign_mapping;
pub(crate) use memory::GradientCheckpointing;
pub(crate) use problem::Problems;
pub(crate) use resolved::flow as yaml_flow;
pub(crate) use sections::*;
pub(crate) use validate::{LONGEST_NAME, wrong_name, wrong_project};
pub(crate) use values::{AutoOr, Modules, TokenChoice, TokenName};
pub(crate) use yaml::scalar as yaml_scalar;

use problem::{Problem, SourceText, Sources};
use std::collections::BTreeSet;
use std::path::Path;
use tree::{Node, Place, Value};

/// A configuration that passed every check, with what the user wrote and what was filled in.
#[derive(Clone, Debug)]
pub(crate) struct Resolved {
    /// The typed sections.
    pub(crate) config: Config,
    written: Node,
    sources: Sources,
}

/// Why there is no configuration.
#[derive(Debug)]
pub(crate) enum ConfigError {
    /// The file cannot be read.
    Unreadable(String, std::io::Error),
    /// It can be read, and is wrong.
    Wrong(Box<Problems>),
}

/// Reads the file at `path` with all that it builds on, and applies the overrides.
pub(crate) fn load(path: &Path, overrides: &[String]) -> Result<Resolved, ConfigError> {
    let name = path.display().to_string();
    let text = read_text(path).map_err(|error| ConfigError::Unreadable(name.clone(), error))?;
    from_text(&name, text, overrides)
}

/// The text of a file; an error where it is not UTF-8.
fn read_text(path: &Path) -> std::io::Result<String> {
    String::from_utf8(std::fs::read(path)?).map_err(|error| {
        let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = valid.iter().filter(|&&b| b == b'\n').count() + 1;
        let what = format!("line {line} is not UTF-8 text");
        std::io::Error::new(std::io::ErrorKind::InvalidData, what)
    })
}

fn not_yaml(file: usize, text: &str, error: &yaml::SyntaxError) -> Problem {
    let help = syntax::help(text, error);
    let message = format!("this is not YAML: {}", error.message);
    Problem { place: Some(Place::File(file, error.at..error.at)), message, help }
}

/// Reads a configuration from its text.
pub(crate) fn from_text(name: &str, text: String, overrides: &[String]) -> Result<Resolved, ConfigError> {
    let main = SourceText { name: name.to_owned(), text };
    let mut sources = Sources { files: vec![main], arguments: overrides.to_vec() };
    let wrong = |list, sources| Err(ConfigError::Wrong(Box::new(Problems { list, sources })));
    let mut own = match yaml::parse(&sources.files[0].text, &|r| Place::File(0, r)) {
        Ok(own) => own,
        Err(error) => {
            let problem = not_yaml(0, &sources.files[0].text, &error);
            return wrong(vec![problem], sources);
        }
    };
    let known = known_paths();
    // What the file is made of can be overridden too (`preset=trl`), but only before it is put together.
    let mut problems = overrides::apply(&mut own, overrides, &known, overrides::Which::Composition);
    let (mut tree, more) = compose::compose(Path::new(name), own, &mut sources);
    problems.extend(more);
    problems.extend(overrides::apply(&mut tree, overrides, &known, overrides::Which::Values));
    problems.extend(interpolation::resolve(&mut tree, &defaults(), &|name| std::env::var(name).ok()));
    let (config, more, shortened) = read::read_all::<Config>(tree.clone(), &known);
    problems.extend(more);
    if let Some(config) = &config {
        // What was unreadable has been replaced by its default: rules about it would only confuse.
        let readable = problems.is_empty();
        let told: Vec<Place> = problems.iter().filter_map(|p| p.place.clone()).chain(shortened).collect();
        // So would rules about a section that is no section at all.
        let unreadable: Vec<String> = sections_that_are_none(&tree);
        let is_readable =
            |p: &Problem| !unreadable.iter().any(|section| p.message.contains(section.as_str()));
        let is_new =
            |p: &Problem| is_readable(p) && p.place.as_ref().map_or(readable, |place| !told.contains(place));
        problems.extend(validate::check(config, &tree).into_iter().filter(is_new));
    }
    problems.iter_mut().for_each(|problem| hint_at_sweeps(problem, overrides));
    hint_at_import(&mut problems, &sources);
    problems.sort_by_key(|p| p.place.as_ref().map_or((usize::MAX, 0), Place::order));
    problems.dedup();
    match config {
        Some(mut config) if problems.is_empty() => {
            config.data.given = given(&tree, "data", &sources);
            Ok(Resolved { config, written: tree, sources })
        }
        _ => wrong(problems, sources),
    }
}

/// The keys of a section that were written, those of items of a list as `key.0.key`. What an earlier run has filled in
/// and marked `# default` in its `config.resolved.yaml` was not; in other files that is a remark.
fn given(tree: &Node, section: &str, sources: &Sources) -> BTreeSet<String> {
    fn add(entry: &tree::Entry, before: &str, sources: &Sources, keys: &mut BTreeSet<String>) {
        let is_filled_in = match &entry.key_place {
            Place::File(file, range) => {
                let text = &sources.files[*file].text;
                let rest = text.get(range.start..).unwrap_or_default();
                text.starts_with(resolved::WRITTEN)
                    && rest.lines().next().is_some_and(|line| line.trim_end().ends_with(" # default"))
            }
            Place::Argument(..) => false,
        };
        if is_filled_in || entry.node.value == Value::Null {
            return;
        }
        let key = format!("{before}{}", entry.key);
        if let Value::List(items) = &entry.node.value {
            for (index, item) in items.iter().enumerate() {
                if let Value::Map(entries) = &item.value {
                    entries.iter().for_each(|e| add(e, &format!("{key}.{index}."), sources, keys));
                }
            }
        }
        keys.insert(key);
    }
    let mut keys = BTreeSet::new();
    if let Some(Node { value: Value::Map(entries), .. }) = tree.at(&[section]) {
        entries.iter().for_each(|entry| add(entry, "", sources, &mut keys));
    }
    keys
}

/// Beginnings of the paths of sections that hold something else than keys.
fn sections_that_are_none(tree: &Node) -> Vec<String> {
    let Value::Map(entries) = &tree.value else { return Vec::new() };
    let is_none = |entry: &&tree::Entry| !matches!(entry.node.value, Value::Map(_) | Value::Null);
    entries.iter().filter(is_none).map(|entry| format!("`{}.", entry.key)).collect()
}

/// A configuration of another program has other keys, and one remedy for all of them.
fn hint_at_import(problems: &mut [Problem], sources: &Sources) {
    let Some(first) = problems.iter_mut().find(|p| p.message.starts_with("unknown key `")) else { return };
    let file = &sources.files[0];
    let program = foreign_mapping(&file.text).ok().and_then(|keys| crate::import::Program::of(&keys));
    if let Some(program) = program {
        first.help = Some(format!(
            "this looks like a configuration of {}: `llm-foundry import-config {}` turns it into one of ours",
            program.name(),
            file.name
        ));
    }
}

/// `key=a,b` on the command line is several values for Hydra, and for `--multirun`.
fn hint_at_sweeps(problem: &mut Problem, overrides: &[String]) {
    let Some(Place::Argument(index, _)) = problem.place else { return };
    let value = overrides[index].split_once('=').map_or("", |(_, value)| value);
    if problem.help.is_none() && value.contains(',') && !value.starts_with(['[', '{', '"', '\'']) {
        problem.help = Some("to try several values one after another: train --multirun".into());
    }
}

/// `lora:` with everything below it commented out would silently mean full fine-tuning.
fn empty_sections(tree: &Node) -> Vec<Problem> {
    let Some(entry) = tree.entry(&["lora"]).filter(|e| e.node.value == Value::Null) else {
        return Vec::new();
    };
    if matches!(entry.key_place, Place::Argument(..)) {
        // `lora=null` on the command line is how to turn the file's section off.
        return Vec::new();
    }
    vec![Problem {
        place: Some(entry.key_place.clone()),
        message: "section `lora` is empty".into(),
        help: Some(
            "write `lora: {}` for an adapter with default values, or delete the line for full fine-tuning"
                .into(),
        ),
    }]
}

/// A configuration with every section, and each key at its default.
fn complete() -> serde_json::Map<String, serde_json::Value> {
    let complete = Config { lora: Some(LoraSection::default()), ..Config::default() };
    match serde_json::to_value(complete).expect("a configuration is plain data") {
        serde_json::Value::Object(sections) => sections,
        _ => unreachable!("a struct is an object"),
    }
}

/// Every key at its default, for references to keys that were not written.
fn defaults() -> Node {
    // JSON is YAML.
    let text = serde_json::Value::Object(complete()).to_string();
    yaml::parse(&text, &|r| Place::File(0, r)).expect("JSON is YAML")
}

/// Every path of a configuration, sections first: what overrides and suggestions may name.
fn known_paths() -> Vec<String> {
    let sections = complete();
    let mut paths: Vec<String> = sections.keys().cloned().collect();
    paths.extend(compose::KEYS.map(str::to_owned));
    for (section, value) in sections {
        if let serde_json::Value::Object(keys) = &value {
            paths.extend(keys.keys().map(|key| format!("{section}.{key}")));
        }
    }
    paths
}
