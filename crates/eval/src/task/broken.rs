//! Files of a folder that cannot be read: what they would be called, so that nothing that holds them is run without
//! them.

use super::library::read_file;
use super::yaml::definition;
use crate::EvalError;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How deep files are followed into what they include.
const DEEPEST: usize = 4;

/// A file that cannot be read.
#[derive(Debug, Clone)]
pub(super) struct Broken {
    pub(super) file: PathBuf,
    /// Of its task or group, or else the file's own.
    pub(super) names: Vec<String>,
    tags: Vec<String>,
    pub(super) problem: Arc<EvalError>,
}

impl Broken {
    pub(super) fn new(file: PathBuf, problem: EvalError) -> Self {
        let mut names = Vec::new();
        let mut tags = Vec::new();
        let text = read_file(&file).unwrap_or_default();
        for key in ["task", "group"] {
            // A list is what a group holds, and not its name.
            names.extend(values(&text, key).filter(|found| !found.is_list).map(|found| found.text));
        }
        if names.is_empty() {
            names.extend(file.file_stem().map(|stem| stem.to_string_lossy().into_owned()));
        }
        tags_of(&file, &mut tags, 0);
        Self { file, names, tags, problem: Arc::new(problem) }
    }

    /// Whether it is of that name, or would have that tag.
    pub(super) fn concerns(&self, name: &str) -> bool {
        self.names.iter().chain(&self.tags).any(|own| own == name)
    }

    /// Why `name`, its own or that of its tag, cannot be had.
    pub(super) fn refusal(&self, name: &str) -> EvalError {
        let problem = &self.problem;
        definition(
            self.file.display().to_string(),
            match self.names.iter().any(|own| own == name) {
                true => format!("the task `{name}` cannot be read: {problem}"),
                false => format!("this task of the tag `{name}` cannot be read: {problem}"),
            },
            "correct the file, or ask for the tasks that you want by their names".into(),
        )
    }
}

/// The tags that a file gives, or one that it includes.
fn tags_of(file: &Path, tags: &mut Vec<String>, depth: usize) {
    let text = read_file(file).unwrap_or_default();
    tags.extend(values(&text, "tag").map(|found| found.text));
    for include in values(&text, "include").filter(|_| depth < DEEPEST) {
        tags_of(&file.parent().unwrap_or(Path::new("")).join(include.text), tags, depth + 1);
    }
}

struct Found {
    text: String,
    is_list: bool,
}

/// The values of a top-level key, by its lines alone: the file is no valid YAML.
fn values<'t>(text: &'t str, key: &'t str) -> impl Iterator<Item = Found> + 't {
    let mut is_inside = false;
    text.lines().flat_map(move |line| {
        let line = line.split(" #").next().unwrap_or_default();
        let own = line.strip_prefix(key).and_then(|rest| rest.strip_prefix(':'));
        let item = line.trim_start().strip_prefix("- ").filter(|_| is_inside);
        // An item of a list goes on with the key's value; any other line at the margin ends it.
        is_inside = own.is_some() || (is_inside && (item.is_some() || line.starts_with(' ')));
        let value = own.or(item).unwrap_or_default().trim();
        let is_list = item.is_some() || value.starts_with('[');
        let names = value.trim_matches(['[', ']']).split(',');
        let names: Vec<Found> = names
            .map(|name| name.trim().trim_matches(['"', '\'']))
            .filter(|name| !name.is_empty())
            .map(|name| Found { text: name.to_owned(), is_list })
            .collect();
        names
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_tags_are_found_in_what_is_no_yaml() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        write("base", "tag:\n  - third\n- fourth\ndoc_to_text: [\n");
        write("a.yaml", "task: 'own' # why\ninclude: base\ntag: [first, \"second\"]\nx: [\n");
        write("b.yaml", "group: b\ntask: [a, c]\ntask_alias: z\n");
        write("c.yaml", "- {");
        let problem = || EvalError::Data { task: "t".into(), problem: "p".into() };
        let broken = |name: &str| Broken::new(dir.path().join(name), problem());
        let own = broken("a.yaml");
        assert_eq!(
            (own.names.join(" "), own.tags.join(" ")),
            ("own".into(), "first second third fourth".into())
        );
        assert_eq!(broken("b.yaml").names, ["b"]);
        assert_eq!(broken("c.yaml").names, ["c"]);
        assert!(own.refusal("third").to_string().contains("this task of the tag `third`"));
    }
}
