//! Tables of text that would lose rows silently.

use super::super::tests::read_from;
use super::*;
use crate::spec::SampleBy;

fn file(dir: &tempfile::TempDir, text: &str) -> DataFile {
    let path = dir.path().join("a.csv");
    std::fs::write(&path, text).unwrap();
    DataFile::local(path)
}

#[test]
fn a_quote_that_is_never_closed_is_told_with_its_line() {
    let dir = tempfile::tempdir().unwrap();
    for (text, good, line) in [
        ("a,b\n1,2\n3,\"open\n5,6\n7,8\n", 1, 3),
        ("a,b\n\"x\"\"y\",2\n\"\"\"z,2\n", 1, 3),
        ("a,b\n1,\"", 0, 2),
    ] {
        let (rows, problems, _) = read_from(&file(&dir, text), SampleBy::Line, Position::default()).unwrap();
        let said = problems[0].to_string();
        assert_eq!((rows.len(), problems.len()), (good, 1), "{text:?}: {said}");
        assert!(
            said.contains(&format!("a.csv:{line}: a quote is opened in this record and never closed")),
            "{said}"
        );
    }
    // What only looks like it: quotes inside a value, closed ones at the end of the file, escaped ones.
    for (text, rows) in [
        ("a,b\n5\" pipe,2\n", 1),
        ("a,b\n1,\"x\ny\"", 1),
        ("a,b\n1,\"x\"\"\"\n2,3", 2),
        ("a,b\n\"x\"y\",2\n", 1),
    ] {
        let (found, problems, _) = read_from(&file(&dir, text), SampleBy::Line, Position::default()).unwrap();
        assert_eq!((found.len(), problems.len()), (rows, 0), "{text:?}: {problems:?}");
    }
}

#[test]
fn a_ragged_record_right_after_a_jump_does_not_spoil_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let file = file(&dir, "a,b\n1,2\n3\n5,6\n7,8\n");
    let (all, problems, _) = read_from(&file, SampleBy::Line, Position::default()).unwrap();
    assert_eq!((all.len(), problems.len()), (3, 1));
    // Between the first record and the ragged one.
    let mut reader = super::super::open(&file, SampleBy::Line, Position::default()).unwrap();
    reader.next().unwrap();
    let (rest, problems, _) = read_from(&file, SampleBy::Line, reader.position()).unwrap();
    assert_eq!((rest.len(), problems.len()), (2, 1), "{problems:?}");
    assert_eq!(rest[..], all[1..]);
}

#[test]
fn values_are_json_only_where_they_must_be() {
    let is =
        |column: &str, text: &str, value: Value| assert_eq!(cell(column, text), value, "{column}: {text}");
    let text = |text: &str| Value::from(text);
    is("prompt", "[1, 2] are numbers", text("[1, 2] are numbers"));
    is("prompt", "[1, 2]", text("[1, 2]"));
    is("completion", "{\"a\": 1}", text("{\"a\": 1}"));
    is("completion", "", text(""));
    is("prompt", "[{\"role\": \"user\"}]", serde_json::json!([{"role": "user"}]));
    is("tools", "", Value::Null);
    is("tools", "[{}]", serde_json::json!([{}]));
    is("messages", "[broken", text("[broken"));
    is("other", "[1]", text("[1]"));
}
