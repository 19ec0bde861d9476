//! JSON objects from files.

use std::path::Path;

use serde_json::{Map, Value};

use crate::FormatError;

/// The largest JSON side file that is read: real ones stay below a few MB, tokenizers below 100 MB.
const MAX_JSON_BYTES: u64 = 512 << 20;

/// Reads a whole side file, bounded.
pub(crate) fn read_bytes(path: &Path) -> Result<Vec<u8>, FormatError> {
    let metadata = std::fs::metadata(path).map_err(FormatError::io(path, "open"))?;
    if !metadata.is_file() {
        let source = std::io::Error::other("not a regular file");
        return Err(FormatError::Io { path: path.to_owned(), action: "open", source });
    }
    if metadata.len() > MAX_JSON_BYTES {
        let problem = format!("it has {} bytes, more than any such file should", metadata.len());
        return Err(FormatError::InvalidJson { path: path.to_owned(), problem });
    }
    std::fs::read(path).map_err(FormatError::io(path, "read"))
}

/// Parses a JSON object.
pub(crate) fn parse_object(path: &Path, bytes: &[u8]) -> Result<Map<String, Value>, FormatError> {
    let invalid = |problem: String| FormatError::InvalidJson { path: path.to_owned(), problem };
    match serde_json::from_slice(bytes) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err(invalid("the file should hold an object `{…}`".to_owned())),
        Err(e) => Err(invalid(e.to_string())),
    }
}

/// Reads a file that holds a JSON object.
pub(crate) fn read_object(path: &Path) -> Result<Map<String, Value>, FormatError> {
    parse_object(path, &read_bytes(path)?)
}

/// As [`read_object`], `None` if there is no such file.
pub(crate) fn read_object_if_there(path: &Path) -> Result<Option<Map<String, Value>>, FormatError> {
    if path.exists() { read_object(path).map(Some) } else { Ok(None) }
}
