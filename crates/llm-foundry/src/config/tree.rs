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
    /// The node at a path of keys; items of a list are counted from 0.
    pub(crate) fn at(&self, path: &[&str]) -> Option<&Node> {
        path.iter().try_fold(self, |node, key| match &node.value {
            Value::Map(entries) => entries.iter().find(|e| e.key == *key).map(|e| &e.node),
            Value::List(items) => items.get(key.parse::<usize>().ok()?),
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

    /// Takes the entry of a key out of a mapping.
    pub(crate) fn take(&mut self, key: &str) -> Option<Entry> {
        let Value::Map(entries) = &mut self.value else { return None };
        let at = entries.iter().position(|e| e.key == key)?;
        Some(entries.remove(at))
    }

    /// Takes the entry (or the item of a list) at a path of keys out of the tree; whether it was there.
    pub(crate) fn remove(&mut self, path: &[String]) -> bool {
        let Some((first, rest)) = path.split_first() else { return false };
        if rest.is_empty() && self.take(first).is_some() {
            return true;
        }
        match &mut self.value {
            Value::Map(entries) => entries.iter_mut().any(|e| e.key == *first && e.node.remove(rest)),
            Value::List(items) => match first.parse::<usize>().ok().filter(|&at| at < items.len()) {
                Some(at) if rest.is_empty() => {
                    items.remove(at);
                    true
                }
                Some(at) => items[at].remove(rest),
                None => false,
            },
            _ => false,
        }
    }

    /// Gives the entry at a path of keys another key, unless there is one of that name; whether it was done.
    pub(crate) fn rename(&mut self, path: &[String], key: &str) -> bool {
        let Some((first, rest)) = path.split_first() else { return false };
        match &mut self.value {
            Value::Map(entries) if rest.is_empty() => {
                let is_free = entries.iter().all(|e| e.key != key);
                let found = entries.iter_mut().find(|e| e.key == *first).filter(|_| is_free);
                found.map(|entry| key.clone_into(&mut entry.key)).is_some()
            }
            Value::Map(entries) => entries.iter_mut().any(|e| e.key == *first && e.node.rename(rest, key)),
            Value::List(items) => {
                let item = first.parse::<usize>().ok().and_then(|at| items.get_mut(at));
                item.is_some_and(|item| item.rename(rest, key))
            }
            _ => false,
        }
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
