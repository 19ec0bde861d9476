//! Which files of a data set's repository are a split: as datasets 5.2 finds them (`data_files.py`, `metadata.py`), by
//! the front matter of the README, else by names.

use glob::{MatchOptions, Pattern};
use serde::Deserialize;
use std::collections::BTreeMap;

/// Which part of a data set of the hub is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    /// The configuration (`name` of `load_dataset`); `None`: the only one, or the default one.
    pub(crate) name: Option<String>,
    /// The split.
    pub(crate) split: String,
    /// Branch, tag or commit.
    pub(crate) revision: String,
    /// Files by name or pattern, in place of those that configuration and split stand for.
    pub(crate) files: Option<String>,
}

/// Why there are no files.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SplitProblem {
    #[error("it has no configuration `{name}`; it has {}", known.join(", "))]
    UnknownName { name: String, known: Vec<String> },
    #[error("it has several configurations, so `name` must say which: {}", known.join(", "))]
    NameNeeded { known: Vec<String> },
    #[error("it has no configurations, but `name` asks for `{name}`; remove it")]
    NoNames { name: String },
    #[error("it has no split `{split}`; it has {}", known.join(", "))]
    UnknownSplit { split: String, known: Vec<String> },
    #[error(
        "`split: {split}` is not a name; parts of a split are had with `take`, `skip` and `fraction` of `data.sources`, \
         several splits as several sources"
    )]
    Sliced { split: String },
    #[error(
        "none of its files for this split can be read ({}); supported are .parquet, .jsonl, .json, .csv, .tsv, .txt and \
         .arrow (texts also with .gz or .zst), and code of a data set is never run", first.join(", ")
    )]
    NothingReadable { first: Vec<String> },
    #[error("it has no file `{pattern}`")]
    NoFile { pattern: String },
    #[error("the front matter of its README.md cannot be used: {0}")]
    Card(String),
}

/// Names of files that are no data, as in datasets.
pub(crate) const NO_DATA: [&str; 6] = [
    "README.md",
    "config.json",
    "dataset_info.json",
    "dataset_infos.json",
    "dummy_data.zip",
    "dataset_dict.json",
];
/// Words for splits in names of files and directories.
const KEYWORDS: [(&str, &[&str]); 3] = [
    ("train", &["train", "training"]),
    ("validation", &["validation", "valid", "dev", "val"]),
    ("test", &["test", "testing", "eval", "evaluation"]),
];
const IN_DIRECTORY: [&str; 4] =
    ["**/{k}/**", "**/{k}[-._ 0-9]*/**", "**/*[-._ 0-9]{k}/**", "**/*[-._ 0-9]{k}[-._ 0-9]*/**"];
const IN_FILE: [&str; 2] = ["**/{k}[-._ 0-9]*", "**/*[-._ 0-9]{k}[-._ 0-9]*"];
const DIGITS: &str = "[0-9][0-9][0-9][0-9][0-9]";

#[derive(Debug, Default, Deserialize)]
struct Card {
    #[serde(default)]
    configs: Vec<CardConfig>,
}

