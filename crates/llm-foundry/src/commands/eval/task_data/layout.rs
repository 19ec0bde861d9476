//! Which files of a directory are a split: the names that people, the hub and the makers of data sets give.

use std::path::{Path, PathBuf};

/// How deep directories are looked into.
const DEEPEST: usize = 4;
const EXTENSIONS: [&str; 7] = ["jsonl", "ndjson", "json", "csv", "tsv", "parquet", "arrow"];
/// Other names of splits.
const SYNONYMS: [(&str, &[&str]); 3] =
    [("validation", &["valid", "val", "dev"]), ("train", &["training"]), ("test", &["testing"])];

/// A split of a data set.
pub(super) struct Wanted<'a> {
    pub(super) split: &'a str,
    /// Configuration of the data set, such as a subject of MMLU.
    pub(super) config: Option<&'a str>,
    /// Names of the data set, one of which the file's path must have; none: all files are its.
    pub(super) labels: &'a [String],
}

/// All data files under a directory, relative to it, sorted.
pub(super) fn data_files(dir: &Path) -> Result<Vec<PathBuf>, String> {
    let mut files = Vec::new();
    collect(dir, Path::new(""), 0, &mut files)
        .map_err(|error| format!("cannot list {}: {error}", dir.display()))?;
    files.sort();
    Ok(files)
}

fn collect(root: &Path, inside: &Path, depth: usize, files: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(root.join(inside))? {
        let path = inside.join(entry?.file_name());
        if root.join(&path).is_dir() {
            if depth < DEEPEST {
                collect(root, &path, depth + 1, files)?;
            }
        } else if EXTENSIONS.contains(&extension(&path).as_str()) {
            files.push(path);
        }
    }
    Ok(())
}

/// The extension in lower case, that of a compressed file without the compression's.
fn extension(path: &Path) -> String {
    let name = path.file_name().map(|name| name.to_string_lossy().to_lowercase()).unwrap_or_default();
    let name = ["gz", "zst"].iter().find_map(|end| name.strip_suffix(&format!(".{end}"))).unwrap_or(&name);
    name.rsplit_once('.').map(|(_, end)| end.to_owned()).unwrap_or_default()
}

/// The files of a split.
pub(super) fn chosen(files: &[PathBuf], wanted: &Wanted<'_>) -> Result<Vec<PathBuf>, String> {
    let own: Vec<&PathBuf> = files
        .iter()
        .filter(|file| wanted.labels.is_empty() || wanted.labels.iter().any(|label| has(file, label)))
        .collect();
    let synonyms =
        SYNONYMS.iter().find(|(name, _)| *name == wanted.split).map_or(&[][..], |(_, names)| *names);
    let names = std::iter::once(wanted.split).chain(synonyms.iter().copied());
    let of_split = names.map(|name| own.iter().copied().filter(|file| has(file, name)).collect::<Vec<_>>());
    let of_split = of_split.into_iter().find(|files| !files.is_empty()).unwrap_or_default();
    if of_split.is_empty() {
        return Err(format!(
            "no file of split `{}` (such as {0}.jsonl, {0}/… or …_{0}.csv; those end in {})",
            wanted.split,
            EXTENSIONS.join(", ")
        ));
    }
    let Some(config) = wanted.config else { return Ok(of_split.into_iter().cloned().collect()) };
    let of_config: Vec<PathBuf> =
        of_split.iter().filter(|file| has(file, config)).map(|file| (*file).clone()).collect();
    match (of_config.as_slice(), of_split.as_slice()) {
        ([], [only]) => Ok(vec![(*only).clone()]),
        ([], several) => Err(format!(
            "{} files of split `{}`, and none is named after `{config}`; name it so, or give the task its own directory",
            several.len(),
            wanted.split
        )),
        (found, _) => Ok(found.to_vec()),
    }
}

