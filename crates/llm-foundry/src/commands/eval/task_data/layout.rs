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
    /// Names of the data set, the best first; none: all files are its.
    pub(super) labels: &'a [String],
    /// A file that is not named after the configuration is not taken, though it is the only one.
    pub(super) needs_config: bool,
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

/// A file whose cells are all texts.
pub(super) fn is_of_texts(file: &Path) -> bool {
    ["csv", "tsv"].contains(&extension(file).as_str())
}

/// The files of a split: under the best name of the data set that has any.
pub(super) fn chosen(files: &[PathBuf], wanted: &Wanted<'_>) -> Result<Vec<PathBuf>, String> {
    if wanted.labels.is_empty() {
        return of_split(files, wanted, None);
    }
    let mut first_problem = None;
    for label in wanted.labels {
        match of_split(files, wanted, Some(label)) {
            Ok(found) => return Ok(found),
            Err(problem) => first_problem.get_or_insert(problem),
        };
    }
    Err(first_problem.unwrap_or_default())
}

fn of_split(files: &[PathBuf], wanted: &Wanted<'_>, label: Option<&str>) -> Result<Vec<PathBuf>, String> {
    let synonyms =
        SYNONYMS.iter().find(|(name, _)| *name == wanted.split).map_or(&[][..], |(_, names)| *names);
    let own: Vec<&PathBuf> = files.iter().filter(|file| label.is_none_or(|label| has(file, label))).collect();
    let found = std::iter::once(wanted.split).chain(synonyms.iter().copied()).find_map(|split| {
        let said = [label, Some(split), wanted.config];
        let of_split = own.iter().filter(|file| has(file, split));
        // What else a name says is of another data set: arc_challenge_test is not arc's.
        let of_split = of_split.filter(|file| label.is_none() || says_nothing_else(file, &said));
        let of_split: Vec<PathBuf> = of_split.map(|file| (*file).clone()).collect();
        (!of_split.is_empty()).then_some(of_split)
    });
    let Some(found) = found else {
        let of = label.map_or_else(String::new, |label| format!(" of `{label}`"));
        return Err(format!(
            "no file of split `{}`{of} (such as {0}.jsonl, {0}/… or …_{0}.csv; those end in {})",
            wanted.split,
            EXTENSIONS.join(", ")
        ));
    };
    let Some(config) = wanted.config else { return parts_of_one(found, wanted) };
    // A label that names the configuration too (arc_easy) says it.
    let is_said = |file: &PathBuf| {
        has(file, config) || label.is_some_and(|label| plain(label).ends_with(&plain(config)))
    };
    let of_config: Vec<PathBuf> = found.iter().filter(|file| is_said(file)).cloned().collect();
    match (of_config.is_empty(), found.len()) {
        (false, _) => Ok(of_config),
        (true, 1) if !wanted.needs_config => Ok(found),
        (true, count) => Err(format!(
            "{count} files of split `{}`, and none is named after `{config}`; name it so, or give the task its own \
             directory",
            wanted.split
        )),
    }
}

/// Several files must be the numbered parts of one.
fn parts_of_one(files: Vec<PathBuf>, wanted: &Wanted<'_>) -> Result<Vec<PathBuf>, String> {
    let without_digits = |file: &PathBuf| {
        let (stem, endings) = named(file);
        let path = format!("{}.{endings}", file.with_file_name(without_part(&stem)).to_string_lossy());
        path.to_lowercase().chars().filter(|c| !c.is_ascii_digit()).collect::<String>()
    };
    let first = without_digits(&files[0]);
    if let Some(other) = files.iter().find(|file| without_digits(file) != first) {
        return Err(format!(
            "both {} and {} could be split `{}`; give the task its own directory, or its file",
            files[0].display(),
            other.display(),
            wanted.split
        ));
    }
    Ok(files)
}

/// A name in the one spelling in which names are compared.
pub(super) fn plain(name: &str) -> String {
    name.to_lowercase().replace('-', "_")
}

/// A file's name in lower case, before and after its first dot.
fn named(file: &Path) -> (String, String) {
    let name = file.file_name().map(|name| name.to_string_lossy().to_lowercase()).unwrap_or_default();
    let (stem, endings) = name.split_once('.').unwrap_or((&name, ""));
    (stem.to_owned(), endings.to_owned())
}

