//! Streams: their rows against loading, resume at any row, ranks, errors.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::json;

use super::*;
use crate::load::load;
use crate::pack::pack;
use crate::source::DataFile;
use crate::spec::{OnError, PackingStrategy, SampleBy};

fn tiny() -> Arc<Tokenizer> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../formats/tests/fixtures/tiny_tokenizer");
    Arc::new(Tokenizer::from_dir(&dir).unwrap())
}

/// A file of `count` rows of different lengths.
fn file(dir: &Path, name: &str, count: usize) -> DataFile {
    let mut text = String::new();
    for i in 0..count {
        let row = json!({"text": format!("{name} {i} {}", "ab ".repeat(i % 13))});
        writeln!(text, "{row}").unwrap();
    }
    let path = dir.join(name);
    match name.ends_with(".gz") {
        true => {
            use std::io::Write as _;
            let file = std::fs::File::create(&path).unwrap();
            let mut encoder = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
            encoder.write_all(text.as_bytes()).unwrap();
            encoder.finish().unwrap();
        }
        false => std::fs::write(&path, text).unwrap(),
    }
    DataFile::local(path)
}

fn spec(files: Vec<DataFile>) -> StreamSpec {
    let sources = vec![Source { files, ..Source::default() }];
    let data = DataSpec { sources, max_length: Some(64), ..DataSpec::default() };
    StreamSpec {
        data,
        shuffle_buffer: 0,
        order_seed: 42,
        eval_fraction: 0.0,
        rows_per_epoch: None,
        batch_size: 1,
        rank: 0,
        world_size: 1,
    }
}

fn loader(spec: &StreamSpec) -> StreamLoader {
    StreamLoader::new(spec.clone(), tiny()).unwrap()
}

fn batches(loader: &mut StreamLoader, count: usize) -> Vec<MicroBatch> {
    (0..count).map(|_| loader.next_batch().unwrap()).collect()
}

#[test]
fn a_stream_has_the_rows_of_a_load_in_their_order() {
    let dir = tempfile::tempdir().unwrap();
    let files = vec![file(dir.path(), "a.jsonl", 1300), file(dir.path(), "b.jsonl.gz", 900)];
    for (packing, packing_strategy) in [
        (false, PackingStrategy::Bfd),
        (true, PackingStrategy::Bfd),
        (true, PackingStrategy::BfdSplit),
        (true, PackingStrategy::Wrapped),
    ] {
        let mut spec = spec(files.clone());
        (spec.data.packing, spec.data.packing_strategy) = (packing, packing_strategy);
        let loaded = load(&spec.data, &tiny()).unwrap();
        let mut stream = loader(&spec);
        for (number, row) in loaded.rows.iter().enumerate() {
            let batch = stream.next_batch().unwrap();
            assert_eq!((&batch.row, batch.numbers), (row, vec![number as u64]), "{packing_strategy:?}");
        }
        let again = stream.next_batch().unwrap();
        assert_eq!((&again.row, again.numbers), (&loaded.rows[0], vec![0]), "the second pass begins");
    }
}

#[test]
fn a_stream_goes_on_from_any_row_bit_for_bit() {
    let dir = tempfile::tempdir().unwrap();
    let mixed = |p, files| Source { files, probability: Some(p), ..Source::default() };
    let mut spec = spec(Vec::new());
    spec.data.sources = vec![
        mixed(0.7, vec![file(dir.path(), "a.jsonl", 700), file(dir.path(), "b.jsonl", 500)]),
        mixed(0.3, vec![file(dir.path(), "c.jsonl.gz", 400)]),
    ];
    (spec.data.packing, spec.shuffle_buffer, spec.batch_size) = (true, 100, 2);
    let mut whole = loader(&spec);
    let expected = batches(&mut whole, 300);
    assert!(expected[200..].iter().any(|batch| batch.numbers[0] < 10), "more than one pass is looked at");
    for stop in [0, 1, 50, 99, 150, 222, 299] {
        let mut first = loader(&spec);
        batches(&mut first, stop);
        let state = serde_json::from_str(&first.state().to_string()).unwrap();
        drop(first);
        let mut second = loader(&spec);
        second.restore(&state).unwrap();
        let count = (expected.len() - stop).min(60);
        assert_eq!(batches(&mut second, count), expected[stop..stop + count], "from batch {stop}");
    }
}

