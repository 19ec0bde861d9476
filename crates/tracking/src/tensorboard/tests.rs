//! Event files, read by a small reader of their format.

use super::*;
use crate::crc32c::masked;
use crate::protobuf::{Wire, fields};
use serde_json::json;

/// The events of a file, whose frames must be whole and right.
fn events(path: &Path) -> Vec<Vec<u8>> {
    let bytes = fs::read(path).unwrap();
    let mut rest = &bytes[..];
    let mut found = Vec::new();
    while !rest.is_empty() {
        let length = u64::from_le_bytes(rest[..8].try_into().unwrap()) as usize;
        let crc = |at: usize| u32::from_le_bytes(rest[at..at + 4].try_into().unwrap());
        assert_eq!((crc(8), crc(12 + length)), (masked(&rest[..8]), masked(&rest[12..12 + length])));
        found.push(rest[12..12 + length].to_vec());
        rest = &rest[16 + length..];
    }
    found
}

fn field<'a>(message: &'a [u8], number: u32) -> Option<Wire<'a>> {
    fields(message).find(|(field, _)| *field == number).map(|(_, value)| value)
}

/// Position, names and values of an event of scalars.
fn scalars(event: &[u8]) -> Vec<(u64, String, f32)> {
    let Some(Wire::Integer(position)) = field(event, 2) else { return Vec::new() };
    let Some(Wire::Bytes(summary)) = field(event, 5) else { return Vec::new() };
    let values = fields(summary).filter_map(|(_, value)| value.bytes());
    let scalar = |value: &[u8]| {
        let name = String::from_utf8(field(value, 1)?.bytes()?.to_vec()).ok()?;
        let Wire::Integer(bits) = field(value, 2)? else { return None };
        Some((position, name, f32::from_bits(bits as u32)))
    };
    values.filter_map(scalar).collect()
}

fn settings(parent: &Path) -> EventSettings {
    let texts = vec![("args".to_owned(), "{}".to_owned())];
    EventSettings { directory: parent.join("runs/one"), host: "here".into(), texts }
}

fn row(position: u64, loss: f64) -> Row {
    Row { position, values: vec![("train/loss".into(), loss), ("train/zero".into(), 0.0)] }
}

#[test]
fn scalars_and_texts_are_in_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let mut run = Events::create(&settings(dir.path())).unwrap();
    run.log(&row(1, 2.5)).unwrap();
    run.log(&row(2, f64::NAN)).unwrap();
    run.finish(0).unwrap();
    let name = run.path().file_name().unwrap().to_string_lossy().into_owned();
    assert!(name.starts_with("events.out.tfevents.") && name.ends_with(".here.0"), "{name}");
    let events = events(run.path());
    assert_eq!(field(&events[0], 3), Some(Wire::Bytes(b"brain.Event:2")));
    let text = String::from_utf8_lossy(&events[1]).into_owned();
    assert!(text.contains("args/text_summary"), "{text}");
    // A value of 0 is written: without it TensorBoard would not know that it is a scalar.
    assert_eq!(scalars(&events[2]), [(1, "train/loss".into(), 2.5), (1, "train/zero".into(), 0.0)]);
    assert!(scalars(&events[3])[0].2.is_nan());
}

#[test]
fn a_resumed_run_goes_on_in_its_folder() {
    let dir = tempfile::tempdir().unwrap();
    let mut run = Events::create(&settings(dir.path())).unwrap();
    run.log(&row(5, 1.0)).unwrap();
    let (state, first) = (run.state(), run.path().to_owned());
    let moved = EventSettings { directory: dir.path().join("runs/two"), ..settings(dir.path()) };
    let run = Events::resume(&moved, &state, 3).unwrap();
    assert_eq!(run.path().parent(), first.parent());
    assert!(run.path() > first.as_path());
    let start = &events(run.path())[1];
    assert_eq!((field(start, 2), field(start, 7)), (Some(Wire::Integer(4)), Some(Wire::Bytes(&[8, 1]))));
    // A folder that is gone, and names that lead elsewhere.
    fs::remove_dir_all(first.parent().unwrap()).unwrap();
    assert_eq!(Events::resume(&moved, &state, 3).unwrap().path().parent(), Some(moved.directory.as_path()));
    let state = Map::from_iter([("directory".to_owned(), json!(".."))]);
    assert_eq!(Events::resume(&moved, &state, 3).unwrap().path().parent(), Some(moved.directory.as_path()));
}

#[test]
fn places_that_cannot_be_written_are_errors() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("runs"), "").unwrap();
    let error = Events::create(&settings(dir.path())).err().unwrap();
    assert!(error.to_string().contains("cannot create the directory"), "{error}");
}
