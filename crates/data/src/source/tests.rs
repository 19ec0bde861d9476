//! Reading files: lines, arrays, text, and every way they can be broken.

use std::io::Write as _;

use proptest::prelude::*;

use super::bytes::ByteStream;
use super::*;

/// Everything a reader gives from `at` on: rows with their positions, problems, blank pieces.
pub(super) type Everything = (Vec<(Position, u64, Row)>, Vec<DataError>, usize);

pub(super) fn read_from(file: &DataFile, by: SampleBy, at: Position) -> Result<Everything, DataError> {
    let mut reader = open(file, by, at)?;
    let (mut rows, mut problems) = (Vec::new(), Vec::new());
    loop {
        match reader.next() {
            Ok(Some(found)) => rows.push((found.at, found.place.line, found.row)),
            Ok(None) => return Ok((rows, problems, reader.blank())),
            Err(unreadable) => {
                problems.push(unreadable.error);
                if !unreadable.goes_on {
                    return Ok((rows, problems, reader.blank()));
                }
            }
        }
    }
}

/// Writes `bytes` under `name` and reads it; rows with their lines, and the number of blank pieces; or the first
/// problem.
fn read(name: &str, bytes: &[u8], by: SampleBy) -> Result<(Vec<(u64, Row)>, usize), DataError> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    let (rows, mut problems, blank) = read_from(&DataFile::local(path), by, Position::default())?;
    match problems.is_empty() {
        true => Ok((rows.into_iter().map(|(_, line, row)| (line, row)).collect(), blank)),
        false => Err(problems.remove(0)),
    }
}

fn ids(rows: &[(u64, Row)]) -> Vec<(u64, i64)> {
    rows.iter()
        .map(|(line, row)| match row {
            Row::Object(object) => (*line, object["a"].as_i64().unwrap()),
            _ => panic!("an object is expected"),
        })
        .collect()
}

