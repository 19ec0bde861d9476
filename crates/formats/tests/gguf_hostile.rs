//! GGUF files that are truncated, lie, or are of another kind: each is refused with place and reason.

mod fixture;

use fixture::{GgufBuilder, fixture};
use foundry_formats::FormatError;
use foundry_formats::gguf::Gguf;

fn open(bytes: &[u8]) -> Result<Gguf, FormatError> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bad.gguf");
    std::fs::write(&path, bytes).unwrap();
    Gguf::open(&path)
}

/// The file is invalid, and the message names file, place and these words.
fn invalid(bytes: &[u8], words: &str) {
    let error = open(bytes).expect_err(words);
    assert!(matches!(error, FormatError::InvalidGguf { .. }), "{words}: {error:?}");
    let message = error.to_string();
    assert!(message.contains("bad.gguf") && message.contains("at byte"), "{message}");
    assert!(message.contains(words), "`{words}` is not in: {message}");
}

#[test]
fn every_truncation_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("short.gguf");
    std::fs::copy(fixture("gguf/types.gguf"), &path).unwrap();
    Gguf::open(&path).unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    let whole = file.metadata().unwrap().len();
    // Coarse steps through the data (the last 31 bytes may be padding), then every length through the header.
    for len in (2000..whole - 31).rev().step_by(97).chain((0..2000).rev()) {
        file.set_len(len).unwrap();
        assert!(matches!(Gguf::open(&path), Err(FormatError::InvalidGguf { .. })), "{len} of {whole} bytes");
    }
}

#[test]
fn magic_and_version() {
    invalid(b"", "does not begin with `GGUF`");
    invalid(b"PK\x03\x04 something else", "does not begin with `GGUF`");
    invalid(b"GGUF\x03", "the version needs 4 bytes");
    for (version, words) in [
        ([1u8, 0, 0, 0], "version 1 "),
        ([0, 0, 0, 3], "version 3 (big-endian)"),
        ([99, 0, 0, 0], "version 99 "),
    ] {
        let mut bytes = GgufBuilder::new().bytes();
        bytes[4..8].copy_from_slice(&version);
        let error = open(&bytes).unwrap_err();
        assert!(matches!(error, FormatError::GgufVersion { .. }), "{error}");
        assert!(error.to_string().contains(words), "{error}");
    }
}

#[test]
fn counts_larger_than_the_file() {
    for count in [1 << 20, u64::MAX] {
        let mut tensors = GgufBuilder::new();
        tensors.tensor_count = count;
        invalid(&tensors.bytes(), &format!("the tensor count is {count}"));
        let mut metadata = GgufBuilder::new();
        metadata.metadata_count = count;
        invalid(&metadata.bytes(), &format!("the metadata count is {count}"));
    }
}

#[test]
fn lengths_larger_than_the_file() {
    let length = u64::MAX.to_le_bytes();
    invalid(
        &GgufBuilder::new().raw("k", 8, &length).bytes(),
        "the length of metadata `k` is 18446744073709551615",
    );
    let array = |kind: u32, count: u64| [&kind.to_le_bytes()[..], &count.to_le_bytes()].concat();
    for kind in [0, 5, 8, 12] {
        let words = "the element count of metadata `k` is 4611686018427387904";
        invalid(&GgufBuilder::new().raw("k", 9, &array(kind, 1 << 62)).bytes(), words);
    }
    let mut key = GgufBuilder::new();
    key.metadata = [&1_000_000u64.to_le_bytes()[..], &[b'x'; 40]].concat();
    key.metadata_count = 1;
    invalid(&key.bytes(), "the length of a metadata key");
}

#[test]
fn values_of_unknown_or_impossible_kinds() {
    invalid(&GgufBuilder::new().raw("k", 13, &[0; 8]).bytes(), "unknown value type 13");
    invalid(&GgufBuilder::new().raw("k", 7, &[2]).bytes(), "a boolean of value 2");
    invalid(&GgufBuilder::new().raw("k", 8, &[2, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xfe]).bytes(), "not UTF-8");
    let array = |kind: u32, count: u64| [&kind.to_le_bytes()[..], &count.to_le_bytes()].concat();
    invalid(&GgufBuilder::new().raw("k", 9, &array(77, 1)).bytes(), "elements of the unknown value type 77");
    let nested: Vec<u8> = (0..5).flat_map(|_| array(9, 1)).collect();
    invalid(&GgufBuilder::new().raw("k", 9, &[nested, vec![0; 64]].concat()).bytes(), "nests arrays");
    let shallow: Vec<u8> = [array(9, 2), array(0, 1), vec![7], array(0, 0)].concat();
    open(&GgufBuilder::new().raw("k", 9, &shallow).bytes()).expect("arrays in arrays are part of the format");
}

