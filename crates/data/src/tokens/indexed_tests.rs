//! Indexed token files give the rows of the raw files, however they are packed, shuffled, mixed and divided; in memory
//! that does not grow with them.

use std::sync::Arc;

use super::tests::{Room, tiny, to_version_1};
use super::*;
use crate::batches::{Batches as _, Rows as _};
use crate::spec::{Holdout, PackingStrategy, Source, StoppingStrategy};
use crate::{DataSpec, Dataset, Loader, PackedRow, load, load_with_holdout};

/// Every way to make rows of examples.
fn ways(data: &DataSpec, lengths: [usize; 2]) -> Vec<DataSpec> {
    let strategies = [PackingStrategy::Bfd, PackingStrategy::BfdSplit, PackingStrategy::Wrapped];
    let packed = strategies.map(|strategy| (true, strategy));
    let kinds = [&[(false, PackingStrategy::Bfd)][..], &packed].concat();
    let mut ways = Vec::new();
    for (packing, packing_strategy) in kinds {
        for shuffle_dataset in [false, true] {
            for max_length in lengths {
                let max_length = Some(max_length);
                ways.push(DataSpec {
                    packing,
                    packing_strategy,
                    shuffle_dataset,
                    max_length,
                    ..data.clone()
                });
            }
        }
    }
    ways.push(DataSpec { max_length: None, packing: false, ..data.clone() });
    ways
}

fn all(rows: &IndexedTokens) -> Vec<PackedRow> {
    let row = |index: usize| {
        let mut row = PackedRow::default();
        rows.append(index, &mut row).unwrap();
        assert_eq!(row.tokens.len(), rows.tokens(index));
        row
    };
    (0..rows.len()).map(row).collect()
}

/// Rows and report are those of a data set in memory.
fn assert_same(indexed: &Indexed, loaded: &Dataset, what: &str) {
    assert_eq!(all(&indexed.rows), loaded.rows, "{what}");
    let (a, b) = (&indexed.report, &loaded.report);
    let counts = |r: &crate::DataReport| {
        (
            (r.examples, r.rows, r.sequences, r.tokens, r.labelled_tokens, r.longest_row),
            (r.truncated, r.truncated_tokens, r.dropped_empty, r.dropped_unlabelled, r.kept_unlabelled),
            (r.eos_trained, r.double_bos, r.duplicates, r.lengths.clone(), r.format),
        )
    };
    assert_eq!(counts(a), counts(b), "{what}");
    let mut lengths: Vec<usize> = loaded.rows.iter().map(|row| row.tokens.len()).collect();
    lengths.sort_unstable_by(|a, b| b.cmp(a));
    assert_eq!(indexed.rows.longest(3).unwrap(), lengths.iter().take(3).sum::<usize>(), "{what}");
}

#[test]
fn rows_are_those_of_the_raw_files_in_every_way() {
    // 1300 examples: more than one chunk of packing.
    let room = Room::new(1300, 0);
    let data = room.spec(&["chats.jsonl"]);
    let masked = DataSpec { assistant_only_loss: true, ..data.clone() };
    room.tokenize(&masked, (0, 1)).unwrap();
    // Cut there, half of them have nothing to learn.
    let whole = load(&DataSpec { max_length: None, ..masked.clone() }, &tiny()).unwrap().rows;
    let first = |row: &PackedRow| row.labels.iter().position(|label| *label >= 0).unwrap();
    let mut firsts: Vec<usize> = whole.iter().map(first).collect();
    firsts.sort_unstable();
    assert!(firsts[0] < firsts[650], "prompts differ in length");
    for way in ways(&masked, [firsts[650], 60]) {
        let what = format!(
            "{:?} {} {} {:?}",
            way.packing_strategy, way.packing, way.shuffle_dataset, way.max_length
        );
        let tokens = room.as_tokens(&way);
        assert_same(&index(&tokens, &tiny()).unwrap(), &load(&way, &tiny()).unwrap(), &what);
        for holdout in [Holdout::Examples(25), Holdout::Fraction(0.3)] {
            let (indexed, held_out) = index_with_holdout(&tokens, &tokens, &tiny(), holdout).unwrap();
            let (training, evaluation) = load_with_holdout(&way, &way, &tiny(), holdout).unwrap();
            assert_same(&indexed, &training, &what);
            assert_eq!(held_out.rows, evaluation.rows, "{what}");
        }
    }
}

