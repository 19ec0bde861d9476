//! Parquet and Arrow files made by pyarrow (golden/make_table_goldens.py), and what hostile ones do.

use std::path::PathBuf;

use proptest::prelude::*;

use super::tests::read_from;
use super::*;

fn golden(name: &str) -> DataFile {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden").join(name);
    DataFile::local(path)
}

const TABLES: [&str; 3] = ["tables.parquet", "tables.arrow", "tables_stream.arrow"];

fn objects(file: &DataFile, at: Position) -> Vec<Value> {
    let (rows, problems, _) = read_from(file, SampleBy::Line, at).unwrap();
    assert!(problems.is_empty(), "{problems:?}");
    rows.into_iter()
        .map(|(_, _, row)| match row {
            Row::Object(object) => Value::Object(object),
            _ => panic!("an object is expected"),
        })
        .collect()
}

#[test]
fn tables_have_the_rows_of_json_lines() {
    let expected = objects(&golden("tables.jsonl"), Position::default());
    for name in TABLES {
        // Without the column of bytes, and without the nulls that the table adds to structs.
        assert_eq!(objects(&golden(name), Position::default()), expected, "{name}");
    }
}

#[test]
fn tables_go_on_from_any_row() {
    for name in TABLES {
        let file = golden(name);
        let all = objects(&file, Position::default());
        let mut reader = open(&file, SampleBy::Line, Position::default()).unwrap();
        for number in 0..=all.len() {
            assert_eq!(objects(&file, reader.position()), all[number..], "{name} from row {number}");
            reader.next().unwrap();
        }
    }
}

#[test]
fn places_are_row_groups_and_rows() {
    let mut reader = open(&golden("tables.parquet"), SampleBy::Line, Position::default()).unwrap();
    let places: Vec<String> = std::iter::from_fn(|| reader.next().unwrap())
        .map(|found| found.place.to_string().rsplit_once("golden/").unwrap().1.to_owned())
        .collect();
    assert_eq!(places[6..8], ["tables.parquet, row group 0, row 6", "tables.parquet, row group 1, row 0"]);
    assert_eq!(places[22], "tables.parquet, row group 3, row 1");
}

/// Reads a file of these bytes to its end or first error.
fn read_bytes(name: &str, bytes: &[u8]) -> Result<usize, DataError> {
    let dir = tempfile::tempdir().unwrap();
    let path: PathBuf = dir.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    let (rows, mut problems, _) = read_from(&DataFile::local(path), SampleBy::Line, Position::default())?;
    if problems.is_empty() { Ok(rows.len()) } else { Err(problems.remove(0)) }
}

#[test]
fn a_lying_footer_is_an_error() {
    let mut bytes = std::fs::read(golden("tables.parquet").path()).unwrap();
    let end = bytes.len();
    bytes[end - 8..end - 4].copy_from_slice(&0x7fff_ffffu32.to_le_bytes());
    let error = read_bytes("a.parquet", &bytes).unwrap_err().to_string();
    assert!(error.contains("a.parquet: broken table: "), "{error}");
    for cut in [0, 3, 12, end / 2, end - 1] {
        let error = read_bytes("a.parquet", &bytes[..cut]).unwrap_err();
        assert!(matches!(error, DataError::BrokenTable { .. }), "cut at {cut}: {error}");
    }
}

/// The texts of the sound rows, the problems, and the rows lost.
fn read_damaged(name: &str, bytes: &[u8]) -> (Vec<String>, Vec<String>, u32) {
    let dir = tempfile::tempdir().unwrap();
    let path: PathBuf = dir.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    let mut reader = open(&DataFile::local(&path), SampleBy::Line, Position::default()).unwrap();
    let (mut texts, mut problems, mut lost) = (Vec::new(), Vec::new(), 0u32);
    loop {
        match reader.next() {
            Ok(None) => return (texts, problems, lost),
            Ok(Some(Found { row: Row::Object(object), .. })) => {
                texts.push(object["text"].as_str().unwrap().to_owned());
            }
            Ok(Some(_)) => panic!("an object is expected"),
            Err(unreadable) => {
                assert!(unreadable.goes_on, "{}", unreadable.error);
                problems.push(unreadable.error.to_string());
                lost += unreadable.rows;
            }
        }
    }
}

/// Where `text` first stands in a file, whose pages are not compressed.
fn place_of(bytes: &[u8], text: &str) -> usize {
    bytes.windows(text.len()).position(|window| window == text.as_bytes()).expect("it is there")
}

