//! Values of Arrow arrays as JSON.

use std::path::Path;

use arrow_array::cast::AsArray as _;
use arrow_array::types::{
    Float16Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type,
    UInt32Type, UInt64Type,
};
use arrow_array::{Array, RecordBatch};
use arrow_schema::DataType;
use serde_json::{Map, Number, Value};

use crate::error::DataError;

/// Runs code of the table crates, which may panic on files made to harm; panics become errors of the file.
pub(super) fn guarded<T, E: std::fmt::Display>(
    path: &Path,
    run: impl FnOnce() -> Result<T, E>,
) -> Result<T, DataError> {
    foundry_formats::guarded(run).map_err(|problem| DataError::BrokenTable { path: path.to_owned(), problem })
}

/// Whether a column of this type has a counterpart in JSON. Others (bytes, dates, decimals) hold no text to train on
/// and are left out, so that a row that needs one says that it is missing.
pub(super) fn is_readable(kind: &DataType) -> bool {
    use DataType as D;
    match kind {
        D::Null | D::Boolean | D::Utf8 | D::LargeUtf8 | D::Utf8View => true,
        kind if kind.is_integer() || kind.is_floating() => true,
        D::List(item) | D::LargeList(item) | D::FixedSizeList(item, _) => is_readable(item.data_type()),
        D::Struct(fields) => fields.iter().any(|field| is_readable(field.data_type())),
        D::Map(entries, _) => match entries.data_type() {
            D::Struct(fields) => fields.len() == 2 && fields.iter().all(|f| is_readable(f.data_type())),
            _ => false,
        },
        D::Dictionary(_, value) => is_readable(value),
        _ => false,
    }
}

/// Row `index` of a batch.
pub(super) fn row(batch: &RecordBatch, index: usize) -> Map<String, Value> {
    let mut object = Map::new();
    for (field, column) in batch.schema_ref().fields().iter().zip(batch.columns()) {
        if is_readable(field.data_type()) {
            object.insert(field.name().clone(), value(column.as_ref(), index));
        }
    }
    object
}

/// Value `index` of an array of a readable type.
fn value(array: &dyn Array, index: usize) -> Value {
    use DataType as D;
    if array.is_null(index) {
        return Value::Null;
    }
    let list = |items: &dyn Array| Value::Array((0..items.len()).map(|i| value(items, i)).collect());
    match array.data_type() {
        D::Boolean => Value::Bool(array.as_boolean().value(index)),
        D::Utf8 => Value::String(array.as_string::<i32>().value(index).to_owned()),
        D::LargeUtf8 => Value::String(array.as_string::<i64>().value(index).to_owned()),
        D::Utf8View => Value::String(array.as_string_view().value(index).to_owned()),
        D::List(_) => list(array.as_list::<i32>().value(index).as_ref()),
        D::LargeList(_) => list(array.as_list::<i64>().value(index).as_ref()),
        D::FixedSizeList(..) => list(array.as_fixed_size_list().value(index).as_ref()),
        D::Struct(_) => object(array, index),
        D::Map(..) => map(array, index),
        D::Dictionary(..) => dictionary(array, index),
        _ => number(array, index),
    }
}

/// A struct without its nulls: a table gives every row the fields of all rows, and TRL's `remove_none_values` takes
/// them out again, because templates ask whether a key is there.
fn object(array: &dyn Array, index: usize) -> Value {
    let fields = array.as_struct();
    let mut object = Map::new();
    for (field, column) in fields.fields().iter().zip(fields.columns()) {
        if is_readable(field.data_type()) {
            let value = value(column.as_ref(), index);
            if !value.is_null() {
                object.insert(field.name().clone(), value);
            }
        }
    }
    Value::Object(object)
}

fn map(array: &dyn Array, index: usize) -> Value {
    let entries = array.as_map().value(index);
    let (keys, values) = (entries.column(0), entries.column(1));
    let pair = |i: usize| {
        let key = match value(keys.as_ref(), i) {
            Value::String(text) => text,
            other => other.to_string(),
        };
        (key, value(values.as_ref(), i))
    };
    Value::Object((0..entries.len()).map(pair).collect())
}

fn dictionary(array: &dyn Array, index: usize) -> Value {
    let dictionary = array.as_any_dictionary();
    let values = dictionary.values();
    match number(dictionary.keys(), index).as_u64().map(usize::try_from) {
        Some(Ok(key)) if key < values.len() => value(values.as_ref(), key),
        _ => Value::Null,
    }
}

fn number(array: &dyn Array, index: usize) -> Value {
    use DataType as D;
    let float = |x: f64| Number::from_f64(x).map_or(Value::Null, Value::Number);
    match array.data_type() {
        D::Int8 => array.as_primitive::<Int8Type>().value(index).into(),
        D::Int16 => array.as_primitive::<Int16Type>().value(index).into(),
        D::Int32 => array.as_primitive::<Int32Type>().value(index).into(),
        D::Int64 => array.as_primitive::<Int64Type>().value(index).into(),
        D::UInt8 => array.as_primitive::<UInt8Type>().value(index).into(),
        D::UInt16 => array.as_primitive::<UInt16Type>().value(index).into(),
        D::UInt32 => array.as_primitive::<UInt32Type>().value(index).into(),
        D::UInt64 => array.as_primitive::<UInt64Type>().value(index).into(),
        D::Float16 => float(f64::from(array.as_primitive::<Float16Type>().value(index).to_f32())),
        D::Float32 => float(f64::from(array.as_primitive::<Float32Type>().value(index))),
        D::Float64 => float(array.as_primitive::<Float64Type>().value(index)),
        _ => Value::Null,
    }
}
