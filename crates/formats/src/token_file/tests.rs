//! What is written is what is read; what lies is refused.

use std::path::PathBuf;

use super::*;
use crate::FormatError;

/// Three documents, one of them empty, the middle tokens of the last not learned.
fn written(dir: &tempfile::TempDir, largest: u32) -> PathBuf {
    let path = dir.path().join(format!("{largest}.tokens"));
    let mut writer = TokenFileWriter::create(&path, largest).unwrap();
    writer.push(&[5, 6, largest], false, |_| true).unwrap();
    writer.push(&[], true, |_| true).unwrap();
    writer.push(&[1, 2, 3, 4, 5, 6, 7, 8, 9], false, |index| !(2..=6).contains(&index)).unwrap();
    assert_eq!((writer.documents(), writer.tokens()), (3, 12));
    let counts = writer.finish().unwrap();
    let bytes = std::fs::metadata(&path).unwrap().len();
    let sums_sha256 = TokenFile::open(&path).unwrap().sums_sha256().unwrap().unwrap();
    assert_eq!(counts, TokenFileCounts { documents: 3, tokens: 12, learned: 7, bytes, sums_sha256 });
    path
}

/// The same documents in the form of version 1, as earlier versions of this program wrote them.
fn of_version_1(dir: &tempfile::TempDir) -> PathBuf {
    let mut bytes = b"LFTOKENS\x01\0\0\0\x02\0\0\0".to_vec();
    for number in [3_u64, 12, 1, 0, 0, 0] {
        bytes.extend(number.to_le_bytes());
    }
    for token in [5_u16, 6, 100, 1, 2, 3, 4, 5, 6, 7, 8, 9] {
        bytes.extend(token.to_le_bytes());
    }
    bytes.extend([0b0001_1111, 0b0000_1100, 0, 0, 0, 0, 0, 0]);
    for offset in [0_u64, 3, 3, 12] {
        bytes.extend(offset.to_le_bytes());
    }
    let path = dir.path().join("old.tokens");
    std::fs::write(&path, bytes).unwrap();
    path
}

#[test]
fn version_1_is_still_read() {
    let dir = tempfile::tempdir().unwrap();
    let (old, new) = (of_version_1(&dir), written(&dir, 100));
    let (old, new) = (TokenFile::open(&old).unwrap(), TokenFile::open(&new).unwrap());
    assert_eq!((old.version(), new.version()), (1, 2));
    for index in 0..3 {
        assert_eq!(old.document(index).unwrap(), new.document(index).unwrap());
    }
    assert_eq!(old.sums_sha256().unwrap(), None);
    let continues = |file: &TokenFile| [0, 1, 2].map(|index| file.view().unwrap().continues(index).unwrap());
    assert_eq!((continues(&old), continues(&new)), ([false; 3], [false, true, false]));
}

#[test]
fn a_part_of_a_document_and_its_learned_tokens() {
    let dir = tempfile::tempdir().unwrap();
    for path in [written(&dir, 100), of_version_1(&dir)] {
        let file = TokenFile::open(&path).unwrap();
        let view = file.view().unwrap();
        for (start, end) in (0..11).flat_map(|start| (0..12).map(move |end| (start, end))) {
            let mut read = Vec::new();
            view.read(2, start..end, |token, learned| read.push((token, learned))).unwrap();
            let whole = (1_u32..=9).map(|token| (token, !(3..=7).contains(&token)));
            let expected: Vec<_> = whole.take(end).skip(start).collect();
            assert_eq!(read, expected, "{start}..{end}");
            let learned = expected.iter().filter(|(_, learned)| *learned).count();
            assert_eq!(view.learned(2, start..end).unwrap(), learned, "{start}..{end}");
        }
        assert_eq!(view.learned(0, 0..usize::MAX).unwrap(), 3);
        assert_eq!(view.learned(1, 0..usize::MAX).unwrap(), 0);
    }
}

