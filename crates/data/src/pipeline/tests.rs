//! Order and mixture against datasets, and every stage's state.

use std::path::Path;

use super::*;
use crate::source::DataFile;
use crate::spec::{SampleBy, StoppingStrategy};

/// A source of a file with the lines `PREFIX0`, `PREFIX1`, …
fn lines(dir: &Path, prefix: &str, count: usize) -> Source {
    let path = dir.join(format!("{prefix}.txt"));
    std::fs::write(&path, (0..count).map(|i| format!("{prefix}{i}\n")).collect::<String>()).unwrap();
    Source { files: vec![DataFile::local(path)], ..Source::default() }
}

fn spec(seed: u64) -> DataSpec {
    DataSpec { sample_by: SampleBy::Line, seed, ..DataSpec::default() }
}

fn drain(pipeline: &mut Pipeline, most: usize) -> Vec<String> {
    let mut tally = Tally::default();
    let mut rows = Vec::new();
    while rows.len() < most {
        let Some(item) = pipeline.next(&mut tally).unwrap() else { break };
        let Row::Text(text) = item.row else { panic!("texts are expected") };
        rows.push(text);
    }
    rows
}

fn all(spec: &DataSpec, sources: &[Source], pass: Pass) -> Vec<String> {
    drain(&mut Pipeline::new(spec, sources, pass), usize::MAX)
}

#[test]
fn mixtures_are_those_of_interleave_datasets() {
    // interleave_datasets([a, b, c], probabilities=[0.5, 0.3, 0.2], seed=7, stopping_strategy=…) of datasets 5.2 over
    // streams of 6, 3 and 4 rows (golden/make_interleave_goldens.py).
    let golden: serde_json::Value =
        serde_json::from_str(include_str!("../../golden/interleave.json")).expect("the golden file");
    let dir = tempfile::tempdir().unwrap();
    let probabilities = [0.5, 0.3, 0.2];
    let sources: Vec<Source> = [("a", 6), ("b", 3), ("c", 4)]
        .iter()
        .zip(probabilities)
        .map(|((name, count), p)| Source { probability: Some(p), ..lines(dir.path(), name, *count) })
        .collect();
    for seed in [0, 7, 42] {
        for (name, stopping) in [
            ("first_exhausted", StoppingStrategy::FirstExhausted),
            ("all_exhausted", StoppingStrategy::AllExhausted),
            ("all_exhausted_without_replacement", StoppingStrategy::AllExhaustedWithoutReplacement),
        ] {
            let spec = DataSpec { stopping_strategy: stopping, ..spec(seed) };
            let expected: Vec<String> =
                serde_json::from_value(golden[name][seed.to_string()].clone()).unwrap();
            assert_eq!(all(&spec, &sources, Pass::default()), expected, "{name}, seed {seed}");
        }
    }
}

#[test]
fn what_is_left_of_a_mixture_comes_however_rare_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let source = |name, rows, weight| Source { probability: Some(weight), ..lines(dir.path(), name, rows) };
    let stopping_strategy = StoppingStrategy::AllExhaustedWithoutReplacement;
    let spec = DataSpec { stopping_strategy, ..spec(3) };
    for rare in [1e-6, 1e-17, 1e-300] {
        let mut sources = vec![source("a", 4, 1.0), source("b", 50, rare)];
        let rows = all(&spec, &sources, Pass::default());
        assert_eq!(rows.len(), 54);
        assert_eq!(rows.last().map(String::as_str), Some("b49"));
        sources.push(source("c", 50, rare));
        let rows = all(&spec, &sources, Pass::default());
        assert_eq!(rows.len(), 104);
        let of_b = rows[4..54].iter().filter(|row| row.starts_with('b')).count();
        assert!((10..40).contains(&of_b), "{rare}: equally rare sources take turns: {of_b}");
    }
}

#[test]
fn sources_without_probabilities_follow_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let part = |source: Source, skip, take| Source { skip, take, ..source };
    let sources = [part(lines(dir.path(), "a", 5), 1, Some(2)), part(lines(dir.path(), "b", 3), 0, None)];
    assert_eq!(all(&spec(0), &sources, Pass::default()), ["a1", "a2", "b0", "b1", "b2"]);
}

#[test]
fn a_fraction_is_the_same_rows_in_every_pass() {
    let dir = tempfile::tempdir().unwrap();
    let sources = [Source { fraction: Some(0.3), ..lines(dir.path(), "a", 1000) }];
    let first = all(&spec(5), &sources, Pass::default());
    assert!((250..350).contains(&first.len()), "{}", first.len());
    assert_eq!(all(&spec(5), &sources, Pass { epoch: 1, ..Pass::default() }), first);
    assert_ne!(all(&spec(6), &sources, Pass::default()), first);
}