#[test]
fn things_that_are_there_twice() {
    invalid(&GgufBuilder::new().u32("k", 1).u32("k", 2).bytes(), "metadata `k` is there twice");
    let twice = GgufBuilder::new().tensor("w", &[1], &[1.0]).tensor("w", &[1], &[1.0]);
    invalid(&twice.bytes(), "tensor `w` is there twice");
}

#[test]
fn shapes_that_cannot_be() {
    invalid(&GgufBuilder::new().entry("w", &[1, 1, 1, 1, 1], 0, 0).bytes(), "5 dimensions");
    invalid(&GgufBuilder::new().entry("w", &[0], 0, 0).bytes(), "a dimension of 0");
    invalid(&GgufBuilder::new().entry("w", &[1 << 40, 1 << 40], 0, 0).bytes(), "overflows");
    invalid(&GgufBuilder::new().entry("w", &[1 << 62], 0, 0).bytes(), "overflows");
    invalid(&GgufBuilder::new().entry("w", &[33], 2, 0).bytes(), "not whole Q4_0 blocks of 32");
    invalid(&GgufBuilder::new().entry("w", &[128, 2], 12, 0).bytes(), "not whole Q4_K blocks of 256");
}

#[test]
fn data_outside_the_file() {
    invalid(&GgufBuilder::new().entry("w", &[8], 0, 16).bytes(), "not a multiple of the alignment 32");
    invalid(&GgufBuilder::new().entry("w", &[8], 0, 0).bytes(), "past the end of the file");
    invalid(&GgufBuilder::new().entry("w", &[8], 0, u64::MAX - 31).bytes(), "past the end of the file");
    invalid(&GgufBuilder::new().entry("w", &[1 << 40], 0, 0).bytes(), "past the end of the file");
}

#[test]
fn alignment_is_honoured_and_checked() {
    for bad in [0u32, 3, 1 << 30] {
        let error = open(&GgufBuilder::new().u32("general.alignment", bad).bytes()).unwrap_err();
        assert!(matches!(error, FormatError::GgufKey { .. }), "{error}");
    }
    let error = open(&GgufBuilder::new().string("general.alignment", "32").bytes()).unwrap_err();
    assert!(error.to_string().contains("general.alignment"), "{error}");
    // With alignment 8 the data begins at the next multiple of 8 after the table.
    let builder = GgufBuilder::new().u32("general.alignment", 8).entry("w", &[2], 0, 8);
    let mut bytes = builder.bytes();
    let table_end = 24 + builder.metadata.len() + builder.table.len();
    bytes.truncate(table_end);
    bytes.resize(table_end.next_multiple_of(8) + 8, 0);
    bytes.extend([1.0f32, 2.0].iter().flat_map(|v| v.to_le_bytes()));
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("aligned.gguf");
    std::fs::write(&path, bytes).unwrap();
    let mut values = [0.0; 2];
    Gguf::open(&path).unwrap().read_f32("w", 0, &mut values).unwrap();
    assert_eq!(values, [1.0, 2.0]);
}

#[test]
fn tensor_types_that_are_not_read_are_named() {
    for (kind, words) in
        [(20, "IQ4_NL"), (23, "IQ4_XS"), (4, "the unknown GGUF type 4"), (u32::MAX, "4294967295")]
    {
        let error = open(&GgufBuilder::new().entry("w", &[256], kind, 0).bytes()).unwrap_err();
        assert!(matches!(error, FormatError::UnsupportedDtype { .. }), "{error}");
        assert!(error.to_string().contains(words), "{error}");
    }
}

#[test]
fn long_names_are_shortened_in_messages() {
    let name = "n".repeat(100_000);
    let error = open(&GgufBuilder::new().entry(&name, &[0], 0, 0).bytes()).unwrap_err();
    assert!(error.to_string().len() < 600, "{} characters", error.to_string().len());
}
