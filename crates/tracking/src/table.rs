//! A table of texts and numbers, such as generated samples.

use serde_json::{Value, json};

/// Rows under named columns.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Table {
    /// Names of the columns.
    pub columns: Vec<String>,
    /// Rows, each as long as `columns`.
    pub rows: Vec<Vec<Value>>,
}

impl Table {
    /// The table as Weights & Biases writes it into a `.table.json`.
    pub(crate) fn to_json(&self) -> Value {
        json!({ "columns": self.columns, "data": self.rows })
    }
}