#[test]
fn sources_in_order_mixed_and_chosen() {
    let room = Room::new(300, 500);
    let texts = room.spec(&["a.jsonl", "b.jsonl"]);
    room.tokenize(&texts, (0, 1)).unwrap();
    let few = room.as_tokens(&texts).sources[0].files.clone();
    let other = Room::new(300, 0);
    other.tokenize(&other.spec(&["chats.jsonl"]), (0, 1)).unwrap();
    let more = other.as_tokens(&other.spec(&[])).sources[0].files.clone();
    let source = |files: &Vec<crate::DataFile>, probability| Source {
        files: files.clone(),
        probability,
        ..Source::default()
    };
    let in_order = vec![
        Source { skip: 3, take: Some(200), ..source(&few, None) },
        Source { fraction: Some(0.4), ..source(&more, None) },
    ];
    let mixed = vec![source(&few, Some(0.7)), source(&more, Some(0.3))];
    for (sources, stopping_strategy) in [
        (in_order, StoppingStrategy::FirstExhausted),
        (mixed.clone(), StoppingStrategy::FirstExhausted),
        (mixed.clone(), StoppingStrategy::AllExhausted),
        (mixed, StoppingStrategy::AllExhaustedWithoutReplacement),
    ] {
        let data =
            DataSpec { sources, stopping_strategy, packing: true, max_length: Some(30), ..texts.clone() };
        let what = format!("{stopping_strategy:?}");
        assert_same(&index(&data, &tiny()).unwrap(), &load(&data, &tiny()).unwrap(), &what);
        let part = Holdout::Fraction(0.2);
        let (indexed, held_out) = index_with_holdout(&data, &data, &tiny(), part).unwrap();
        let (training, evaluation) = load_with_holdout(&data, &data, &tiny(), part).unwrap();
        assert_same(&indexed, &training, &what);
        assert_eq!(held_out.rows, evaluation.rows, "{what}");
    }
}

#[test]
fn a_run_goes_on_at_any_row_and_with_any_number_of_ranks() {
    let room = Room::new(200, 0);
    let data = DataSpec { packing: true, max_length: Some(60), ..room.spec(&["chats.jsonl"]) };
    room.tokenize(&data, (0, 1)).unwrap();
    let rows = index(&room.as_tokens(&data), &tiny()).unwrap().rows;
    let loaded = Arc::new(load(&data, &tiny()).unwrap().rows);
    let mut expected = Loader::new(loaded, 2, 7, true, 0, 1);
    let loader =
        |rank, world| Loader::new(Arc::clone(&rows) as Arc<dyn crate::Rows>, 2, 7, true, rank, world);
    let mut whole = loader(0, 1);
    let steps = 2 * rows.len();
    for step in 0..steps {
        let state = whole.state();
        let batch = whole.next_batch().unwrap();
        assert_eq!(batch, expected.next_batch().unwrap(), "step {step}");
        let mut again = loader(0, 1);
        again.restore(&state).unwrap();
        assert_eq!(again.next_batch().unwrap(), batch, "step {step}");
        // With several ranks the last batch of an epoch is filled up.
        if batch.numbers.len() == 2 {
            let mut of_two = loader(0, 2);
            of_two.restore(&state).unwrap();
            assert_eq!(of_two.next_batch().unwrap(), batch, "step {step}");
        }
    }
}

