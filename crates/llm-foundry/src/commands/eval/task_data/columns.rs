//! What the cells of a CSV file are, as Hugging Face's loader (pandas' `read_csv`) takes them: a column is whole
//! numbers, numbers, truths or texts.

use serde_json::{Map, Value};

/// Cells without a value (pandas 2 `na_values`).
const EMPTY: [&str; 18] = [
    "", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A",
    "NA", "NULL", "NaN", "None", "n/a", "nan",
];

/// What all cells of a column are.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Whole,
    Number,
    Truth,
    Text,
}

/// Turns the texts of each column into what they stand for.
pub(super) fn typed(rows: &mut [Map<String, Value>]) {
    let keys: Vec<String> = rows.first().into_iter().flat_map(|row| row.keys().cloned()).collect();
    for key in keys {
        let cells = || rows.iter().filter_map(|row| row.get(&key)?.as_str());
        let given: Vec<&str> = cells().filter(|cell| !is_empty(cell)).collect();
        let has_empty = cells().any(is_empty);
        let kind = kind(&given, has_empty);
        for cell in rows.iter_mut().filter_map(|row| row.get_mut(&key)) {
            if let Some(text) = cell.as_str() {
                *cell = value(text, kind);
            }
        }
    }
}

fn is_empty(cell: &str) -> bool {
    EMPTY.contains(&cell) || cell == "null"
}

fn kind(given: &[&str], has_empty: bool) -> Kind {
    let all = |holds: &dyn Fn(&str) -> bool| !given.is_empty() && given.iter().all(|cell| holds(cell));
    if all(&|cell| cell.trim().parse::<i64>().is_ok()) {
        // Whole numbers cannot be missing there.
        return if has_empty { Kind::Number } else { Kind::Whole };
    }
    if all(&|cell| number(cell).is_some()) {
        return Kind::Number;
    }
    match all(&|cell| truth(cell).is_some()) && !has_empty {
        true => Kind::Truth,
        false => Kind::Text,
    }
}

fn number(cell: &str) -> Option<f64> {
    let cell = cell.trim();
    let is_plain = cell.bytes().all(|byte| byte.is_ascii_digit() || b"+-.eE".contains(&byte));
    cell.parse().ok().filter(|number: &f64| is_plain && number.is_finite())
}

fn truth(cell: &str) -> Option<bool> {
    match cell {
        "True" | "TRUE" | "true" => Some(true),
        "False" | "FALSE" | "false" => Some(false),
        _ => None,
    }
}

fn value(cell: &str, kind: Kind) -> Value {
    if is_empty(cell) {
        return Value::Null;
    }
    match kind {
        Kind::Whole => cell.trim().parse::<i64>().map_or(Value::Null, Value::from),
        Kind::Number => number(cell).map_or(Value::Null, Value::from),
        Kind::Truth => truth(cell).map_or(Value::Null, Value::from),
        Kind::Text => cell.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn columns_are_what_pandas_makes_of_them() {
        // python: datasets.load_dataset("csv", data_files=…)["train"][:]
        let header = ["n", "x", "gap", "yes", "text", "mixed"];
        let cells = [["0", "1.50", "1", "True", "a", "1"], ["-7", "2e3", "", "FALSE", "NA", "b"]];
        let row =
            |cells: &[&str; 6]| header.iter().zip(cells).map(|(k, v)| ((*k).into(), json!(v))).collect();
        let mut rows: Vec<Map<String, Value>> = cells.iter().map(row).collect();
        typed(&mut rows);
        let expected = [
            json!({"n": 0, "x": 1.5, "gap": 1.0, "yes": true, "text": "a", "mixed": "1"}),
            json!({"n": -7, "x": 2000.0, "gap": null, "yes": false, "text": null, "mixed": "b"}),
        ];
        assert_eq!(rows.into_iter().map(Value::Object).collect::<Vec<_>>(), expected);
    }
}
