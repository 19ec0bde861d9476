//! Composition: one configuration out of several files and built-in presets.
//!
//! Three keys at the top of a file say what it is made of, and are gone afterwards:
//! - `extends: base.yaml` (or a list): files that this one builds on, the first lowest;
//! - `defaults: [base.yaml, lora: small, preset: trl, _self_]`: Hydra's list. `lora: small` is the file
//!   `lora/small.yaml`
//!   beside this one, read as the section `lora`; `_self_` is this file (last, and so strongest, where it is left out,
//!   as in Hydra 1.1 and later);
//! - `preset: trl`: a built-in set of defaults. Presets lie below every file, wherever they are named.
//!
//! Paths are relative to the file that names them. Mappings are merged key by key; a list replaces a list.

use super::problem::{Problem, SourceText, Sources, nearest};
use super::tree::{Entry, Node, Place, Value};
use super::{empty_sections, yaml};
use std::path::{Path, PathBuf};

/// The keys that this module takes out of a file.
pub(crate) const KEYS: [&str; 3] = ["extends", "defaults", "preset"];

/// Built-in presets: name, text.
const PRESETS: [(&str, &str); 2] =
    [("trl", include_str!("presets/trl.yaml")), ("unsloth", include_str!("presets/unsloth.yaml"))];

/// Files that extend each other deeper than this are a mistake.
const DEEPEST: usize = 16;
/// More files than this are a mistake, too.
const MOST_FILES: usize = 64;

/// Composes the tree of the file at `path`, whose own tree is `own`.
pub(crate) fn compose(path: &Path, own: Node, sources: &mut Sources) -> (Node, Vec<Problem>) {
    let mut composer = Composer { sources, problems: Vec::new(), presets: Vec::new(), open: Vec::new() };
    composer.open.push(identity(path));
    let mut tree = composer.layers(path, own);
    let Composer { presets, mut problems, sources, .. } = composer;
    let mut bottom = Node { value: Value::Map(Vec::new()), place: tree.place.clone() };
    for (name, place) in presets {
        match preset(&name, sources) {
            Some(node) => bottom.merge(node),
            None => problems.push(unknown_preset(&name, place)),
        }
    }
    // A preset describes adapters; it does not decide that there is one.
    let has_adapter = tree.at(&["lora"]).is_some_and(|lora| lora.value != Value::Null)
        || sources.arguments.iter().any(|a| a.trim_start_matches('+').starts_with("lora"));
    if !has_adapter {
        bottom.remove(&["lora".to_owned()]);
    }
    bottom.merge(std::mem::replace(&mut tree, Node { value: Value::Null, place: Place::File(0, 0..0) }));
    (bottom, problems)
}

fn preset(name: &str, sources: &mut Sources) -> Option<Node> {
    let (_, text) = PRESETS.iter().find(|(known, _)| *known == name)?;
    let index = sources.files.len();
    sources.files.push(SourceText { name: format!("preset {name}"), text: (*text).to_owned() });
    Some(yaml::parse(text, &|r| Place::File(index, r)).expect("a built-in preset is YAML"))
}

fn unknown_preset(name: &str, place: Place) -> Problem {
    let names = PRESETS.map(|(name, _)| name);
    let help = match nearest(name, names.into_iter()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("possible: {}", names.join(", ")),
    };
    Problem { place: Some(place), message: format!("unknown preset `{name}`"), help: Some(help) }
}

/// What tells whether two paths are one file.
fn identity(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_path_buf())
}

/// One member of a file's composition, lowest first.
enum Layer {
    /// Another file, read whole or as one section.
    File { path: PathBuf, section: Option<String>, place: Place },
    /// The file itself.
    Own,
}

struct Composer<'a> {
    sources: &'a mut Sources,
    problems: Vec<Problem>,
    /// Presets in the order in which they were named.
    presets: Vec<(String, Place)>,
    /// The files that are being composed, outermost first.
    open: Vec<PathBuf>,
}