#[test]
fn damage_is_found_when_it_is_met_and_version_1_is_checked_whole() {
    let room = Room::new(9000, 0);
    let data = DataSpec { max_length: None, ..room.spec(&["chats.jsonl"]) };
    room.tokenize(&data, (0, 1)).unwrap();
    let path = room.dir.path().join("tokens/shard-00000-of-00001.00000.tokens");
    let sound = std::fs::read(&path).unwrap();
    let mut flipped = sound.clone();
    // In the second block, that is, some hundreds of documents away from the first.
    flipped[70_000] ^= 1;
    std::fs::write(&path, &flipped).unwrap();
    // A report reads small data in whole; what is behind it does not.
    let error = index(&room.as_tokens(&data), &tiny()).unwrap_err().to_string();
    assert!(error.contains("not what was written"), "{error}");
    std::fs::write(&path, &sound).unwrap();
    let rows = index(&room.as_tokens(&data), &tiny()).unwrap().rows;
    let (sha256, rows) = (rows.sha256(), all(&rows));
    to_version_1(&room.dir.path().join("tokens"));
    let old = index(&room.as_tokens(&data), &tiny()).unwrap().rows;
    assert_eq!(all(&old), rows);
    assert_ne!(old.sha256(), sha256, "other files");
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, [&bytes[..70_000], &[bytes[70_000] ^ 1], &bytes[70_001..]].concat()).unwrap();
    let error = index(&room.as_tokens(&data), &tiny()).unwrap_err().to_string();
    assert!(error.contains("its SHA-256 is not that of its manifest"), "{error}");
}

/// A set of one file of `documents` documents of `len` tokens.
#[cfg(target_os = "linux")]
fn large(documents: u32, len: u32) -> (Room, DataSpec) {
    let room = Room::new(0, 20);
    let data = room.spec(&["a.jsonl"]);
    room.tokenize(&data, (0, 1)).unwrap();
    let dir = room.dir.path().join("tokens");
    let path = dir.join("shard-00000-of-00001.00000.tokens");
    std::fs::remove_file(&path).unwrap();
    let mut writer = foundry_formats::TokenFileWriter::create(&path, 700).unwrap();
    for document in 0..documents {
        let tokens: Vec<u32> = (0..len).map(|token| (document + 31 * token) % 700).collect();
        writer.push(&tokens, false, |index| index > 5).unwrap();
    }
    let written = writer.finish().unwrap();
    let manifest = dir.join("shard-00000-of-00001.json");
    let text = std::fs::read(&manifest).unwrap();
    let mut json: serde_json::Value = serde_json::from_slice(&text).unwrap();
    let file = &mut json["files"][0];
    (file["bytes"], file["documents"], file["tokens"]) =
        (written.bytes.into(), written.documents.into(), written.tokens.into());
    file["sha256"] = settings::hex(&written.sums_sha256).into();
    std::fs::write(&manifest, json.to_string()).unwrap();
    let tokens = room.as_tokens(&data);
    (room, DataSpec { packing: true, max_length: Some(1024), ..tokens })
}

/// The most memory that this process has had, in bytes.
#[cfg(target_os = "linux")]
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    1024 * line.split_whitespace().next().unwrap().parse::<u64>().unwrap()
}

#[test]
#[cfg(target_os = "linux")]
fn memory_does_not_grow_with_the_tokens() {
    let mut peaks = Vec::new();
    // 2 MB, and 180 MB: the same number of documents, so that what is held is the same.
    for len in [20, 1800] {
        let (_room, data) = large(50_000, len);
        let indexed = index(&data, &tiny()).unwrap();
        assert!(indexed.rows.bytes() <= 8 * 50_000, "{}", indexed.rows.bytes());
        let seen = indexed.report.examined.map_or(50_000, |examined| examined);
        assert_eq!((indexed.report.examples, seen < 50_000), (50_000, len == 1800));
        let longest = (len as usize).min(1024);
        assert!(indexed.report.longest_row >= longest && indexed.report.longest_row <= 1024);
        // Every row, in random order.
        let mut loader = Loader::new(indexed.rows.clone(), 4, 1, true, 0, 1);
        for _ in 0..indexed.rows.len() / 4 {
            assert!(loader.next_batch().unwrap().row.tokens.len() <= 4 * 1024);
        }
        peaks.push(peak());
    }
    assert!(peaks[1] < peaks[0] + 60_000_000, "{peaks:?}");
}
