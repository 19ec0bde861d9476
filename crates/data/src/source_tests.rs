//! Reading files: lines, arrays, text, and every way they can be broken.

use std::io::Cursor;
use std::path::PathBuf;

use proptest::prelude::*;

use super::*;

/// Writes `bytes` under `name` and reads it; rows with their lines, and the number of blank pieces.
fn read(name: &str, bytes: &[u8], by: SampleBy) -> Result<(Vec<(u64, Row)>, usize), DataError> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    let mut rows = Vec::new();
    let blank = read_file(&path, by, &mut |place, row| {
        rows.push((place.line, row));
        Ok(())
    })?;
    Ok((rows, blank))
}

fn ids(rows: &[(u64, Row)]) -> Vec<(u64, i64)> {
    rows.iter()
        .map(|(line, row)| match row {
            Row::Object(object) => (*line, object["a"].as_i64().unwrap()),
            Row::Text(_) => panic!("an object is expected"),
        })
        .collect()
}

fn texts(rows: &[(u64, Row)]) -> Vec<(u64, &str)> {
    rows.iter()
        .map(|(line, row)| match row {
            Row::Text(text) => (*line, text.as_str()),
            Row::Object(_) => panic!("a text is expected"),
        })
        .collect()
}

fn message(name: &str, bytes: &[u8]) -> String {
    let error = read(name, bytes, SampleBy::Document).expect_err("the file is broken").to_string();
    // The temporary directory's name is of no interest.
    let start = error.find(name).unwrap_or(0);
    error[start..].to_owned()
}

#[test]
fn json_lines_are_read_with_their_line_numbers() {
    let (rows, blank) =
        read("a.jsonl", b"\xEF\xBB\xBF{\"a\":1}\r\n\n  \n{\"a\": 2}", SampleBy::Document).unwrap();
    assert_eq!((ids(&rows), blank), (vec![(1, 1), (4, 2)], 2));
    let (rows, _) = read("a.JSON", b"{\"a\":1}\n{\"a\":2}\n", SampleBy::Document).unwrap();
    assert_eq!(ids(&rows), [(1, 1), (2, 2)]);
}

#[test]
fn an_array_is_read_with_the_line_of_each_element() {
    let text = b"\n [ {\"a\": 1}, {\"a\":2},\n\n  {\n \"a\":\n3}\n,\n{\"a\":4}]\n";
    let (rows, _) = read("a.json", text, SampleBy::Document).unwrap();
    assert_eq!(ids(&rows), [(2, 1), (2, 2), (4, 3), (8, 4)]);
    assert!(read("a.json", b"[]", SampleBy::Document).unwrap().0.is_empty());
}

#[test]
fn text_is_cut_as_asked() {
    let text = b"one\r\ntwo\n\n\nthree\n\n\n\n \n\nfour";
    let (rows, blank) = read("a.txt", text, SampleBy::Document).unwrap();
    assert_eq!((texts(&rows), blank), (vec![(1, "one\ntwo\n\n\nthree\n\n\n\n \n\nfour")], 0));
    let (rows, blank) = read("a.txt", text, SampleBy::Paragraph).unwrap();
    assert_eq!((texts(&rows), blank), (vec![(1, "one\ntwo"), (4, "\nthree"), (11, "four")], 1));
    let (rows, blank) = read("a.txt", text, SampleBy::Line).unwrap();
    assert_eq!((texts(&rows), blank), (vec![(1, "one"), (2, "two"), (5, "three"), (11, "four")], 7));
    assert_eq!(read("a.txt", b" \n", SampleBy::Document).unwrap(), (vec![], 1));
}

#[test]
fn broken_json_is_named_by_file_and_line() {
    assert_eq!(
        message("b.jsonl", b"{\"a\":1}\n{\"a\":}\n"),
        "b.jsonl:2: broken JSON: expected value (column 6); each line of a .jsonl file must be one complete object, a \
         .json file an array of objects"
    );
    assert!(
        message("b.json", b"[{\"a\":1},\n{\"a\" 1}]")
            .starts_with("b.json:2: broken JSON: expected `:` (column 6)")
    );
    assert!(message("b.json", b"[{\"a\":1}").starts_with("b.json:1: broken JSON: EOF while parsing a list"));
    assert!(message("b.json", b"[]\n[]").starts_with("b.json:2: broken JSON: trailing characters"));
    assert!(
        message("b.jsonl", b"{}\n[1]")
            .starts_with("b.jsonl:2: a row must be an object with named keys, found a list")
    );
    assert!(
        message("b.json", b"[\n1]")
            .starts_with("b.json:2: a row must be an object with named keys, found a number")
    );
    let deep = [b"[".repeat(200), b"]".repeat(200)].concat();
    assert!(message("b.json", &deep).contains("recursion limit exceeded"));
}