fn texts(rows: &[(u64, Row)]) -> Vec<(u64, &str)> {
    rows.iter()
        .map(|(line, row)| match row {
            Row::Text(text) => (*line, text.as_str()),
            _ => panic!("a text is expected"),
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
    assert!(message("d.jsonl.xz", b"").contains("decompress the file first"));
    assert!(message("d.bin", b"").contains("supported are .jsonl, .ndjson, .json, .csv, .tsv, .txt"));
    assert!(message("d.parquet.gz", b"").contains("tables are compressed inside"));
    let missing =
        read_from(&DataFile::local("nowhere.jsonl"), SampleBy::Line, Position::default()).unwrap_err();
    assert!(missing.to_string().starts_with("nowhere.jsonl: No such file"));
    let dir = tempfile::tempdir().unwrap();
    let directory = dir.path().join("x.jsonl");
    std::fs::create_dir(&directory).unwrap();
    let error = read_from(&DataFile::local(directory), SampleBy::Line, Position::default()).unwrap_err();
    assert!(error.to_string().ends_with("not a regular file; check the path and its permissions"), "{error}");
}

#[test]
fn a_name_that_says_nothing_is_told_by_its_content() {
    let (rows, _) = read("part-0001", b" {\"a\": 1}\n{\"a\": 2}\n", SampleBy::Line).unwrap();
    assert_eq!(ids(&rows), [(1, 1), (2, 2)]);
    let (rows, _) = read("part-0002", &gzip(b"[{\"a\": 1}]"), SampleBy::Line).unwrap();
    assert_eq!(ids(&rows), [(1, 1)]);
}

#[test]
fn bad_rows_are_passed_over_and_the_next_ones_read() {
    let dir = tempfile::tempdir().unwrap();
    let read = |name: &str, bytes: &[u8]| {
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        let (rows, problems, _) =
            read_from(&DataFile::local(path), SampleBy::Line, Position::default()).unwrap();
        (rows.len(), problems.len())
    };
    assert_eq!(read("a.jsonl", b"{\"a\":1}\n{\n\xff\n7\n{\"a\":2}\n"), (2, 3));
    assert_eq!(read("a.json", b"[{\"a\":1}, 7, {\"a\" 1}, {\"a\":2}]"), (2, 2));
    assert_eq!(
        read("b.json", b"[{\"a\":1}, {\"a\": [}"),
        (1, 1),
        "nothing after a bracket that never closes"
    );
    assert_eq!(read("a.csv", b"a,b\n1,2\n1\n\xff,1\n3,4\n"), (2, 2));
}

fn stream(bytes: &[u8], name: &str) -> (tempfile::TempDir, ByteStream, Arc<Path>) {
    let dir = tempfile::tempdir().unwrap();
    let file = DataFile::local(dir.path().join(name));
    std::fs::write(file.path(), bytes).unwrap();
    let stream = ByteStream::open(&file, Compression::None, 0).unwrap();
    let path = Arc::clone(file.path());
    (dir, stream, path)
}

#[test]
fn a_line_beyond_the_limit_is_refused_and_passed_over() {
    let (_dir, bytes, path) = stream(b"abc\nabcdefghijk\nabc", "e.txt");
    let mut lines = lines::LineReader::new(bytes, path, Position::default()).with_limit(4);
    assert_eq!(lines.next().unwrap().unwrap().text, "abc\n");
    let error = lines.next().map(|_| ()).unwrap_err();
    assert!(error.goes_on);
    let text = error.error.to_string();
    assert!(
        text.ends_with("e.txt:2: the line is longer than 4 bytes; is this really JSON Lines or text?"),
        "{text}"
    );
    assert_eq!(lines.next().unwrap().unwrap().text, "abc");
    let (_dir, bytes, path) = stream(b"[{\"a\": 12345}]", "e.json");
    let mut elements = json::JsonArray::new(bytes, path, Position::default()).with_limit(4);
    assert!(matches!(elements.next().unwrap_err().error, DataError::LineTooLong { limit: 4, .. }));
    // What stands behind a long element is read.
    let (_dir, bytes, path) = stream(b"[{\"a\": 1},\n{\"a\": 12345},\n{\"a\": 3}]", "e.json");
    let mut elements = json::JsonArray::new(bytes, path, Position::default()).with_limit(8);
    assert!(elements.next().unwrap().is_some());
    let error = elements.next().unwrap_err();
    assert!(error.goes_on && error.error.to_string().contains("e.json:2: "), "{}", error.error);
    let at = elements.position();
    let last = elements.next().unwrap().unwrap();
    assert_eq!((last.place.line, last.at.offset), (3, at.offset + 2));
    assert!(elements.next().unwrap().is_none());
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[cfg(feature = "zstd")]
fn zstd(bytes: &[u8]) -> Vec<u8> {
    ::zstd::encode_all(bytes, 1).unwrap()
}

#[test]
#[cfg(feature = "zstd")]
fn compressed_files_are_read_and_cut_ones_told() {
    let text = b"{\"a\": 1}\n{\"a\": 2}\n";
    let members = [gzip(&text[..9]), gzip(&text[9..])].concat();
    for (name, bytes) in [("a.jsonl.gz", members), ("a.jsonl.zst", zstd(text))] {
        let (rows, _) = read(name, &bytes, SampleBy::Line).unwrap();
        assert_eq!(ids(&rows), [(1, 1), (2, 2)], "{name}");
        let error = message(name, &bytes[..bytes.len() - 7]);
        assert!(error.starts_with(&format!("{name}: broken compressed data: ")), "{error}");
        assert!(error.ends_with("fetch the file again"), "{error}");
    }
    assert!(message("b.json.gz", b"no gzip at all").contains("broken compressed data"));
    assert!(message("b.csv.zst", b"no zstd at all").contains("broken compressed data"));
}

#[test]
fn a_file_that_shrinks_is_told_and_one_that_grows_is_read_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.jsonl");
    let line = format!("{{\"a\": \"{}\"}}\n", "x".repeat(990));
    std::fs::write(&path, line.repeat(1000)).unwrap();
    let file = DataFile::local(&path);
    let mut reader = open(&file, SampleBy::Line, Position::default()).unwrap();
    reader.next().unwrap();
    std::fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(b"{broken").unwrap();
    let rest = std::iter::from_fn(|| reader.next().expect("what is appended is not looked at")).count();
    assert_eq!(rest, 999);
    let mut reader = open(&file, SampleBy::Line, Position::default()).unwrap();
    let behind = reader.next().map(|_| reader.position()).unwrap();
    std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(500_000).unwrap();
    let error = loop {
        match reader.next() {
            Ok(Some(_)) => {}
            Ok(None) => panic!("a shrunk file does not just end"),
            Err(unreadable) => break unreadable.error.to_string(),
        }
    };
    assert!(error.contains("the file has shrunk"), "{error}");
    std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(10).unwrap();
    let error = open(&file, SampleBy::Line, behind).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("the file has shrunk"), "{error}");
}

#[test]
fn tables_of_text_are_rows_of_texts() {
    let text = "q,\"a, b\",messages\r\n1,\"x\ny\",\"[{\"\"role\"\": \"\"user\"\"}]\"\r\n,z,[\r\n";
    let (rows, _) = read("a.csv", text.as_bytes(), SampleBy::Line).unwrap();
    let objects: Vec<Value> = rows
        .iter()
        .map(|(_, row)| match row {
            Row::Object(object) => Value::Object(object.clone()),
            _ => panic!("an object is expected"),
        })
        .collect();
    let first = serde_json::json!({"q": "1", "a, b": "x\ny", "messages": [{"role": "user"}]});
    assert_eq!(objects, [first, serde_json::json!({"q": "", "a, b": "z", "messages": "["})]);
    assert_eq!(rows.iter().map(|(line, _)| *line).collect::<Vec<_>>(), [2, 4]);
    let (rows, _) = read("a.tsv", b"a\tb\n1\t2,3\n", SampleBy::Line).unwrap();
    assert_eq!(rows.len(), 1);
    assert!(message("b.csv", b"a,a\n1,2\n").starts_with("b.csv:1: two columns are called `a`"));
    assert!(message("c.csv", b"a,b\n1\n").starts_with("c.csv:2: 1 value(s), but the header has 2 column(s)"));
}

/// Files of every kind with the same forty rows.
fn every_kind(dir: &Path) -> Vec<(DataFile, SampleBy)> {
    let lines: Vec<String> =
        (0..40).map(|i| format!("{{\"a\": {i}, \"b\": \"ü{}\"}}", "x".repeat(i))).collect();
    let jsonl = lines.join("\n\n");
    let csv: String = (0..40).map(|i| format!("{i},\"line\nü{i}\"\n")).collect();
    let text: String = (0..40).map(|i| format!("ü{i}\r\nmore\n\n{}", "\n".repeat(i % 3))).collect();
    let files: Vec<(&str, Vec<u8>, SampleBy)> = vec![
        ("a.jsonl", jsonl.clone().into(), SampleBy::Line),
        ("b.jsonl.gz", gzip(jsonl.as_bytes()), SampleBy::Line),
        ("c.json", format!("\n[ {}\n]\n", lines.join("\n , ")).into(), SampleBy::Line),
        ("d.csv", format!("a,b\n{csv}").into(), SampleBy::Line),
        ("e.txt", text.clone().into(), SampleBy::Line),
        ("f.txt", text.clone().into(), SampleBy::Paragraph),
        ("g.txt", text.replace("\r\n", "\r").replace('\n', "\r").into(), SampleBy::Paragraph),
        ("h.txt", text.into(), SampleBy::Document),
    ];
    let write = |(name, bytes, by): (&str, Vec<u8>, SampleBy)| {
        std::fs::write(dir.join(name), bytes).unwrap();
        (DataFile::local(dir.join(name)), by)
    };
    files.into_iter().map(write).collect()
}

#[test]
fn a_reader_goes_on_from_any_place_and_reads_any_row_again() {
    let dir = tempfile::tempdir().unwrap();
    for (file, by) in every_kind(dir.path()) {
        let (all, problems, _) = read_from(&file, by, Position::default()).unwrap();
        assert!(problems.is_empty() && (all.len() >= 40 || by == SampleBy::Document), "{}", file.name());
        let mut reader = open(&file, by, Position::default()).unwrap();
        for number in 0..=all.len() {
            let rest = read_from(&file, by, reader.position()).unwrap().0;
            let rows = |all: &[(Position, u64, Row)]| {
                all.iter().map(|(_, l, r)| (*l, r.clone())).collect::<Vec<_>>()
            };
            assert_eq!(rows(&rest), rows(&all[number..]), "{} from row {number}", file.name());
            if let Some((at, _, row)) = all.get(number) {
                let again = open(&file, by, *at).unwrap().next().unwrap().unwrap();
                assert_eq!(again.row, *row, "{} row {number}", file.name());
            }
            reader.next().unwrap();
        }
    }
}

/// Bytes of a file that are read as if over a network, a few at a time.
#[derive(Debug)]
struct Slow(Vec<u8>);

impl ReadAt for Slow {
    fn size(&self) -> u64 {
        self.0.len() as u64
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> std::io::Result<usize> {
        let rest = self.0.get(offset as usize..).unwrap_or_default();
        let length = rest.len().min(buffer.len()).min(7);
        buffer[..length].copy_from_slice(&rest[..length]);
        Ok(length)
    }
}

#[test]
fn remote_files_are_read_like_local_ones() {
    let dir = tempfile::tempdir().unwrap();
    for (file, by) in every_kind(dir.path()) {
        let bytes = std::fs::read(file.path()).unwrap();
        let address =
            format!("https://example.org/{}?token=1", file.path().file_name().unwrap().to_string_lossy());
        let remote = DataFile::remote(&address, Arc::new(Slow(bytes)));
        let read = |file: &DataFile| read_from(file, by, Position::default()).unwrap().0;
        assert_eq!(read(&remote), read(&file));
    }
}

proptest! {
    /// Hostile bytes: an error or rows, never a panic, and an end.
    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), kind in 0usize..7) {
        let name = ["a.json", "a.jsonl", "a.csv", "a.txt", "a.jsonl.gz", "a", "a.json"][kind];
        let bytes = if kind == 6 { [b"[".to_vec(), bytes].concat() } else { bytes };
        for by in [SampleBy::Document, SampleBy::Paragraph, SampleBy::Line] {
            let _ = read(name, &bytes, by);
        }
    }

    /// Almost-JSON reaches further into the parser than noise does.
    #[test]
    fn mutilated_json_never_panics(cut in 0usize..120, flip in 0usize..120, with in any::<u8>()) {
        let mut bytes = br#"[{"messages":[{"role":"user","content":"\u00e9\ud83d\ude00"}],"n":-1.5e3},{"text":null}]"#.to_vec();
        let (flip, cut) = (flip % bytes.len(), cut % bytes.len());
        bytes[flip] = with;
        bytes.truncate(cut + 1);
        let place = Place::new(&Path::new("x").into(), 1);
        for (_, row) in read("a.json", &bytes, SampleBy::Line).map(|(rows, _)| rows).unwrap_or_default() {
            if let Row::Object(object) = row {
                for shape in crate::shape::Shape::candidates(&object, "text") {
                    let _ = crate::example::from_row(object.clone(), shape, "text", &place);
                }
            }
        }
    }
}

#[test]
fn a_paragraph_with_an_unreadable_line_is_left_out_whole() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.txt");
    std::fs::write(&path, b"one\ntwo\n\nthree\n\xff\nfour\n\nfive\nsix\n").unwrap();
    let file = DataFile::local(path);
    let (rows, problems, _) = read_from(&file, SampleBy::Paragraph, Position::default()).unwrap();
    assert_eq!(problems.len(), 1);
    let found: Vec<_> = rows.iter().map(|(_, line, row)| (*line, row.clone())).collect();
    assert_eq!(found, [(1, Row::Text("one\ntwo".into())), (8, Row::Text("five\nsix\n".into()))]);
    // A reader that is opened where the other one was after the problem does not begin in the middle.
    let mut reader = open(&file, SampleBy::Paragraph, Position::default()).unwrap();
    reader.next().unwrap();
    assert!(reader.next().is_err());
    let (rest, problems, _) = read_from(&file, SampleBy::Paragraph, reader.position()).unwrap();
    assert_eq!((rest.len(), problems.len()), (1, 1));
    assert_eq!(rest[0].2, rows[1].2);
}
