//! What a model in training answered: the lines of `OUTPUT_DIR/samples.jsonl` as they appear.

use foundry_tracking::Table;
use serde_json::Value;
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::PathBuf;

/// Columns of the table.
const COLUMNS: [&str; 3] = ["step", "prompt", "text"];

/// A file of samples that may grow, or not be there.
pub(super) struct SampleFile {
    path: PathBuf,
    /// Bytes of it that were read.
    read: u64,
}

impl SampleFile {
    /// The samples in `path`.
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, read: 0 }
    }

    /// What was written since the last call, and is whole; only what is later than step `after`.
    pub(super) fn grown(&mut self, after: Option<u64>) -> Option<Table> {
        let mut file = File::open(&self.path).ok()?;
        let length = file.metadata().ok()?.len();
        // A run that goes on may have cut it.
        if length < self.read {
            self.read = 0;
        }
        file.seek(SeekFrom::Start(self.read)).ok()?;
        let mut bytes = Vec::new();
        file.take(length - self.read).read_to_end(&mut bytes).ok()?;
        let whole = bytes.iter().rposition(|byte| *byte == b'\n')? + 1;
        self.read += whole as u64;
        let text = String::from_utf8_lossy(&bytes[..whole]);
        let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let lines = lines
            .filter(|line| line["step"].as_u64().is_some_and(|step| after.is_none_or(|after| step > after)));
        let rows: Vec<Vec<Value>> =
            lines.map(|line| COLUMNS.map(|column| line[column].clone()).to_vec()).collect();
        (!rows.is_empty()).then(|| Table { columns: COLUMNS.map(String::from).to_vec(), rows })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::fs;

    #[test]
    fn whole_lines_are_told_once() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("samples.jsonl");
        let mut samples = SampleFile::new(path.clone());
        assert_eq!(samples.grown(None), None, "there is no file");
        let line =
            |step: u64| json!({"step": step, "prompt": "p", "text": format!("answer {step}")}).to_string();
        fs::write(&path, format!("{}\n{}", line(1), &line(2)[..9])).expect("written");
        let rows = |table: Option<Table>| table.map(|table| table.rows).unwrap_or_default();
        assert_eq!(rows(samples.grown(None)), [[json!(1), json!("p"), json!("answer 1")]]);
        assert_eq!(samples.grown(None), None);
        fs::write(&path, format!("{}\n{}\nno JSON\n{}\n", line(1), line(2), line(3))).expect("written");
        assert_eq!(rows(samples.grown(Some(2))).len(), 1, "those up to step 2 were told before");
        fs::write(&path, format!("{}\n", line(9))).expect("written");
        assert_eq!(rows(samples.grown(None)).len(), 1, "a file that was cut");
    }
}