#[test]
fn a_split_by_row_has_two_parts_without_a_common_row() {
    let dir = tempfile::tempdir().unwrap();
    let sources = [lines(dir.path(), "a", 1000)];
    let part = |part| all(&spec(5), &sources, Pass { part, ..Pass::default() });
    let all = HeldOut { part: 0.1, within: u64::MAX };
    let (training, held_out) = (part(Part::Training(all)), part(Part::HeldOut(all)));
    assert!((70..130).contains(&held_out.len()), "{}", held_out.len());
    let mut both = [training, held_out].concat();
    both.sort();
    let mut whole = part(Part::Whole);
    whole.sort();
    assert_eq!(both, whole);
}

#[test]
fn a_shuffle_buffer_loses_nothing_and_depends_on_seed_and_pass() {
    let dir = tempfile::tempdir().unwrap();
    let sources = [lines(dir.path(), "a", 200)];
    let order = |seed, epoch, shuffle_buffer| {
        all(&spec(seed), &sources, Pass { epoch, shuffle_buffer, ..Pass::default() })
    };
    let plain = order(1, 0, 0);
    let shuffled = order(1, 0, 50);
    assert_ne!(shuffled, plain);
    assert_eq!(order(1, 0, 50), shuffled);
    assert_ne!(order(1, 1, 50), shuffled);
    assert_ne!(order(2, 0, 50), shuffled);
    let sorted = |mut rows: Vec<String>| {
        rows.sort();
        rows
    };
    assert_eq!(sorted(shuffled.clone()), sorted(plain));
    // A row cannot leave before it has come.
    for (place, row) in shuffled.iter().enumerate() {
        let number: usize = row[1..].parse().unwrap();
        assert!(number <= place + 50, "{row} at {place}");
    }
}

#[test]
fn every_stage_goes_on_from_its_state() {
    let dir = tempfile::tempdir().unwrap();
    let gz = dir.path().join("z.jsonl.gz");
    let mut encoder =
        flate2::write::GzEncoder::new(std::fs::File::create(&gz).unwrap(), flate2::Compression::fast());
    for i in 0..40 {
        use std::io::Write as _;
        writeln!(encoder, "{{\"text\": \"z{i}\"}}").unwrap();
    }
    encoder.finish().unwrap();
    let array = dir.path().join("y.json");
    std::fs::write(
        &array,
        serde_json::to_string(&(0..30).map(|i| serde_json::json!({"text": i})).collect::<Vec<_>>()).unwrap(),
    )
    .unwrap();
    let mixed = |p: f64, source: Source| Source { probability: Some(p), ..source };
    let files = vec![DataFile::local(&gz), DataFile::local(&array)];
    let sources = [
        mixed(0.6, Source { files, ..Source::default() }),
        mixed(0.4, Source { take: Some(20), ..lines(dir.path(), "a", 50) }),
    ];
    let spec = DataSpec { stopping_strategy: StoppingStrategy::AllExhausted, ..spec(3) };
    for shuffle_buffer in [0, 16] {
        let pass = Pass { epoch: 2, shuffle_buffer, ..Pass::default() };
        let rows = |pipeline: &mut Pipeline| {
            let mut tally = Tally::default();
            std::iter::from_fn(|| pipeline.next(&mut tally).unwrap()).collect::<Vec<Item>>()
        };
        let whole = rows(&mut Pipeline::new(&spec, &sources, pass));
        assert!(whole.len() > 80);
        for stop in [0, 1, 17, 39, 70, whole.len() - 1, whole.len()] {
            let mut first = Pipeline::new(&spec, &sources, pass);
            let mut tally = Tally::default();
            for _ in 0..stop {
                first.next(&mut tally).unwrap();
            }
            let text = serde_json::to_string(&first.state()).unwrap();
            let mut second = Pipeline::new(&spec, &sources, pass);
            second.restore(&serde_json::from_str(&text).unwrap()).unwrap();
            assert_eq!(rows(&mut second), whole[stop..], "stopped at {stop}, a buffer of {shuffle_buffer}");
        }
    }
    let state = Pipeline::new(&spec, &sources, Pass { shuffle_buffer: 4, ..Pass::default() }).state();
    let mut other = Pipeline::new(&spec, &sources, Pass::default());
    assert!(other.restore(&state).unwrap_err().to_string().contains("shuffle buffer"));
}

