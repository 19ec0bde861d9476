//! What is written is what is read; what lies is refused.

use std::path::PathBuf;

use super::*;
use crate::FormatError;

/// Three documents, one of them empty, the middle tokens of the last not learned.
fn written(dir: &tempfile::TempDir, largest: u32) -> PathBuf {
    let path = dir.path().join("a.tokens");
    let mut writer = TokenFileWriter::create(&path, largest).unwrap();
    writer.push(&[5, 6, largest], |_| true).unwrap();
    writer.push(&[], |_| true).unwrap();
    writer.push(&[1, 2, 3, 4, 5, 6, 7, 8, 9], |index| !(2..=6).contains(&index)).unwrap();
    assert_eq!((writer.documents(), writer.tokens()), (3, 12));
    let counts = writer.finish().unwrap();
    let bytes = std::fs::metadata(&path).unwrap().len();
    assert_eq!(counts, TokenFileCounts { documents: 3, tokens: 12, learned: 7, bytes });
    path
}

#[test]
fn what_is_written_is_what_is_read() {
    let dir = tempfile::tempdir().unwrap();
    for (largest, width) in [(65_535, 2), (65_536, 4)] {
        let path = written(&dir, largest);
        let file = TokenFile::open(&path).unwrap();
        assert_eq!((file.layout.width, file.documents(), file.tokens()), (width, 3, 12));
        let first = file.document(0).unwrap();
        assert_eq!((first.tokens, first.learned), (vec![5, 6, largest], Some(vec![true; 3])));
        assert!(file.document(1).unwrap().tokens.is_empty());
        let last = file.document(2).unwrap();
        let mask = [true, true, false, false, false, false, false, true, true];
        assert_eq!((last.tokens, last.learned), ((1..=9).collect(), Some(mask.to_vec())));
        assert_eq!(file.document_tokens(2).unwrap(), 9);
        assert!(file.document(3).unwrap_err().to_string().contains("document 3 is asked for, but it has 3"));
    }
}

#[test]
fn without_hidden_tokens_there_is_no_mask() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.tokens");
    let mut writer = TokenFileWriter::create(&path, 10).unwrap();
    writer.push(&[1, 2, 3], |_| true).unwrap();
    assert!(writer.push(&[70_000], |_| true).unwrap_err().to_string().contains("token id 70000"));
    // 64 bytes of header, 6 of tokens padded to 8, two offsets.
    assert_eq!(writer.finish().unwrap().bytes, 64 + 8 + 16);
    let file = TokenFile::open(&path).unwrap();
    assert!(!file.has_mask());
    assert_eq!(file.document(0).unwrap(), TokenDocument { tokens: vec![1, 2, 3], learned: None });
}

#[test]
fn every_lie_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = written(&dir, 100);
    let sound = std::fs::read(&path).unwrap();
    let said = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        match TokenFile::open(&path) {
            Err(FormatError::InvalidTokenFile { problem, .. }) => problem,
            other => panic!("{other:?}"),
        }
    };
    let with = |at: usize, value: u64| {
        let mut bytes = sound.clone();
        bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
        bytes
    };
    for len in 0..sound.len() {
        said(&sound[..len]);
    }
    assert!(said(&[&sound[..], &[0]].concat()).contains("need 128 bytes, but it has 129"));
    assert!(said(&with(0, 7)).contains("LFTOKENS"));
    assert!(said(&with(8, 2 | 2 << 32)).contains("version 2"));
    for (at, value) in [(8, 1 | 3 << 32), (32, 3), (40, 1), (56, 1 << 60)] {
        assert!(said(&with(at, value)).contains("values that version 1 does not have"), "{at}");
    }
    for huge in [1 << 61, u64::MAX, 1 << 33] {
        said(&with(16, huge));
        said(&with(24, huge));
    }
    let offsets = sound.len() - 4 * 8;
    for (index, value) in [(0, 1), (1, 13), (1, u64::MAX), (2, 2), (3, 11), (3, 13)] {
        assert!(said(&with(offsets + 8 * index, value)).contains("offset"), "{index} {value}");
    }
    std::fs::write(&path, &sound).unwrap();
    TokenFile::open(&path).unwrap();
}

#[test]
fn a_file_that_shrinks_or_changes_after_it_was_opened_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let path = written(&dir, 100);
    let file = TokenFile::open(&path).unwrap();
    let sound = std::fs::read(&path).unwrap();
    let mut changed = sound.clone();
    let offsets = sound.len() - 4 * 8;
    changed[offsets + 8..offsets + 16].copy_from_slice(&u64::MAX.to_le_bytes());
    // In place: the mapping sees it.
    std::io::Write::write_all(&mut std::fs::OpenOptions::new().write(true).open(&path).unwrap(), &changed)
        .unwrap();
    assert!(matches!(file.document(0), Err(FormatError::InvalidTokenFile { .. })));
    std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(70).unwrap();
    assert!(matches!(file.document(0), Err(FormatError::FileShrank { now: 70, .. })));
}