impl Composer<'_> {
    fn problem(&mut self, place: &Place, message: impl Into<String>, help: &str) {
        self.problems.push(Problem {
            place: Some(place.clone()),
            message: message.into(),
            help: Some(help.into()),
        });
    }

    /// The tree of one file with everything below it.
    fn layers(&mut self, path: &Path, mut own: Node) -> Node {
        let mut layers = Vec::new();
        let mut is_composed = false;
        for key in KEYS {
            let Some(entry) = own.take(key) else { continue };
            match key {
                "preset" => self.preset_names(&entry.node),
                _ if std::mem::replace(&mut is_composed, true) => {
                    self.problem(
                        &entry.key_place,
                        "`extends` and `defaults` are both given",
                        "write all of it into one of the two",
                    );
                }
                "extends" => layers = self.extended(path, &entry.node),
                _ => layers = self.default_list(path, &entry.node),
            }
        }
        if !layers.iter().any(|layer| matches!(layer, Layer::Own)) {
            layers.push(Layer::Own);
        }
        let mut tree = Node { value: Value::Map(Vec::new()), place: own.place.clone() };
        let mut own = Some(own);
        for layer in layers {
            let over = match layer {
                Layer::Own => {
                    let Some(own) = own.take() else { continue };
                    let turned_off = tree.at(&["lora"]).is_some_and(|l| matches!(l.value, Value::Map(_)));
                    if !turned_off {
                        self.problems.extend(empty_sections(&own));
                    }
                    Some(own)
                }
                Layer::File { path, section, place } => self.file(&path, section, &place),
            };
            if let Some(over) = over {
                tree.merge(over);
            }
        }
        tree
    }

    fn preset_names(&mut self, node: &Node) {
        let items = match &node.value {
            Value::List(items) => items.as_slice(),
            _ => std::slice::from_ref(node),
        };
        for item in items {
            match &item.value {
                Value::Text(name) => self.presets.push((name.clone(), item.place.clone())),
                other => {
                    let message = format!("`preset` must be a name, found {}", other.describe());
                    self.problem(&item.place, message, "write `preset: trl`");
                }
            }
        }
    }

    /// The files of `extends`.
    fn extended(&mut self, from: &Path, node: &Node) -> Vec<Layer> {
        let items = match &node.value {
            Value::List(items) => items.as_slice(),
            _ => std::slice::from_ref(node),
        };
        items.iter().filter_map(|item| self.named(from, item)).collect()
    }

    /// A file named by a text.
    fn named(&mut self, from: &Path, item: &Node) -> Option<Layer> {
        let Value::Text(name) = &item.value else {
            let message = format!("expected the path of a file, found {}", item.value.describe());
            self.problem(&item.place, message, "write, for example, `extends: base.yaml`");
            return None;
        };
        Some(Layer::File { path: beside(from, name), section: None, place: item.place.clone() })
    }

    /// The members of `defaults`.
    fn default_list(&mut self, from: &Path, node: &Node) -> Vec<Layer> {
        let Value::List(items) = &node.value else {
            let message = format!("`defaults` must be a list, found {}", node.value.describe());
            self.problem(&node.place, message, "write `defaults: [base.yaml, _self_]`");
            return Vec::new();
        };
        let mut layers = Vec::new();
        for item in items {
            match &item.value {
                Value::Text(name) if name == "_self_" => layers.push(Layer::Own),
                Value::Text(_) => layers.extend(self.named(from, item)),
                Value::Map(entries) if entries.len() == 1 => {
                    layers.extend(self.group(from, &entries[0]));
                }
                other => {
                    let message = format!(
                        "a member of `defaults` is a file or `section: file`, not {}",
                        other.describe()
                    );
                    self.problem(&item.place, message, "write `- base.yaml`, `- lora: small` or `- _self_`");
                }
            }
        }
        layers
    }

    /// `section: name`: the file `section/name.yaml`, read as that section. `optional section: name` may be missing.
    fn group(&mut self, from: &Path, entry: &Entry) -> Option<Layer> {
        let (optional, section) = match entry.key.strip_prefix("optional ") {
            Some(section) => (true, section.trim()),
            None => (false, entry.key.as_str()),
        };
        if section == "preset" {
            self.preset_names(&entry.node);
            return None;
        }
        let name = match &entry.node.value {
            Value::Text(name) => name,
            Value::Null => return None,
            other => {
                let message = format!("`{}` must name a file, found {}", entry.key, other.describe());
                self.problem(&entry.node.place, message, "write, for example, `- lora: small`");
                return None;
            }
        };
        let path = beside(from, &format!("{section}/{name}"));
        if optional && !path.is_file() {
            return None;
        }
        Some(Layer::File { path, section: Some(section.to_owned()), place: entry.node.place.clone() })
    }

    /// Reads and composes another file.
    fn file(&mut self, path: &Path, section: Option<String>, place: &Place) -> Option<Node> {
        let name = path.display().to_string();
        let identity = identity(path);
        if self.open.contains(&identity) {
            self.problem(place, format!("{name} builds on itself"), "break the circle of `extends`");
            return None;
        }
        if self.open.len() >= DEEPEST || self.sources.files.len() >= MOST_FILES {
            self.problem(place, "too many files build on each other", "write fewer, larger files");
            return None;
        }
        let text = match super::read_text(path) {
            Ok(text) => text,
            Err(error) => {
                self.problem(
                    place,
                    format!("cannot read {name}: {error}"),
                    "give a path relative to this file",
                );
                return None;
            }
        };
        let index = self.sources.files.len();
        self.sources.files.push(SourceText { name, text: text.clone() });
        let tree = match yaml::parse(&text, &|r| Place::File(index, r)) {
            Ok(tree) => tree,
            Err(error) => {
                self.problems.push(super::not_yaml(index, &text, &error));
                return None;
            }
        };
        self.open.push(identity);
        let tree = self.layers(path, tree);
        self.open.pop();
        Some(match section {
            None => tree,
            Some(key) => {
                let at = tree.place.clone();
                let entry = Entry { key, key_place: place.clone(), node: tree };
                Node { value: Value::Map(vec![entry]), place: at }
            }
        })
    }
}