#[test]
fn ranks_share_the_stream_and_another_number_of_them_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let mut spec = spec(vec![file(dir.path(), "a.jsonl", 500)]);
    spec.shuffle_buffer = 30;
    let rows = |spec: &StreamSpec, state: Option<&Value>, count: usize| {
        let mut loader = loader(spec);
        if let Some(state) = state {
            loader.restore(state).unwrap();
        }
        let batches = batches(&mut loader, count);
        (batches.into_iter().flat_map(|batch| batch.numbers).collect::<Vec<u64>>(), loader.state())
    };
    let of = |rank, world_size| StreamSpec { rank, world_size, batch_size: 2, ..spec.clone() };
    let (first, state) = rows(&of(0, 2), None, 10);
    let (second, same) = rows(&of(1, 2), None, 10);
    assert_eq!(state, same, "a place is the same on every rank");
    let mut seen = [first, second].concat();
    for rank in 0..3 {
        seen.extend(rows(&of(rank, 3), Some(&state), 20).0);
    }
    seen.sort_unstable();
    assert_eq!(seen, (0..160).collect::<Vec<u64>>(), "two ranks stopped, three went on: every row once");
}

#[test]
fn an_epoch_ends_with_a_short_batch_and_is_a_pass() {
    let dir = tempfile::tempdir().unwrap();
    let mut spec = spec(vec![file(dir.path(), "a.jsonl", 50)]);
    (spec.shuffle_buffer, spec.batch_size) = (20, 8);
    let mut watched = Vec::new();
    spec.rows_per_epoch = Some(count_rows(&spec, &tiny(), &mut |rows| watched.push(rows)).unwrap());
    assert_eq!((spec.rows_per_epoch, watched), (Some(50), vec![50]));
    let mut whole = loader(&spec);
    assert_eq!(whole.batches_per_epoch(), Some(7));
    let expected = batches(&mut whole, 15);
    let numbers: Vec<&[u64]> = expected.iter().map(|batch| &batch.numbers[..]).collect();
    assert_eq!(
        (numbers[6], numbers[13]),
        (&[48, 49][..], &[48, 49][..]),
        "two rows are left for the last batch"
    );
    assert_eq!((numbers[7][0], numbers[14][0]), (0, 0), "the next pass begins with a batch of its own");
    assert_ne!(expected[0].row, expected[7].row, "in another order");
    for stop in [3, 6, 7, 10] {
        let mut first = loader(&spec);
        batches(&mut first, stop);
        let mut second = loader(&spec);
        second.restore(&first.state()).unwrap();
        assert_eq!(batches(&mut second, 15 - stop), expected[stop..], "from batch {stop}");
    }
    // Several ranks always have full batches.
    let of = StreamSpec { world_size: 2, ..spec.clone() };
    assert!(batches(&mut loader(&of), 9).iter().all(|batch| batch.numbers.len() == 8));
    // A pass that is packed in another order may have other rows; the first one has those that were counted.
    let mut packed = spec.clone();
    (packed.data.packing, packed.batch_size, packed.rows_per_epoch) = (true, 1, None);
    let rows = count_rows(&packed, &tiny(), &mut |_| {}).unwrap();
    let numbers: Vec<u64> =
        batches(&mut loader(&packed), rows as usize + 1).iter().map(|batch| batch.numbers[0]).collect();
    assert_eq!(numbers, (0..rows).chain([0]).collect::<Vec<u64>>());
}

#[test]
fn a_bad_row_ends_a_packed_stream_before_its_chunk() {
    let dir = tempfile::tempdir().unwrap();
    let rows: String = (0..1500).map(|i| format!("{{\"text\": \"row {i} ab cd\"}}\n")).collect();
    std::fs::write(dir.path().join("a.jsonl"), format!("{rows}{{\n{rows}")).unwrap();
    let mut spec = spec(vec![DataFile::local(dir.path().join("a.jsonl"))]);
    spec.data.packing = true;
    let mut skipping = spec.clone();
    skipping.data.on_error = OnError::Skip;
    let mut expected = loader(&skipping);
    let mut stream = loader(&spec);
    // What is made of the rows before the bad one is the same with it and without it, or is not made.
    while let Ok(batch) = stream.next_batch() {
        assert_eq!(batch, expected.next_batch().unwrap());
    }
    let mut second = loader(&skipping);
    second.restore(&stream.state()).unwrap();
    assert_eq!(batches(&mut second, 20), batches(&mut expected, 20), "a run goes on without the bad row");
}

#[test]
fn a_chunk_ends_early_when_its_texts_are_long() {
    let dir = tempfile::tempdir().unwrap();
    let row = json!({"text": "x ".repeat(CHUNK_BYTES / 3)}).to_string();
    std::fs::write(dir.path().join("a.jsonl"), format!("{row}\n{row}\n{row}\n")).unwrap();
    let mut spec = spec(vec![DataFile::local(dir.path().join("a.jsonl"))]);
    (spec.data.packing, spec.data.packing_strategy) = (true, PackingStrategy::Wrapped);
    let sources = spec.data.all_sources();
    let mut pipeline = Pipeline::new(&spec.data, &sources, spec.pass(0));
    let mut tally = crate::pipeline::Tally::default();
    let mut take = || take_items(&mut pipeline, &mut tally, PACKING_CHUNK, CHUNK_BYTES).unwrap().len();
    assert_eq!([take(), take(), take()], [2, 1, 0]);
}

