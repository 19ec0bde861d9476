//! From what a configuration calls its data to a list of files: paths, directories, patterns, token files, data sets of
//! the hub.

use crate::failure::{Failure, Outcome};
use crate::hub::{Fetch, HubSettings, Part, fetch_dataset, is_hub_id};
use crate::model_source::{expand_home, neighbour};
use foundry_data::DataFile;
use foundry_data::tokens::TokenSet;
use std::path::{Path, PathBuf};

/// What names stand for.
pub(crate) struct Finder<'a> {
    /// The configuration key, for messages.
    pub(crate) key: &'a str,
    /// Which part of data sets of the hub is meant.
    pub(crate) part: Part,
    /// Keys of the configuration that say so.
    pub(crate) part_keys: Vec<String>,
    pub(crate) fetch: Fetch,
}

impl Finder<'_> {
    /// Resolves names in their order; the files of one pattern are sorted. A directory of token files is those.
    pub(crate) fn expand(&self, names: &[String]) -> Outcome<Vec<DataFile>> {
        let (files, has_hub) = expand(self, names)?;
        if let Some(key) = self.part_keys.first().filter(|_| !has_hub && !names.is_empty()) {
            return Err(Failure::Input(format!(
                "{key} is about data sets of the hub, but {} names none\n  remove it, or name a data set by its id (org/name)",
                self.key
            )));
        }
        Ok(files)
    }

    /// Files of another machine.
    fn elsewhere(&self, address: &str) -> Outcome<Vec<DataFile>> {
        #[cfg(feature = "cloud")]
        return match self.fetch {
            Fetch::No => Err(Failure::Input(format!("{}: a plan fetches nothing of {address}", self.key))),
            _ => crate::remote::find(self.key, address, |variable| std::env::var(variable).ok()),
        };
        #[cfg(not(feature = "cloud"))]
        return Err(Failure::Input(format!(
            "{}: {address}: this program was built without the feature `cloud`; build with it, or download the file",
            self.key
        )));
    }

    /// The files of a data set of the hub.
    fn of_hub(&self, name: &str, path: &Path) -> Outcome<Vec<DataFile>> {
        let settings = HubSettings::from_env(|variable| std::env::var(variable).ok());
        let found = fetch_dataset(&settings, name, &self.part, self.fetch).map_err(|error| {
            let near = neighbour(path).map_or_else(String::new, |near| {
                format!("\n  did you mean {}, which is here?", path.with_file_name(near).display())
            });
            let message = format!(
                "{}: no file or directory {name} here, so it was looked up as a data set of the hub:\n  {error}{near}",
                self.key
            );
            if error.is_of_the_world() { Failure::Run(message) } else { Failure::Input(message) }
        })?;
        Ok(found.into_iter().map(DataFile::local).collect())
    }
}

/// An id of the hub that is no name of a data file.
fn is_dataset_id(name: &str) -> bool {
    is_hub_id(name) && name.contains('/') && extension(name).is_none()
}

/// What a name says about the form of a file: its ending, without that of a compression.
pub(crate) fn extension(name: &str) -> Option<&'static str> {
    let file = name.to_ascii_lowercase();
    let stem =
        [".gz", ".gzip", ".zst", ".zstd"].iter().find_map(|end| file.strip_suffix(end)).unwrap_or(&file);
    EXTENSIONS.into_iter().find(|end| stem.ends_with(end))
}

fn expand(finder: &Finder, names: &[String]) -> Outcome<(Vec<DataFile>, bool)> {
    let key = finder.key;
    let mut has_hub = false;
    let mut files = Vec::new();
    for name in names {
        if ["http://", "https://", "s3://"].iter().any(|scheme| name.starts_with(scheme)) {
            files.extend(finder.elsewhere(name)?);
            continue;
        }
        let path = expand_home(name);
        if path.is_file() {
            files.push(DataFile::local(path));
        } else if path.is_dir() {
            match TokenSet::open(&path).map_err(|error| Failure::Input(format!("{key}: {error}")))? {
                Some(set) if set.counts().documents == 0 => {
                    return Err(Failure::Input(format!("{key}: {name} holds no document")));
                }
                Some(set) => files.extend(set.into_files()),
                None => files.extend(inside(key, name, &path)?.into_iter().map(DataFile::local)),
            }
        } else if name.contains(['*', '?', '[']) {
            files.extend(matching(key, name, &path)?.into_iter().map(DataFile::local));
        } else if is_dataset_id(name) {
            has_hub = true;
            files.extend(finder.of_hub(name, &path)?);
        } else {
            let near = neighbour(&path).map_or_else(String::new, |near| format!("; did you mean {near}?"));
            return Err(Failure::Input(format!(
                "{key}: no file {name} (relative paths are relative to the working directory, {}){near}",
                std::env::current_dir().map_or_else(|e| e.to_string(), |dir| dir.display().to_string())
            )));
        }
    }
    Ok((files, has_hub))
}

