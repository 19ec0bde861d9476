//! What files are called where the directories of this machine say nothing: in cards, reports and names of results.

use serde_json::Value;
use std::path::Path;

/// The last part of a path: `runs/merged/` is called merged, and so is `.` inside of it.
pub(crate) fn last_part(path: &Path) -> Option<String> {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    // `..` at the end has no name of its own.
    let named = match absolute.file_name() {
        Some(_) => absolute,
        None => absolute.canonicalize().ok()?,
    };
    Some(named.file_name()?.to_string_lossy().into_owned())
}

/// What a model is called: the last part of its path or hub id, without `.gguf`.
pub(crate) fn of_model(path: &Path) -> String {
    let name = last_part(path).unwrap_or_default();
    let ending = name.len().saturating_sub(".gguf".len());
    let stem = match name.get(ending..) {
        Some(end) if end.eq_ignore_ascii_case(".gguf") => &name[..ending],
        _ => &name,
    };
    if stem.is_empty() { "model".to_owned() } else { stem.to_owned() }
}

/// A text that is a path from a root or from the home directory, as its last part; any other as it is.
pub(crate) fn without_place(text: &str) -> &str {
    match is_rooted(text) && !text.contains('\n') {
        true => text.trim_end_matches(SEPARATORS).rsplit(SEPARATORS).next().unwrap_or(text),
        false => text,
    }
}

/// The same for every text in a value.
pub(crate) fn without_places(value: &mut Value) {
    match value {
        Value::String(text) => *text = without_place(text).to_owned(),
        Value::Array(items) => items.iter_mut().for_each(without_places),
        Value::Object(entries) => entries.values_mut().for_each(without_places),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// The same for the paths that stand in a command: behind a blank, a quote, a bracket, a comma, `:` or `=`.
pub(crate) fn without_places_in(command: &str) -> String {
    let (mut shown, mut rest, mut before) = (String::new(), command, ' ');
    // Quotes and brackets that are open: a path without a bracket around it may have blanks up to its quote.
    let mut open = Vec::new();
    while let Some(next) = rest.chars().next() {
        let begins = " \t\n'\"[{(,:=".contains(before) && is_rooted(rest);
        let taken = if begins { path_at(rest, open.last().copied()) } else { &rest[..next.len_utf8()] };
        shown.push_str(if begins { without_place(taken) } else { taken });
        match next {
            _ if begins => {}
            '\'' | '"' if open.last() == Some(&next) => drop(open.pop()),
            '\'' | '"' | '[' | '{' | '(' => open.push(next),
            ']' | '}' | ')' => drop(open.pop()),
            _ => {}
        }
        before = taken.chars().next_back().unwrap_or(next);
        rest = &rest[taken.len()..];
    }
    shown
}

const SEPARATORS: [char; 2] = ['/', '\\'];

/// `/a/b`, `~/a`, `C:\a` or `C:/a`. An address (`//`) and a name behind a slash (`/start`) are none.
fn is_rooted(text: &str) -> bool {
    let drive = |text: &str| {
        let mut chars = text.chars();
        chars.next().is_some_and(|c| c.is_ascii_alphabetic())
            && chars.next() == Some(':')
            && chars.next().is_some_and(|c| SEPARATORS.contains(&c))
            && chars.next().is_some_and(|c| c != '/')
    };
    let below_root = text.strip_prefix('/').is_some_and(|rest| {
        let first = rest.split(['\n', '\'', '"']).next().unwrap_or("");
        !rest.starts_with('/') && first.trim_end_matches('/').contains('/')
    });
    below_root || text.starts_with("~/") || drive(text)
}

/// The path that `text` begins with; where a quote is the innermost that is open, it ends with it.
fn path_at(text: &str, open: Option<char>) -> &str {
    let end = match open {
        Some(quote @ ('\'' | '"')) => text.find(quote),
        _ => text.find([' ', '\t', '\n', '\'', '"', ',', ']', '}', ')']),
    };
    &text[..end.unwrap_or(text.len())]
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn results_are_called_by_the_last_part() {
        for (path, name) in [
            ("runs/merged/", "merged"),
            ("merged.gguf", "merged"),
            ("a/Model.GGUF", "Model"),
            ("org/model-1.7B", "model-1.7B"),
            ("/", "model"),
            (".gguf", "model"),
        ] {
            assert_eq!(of_model(Path::new(path)), name, "{path}");
        }
        let here = std::env::current_dir().expect("there is one");
        assert_eq!(last_part(Path::new(".")).as_deref(), here.file_name().and_then(|name| name.to_str()));
        assert_eq!(last_part(Path::new("src/..")), last_part(Path::new(".")));
    }

    #[test]
    fn paths_of_this_machine_are_reduced_and_all_else_stays() {
        for (text, shown) in [
            ("/data/mine/a b.jsonl", "a b.jsonl"),
            ("~/models/own/", "own"),
            ("D:\\models\\mine\\x.gguf", "x.gguf"),
            ("data/a.jsonl", "data/a.jsonl"),
            ("../a.jsonl", "../a.jsonl"),
            ("org/model", "org/model"),
            ("https://host/a/b", "https://host/a/b"),
            ("s3://bucket/a/b", "s3://bucket/a/b"),
            ("/start", "/start"),
            ("/My Disk/models/x", "x"),
            ("/a/b\nis a text", "/a/b\nis a text"),
            ("1/2", "1/2"),
        ] {
            assert_eq!(without_place(text), shown);
        }
        let mut value = json!({"train": ["/a/b.jsonl", "c.jsonl"], "r": 4, "x": {"path": "~/y/z"}});
        without_places(&mut value);
        assert_eq!(value, json!({"train": ["b.jsonl", "c.jsonl"], "r": 4, "x": {"path": "z"}}));
    }

    #[test]
    fn commands_keep_everything_but_places() {
        for (command, shown) in [
            ("llm-foundry train /a/b/x.yaml output_dir=/c/d", "llm-foundry train x.yaml output_dir=d"),
            (
                "train x.yaml 'data.train=[/a/b c.jsonl, ~/d/e.jsonl]'",
                "train x.yaml 'data.train=[b c.jsonl, e.jsonl]'",
            ),
            ("train x.yaml 'lora={adapter: \"/a/b c/d e\"}'", "train x.yaml 'lora={adapter: \"d e\"}'"),
            ("train x.yaml '/a/b c.yaml' a=1/2", "train x.yaml 'b c.yaml' a=1/2"),
            ("train x.yaml 'data.train=/a/my data/x.jsonl' r=4", "train x.yaml 'data.train=x.jsonl' r=4"),
            ("train x.yaml data.train=https://h/a/b.jsonl", "train x.yaml data.train=https://h/a/b.jsonl"),
            ("train ü/x.yaml", "train ü/x.yaml"),
        ] {
            assert_eq!(without_places_in(command), shown);
        }
    }
}
