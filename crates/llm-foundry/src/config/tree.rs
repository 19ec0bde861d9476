//! The configuration as it was written: values with the place of every key and value, and nothing decided yet.

use std::ops::Range;

/// Where something was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Bytes of the n-th text of [`Sources`](super::problem::Sources): the configuration file is number 0, those that
    /// it extends and presets follow.
    File(usize, Range<usize>),
    /// Bytes of the n-th override on the command line.
    Argument(usize, Range<usize>),
}

impl Place {
    /// Reading order: files before the command line, then by position.
    pub(crate) fn order(&self) -> (usize, usize) {
        const COMMAND_LINE: usize = usize::MAX / 2;
        match self {
            Place::File(file, range) => (*file, range.start),
            Place::Argument(index, range) => (COMMAND_LINE + index, range.start),
        }
    }
}

/// A value and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Node {
    pub(crate) value: Value,
    pub(crate) place: Place,
}

/// A YAML value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Int(i128),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// One `key: value` of a mapping.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) key_place: Place,
    pub(crate) node: Node,
}

impl Value {
    /// For messages: what this is, with the value where it is short.
    pub(crate) fn describe(&self) -> String {
        match self {
            Value::Null => "nothing (null)".into(),
            Value::Bool(b) => format!("the truth value `{b}`"),
            Value::Int(i) => format!("the number `{i}`"),
            Value::Float(x) => format!("the number `{x}`"),
            Value::Text(s) => format!("the text `{}`", shortened(s)),
            Value::List(_) => "a list".into(),
            Value::Map(_) => "a mapping".into(),
        }
    }
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(40) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.into(),
    }
}

impl Node {
    /// The node at a path of keys.
    pub(crate) fn at(&self, path: &[&str]) -> Option<&Node> {
        path.iter().try_fold(self, |node, key| match &node.value {
            Value::Map(entries) => entries.iter().find(|e| e.key == *key).map(|e| &e.node),
            _ => None,
        })
    }

    /// The entry at a path of keys.
    pub(crate) fn entry(&self, path: &[&str]) -> Option<&Entry> {
        let (last, parents) = path.split_last()?;
        match &self.at(parents)?.value {
            Value::Map(entries) => entries.iter().find(|e| e.key == *last),
            _ => None,
        }
    }

    /// Takes the entry at a path of keys out of the tree.
    pub(crate) fn remove(&mut self, path: &[String]) -> Option<Entry> {
        let (first, rest) = path.split_first()?;
        let Value::Map(entries) = &mut self.value else { return None };
        let at = entries.iter().position(|e| e.key == *first)?;
        if rest.is_empty() { Some(entries.remove(at)) } else { entries[at].node.remove(rest) }
    }

    /// Lays `over` over this tree: mappings are merged key by key, everything else replaces what is here.
    pub(crate) fn merge(&mut self, over: Node) {
        match (&mut self.value, over.value) {
            (Value::Map(here), Value::Map(entries)) => {
                for entry in entries {
                    match here.iter_mut().find(|e| e.key == entry.key) {
                        Some(old) => {
                            old.key_place = entry.key_place;
                            old.node.merge(entry.node);
                        }
                        None => here.push(entry),
                    }
                }
            }
            (_, value) => *self = Node { value, place: over.place },
        }
    }

    /// Sets the value at a path of keys, making mappings on the way. A value that is in the way (a scalar where a
    /// mapping is needed) is returned as the length of the path that leads to it.
    pub(crate) fn set(&mut self, path: &[(String, Place)], node: Node) -> Result<(), usize> {
        let Some(((key, key_place), rest)) = path.split_first() else {
            *self = node;
            return Ok(());
        };
        if self.value == Value::Null {
            self.value = Value::Map(Vec::new());
        }
        let Value::Map(entries) = &mut self.value else { return Err(0) };
        let at = entries.iter().position(|e| e.key == *key).unwrap_or_else(|| {
            let empty = Node { value: Value::Null, place: key_place.clone() };
            entries.push(Entry { key: key.clone(), key_place: key_place.clone(), node: empty });
            entries.len() - 1
        });
        if rest.is_empty() {
            entries[at].key_place = key_place.clone();
        }
        entries[at].node.set(rest, node).map_err(|depth| depth + 1)
    }
}