#[test]
fn a_damaged_page_costs_the_rest_of_its_group_only() {
    let sound = std::fs::read(golden("plain.parquet").path()).unwrap();
    let all: Vec<String> = (0..600).map(|i| format!("row {i:03} of it")).collect();
    assert_eq!(read_damaged("a.parquet", &sound), (all.clone(), vec![], 0));
    // Groups of 200 rows in pages of 50. The length of a text is no length any more, in the middle of group 1.
    let mut bytes = sound.clone();
    let at = place_of(&bytes, "row 333 of it");
    bytes[at - 4..at].copy_from_slice(&[0xff; 4]);
    let (texts, problems, lost) = read_damaged("a.parquet", &bytes);
    assert_eq!(lost, 400 - 333, "{problems:?}");
    assert_eq!(texts, [&all[..333], &all[400..]].concat());
    assert!(problems[0].contains("a.parquet, row group 1, row 133: "), "{problems:?}");
    assert!(problems[0].contains("67 row(s) from there on"), "{problems:?}");
    // A text that is no UTF-8 costs a single row.
    let mut bytes = sound;
    bytes[at] = 0xff;
    let (texts, problems, lost) = read_damaged("a.parquet", &bytes);
    assert_eq!((lost, texts), (1, [&all[..333], &all[334..]].concat()), "{problems:?}");
    // A reader goes on behind the damage, wherever it has been.
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.parquet");
    std::fs::write(&path, &bytes).unwrap();
    let mut reader = open(&DataFile::local(&path), SampleBy::Line, Position::default()).unwrap();
    for number in 0..=600 {
        let mut again = open(&DataFile::local(&path), SampleBy::Line, reader.position()).unwrap();
        assert_eq!(again.next().ok(), reader.next().ok(), "row {number}");
    }
}

#[test]
fn a_damaged_batch_of_arrow_costs_that_batch_only() {
    for name in ["plain.arrow", "plain_stream.arrow"] {
        let mut bytes = std::fs::read(golden(name).path()).unwrap();
        let all: Vec<String> = (0..40).map(|i| format!("row {i:03} of it")).collect();
        assert_eq!(read_damaged(name, &bytes).0, all, "{name}");
        let at = place_of(&bytes, "row 013 of it");
        bytes[at] = 0xff;
        let (texts, problems, lost) = read_damaged(name, &bytes);
        assert_eq!((lost, texts), (10, [&all[..10], &all[20..]].concat()), "{name}: {problems:?}");
        assert!(problems[0].contains("row group 1, row 0: broken table: "), "{problems:?}");
    }
    // What stands in dictionaries may depend on what was not read.
    let mut bytes = std::fs::read(golden("words_stream.arrow").path()).unwrap();
    assert_eq!(read_damaged("w.arrow", &bytes).0.len(), 40);
    let at = place_of(&bytes, "word 1");
    bytes[at] = 0xff;
    let (texts, _, lost) = read_damaged("w.arrow", &bytes);
    assert_eq!((texts.len(), lost), (0, 40));
}

/// `bytes` with other eight bytes at every place where the number `is` stands.
fn with_number(bytes: &[u8], is: i64, other: i64) -> Vec<Vec<u8>> {
    let wanted = is.to_le_bytes();
    let places = (0..bytes.len() - 8).filter(|&at| bytes[at..at + 8] == wanted);
    let changed = |at: usize| {
        let mut copy = bytes.to_vec();
        copy[at..at + 8].copy_from_slice(&other.to_le_bytes());
        copy
    };
    places.map(changed).collect()
}

#[test]
fn arrow_lengths_that_no_file_has_are_errors() {
    for name in ["tables.arrow", "tables_stream.arrow"] {
        let sound = std::fs::read(golden(name).path()).unwrap();
        // Every number of eight bytes that may be the length of a body, made larger than any memory.
        let lengths = (64..4096).step_by(8).flat_map(|len| with_number(&sound, len, 1 << 44));
        let mut refused = 0;
        for bytes in lengths {
            match read_bytes(name, &bytes) {
                Err(DataError::BrokenTable { .. } | DataError::DamagedRows { .. }) => refused += 1,
                Err(other) => panic!("{name}: {other}"),
                Ok(_) => {}
            }
        }
        assert!(refused > 0, "{name}: no length was found");
        let mut head = sound.clone();
        let at = if name == "tables.arrow" { 12 } else { 4 };
        head[at..at + 4].copy_from_slice(&i32::MAX.to_le_bytes());
        let said = read_bytes(name, &head).map_err(|e| e.to_string());
        // The file form is read from its footer, and does not look at the schema in front.
        assert!(said.is_ok() == (name == "tables.arrow"), "{said:?}");
    }
    assert!(read_bytes("a.arrow", b"ARROW1\0\0").is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Flipped bytes: rows or an error, never a panic and never more memory than the file could need.
    #[test]
    fn mutilated_tables_never_panic(
        which in 0usize..3,
        at in any::<prop::sample::Index>(),
        with in any::<u8>(),
        cut in any::<Option<prop::sample::Index>>(),
    ) {
        let mut bytes = std::fs::read(golden(TABLES[which]).path()).unwrap();
        let place = at.index(bytes.len());
        bytes[place] = with;
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        let _ = read_bytes(TABLES[which], &bytes);
    }
}