#[test]
fn errors_reach_the_reader_and_skipped_rows_are_counted() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.jsonl");
    let good: String = (0..1200).map(|i| format!("{{\"text\": \"row {i}\"}}\n")).collect();
    std::fs::write(&path, format!("{good}{{\"text\": 7}}\n{{\n{good}")).unwrap();
    let mut spec = spec(vec![DataFile::local(&path)]);
    let mut stream = loader(&spec);
    assert!((0..1000).all(|_| stream.next_batch().is_ok()), "the first chunk is whole");
    let error = std::iter::from_fn(|| Some(stream.next_batch())).find_map(Result::err).unwrap().to_string();
    assert!(error.contains("a.jsonl:1201: "), "{error}");
    assert!(matches!(stream.next_batch(), Err(DataError::StreamEnded)));
    spec.data.on_error = OnError::Skip;
    let mut stream = loader(&spec);
    batches(&mut stream, 2400);
    let report = stream.report();
    assert_eq!((report.skipped, report.problems.len()), (2, 2));
    // Rows are read before they are looked into, a chunk at a time.
    assert!(report.problems[0].contains("a.jsonl:1202: broken JSON"), "{:?}", report.problems);
    assert!(report.problems[1].contains("a.jsonl:1201: "), "{:?}", report.problems);
    let empty = spec_of_text(dir.path(), "\n \n");
    assert!(matches!(loader(&empty).next_batch(), Err(DataError::Empty { .. })));
}

fn spec_of_text(dir: &Path, text: &str) -> StreamSpec {
    std::fs::write(dir.join("t.txt"), text).unwrap();
    let mut spec = spec(vec![DataFile::local(dir.join("t.txt"))]);
    spec.data.sample_by = SampleBy::Line;
    spec
}

#[test]
fn what_needs_all_rows_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let good = spec_of_text(dir.path(), "a\n");
    let refused = |change: &dyn Fn(&mut DataSpec)| {
        let mut spec = good.clone();
        change(&mut spec.data);
        StreamLoader::new(spec, tiny()).map(|_| ()).unwrap_err().to_string()
    };
    assert!(refused(&|s| s.max_length = None).starts_with("streamed data needs `max_length`"));
    assert!(refused(&|s| s.deduplicate = true).contains("`deduplicate` is not for streamed data"));
    assert!(refused(&|s| s.shuffle_dataset = true).contains("use `shuffle_buffer`"));
    let mut stream = loader(&good);
    let error = stream.restore(&json!({"epoch": 0, "row": 3})).unwrap_err().to_string();
    assert!(error.contains("does not fit"), "{error}");
}

#[test]
fn the_held_out_part_is_not_streamed() {
    let dir = tempfile::tempdir().unwrap();
    let mut spec = spec(vec![file(dir.path(), "a.jsonl", 600)]);
    spec.eval_fraction = 0.1;
    let eval = held_out(&spec, &spec.data, &tiny()).unwrap();
    assert!((30..100).contains(&eval.rows.len()), "{}", eval.rows.len());
    let mut stream = loader(&spec);
    let training = batches(&mut stream, 600 - eval.rows.len());
    assert!(training.iter().all(|batch| !eval.rows.contains(&batch.row)));
    assert_eq!(stream.next_batch().unwrap().numbers, [0], "nothing is lost");
    // Of much data about a thousand rows are held out, all of them near its start; the rest is trained on.
    let many = super::StreamSpec { data: DataSpec { sources: vec![], ..spec.data.clone() }, ..spec.clone() };
    assert_eq!(many.held_out().within, 10_000);
    let two = DataSpec { sources: vec![spec.data.sources[0].clone(); 2], ..spec.data.clone() };
    assert_eq!(StreamSpec { data: two, ..spec.clone() }.held_out().within, 5_000);
    // Rows that a first look does not see: those that are not held out come late.
    let mut late = spec.clone();
    late.eval_fraction = 0.5;
    late.data.sources[0].take = Some(6);
    loader(&late).next_batch().unwrap();
    let sampled = sample(&spec, &tiny()).unwrap();
    assert_eq!(sampled.data.report.examples, training.len());
    assert!(pack(&[], 1, PackingStrategy::Bfd).is_empty() && sampled.text_bytes > 0);
}