#[derive(Debug, Deserialize)]
struct CardConfig {
    config_name: String,
    data_files: Option<DataFiles>,
    data_dir: Option<String>,
    #[serde(default)]
    default: bool,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum DataFiles {
    One(String),
    Many(Vec<Entry>),
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Entry {
    Path(String),
    Split { split: String, path: Paths },
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Paths {
    One(String),
    Many(Vec<String>),
}

impl Paths {
    fn into_vec(self) -> Vec<String> {
        match self {
            Paths::One(path) => vec![path],
            Paths::Many(paths) => paths,
        }
    }
}

/// Patterns of each split.
type Splits = BTreeMap<String, Vec<String>>;

/// The files of a split, of a repository with these files and this README.
pub(crate) fn choose(
    files: &[String],
    readme: Option<&str>,
    part: &Part,
) -> Result<Vec<String>, SplitProblem> {
    if !part.split.chars().all(|c| c.is_alphanumeric() || c == '_' || c == '.') {
        return Err(SplitProblem::Sliced { split: part.split.clone() });
    }
    let data: Vec<&str> = files.iter().map(String::as_str).filter(|file| is_data(file)).collect();
    if let Some(pattern) = &part.files {
        let found = matching(&data, pattern)?;
        return match found.is_empty() {
            true => Err(SplitProblem::NoFile { pattern: pattern.clone() }),
            false => Ok(found.into_iter().map(str::to_owned).collect()),
        };
    }
    let splits = match config(readme, part.name.as_deref())? {
        Some(CardConfig { data_files: Some(files), data_dir, .. }) => by_card(files, data_dir.as_deref()),
        Some(CardConfig { data_dir, .. }) => by_names(&data, data_dir.as_deref().unwrap_or_default()),
        None => by_names(&data, ""),
    };
    let Some(patterns) = splits.get(&part.split) else {
        let known = splits.into_keys().collect();
        return Err(SplitProblem::UnknownSplit { split: part.split.clone(), known });
    };
    let mut found: Vec<&str> = Vec::new();
    for pattern in patterns {
        found.extend(matching(&data, pattern)?);
    }
    let mut seen = std::collections::BTreeSet::new();
    found.retain(|file| seen.insert(*file));
    let readable = of_one_kind(&found);
    if readable.is_empty() {
        let first = found.iter().take(3).map(|file| (*file).to_owned()).collect();
        return Err(SplitProblem::NothingReadable { first });
    }
    Ok(readable)
}

/// A path inside the repository, not hidden, that may hold rows.
fn is_data(file: &str) -> bool {
    let parts: Vec<&str> = file.split('/').collect();
    let inside =
        parts.iter().all(|part| !part.is_empty() && !part.starts_with('.') && !part.starts_with("__"));
    inside && !file.contains('\\') && !NO_DATA.contains(parts.last().unwrap_or(&""))
}

/// The configuration that the README describes under this name; `None` where it describes none.
fn config(readme: Option<&str>, name: Option<&str>) -> Result<Option<CardConfig>, SplitProblem> {
    let mut configs = match readme.and_then(front_matter) {
        Some(matter) => {
            let card: Card = serde_saphyr::from_str(matter).map_err(|e| SplitProblem::Card(e.to_string()))?;
            card.configs
        }
        None => Vec::new(),
    };
    let known = || configs.iter().map(|config| config.config_name.clone()).collect();
    let chosen = match name {
        Some(name) if configs.is_empty() => return Err(SplitProblem::NoNames { name: name.to_owned() }),
        Some(name) => match configs.iter().position(|config| config.config_name == name) {
            None => return Err(SplitProblem::UnknownName { name: name.to_owned(), known: known() }),
            at => at,
        },
        None if configs.len() < 2 => configs.len().checked_sub(1),
        None => {
            let default = configs.iter().position(|config| config.default);
            match default.or_else(|| configs.iter().position(|config| config.config_name == "default")) {
                None => return Err(SplitProblem::NameNeeded { known: known() }),
                at => at,
            }
        }
    };
    Ok(chosen.map(|at| configs.swap_remove(at)))
}

/// What stands between two lines of `---` at the start.
fn front_matter(readme: &str) -> Option<&str> {
    let rest = readme.trim_start_matches('\u{feff}').strip_prefix("---")?;
    let rest = rest.strip_prefix("\r\n").or_else(|| rest.strip_prefix('\n'))?;
    rest.find("\n---").map(|end| &rest[..end])
}

fn by_card(files: DataFiles, dir: Option<&str>) -> Splits {
    let inside = |path: String| match dir.map(|dir| dir.trim_matches('/')).filter(|dir| !dir.is_empty()) {
        Some(dir) => format!("{dir}/{path}"),
        None => path,
    };
    let mut splits = Splits::new();
    let entries = match files {
        DataFiles::One(path) => vec![Entry::Path(path)],
        DataFiles::Many(entries) => entries,
    };
    for entry in entries {
        let (split, paths) = match entry {
            Entry::Path(path) => ("train".to_owned(), vec![path]),
            Entry::Split { split, path } => (split, path.into_vec()),
        };
        splits.entry(split).or_default().extend(paths.into_iter().map(inside));
    }
    splits
}

/// Splits told from names, below `dir`.
fn by_names(data: &[&str], dir: &str) -> Splits {
    let below = match dir.trim_matches('/') {
        "" => String::new(),
        dir => format!("{}/", Pattern::escape(dir)),
    };
    let has = |pattern: &str| matching(data, pattern).is_ok_and(|found| !found.is_empty());
    // data/train-00000-of-00002….parquet, as `push_to_hub` names them.
    let mut splits = Splits::new();
    let end = format!("-{DIGITS}-of-{DIGITS}*.*");
    for file in matching(data, &format!("{below}data/*{end}")).unwrap_or_default() {
        let name = file.rsplit('/').next().unwrap_or_default();
        if let Some((split, _)) = name.split_once("-of-").and_then(|(start, _)| start.rsplit_once('-')) {
            splits.insert(split.to_owned(), vec![format!("{below}data/{}{end}", Pattern::escape(split))]);
        }
    }
    if !splits.is_empty() {
        return splits;
    }
    for shapes in [&IN_DIRECTORY[..], &IN_FILE[..]] {
        for (split, words) in KEYWORDS {
            let of_word = |word: &&str| {
                let word = (*word).to_owned();
                shapes.iter().map(move |shape| shape.replace("{k}", &word))
            };
            let patterns: Vec<String> =
                words.iter().flat_map(of_word).map(|pattern| format!("{below}{pattern}")).collect();
            if patterns.iter().any(|pattern| has(pattern)) {
                splits.insert(split.to_owned(), patterns);
            }
        }
        if !splits.is_empty() {
            return splits;
        }
    }
    Splits::from([("train".to_owned(), vec![format!("{below}**")])])
}

/// The files that a pattern names, sorted.
fn matching<'a>(data: &[&'a str], pattern: &str) -> Result<Vec<&'a str>, SplitProblem> {
    let options = MatchOptions {
        case_sensitive: true,
        require_literal_separator: true,
        require_literal_leading_dot: false,
    };
    let pattern = pattern.trim_start_matches("./");
    let glob =
        Pattern::new(pattern).map_err(|e| SplitProblem::Card(format!("the pattern {pattern}: {e}")))?;
    let mut found: Vec<&str> =
        data.iter().copied().filter(|file| *file == pattern || glob.matches_with(file, options)).collect();
    found.sort_unstable();
    Ok(found)
}