/// The data files right inside a directory, sorted.
fn inside(key: &str, name: &str, path: &std::path::Path) -> Outcome<Vec<PathBuf>> {
    let is_data = |path: &PathBuf| {
        let file = path.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
        extension(&file).is_some() && !is_about_data(&file) && path.is_file()
    };
    let entries = std::fs::read_dir(path).map_err(|e| Failure::io("list", path, &e))?;
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(is_data).collect();
    if files.is_empty() {
        return Err(Failure::Input(format!(
            "{key}: the directory {name} holds no data file (those end in {}, or these with .gz or .zst); files further \
             down need a pattern, for example {}/**/*.jsonl",
            EXTENSIONS.join(", "),
            name.trim_end_matches('/')
        )));
    }
    files.sort();
    Ok(files)
}

/// Whether a file stands beside data and is none: what `Dataset.save_to_disk` and the hub put there.
fn is_about_data(name: &str) -> bool {
    name == "state.json" || crate::hub::NO_DATA.contains(&name)
}

/// How names of data files end.
const EXTENSIONS: [&str; 9] =
    [".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".txt", ".parquet", ".arrow", ".feather"];

fn matching(key: &str, name: &str, path: &std::path::Path) -> Outcome<Vec<PathBuf>> {
    let wrong = |what: String| Failure::Input(format!("{key}: the pattern {name} {what}"));
    let found = glob::glob(&path.to_string_lossy()).map_err(|e| wrong(format!("is not valid: {}", e.msg)))?;
    let mut files = Vec::new();
    for file in found {
        let file = file.map_err(|e| wrong(format!("cannot be followed: {e}")))?;
        let is_about_data = file.file_name().is_some_and(|name| is_about_data(&name.to_string_lossy()));
        if file.is_file() && !is_about_data {
            files.push(file);
        }
    }
    if files.is_empty() {
        return Err(wrong("matches no file".into()));
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_sorted_and_misses_are_told() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        for name in ["b.jsonl", "a.jsonl", "c.txt"] {
            std::fs::write(dir.path().join(name), "").expect("written");
        }
        let at = |name: &str| dir.path().join(name).display().to_string();
        let names = |files: Vec<DataFile>| {
            files
                .iter()
                .map(|f| f.path().file_name().expect("a name").to_string_lossy().into_owned())
                .collect::<Vec<_>>()
        };
        let part = Part { name: None, split: "train".into(), revision: "main".into(), files: None };
        let finder = Finder { key: "data.train", part, part_keys: Vec::new(), fetch: Fetch::No };
        let expand = |names: &[String]| finder.expand(names);
        assert_eq!((extension("a.Feather"), extension("a.csv.zstd")), (Some(".feather"), Some(".csv")));
        let files = expand(&[at("c.txt"), at("*.jsonl")]).expect("all there");
        assert_eq!(names(files), ["c.txt", "a.jsonl", "b.jsonl"]);
        let said = |name: &str| match expand(&[at(name)]) {
            Err(Failure::Input(message)) => message,
            other => panic!("{other:?}"),
        };
        assert!(said("a.jsonk").contains("did you mean a.jsonl?"));
        assert!(said("*.csv").contains("matches no file"));
        assert_eq!(names(expand(&[at("")]).expect("files")), ["a.jsonl", "b.jsonl", "c.txt"]);
        // As `Dataset.save_to_disk` leaves it.
        for name in ["dataset_info.json", "state.json"] {
            std::fs::write(dir.path().join(name), "{}").expect("written");
        }
        assert_eq!(names(expand(&[at("")]).expect("files")), ["a.jsonl", "b.jsonl", "c.txt"]);
        assert!(said("*.json").contains("matches no file"));
        std::fs::create_dir(dir.path().join("empty")).expect("made");
        assert!(said("empty").contains("holds no data file"));
        assert!(is_dataset_id("org/name") && !is_dataset_id("data/a.jsonl") && !is_dataset_id("name"));
    }
}