/// A path relative to the folder of `from`. As in Hydra, `.yaml` may be left out.
fn beside(from: &Path, name: &str) -> PathBuf {
    let folder = from.parent().unwrap_or(Path::new(""));
    let endings = ["", ".yaml", ".yml"].map(|ending| folder.join(format!("{name}{ending}")));
    endings.iter().find(|path| path.is_file()).unwrap_or(&endings[0]).clone()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn presets_are_configurations() {
        for (name, text) in PRESETS {
            // Every key exists and every value is allowed; a model and data are still missing.
            let own = "model: {name_or_path: m}\ndata: {train: t.jsonl}\nlora: {}\n";
            let whole = format!("preset: {name}\n{own}");
            let resolved = super::super::from_text("test.yaml", whole, &[]).expect(name);
            let written = yaml::parse(text, &|r| Place::File(0, r)).expect(name);
            let learning_rate = written.at(&["training", "learning_rate"]).expect("a learning rate");
            let Value::Float(rate) = learning_rate.value else { panic!("a number") };
            assert_eq!(resolved.config.training.learning_rate, Some(rate), "{name}");
        }
    }

    #[test]
    fn a_preset_brings_no_adapter_of_its_own() {
        let text = "preset: trl\nmodel: {name_or_path: m}\ndata: {train: t.jsonl}\n";
        let whole =
            |more: &[String]| super::super::from_text("test.yaml", text.into(), more).expect("right").config;
        assert!(whole(&[]).lora.is_none());
        let lora = whole(&["lora.r=4".into()]).lora.expect("asked for");
        assert_eq!((lora.r, lora.lora_dropout), (4, 0.05));
    }
}