#[test]
fn bad_rows_are_errors_or_counted() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.jsonl");
    std::fs::write(&path, "{\"text\": 1}\n{\n\n[]\n{\"text\": 2}\n").unwrap();
    let cut = dir.path().join("b.parquet");
    std::fs::write(&cut, "PAR1 and no more").unwrap();
    let files = [&path, &cut, &path].map(DataFile::local).to_vec();
    let sources = [Source { files, ..Source::default() }];
    let run = |on_error| {
        let mut tally = Tally { on_error, ..Tally::default() };
        let mut pipeline = Pipeline::new(&spec(0), &sources, Pass::default());
        let mut rows = 0;
        while pipeline.next(&mut tally)?.is_some() {
            rows += 1;
        }
        Ok::<_, DataError>((rows, tally))
    };
    assert!(run(OnError::Fail).unwrap_err().to_string().contains("a.jsonl:2: broken JSON"));
    let (rows, tally) = run(OnError::Skip).unwrap();
    assert_eq!((rows, tally.skipped, tally.blank), (4, 5, 2));
    assert!(tally.problems[1].contains("a.jsonl:4: a row must be an object"), "{:?}", tally.problems);
    let nowhere = [Source { files: vec![DataFile::local(dir.path().join("no.jsonl"))], ..Source::default() }];
    let mut tally = Tally { on_error: OnError::Skip, ..Tally::default() };
    let missing = Pipeline::new(&spec(0), &nowhere, Pass::default()).next(&mut tally);
    assert!(missing.is_err(), "a missing file is never skipped");
}

/// A file that counts what is read of it.
#[cfg(feature = "tables")]
#[derive(Debug)]
struct Counted {
    bytes: Vec<u8>,
    read: std::sync::atomic::AtomicUsize,
}

#[cfg(feature = "tables")]
impl crate::source::ReadAt for Counted {
    fn size(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> std::io::Result<usize> {
        let rest = &self.bytes[(offset as usize).min(self.bytes.len())..];
        let length = rest.len().min(buffer.len());
        buffer[..length].copy_from_slice(&rest[..length]);
        self.read.fetch_add(length, std::sync::atomic::Ordering::Relaxed);
        Ok(length)
    }
}

/// A table of 40 batches, as Parquet (in row groups of 256 rows) and as an Arrow file.
#[cfg(feature = "tables")]
fn tables() -> [(&'static str, Vec<u8>); 2] {
    use arrow_array::{ArrayRef, RecordBatch, StringArray};
    let batches: Vec<RecordBatch> = (0..40)
        .map(|batch: u32| {
            let text = |row: u32| {
                let word = (batch * 256 + row).wrapping_mul(0x9e37_79b9);
                (0..60u32).map(|i| format!("{:08x}", word.wrapping_mul(2 * i + 1))).collect::<String>()
            };
            let texts: ArrayRef = std::sync::Arc::new(StringArray::from_iter_values((0..256).map(text)));
            RecordBatch::try_from_iter([("text", texts)]).unwrap()
        })
        .collect();
    let schema = batches[0].schema();
    let properties = parquet::file::properties::WriterProperties::builder()
        .set_max_row_group_row_count(Some(256))
        .set_dictionary_enabled(false)
        .build();
    let mut parquet =
        parquet::arrow::ArrowWriter::try_new(Vec::new(), schema.clone(), Some(properties)).unwrap();
    let mut arrow = arrow_ipc::writer::FileWriter::try_new(Vec::new(), &schema).unwrap();
    for batch in &batches {
        parquet.write(batch).unwrap();
        arrow.write(batch).unwrap();
    }
    arrow.finish().unwrap();
    [("t.parquet", parquet.into_inner().unwrap()), ("t.arrow", arrow.into_inner().unwrap())]
}

#[cfg(feature = "tables")]
#[test]
fn going_on_late_in_a_table_does_not_read_what_comes_before() {
    use std::sync::Arc;
    use std::sync::atomic::Ordering;
    for (name, bytes) in tables() {
        let size = bytes.len();
        let counted = Arc::new(Counted { bytes, read: Default::default() });
        let file = DataFile::remote(name, Arc::clone(&counted) as Arc<dyn crate::source::ReadAt>);
        let sources = [Source { files: vec![file], ..Source::default() }];
        let spec = spec(3);
        let pass = Pass { shuffle_buffer: 300, ..Pass::default() };
        let mut pipeline = Pipeline::new(&spec, &sources, pass);
        let mut tally = Tally::default();
        for _ in 0..9000 {
            pipeline.next(&mut tally).unwrap().unwrap();
        }
        let state = pipeline.state();
        let mut rest = Vec::new();
        while let Some(item) = pipeline.next(&mut tally).unwrap() {
            rest.push(item);
        }
        counted.read.store(0, Ordering::Relaxed);
        let mut again = Pipeline::new(&spec, &sources, pass);
        again.restore(&state).unwrap();
        let mut found = Vec::new();
        while let Some(item) = again.next(&mut tally).unwrap() {
            found.push(item);
        }
        assert_eq!(found, rest, "{name}");
        // Some rows of the buffer may have waited long; most of the first 9,000 of 10,240 rows are not read again.
        let read = counted.read.load(Ordering::Relaxed);
        assert!(read < size * 2 / 3, "{name}: {read} of {size} bytes");
    }
}
