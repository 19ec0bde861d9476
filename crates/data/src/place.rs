//! Where an example stands, for messages.

use std::path::Path;
use std::sync::Arc;

/// Where an example stands: a file and its line, from 1, or the row of a table.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    /// The file as it was named.
    pub path: Arc<Path>,
    /// Line on which the example begins, from 1; of a table, the row in its group, from 0.
    pub line: u64,
    /// Row group (Parquet) or batch (Arrow), from 0.
    pub group: Option<u64>,
}

impl Place {
    /// The place `path:line`.
    pub fn new(path: &Arc<Path>, line: u64) -> Self {
        Self { path: Arc::clone(path), line, group: None }
    }

    /// The place of row `row` of row group `group`, both from 0.
    pub(crate) fn in_group(path: &Arc<Path>, group: u64, row: u64) -> Self {
        Self { path: Arc::clone(path), line: row, group: Some(group) }
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.group {
            None => write!(f, "{}:{}", self.path.display(), self.line),
            Some(group) => write!(f, "{}, row group {group}, row {}", self.path.display(), self.line),
        }
    }
}
