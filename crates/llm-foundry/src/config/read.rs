//! From the tree to typed sections: a serde `Deserializer` whose errors carry the place of the value that is wrong.
//!
//! Serde stops at the first error. To report all of them, [`read_all`] takes the offending entry out of the tree and
//! reads again; every key has a default, so that always works.

use super::problem::{Problem, suggestion};
use super::tree::{Entry, Node, Place, Value};
use serde::de::value::StrDeserializer;
use serde::de::{
    self, DeserializeOwned, DeserializeSeed, EnumAccess, MapAccess, SeqAccess, VariantAccess, Visitor,
};
use std::fmt;

/// Reads a `T` (every field must have a default) and tells everything that is wrong. `known` lists every path of a
/// configuration, for suggestions across sections.
pub(crate) fn read_all<T: DeserializeOwned>(mut tree: Node, known: &[String]) -> (Option<T>, Vec<Problem>) {
    let mut problems = Vec::new();
    loop {
        let error = match T::deserialize(Reader { node: &tree, known, path: Vec::new() }) {
            Ok(value) => return (Some(value), problems),
            Err(error) => error,
        };
        let removed = tree.remove(&error.entry).is_some();
        problems.push(Problem { place: error.place, message: error.message, help: error.help });
        if !removed {
            return (None, problems);
        }
    }
}

/// Why a value could not be read.
#[derive(Debug)]
pub(crate) struct ReadError {
    message: String,
    help: Option<String>,
    place: Option<Place>,
    /// Path of the entry to leave out on the next attempt.
    entry: Vec<String>,
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for ReadError {}

impl de::Error for ReadError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        ReadError { message: message.to_string(), help: None, place: None, entry: Vec::new() }
    }
    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        let help = match super::problem::nearest(variant, expected.iter().copied()) {
            Some(near) => format!("did you mean `{near}`? Possible: {}", expected.join(", ")),
            None => format!("possible: {}", expected.join(", ")),
        };
        ReadError { help: Some(help), ..Self::custom(format_args!("unknown value `{variant}`")) }
    }
    fn unknown_field(field: &str, _: &'static [&'static str]) -> Self {
        Self::custom(format_args!("unknown key `{field}`"))
    }
}

#[derive(Clone)]
struct Reader<'a> {
    node: &'a Node,
    known: &'a [String],
    path: Vec<String>,
}

impl<'a> Reader<'a> {
    fn child(&self, entry: &'a Entry) -> Reader<'a> {
        let mut path = self.path.clone();
        path.push(entry.key.clone());
        Reader { node: &entry.node, known: self.known, path }
    }

    fn wrong(&self, expected: &str) -> ReadError {
        let found = self.node.value.describe();
        let name = self.path.join(".");
        let message = if name.is_empty() {
            format!("expected {expected}, found {found}")
        } else {
            format!("`{name}` must be {expected}, found {found}")
        };
        ReadError { message, help: None, place: Some(self.node.place.clone()), entry: self.path.clone() }
    }

    /// Gives an error that has no place yet this value's place.
    fn placed(&self, mut error: ReadError) -> ReadError {
        if error.place.is_none() {
            error.place = Some(self.node.place.clone());
            error.entry = self.path.clone();
            if !error.message.contains('`') || error.message.starts_with("unknown value") {
                error.message = format!("`{}`: {}", self.path.join("."), error.message);
            }
        }
        error
    }

    fn integer(&self) -> Result<i128, ReadError> {
        let whole = |x: f64| (x.fract() == 0.0 && x.abs() < 9e15).then_some(x as i128);
        match &self.node.value {
            Value::Int(i) => Some(*i),
            Value::Float(x) => whole(*x),
            // PyYAML reads 1e3 and 5e-5 as texts, so people quote them.
            Value::Text(s) => s.trim().parse().ok().or_else(|| s.trim().parse().ok().and_then(whole)),
            _ => None,
        }
        .ok_or_else(|| self.wrong("a whole number"))
    }

    fn number(&self) -> Result<f64, ReadError> {
        match &self.node.value {
            Value::Int(i) => Some(*i as f64),
            Value::Float(x) => Some(*x),
            Value::Text(s) => s.trim().parse::<f64>().ok(),
            _ => None,
        }
        .filter(|x| x.is_finite())
        .ok_or_else(|| self.wrong("a number"))
    }

    /// Checks the keys of a mapping that is read into a struct.
    fn check_keys(&self, entries: &[Entry], fields: &'static [&'static str]) -> Result<(), ReadError> {
        let Some(entry) = entries.iter().find(|e| !fields.contains(&e.key.as_str())) else { return Ok(()) };
        let section = self.path.join(".");
        let message = if section.is_empty() {
            format!("unknown key `{}`", entry.key)
        } else {
            format!("unknown key `{}` in `{section}`", entry.key)
        };
        let help = match suggestion(&entry.key, fields, self.known) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("known keys here: {}", fields.join(", ")),
        };
        let entry_path = self.child(entry).path;
        Err(ReadError { message, help: Some(help), place: Some(entry.key_place.clone()), entry: entry_path })
    }
}

macro_rules! integers {
    ($($method:ident $visit:ident $type:ty, $what:literal;)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
            let value = <$type>::try_from(self.integer()?).map_err(|_| self.wrong($what))?;
            visitor.$visit(value).map_err(|e| self.placed(e))
        }
    )*};
}