/// Those of the most frequent kind of data file, as datasets takes one kind of a repository.
fn of_one_kind(found: &[&str]) -> Vec<String> {
    let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
    let kind = |file: &str| crate::data_files::extension(file);
    for file in found {
        if let Some(kind) = kind(file) {
            *kinds.entry(kind).or_default() += 1;
        }
    }
    let most = kinds.iter().max_by_key(|(_, count)| **count).map(|(kind, _)| *kind);
    found.iter().filter(|file| most.is_some() && kind(file) == most).map(|file| (*file).to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(name: Option<&str>, split: &str) -> Part {
        Part {
            name: name.map(str::to_owned),
            split: split.to_owned(),
            revision: "main".to_owned(),
            files: None,
        }
    }

    fn chosen(files: &[&str], readme: &str, name: Option<&str>, split: &str) -> Result<Vec<String>, String> {
        let files: Vec<String> = files.iter().map(|file| (*file).to_owned()).collect();
        choose(&files, Some(readme), &part(name, split)).map_err(|e| e.to_string())
    }

    #[test]
    fn splits_are_told_from_names() {
        let sharded = [
            ".gitattributes",
            "README.md",
            "data/test-00000-of-00001.parquet",
            "data/train-00001-of-00002-abc.parquet",
            "data/train-00000-of-00002.parquet",
        ];
        let train = ["data/train-00000-of-00002.parquet", "data/train-00001-of-00002-abc.parquet"];
        assert_eq!(chosen(&sharded, "", None, "train").unwrap(), train);
        assert_eq!(chosen(&sharded, "", None, "test").unwrap(), ["data/test-00000-of-00001.parquet"]);
        let said = chosen(&sharded, "", None, "validation").unwrap_err();
        assert_eq!(said, "it has no split `validation`; it has test, train");

        let named = ["train.jsonl", "dev.jsonl", "sub/my_test_1.jsonl", "trained.jsonl"];
        assert_eq!(chosen(&named, "", None, "train").unwrap(), ["train.jsonl"]);
        assert_eq!(chosen(&named, "", None, "validation").unwrap(), ["dev.jsonl"]);
        assert_eq!(chosen(&named, "", None, "test").unwrap(), ["sub/my_test_1.jsonl"]);

        let folders = ["a/train/1.csv", "a/train/deep/2.csv", "a/test/3.csv"];
        assert_eq!(chosen(&folders, "", None, "train").unwrap(), ["a/train/1.csv", "a/train/deep/2.csv"]);

        let plain = ["LICENSE", "b.json", "a.json", "c.csv", "__x__/d.json", "dataset_info.json"];
        assert_eq!(
            chosen(&plain, "", None, "train").unwrap(),
            ["a.json", "b.json"],
            "the most frequent kind"
        );
        assert!(chosen(&["a.zip", "b.py"], "", None, "train").unwrap_err().contains("(a.zip, b.py)"));
        assert!(chosen(&plain, "", None, "train[:10%]").unwrap_err().contains("`take`"));
        assert!(chosen(&plain, "", Some("en"), "train").unwrap_err().contains("no configurations"));
    }

    #[test]
    fn configurations_come_from_the_readme() {
        let readme = "---\nlicense: mit\nconfigs:\n- config_name: main\n  data_files:\n  - split: train\n    path: main/train-*\n\
                      \x20 - split: test\n    path: [main/test-*]\n- config_name: other\n  \
                      data_files: other/*.parquet\n\
                      - config_name: dir\n  data_dir: third\n---\n# Text\n";
        let files = [
            "main/train-0.parquet",
            "main/test-0.parquet",
            "main/deep/train-1.parquet",
            "other/x.parquet",
            "third/train.jsonl",
        ];
        assert_eq!(chosen(&files, readme, Some("main"), "train").unwrap(), ["main/train-0.parquet"]);
        assert_eq!(chosen(&files, readme, Some("main"), "test").unwrap(), ["main/test-0.parquet"]);
        assert_eq!(chosen(&files, readme, Some("other"), "train").unwrap(), ["other/x.parquet"]);
        assert_eq!(chosen(&files, readme, Some("dir"), "train").unwrap(), ["third/train.jsonl"]);
        let said = chosen(&files, readme, None, "train").unwrap_err();
        assert!(said.contains("`name` must say which: main, other, dir"), "{said}");
        assert!(
            chosen(&files, readme, Some("mian"), "train").unwrap_err().contains("it has main, other, dir")
        );
        let default = readme.replace("config_name: other\n", "config_name: other\n  default: true\n");
        assert_eq!(chosen(&files, &default, None, "train").unwrap(), ["other/x.parquet"]);
        let one = "---\nconfigs:\n- config_name: x\n  data_files: \"*/[\"\n---\n";
        assert!(chosen(&files, one, None, "train").unwrap_err().contains("the pattern"));
        assert!(
            chosen(&files, "---\nconfigs: 3\n---\n", None, "train").unwrap_err().contains("front matter")
        );
        assert_eq!(chosen(&["t.csv"], "---\ntitle: x\n---\n", None, "train").unwrap(), ["t.csv"]);
    }

    #[test]
    fn names_that_lead_outside_are_no_files() {
        for file in ["../x.json", "a/../../x.json", "/etc/x.json", "a\\b.json", "a//b.json"] {
            assert!(chosen(&[file], "", None, "train").unwrap_err().contains("none of its files"), "{file}");
        }
    }
}
