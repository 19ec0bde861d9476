//! Whole files as rows, for what reads data without making training examples of it.

use std::path::Path;

use serde_json::{Map, Value};

use crate::error::DataError;
use crate::source::{self, DataFile, Position, Row};
use crate::spec::SampleBy;

/// All rows of a file in any of the forms that training reads; a stretch of a text file is a row with the one field
/// `text`.
///
/// # Errors
/// A file that cannot be read or a row that is broken, with its place.
pub fn read_rows(path: &Path) -> Result<Vec<Map<String, Value>>, DataError> {
    let file = DataFile::local(path);
    let mut reader = source::open(&file, SampleBy::Document, Position::default())?;
    let mut rows = Vec::new();
    while let Some(found) = reader.next().map_err(|unreadable| unreadable.error)? {
        rows.push(match found.row {
            Row::Object(fields) => fields,
            Row::Text(text) => Map::from_iter([("text".to_owned(), Value::String(text))]),
            // Token files have no texts to read.
            Row::Tokens(_) => return Err(DataError::TokensWithoutText { path: path.to_path_buf() }),
        });
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_lines_and_of_text() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let lines = dir.path().join("a.jsonl");
        std::fs::write(&lines, "{\"a\": 1}\n\n{\"a\": [2]}\n").expect("written");
        assert_eq!(read_rows(&lines).expect("sound").len(), 2);
        std::fs::write(&lines, "{\"a\": 1}\n{\n").expect("written");
        assert!(read_rows(&lines).expect_err("broken").to_string().contains("a.jsonl:2"));
        let text = dir.path().join("a.txt");
        std::fs::write(&text, "one\n\ntwo\n").expect("written");
        let rows = read_rows(&text).expect("sound");
        // A document keeps its last line break, as in datasets.
        assert_eq!((rows.len(), rows[0]["text"].as_str()), (1, Some("one\n\ntwo\n")));
    }
}