/// A directory of the path has that name, or the file's name begins or ends with it.
fn has(file: &Path, name: &str) -> bool {
    let name = name.to_lowercase();
    let parts: Vec<String> = file.iter().map(|part| part.to_string_lossy().to_lowercase()).collect();
    let Some((last, dirs)) = parts.split_last() else { return false };
    let stem = last.split('.').next().unwrap_or(last);
    let is_mark = |c: Option<char>| c.is_some_and(|c| "-_".contains(c));
    let begins = stem.strip_prefix(&name).is_some_and(|rest| rest.is_empty() || is_mark(rest.chars().next()));
    let ends = stem.strip_suffix(&name).is_some_and(|rest| is_mark(rest.chars().next_back()));
    dirs.contains(&name) || begins || ends
}

/// Rows of MMLU's original files: question, four choices, letter or index, with or without a header. `None`: the
/// file is something else.
pub(super) fn original_mmlu(file: &Path) -> Result<Option<Vec<[String; 6]>>, String> {
    if extension(file) != "csv" || file.extension().is_some_and(|end| end != "csv") {
        return Ok(None);
    }
    let broken = |error: csv::Error| format!("{}: {error}", file.display());
    let mut reader =
        csv::ReaderBuilder::new().has_headers(false).flexible(true).from_path(file).map_err(broken)?;
    let mut rows = Vec::new();
    for record in reader.records() {
        let record = record.map_err(broken)?;
        let fields: Vec<String> = record.iter().map(str::to_owned).collect();
        let Ok(row) = <[String; 6]>::try_from(fields) else { return Ok(None) };
        if rows.is_empty() && row[0] == "question" && row[5] == "answer" {
            continue;
        }
        if !matches!(row[5].trim(), "A" | "B" | "C" | "D" | "0" | "1" | "2" | "3") {
            return Ok(None);
        }
        rows.push(row);
    }
    Ok(Some(rows))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(
        files: &[&str],
        split: &str,
        config: Option<&str>,
        labels: &[&str],
    ) -> Result<Vec<String>, String> {
        let files: Vec<PathBuf> = files.iter().map(PathBuf::from).collect();
        let labels: Vec<String> = labels.iter().map(|label| label.to_string()).collect();
        let found = chosen(&files, &Wanted { split, config, labels: &labels })?;
        Ok(found.into_iter().map(|file| file.display().to_string()).collect())
    }

    #[test]
    fn splits_are_found_under_their_usual_names() {
        let mmlu = ["dev/anatomy_dev.csv", "test/anatomy_test.csv", "test/virology_test.csv"];
        assert_eq!(find(&mmlu, "test", Some("virology"), &[]).unwrap(), ["test/virology_test.csv"]);
        assert!(find(&mmlu, "test", Some("astronomy"), &[]).unwrap_err().contains("named after `astronomy`"));
        let flat = ["gsm8k_test.jsonl", "gsm8k_train.jsonl", "piqa_val.jsonl"];
        assert_eq!(find(&flat, "test", Some("main"), &["gsm8k_cot", "gsm8k"]).unwrap(), ["gsm8k_test.jsonl"]);
        assert_eq!(find(&flat, "validation", None, &["piqa"]).unwrap(), ["piqa_val.jsonl"]);
        assert!(find(&flat, "train", None, &["piqa"]).unwrap_err().contains("no file of split `train`"));
        let hub = [
            "main/test-00000-of-00002.parquet",
            "main/test-00001-of-00002.parquet",
            "socratic/test-0.parquet",
        ];
        assert_eq!(find(&hub, "test", Some("main"), &[]).unwrap().len(), 2);
    }

    #[test]
    fn mmlus_own_files_may_have_no_header() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a_test.csv");
        std::fs::write(&file, "\"Which, then?\",1,2,3,4,C\n\"Two\nlines\",a,b,c,d,A\n").unwrap();
        let rows = original_mmlu(&file).unwrap().unwrap();
        assert_eq!((rows.len(), rows[0][0].as_str(), rows[1][0].as_str()), (2, "Which, then?", "Two\nlines"));
        std::fs::write(&file, "question,choice0,choice1,choice2,choice3,answer\nx,1,2,3,4,3\n").unwrap();
        assert_eq!(original_mmlu(&file).unwrap().unwrap().len(), 1);
        std::fs::write(&file, "question,answer\nx,A\n").unwrap();
        assert!(original_mmlu(&file).unwrap().is_none());
    }
}