/// A stem without the number of a part as Hugging Face's `datasets` writes it, `-00000-of-00002`, behind which older
/// releases put a sum of each part's content, `-a09b74b3ef9c3b56`.
fn without_part(stem: &str) -> &str {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let is_sum = |text: &str| text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let Some((before, after)) = stem.rsplit_once("-of-") else { return stem };
    let Some((name, part)) = before.rsplit_once('-') else { return stem };
    let is_part = match after.split_once('-') {
        None => is_number(after),
        Some((parts, sum)) => is_number(parts) && is_sum(sum),
    };
    if is_number(part) && is_part { name } else { stem }
}

/// A file's name has nothing in it but what is `said`, and numbers of its part.
fn says_nothing_else(file: &Path, said: &[Option<&str>]) -> bool {
    let stem = plain(without_part(&named(file).0));
    let mut rest = format!("_{stem}_").replace('_', "__");
    let mut said: Vec<String> = said.iter().flatten().map(|name| plain(name).replace('_', "__")).collect();
    said.sort_by_key(|name| std::cmp::Reverse(name.len()));
    for name in said {
        rest = rest.replacen(&format!("_{name}_"), "", 1);
    }
    let is_number = |word: &str| word == "of" || word.chars().all(|c| c.is_ascii_digit());
    rest.split('_').all(is_number)
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
        let needs_config =
            config.is_some_and(|config| labels.iter().any(|label| label.contains(&plain(config))));
        let found = chosen(&files, &Wanted { split, config, labels: &labels, needs_config })?;
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
    fn files_of_other_tasks_are_not_taken() {
        let arc = ["arc_easy", "arc", "allenai/ai2_arc", "ai2_arc"];
        assert!(find(&["arc_challenge_test.jsonl"], "test", Some("ARC-Easy"), &arc).is_err());
        let both = ["arc_challenge_test.jsonl", "arc_easy_test.jsonl"];
        assert_eq!(find(&both, "test", Some("ARC-Easy"), &arc).unwrap(), ["arc_easy_test.jsonl"]);
        let hub = ["ai2_arc/ARC-Challenge/test-0.parquet", "ai2_arc/ARC-Easy/test-0.parquet"];
        assert_eq!(find(&hub, "test", Some("ARC-Easy"), &arc).unwrap(), hub[1..]);
        let mmlu = ["mmlu_astronomy", "mmlu", "cais/mmlu"];
        assert!(find(&["mmlu_anatomy_test.csv"], "test", Some("astronomy"), &mmlu).is_err());
        assert!(find(&["mmlu_test.csv"], "test", Some("astronomy"), &mmlu).is_err());
        assert_eq!(find(&["mmlu_astronomy_test.csv"], "test", Some("astronomy"), &mmlu).unwrap().len(), 1);
        let lambada = ["lambada_openai", "lambada"];
        assert!(find(&["lambada_standard_test.jsonl"], "test", Some("default"), &lambada).is_err());
        let animals = ["animals_hard_test.jsonl", "animals_test.jsonl"];
        assert_eq!(find(&animals, "test", None, &["animals"]).unwrap(), ["animals_test.jsonl"]);
        assert_eq!(
            find(&animals, "test", None, &["animals_hard", "animals"]).unwrap(),
            ["animals_hard_test.jsonl"]
        );
        assert!(find(&animals, "test", None, &[]).unwrap_err().contains("could be split `test`"));
        let parts = ["test-00000-of-00002.parquet", "test-00001-of-00002.parquet"];
        assert_eq!(find(&parts, "test", None, &[]).unwrap().len(), 2);
    }

    #[test]
    fn parts_may_carry_sums_of_their_content() {
        let parts = [
            "animals/test-00000-of-00002-a09b74b3ef9c3b56.parquet",
            "animals/test-00001-of-00002-0c1e5d7fbb243a18.parquet",
        ];
        assert_eq!(find(&parts, "test", None, &[]).unwrap(), parts);
        assert_eq!(find(&parts, "test", None, &["animals"]).unwrap(), parts);
        assert_eq!(
            find(&parts, "test", Some("default"), &["animals"]).unwrap_err().matches("2 files").count(),
            1
        );
        for other in ["test-00001-of-00002-birds.parquet", "test-a-of-00002-a09b74b3ef9c3b56.parquet"] {
            let both = [parts[0], &format!("animals/{other}")];
            assert!(find(&both, "test", None, &[]).unwrap_err().contains("could be split `test`"), "{other}");
        }
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