#[test]
fn a_flipped_bit_is_found_when_its_block_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.tokens");
    let mut writer = TokenFileWriter::create(&path, 100).unwrap();
    // Thirty blocks of tokens, two of the mask: blocks end in the middle of documents.
    for document in 0..2000_u32 {
        writer.push(&[document % 100; 500], false, |index| index > 3).unwrap();
    }
    let counts = writer.finish().unwrap();
    TokenFile::open(&path).unwrap().check_all().unwrap();
    let sound = std::fs::read(&path).unwrap();
    assert_eq!(counts.bytes, sound.len() as u64);
    let with_flipped = |at: usize| {
        let mut bytes = sound.clone();
        bytes[at] ^= 4;
        std::fs::write(&path, bytes).unwrap();
        TokenFile::open(&path)
    };
    // In the tokens of document 200, in the third block.
    let file = with_flipped(64 + 200_100).unwrap();
    assert!(file.document(0).is_ok() && file.document(400).is_ok(), "other blocks are sound");
    let error = file.document(200).unwrap_err().to_string();
    assert!(error.contains("bytes 196608 to 262144 are not what was written"), "{error}");
    assert!(file.check_all().is_err());
    // In the mask of document 100, in the offsets, in the sums of tokens.
    let file = with_flipped(64 + 2_000_000 + 6260).unwrap();
    assert!(file.document(100).is_err() && file.view().unwrap().learned(100, 0..500).is_err());
    assert!(file.document(1500).is_ok(), "its mask is in another block");
    assert!(with_flipped(64 + 2_000_000 + 125_000 + 8).unwrap_err().to_string().contains("SHA-256"));
    let file = with_flipped(sound.len() - 33 * 32 + 40).unwrap();
    assert_ne!(file.sums_sha256().unwrap(), Some(counts.sums_sha256));
    assert!(with_flipped(20).is_err(), "the header");
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
    assert!(writer.push(&[1], true, |_| true).unwrap_err().to_string().contains("continues another"));
    writer.push(&[1, 2, 3], false, |_| true).unwrap();
    assert!(writer.push(&[70_000], false, |_| true).unwrap_err().to_string().contains("token id 70000"));
    assert!(TokenFileWriter::create(&path, 10).is_err(), "what another process writes is not replaced");
    // 64 bytes of header, 6 of tokens padded to 8, two offsets, a sum.
    assert_eq!(writer.finish().unwrap().bytes, 64 + 8 + 16 + 32);
    let file = TokenFile::open(&path).unwrap();
    assert!(!file.has_mask());
    assert_eq!(file.document(0).unwrap(), TokenDocument { tokens: vec![1, 2, 3], learned: None });
}

#[test]
fn every_lie_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    // Header, 24 bytes of tokens, 8 of the mask, 32 of offsets; in version 2 continuations, padded, and a sum.
    for (path, version, size) in [(of_version_1(&dir), 1, 128), (written(&dir, 100), 2, 168)] {
        let sound = std::fs::read(&path).unwrap();
        assert_eq!(sound.len(), size);
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
            // Version 2 lies along with its sum: what the offsets say is checked as well.
            if version == 2 {
                let sum: [u8; 32] = sha2::Digest::finalize(sha2::Digest::chain_update(
                    <sha2::Sha256 as sha2::Digest>::new(),
                    &bytes[..size - 32],
                ))
                .into();
                bytes[size - 32..].copy_from_slice(&sum);
            }
            bytes
        };
        for len in 0..sound.len() {
            said(&sound[..len]);
        }
        let more = said(&[&sound[..], &[0]].concat());
        assert!(more.contains(&format!("need {size} bytes, but it has {}", size + 1)), "{more}");
        assert!(said(&with(0, 7)).contains("LFTOKENS"));
        assert!(said(&with(8, 3 | 2 << 32)).contains("version 3"));
        assert!(said(&with(8, 2 << 32)).contains("version 0"));
        let flags = if version == 1 { 3 } else { 7 };
        for (at, value) in [(8, version | 3 << 32), (32, flags), (40, 1), (56, 1 << 60)] {
            let problem = said(&with(at, value));
            assert!(
                problem.contains(&format!("values that version {version} does not have")),
                "{at}: {problem}"
            );
        }
        for huge in [1 << 61, u64::MAX, 1 << 33] {
            said(&with(16, huge));
            said(&with(24, huge));
        }
        let offsets = 64 + 24 + 8;
        for (index, value) in [(0, 1), (1, 13), (1, u64::MAX), (2, 2), (3, 11), (3, 13)] {
            assert!(said(&with(offsets + 8 * index, value)).contains("offset"), "{index} {value}");
        }
        if version == 2 {
            assert!(said(&with(offsets + 32, 1)).contains("its first document continues another"));
            let mut flipped = sound.clone();
            flipped[offsets + 32] ^= 4;
            assert!(said(&flipped).contains("not what was written"));
        }
        std::fs::write(&path, &sound).unwrap();
        TokenFile::open(&path).unwrap();
    }
}

#[test]
fn a_file_that_shrinks_or_changes_after_it_was_opened_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let path = written(&dir, 100);
    let file = TokenFile::open(&path).unwrap();
    let sound = std::fs::read(&path).unwrap();
    let mut changed = sound.clone();
    let offsets = 64 + 24 + 8;
    changed[offsets + 8..offsets + 16].copy_from_slice(&u64::MAX.to_le_bytes());
    // In place: the mapping sees it.
    std::io::Write::write_all(&mut std::fs::OpenOptions::new().write(true).open(&path).unwrap(), &changed)
        .unwrap();
    assert!(matches!(file.document(0), Err(FormatError::InvalidTokenFile { .. })));
    std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(70).unwrap();
    assert!(matches!(file.document(0), Err(FormatError::FileShrank { now: 70, .. })));
}
