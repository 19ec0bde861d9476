//! Rows of a task: one JSON object per line.

use crate::EvalError;
use serde::de::DeserializeOwned;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

/// Reads every non-blank line of `path` as a `T`; errors name file and line. `expected` says what a row looks like.
pub(crate) fn read_rows<T: DeserializeOwned>(
    path: &Path,
    expected: &'static str,
    check: impl Fn(&T) -> Result<(), String>,
) -> Result<Vec<T>, EvalError> {
    let unreadable = |source| EvalError::Read { path: path.to_path_buf(), source };
    let file = File::open(path).map_err(unreadable)?;
    let mut rows = Vec::new();
    for (index, line) in BufReader::new(file).lines().enumerate() {
        let text = line.map_err(unreadable)?;
        if text.trim().is_empty() {
            continue;
        }
        let wrong = |reason| EvalError::Row { path: path.to_path_buf(), line: index + 1, reason, expected };
        let row: T = serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))?;
        check(&row).map_err(wrong)?;
        rows.push(row);
    }
    if rows.is_empty() {
        return Err(EvalError::Empty { path: path.to_path_buf() });
    }
    Ok(rows)
}