impl<'de> de::Deserializer<'de> for Reader<'_> {
    type Error = ReadError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        match &self.node.value {
            Value::Null => visitor.visit_unit(),
            Value::Bool(b) => visitor.visit_bool(*b),
            Value::Int(i) => match (u64::try_from(*i), i64::try_from(*i)) {
                (Ok(u), _) => visitor.visit_u64(u),
                (_, Ok(i)) => visitor.visit_i64(i),
                _ => return Err(self.wrong("a number of 64 bits")),
            },
            Value::Float(x) => visitor.visit_f64(*x),
            Value::Text(s) => visitor.visit_str(s),
            Value::List(items) => visitor.visit_seq(Items { reader: &self, items: items.iter() }),
            Value::Map(entries) => {
                visitor.visit_map(Entries { reader: &self, entries: entries.iter(), value: None })
            }
        }
        .map_err(|e| self.placed(e))
    }

    integers! {
        deserialize_u8 visit_u8 u8, "a whole number from 0 to 255";
        deserialize_u16 visit_u16 u16, "a whole number from 0 to 65535";
        deserialize_u32 visit_u32 u32, "a whole number, 0 or more, of 32 bits";
        deserialize_u64 visit_u64 u64, "a whole number, 0 or more";
        deserialize_i8 visit_i8 i8, "a whole number of 8 bits";
        deserialize_i16 visit_i16 i16, "a whole number of 16 bits";
        deserialize_i32 visit_i32 i32, "a whole number of 32 bits";
        deserialize_i64 visit_i64 i64, "a whole number of 64 bits";
    }

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        visitor.visit_f32(self.number()? as f32).map_err(|e| self.placed(e))
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        visitor.visit_f64(self.number()?).map_err(|e| self.placed(e))
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        match &self.node.value {
            Value::Bool(b) => visitor.visit_bool(*b),
            _ => Err(self.wrong("true or false")),
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        match &self.node.value {
            Value::Text(s) => visitor.visit_str(s).map_err(|e| self.placed(e)),
            Value::Bool(_) | Value::Int(_) | Value::Float(_) => {
                let help = Some("put it in quotes if the text is meant".to_owned());
                Err(ReadError { help, ..self.wrong("a text") })
            }
            _ => Err(self.wrong("a text")),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        if self.node.value == Value::Null { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        match &self.node.value {
            Value::List(items) => {
                visitor.visit_seq(Items { reader: &self, items: items.iter() }).map_err(|e| self.placed(e))
            }
            _ => Err(self.wrong("a list")),
        }
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        match &self.node.value {
            Value::Map(entries) => visitor
                .visit_map(Entries { reader: &self, entries: entries.iter(), value: None })
                .map_err(|e| self.placed(e)),
            _ => Err(self.wrong("a mapping (key: value)")),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        match &self.node.value {
            Value::Map(entries) => {
                self.check_keys(entries, fields)?;
                self.deserialize_map(visitor)
            }
            // `lora:` with nothing below it is a section of defaults.
            Value::Null => visitor.visit_map(Entries { reader: &self, entries: [].iter(), value: None }),
            _ => Err(self.wrong(&format!("a mapping with the keys {}", fields.join(", ")))),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        match &self.node.value {
            Value::Text(name) => visitor.visit_enum(Variant(name)).map_err(|e| self.placed(e)),
            // YAML 1.1 reads a bare `no` as false, and so do people's files.
            Value::Bool(false) if variants.contains(&"no") => visitor.visit_enum(Variant("no")),
            _ => Err(self.wrong(&format!("one of {}", variants.join(", ")))),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        v: V,
    ) -> Result<V::Value, ReadError> {
        v.visit_newtype_struct(self)
    }

    serde::forward_to_deserialize_any! {
        i128 u128 char bytes byte_buf unit unit_struct tuple tuple_struct identifier ignored_any
    }
}

struct Items<'r, 'a> {
    reader: &'r Reader<'a>,
    items: std::slice::Iter<'a, Node>,
}

impl<'de> SeqAccess<'de> for Items<'_, '_> {
    type Error = ReadError;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, ReadError> {
        // An item has the path of its list: it is the whole entry that is left out on the next attempt.
        self.items.next().map(|node| seed.deserialize(Reader { node, ..self.reader.clone() })).transpose()
    }
}

struct Entries<'r, 'a> {
    reader: &'r Reader<'a>,
    entries: std::slice::Iter<'a, Entry>,
    value: Option<&'a Entry>,
}

impl<'de> MapAccess<'de> for Entries<'_, '_> {
    type Error = ReadError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, ReadError> {
        self.value = self.entries.next();
        self.value.map(|entry| seed.deserialize(StrDeserializer::new(&entry.key))).transpose()
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, ReadError> {
        let entry = self.value.take().expect("serde asks for a value after its key");
        let reader = self.reader.child(entry);
        seed.deserialize(reader.clone()).map_err(|e| reader.placed(e))
    }
}

struct Variant<'a>(&'a str);

impl<'de> EnumAccess<'de> for Variant<'_> {
    type Error = ReadError;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), ReadError> {
        seed.deserialize(StrDeserializer::new(self.0)).map(|value| (value, self))
    }
}

impl<'de> VariantAccess<'de> for Variant<'_> {
    type Error = ReadError;

    fn unit_variant(self) -> Result<(), ReadError> {
        Ok(())
    }
    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, _: T) -> Result<T::Value, ReadError> {
        Err(de::Error::custom("only plain names are possible here"))
    }
    fn tuple_variant<V: Visitor<'de>>(self, _: usize, _: V) -> Result<V::Value, ReadError> {
        Err(de::Error::custom("only plain names are possible here"))
    }
    fn struct_variant<V: Visitor<'de>>(
        self,
        _: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, ReadError> {
        Err(de::Error::custom("only plain names are possible here"))
    }
}
