//! From the tree to typed sections: a serde `Deserializer` whose errors carry the place of the value that is wrong.
//!
//! Serde stops at the first error. To report all of them, [`read_all`] takes the offending entry out of the tree and
//! reads again; every key has a default, so that always works. An entry whose key is a misspelt one is read under the
//! key that was meant, so that what is wrong inside is told as well.

use super::problem::{Problem, suggestion};
use super::tree::{Entry, Node, Place, Value};
use serde::de::value::StrDeserializer;
use serde::de::{
    self, DeserializeOwned, DeserializeSeed, EnumAccess, MapAccess, SeqAccess, VariantAccess, Visitor,
};
use std::fmt;

/// What was read, what is wrong, and the places of lists that have lost a wrong item.
type Read<T> = (Option<T>, Vec<Problem>, Vec<Place>);

/// Reads a `T` (every field must have a default) and tells everything that is wrong. `known` lists every path of a
/// configuration, for suggestions across sections.
pub(crate) fn read_all<T: DeserializeOwned>(mut tree: Node, known: &[String]) -> Read<T> {
    let (mut problems, mut shortened) = (Vec::new(), Vec::new());
    loop {
        let error = match T::deserialize(Reader { node: &tree, known, path: Vec::new() }) {
            Ok(value) => return (Some(value), problems, shortened),
            Err(error) => error,
        };
        if let Some((_, list)) = error.entry.split_last() {
            let keys: Vec<&str> = list.iter().map(String::as_str).collect();
            shortened.extend(
                tree.at(&keys).filter(|n| matches!(n.value, Value::List(_))).map(|n| n.place.clone()),
            );
        }
        let meant = error.meant.as_deref().is_some_and(|key| tree.rename(&error.entry, key));
        let removed = meant || tree.remove(&error.entry);
        problems.push(Problem { place: error.place, message: error.message, help: error.help });
        if !removed {
            return (None, problems, shortened);
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
    /// The key that it was probably meant to have.
    meant: Option<Box<str>>,
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for ReadError {}

impl de::Error for ReadError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        ReadError { message: message.to_string(), help: None, place: None, entry: Vec::new(), meant: None }
    }
    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        let help = match super::problem::nearest(variant, expected.iter().copied()) {
            Some(near) => format!("did you mean `{near}`? Possible: {}", expected.join(", ")),
            None => format!("possible: {}", expected.join(", ")),
        };
        ReadError { help: Some(help), ..Self::custom(format_args!("unknown value `{variant}`")) }
    }
    fn invalid_value(_: de::Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::custom(format_args!("must be {expected}"))
    }
    fn invalid_type(_: de::Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::custom(format_args!("must be {expected}"))
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
        // Items that were wrong are gone by now, so that numbers of items would be those of another list.
        let message = match self.path.split_last() {
            None => format!("expected {expected}, found {found}"),
            Some((item, list)) if item.parse::<usize>().is_ok() => {
                format!("an item of `{}` must be {expected}, found {found}", list.join("."))
            }
            Some(_) => format!("`{}` must be {expected}, found {found}", self.path.join(".")),
        };
        let place = Some(self.node.place.clone());
        ReadError { message, help: None, place, entry: self.path.clone(), meant: None }
    }

    /// Gives an error that has no place yet this value's place.
    fn placed(&self, mut error: ReadError) -> ReadError {
        if error.place.is_none() {
            error.place = Some(self.node.place.clone());
            error.entry = self.path.clone();
            if error.message.starts_with("must be ") {
                error.message = self.wrong(&error.message["must be ".len()..]).message;
            } else if !error.message.contains('`') || error.message.starts_with("unknown value") {
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

    /// Something else stands where a section is needed.
    fn no_mapping(&self, fields: &'static [&'static str]) -> ReadError {
        let (first, more) = (&fields[..fields.len().min(6)], if fields.len() > 6 { ", …" } else { "" });
        let help = match (&self.node.value, fields.first()) {
            // `model: some/model`: what was meant is its first key.
            (Value::Text(text), Some(key)) if !self.path.is_empty() => {
                format!(
                    "write `{}: {{{key}: {}}}`, or the keys below it, indented",
                    self.path.join("."),
                    super::yaml::scalar(text)
                )
            }
            _ => "write `key: value`, one a line, indented below it".into(),
        };
        let expected = format!("a mapping with keys such as {}{more}", first.join(", "));
        ReadError { help: Some(help), ..self.wrong(&expected) }
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
        let near = suggestion(&entry.key, fields, self.known);
        let meant = near.clone().filter(|near| fields.contains(&near.as_str())).map(String::into_boxed_str);
        let help = match near {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("known keys here: {}", fields.join(", ")),
        };
        let entry_path = self.child(entry).path;
        let place = Some(entry.key_place.clone());
        Err(ReadError { message, help: Some(help), place, entry: entry_path, meant })
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
            Value::List(items) => visitor.visit_seq(Items { reader: &self, items: items.iter().enumerate() }),
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
            Value::List(items) => visitor
                .visit_seq(Items { reader: &self, items: items.iter().enumerate() })
                .map_err(|e| self.placed(e)),
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
            _ => Err(self.no_mapping(fields)),
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
    items: std::iter::Enumerate<std::slice::Iter<'a, Node>>,
}

impl<'de> SeqAccess<'de> for Items<'_, '_> {
    type Error = ReadError;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, ReadError> {
        let Some((index, node)) = self.items.next() else { return Ok(None) };
        let mut path = self.reader.path.clone();
        path.push(index.to_string());
        seed.deserialize(Reader { node, path, ..self.reader.clone() }).map(Some)
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