#[test]
fn bytes_that_are_not_utf8_are_named_by_line() {
    assert!(message("c.jsonl", b"{\"a\":1}\n{\"a\":\"\xff\"}").starts_with("c.jsonl:2: not UTF-8"));
    assert!(message("c.txt", b"one\ntwo\n\xff\n").starts_with("c.txt:3: not UTF-8"));
    assert!(message("c.json", b"[{\"a\":\"\xff\"}]").starts_with("c.json:1: broken JSON"));
}

#[test]
fn files_that_cannot_be_read_say_why() {
    assert!(message("d.parquet", b"").contains("convert the table to .jsonl first"));
    assert!(message("d.jsonl.gz", b"").contains("decompress the file first"));
    assert!(message("d.bin", b"").contains("supported are .json, .jsonl, .ndjson and .txt"));
    let missing = read_file(&PathBuf::from("nowhere.jsonl"), SampleBy::Line, &mut |_, _| Ok(())).unwrap_err();
    assert!(matches!(missing, DataError::Io { .. }));
    assert!(missing.to_string().starts_with("nowhere.jsonl: No such file"));
}

#[test]
fn a_line_beyond_the_limit_is_refused() {
    let path: Arc<Path> = Path::new("e.jsonl").into();
    let error = read_lines(Cursor::new(b"abc\nabcdef\n"), &path, 4, &mut |_, _| Ok(())).unwrap_err();
    assert_eq!(
        error.to_string(),
        "e.jsonl:2: the line is longer than 4 bytes; is this really JSON Lines or text?"
    );
}

#[test]
fn an_error_of_the_sink_stops_the_reading() {
    let path: Arc<Path> = Path::new("f.json").into();
    let mut seen = 0;
    let error = read_array(Cursor::new(b"[{},{},{}]"), &path, &mut |place, _| {
        seen += 1;
        if seen == 2 { Err(DataError::NotUtf8 { place }) } else { Ok(()) }
    });
    assert!(matches!(error, Err(DataError::NotUtf8 { .. })));
    assert_eq!(seen, 2);
}

proptest! {
    /// Hostile bytes: an error or rows, never a panic.
    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), array in any::<bool>()) {
        let path: Arc<Path> = Path::new("x").into();
        let bytes = if array { [b"[".to_vec(), bytes].concat() } else { bytes };
        let _ = read_array(Cursor::new(&bytes), &path, &mut |_, _| Ok(()));
        let _ = read_lines(Cursor::new(&bytes), &path, 100, &mut |place, line| parse_object(&place, line).map(|_| ()));
        for by in [SampleBy::Document, SampleBy::Paragraph, SampleBy::Line] {
            let _ = read_text(Cursor::new(&bytes), &path, by, &mut |_, _| Ok(()));
        }
    }

    /// Almost-JSON reaches further into the parser than noise does.
    #[test]
    fn mutilated_json_never_panics(cut in 0usize..120, flip in 0usize..120, with in any::<u8>()) {
        let mut bytes = br#"[{"messages":[{"role":"user","content":"\u00e9\ud83d\ude00"}],"n":-1.5e3},{"text":null}]"#.to_vec();
        let (flip, cut) = (flip % bytes.len(), cut % bytes.len());
        bytes[flip] = with;
        bytes.truncate(cut + 1);
        let path: Arc<Path> = Path::new("x").into();
        let _ = read_array(Cursor::new(&bytes), &path, &mut |place, row| {
            if let Row::Object(object) = row {
                for shape in crate::shape::Shape::candidates(&object, "text") {
                    let _ = crate::example::from_row(object.clone(), shape, "text", &place);
                }
            }
            Ok(())
        });
    }
}