/// The most memory that this process has had, in bytes.
#[cfg(target_os = "linux")]
fn peak_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

#[test]
#[cfg(target_os = "linux")]
fn memory_does_not_grow_with_the_data() {
    let dir = tempfile::tempdir().unwrap();
    let line = format!("{}\n", json!({"text": "ab cd ".repeat(30)}));
    let drain = |rows: usize| {
        let path = dir.path().join(format!("{rows}.jsonl"));
        let mut file = std::io::BufWriter::new(std::fs::File::create(&path).unwrap());
        // Piece by piece: the test's own memory would count.
        (0..rows).for_each(|_| std::io::Write::write_all(&mut file, line.as_bytes()).unwrap());
        drop(file);
        let mut spec = spec(vec![DataFile::local(path)]);
        spec.shuffle_buffer = 500;
        spec.data.dataset_num_proc = Some(1);
        batches_of_a_pass(&mut loader(&spec), rows);
        peak_memory()
    };
    let small = drain(4_000);
    let large = drain(20_000);
    // Three megabytes of text more, whose tokens and labels alone would be 25 MB; allocators keep some slack.
    assert!(large - small < 4_000_000, "{small} bytes for 4,000 rows, {large} for 20,000");
}

#[cfg(target_os = "linux")]
fn batches_of_a_pass(stream: &mut StreamLoader, rows: usize) {
    for number in 0..rows as u64 {
        assert_eq!(stream.next_batch().unwrap().numbers, [number]);
    }
}

/// Prompts that fill `max_length`, so that no completion is left.
fn masked(dir: &Path, count: usize, learned: usize) -> StreamSpec {
    let row = |i: usize| json!({"prompt": format!("{i} {}", "ab ".repeat(if i < count { 200 } else { 1 })), "completion": "x"});
    let text: String = (0..count + learned).map(|i| format!("{}\n", row(i))).collect();
    std::fs::write(dir.join("masked.jsonl"), text).unwrap();
    let mut spec = spec(vec![DataFile::local(dir.join("masked.jsonl"))]);
    spec.data.packing = true;
    spec
}

#[test]
fn a_packed_stream_without_anything_to_learn_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let nothing = masked(dir.path(), 1500, 0);
    let refused = |error: DataError| {
        assert!(matches!(error, DataError::NothingToLearn { examples: 1500, .. }), "{error}")
    };
    refused(sample(&nothing, &tiny()).unwrap_err());
    let mut stream = loader(&nothing);
    refused(std::iter::from_fn(|| Some(stream.next_batch())).find_map(Result::err).unwrap());
    // What is learned late is found, and counted with what came before.
    let late = masked(dir.path(), 1500, 3);
    let found = sample(&late, &tiny()).unwrap();
    assert_eq!((found.data.report.examples, found.data.report.kept_unlabelled), (1503, 1500));
    assert!(found.data.rows.iter().any(|row| row.labelled() > 0));
}

#[test]
fn a_survey_counts_all_that_a_load_counts() {
    let dir = tempfile::tempdir().unwrap();
    let mut spec = spec(vec![file(dir.path(), "a.jsonl", 2500)]);
    spec.data.packing = true;
    let mut rows = Vec::new();
    let report = survey(&spec, &tiny(), &mut |chunk| {
        rows.extend(chunk);
        true
    });
    let loaded = load(&spec.data, &tiny()).unwrap();
    assert_eq!((report.unwrap(), rows), (loaded.report, loaded.rows));
}

#[test]
fn a_survey_that_has_seen_enough_does_not_ask_whether_something_is_learned() {
    let dir = tempfile::tempdir().unwrap();
    let late = masked(dir.path(), 1500, 3);
    let mut rows = 0;
    let report = survey(&late, &tiny(), &mut |chunk| {
        rows += chunk.len();
        false
    });
    let report = report.unwrap();
    assert_eq!((report.examples, report.labelled_tokens), (1000, 0));
    assert!(rows > 0);
}

#[test]
fn a_loader_that_is_dropped_is_not_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let mut spec = spec(vec![file(dir.path(), "a.jsonl", 3000)]);
    // Nearly all rows are passed over, again and again: a chunk is never full.
    spec.data.sources[0].fraction = Some(1e-6);
    let producer = start(&spec, &tiny(), StreamState::START);
    let stopped = Arc::clone(&producer.stopped);
    drop(producer);
    assert!(stopped.load(Ordering::Relaxed));
    let (sender, _chunks) = sync_channel(CHUNKS_AHEAD);
    let ended = produce(&spec, &tiny(), StreamState::START, &sender, stopped);
    assert!(matches!(ended, Err(DataError::StreamEnded)), "{ended:?}");
}
