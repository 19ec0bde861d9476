//! Token files give the rows of the files that they were made from; what does not fit a run is refused.

use std::path::{Path, PathBuf};

use foundry_formats::Tokenizer;
use serde_json::json;

use super::*;
use crate::spec::{FormatHint, OnError, Source, TrainOn};
use crate::{DataError, DataFile, DataSpec, Dataset, load};

const CHATML: &str = "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}\
                      {% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../formats/tests/fixtures/tiny_tokenizer")
}

fn tiny() -> Tokenizer {
    Tokenizer::from_dir(&fixture()).unwrap()
}

/// A directory with `chats` conversations in `chats.jsonl` and `texts` texts in two files.
struct Room {
    dir: tempfile::TempDir,
}

impl Room {
    fn new(chats: usize, texts: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let chat = |i: usize| {
            let turn = |role: &str, text: String| json!({"role": role, "content": text});
            json!({"messages": [turn("user", format!("How many, {i}?")), turn("assistant", "a b ".repeat(i % 7))]})
        };
        let lines: String = (0..chats).map(|i| format!("{}\n", chat(i))).collect();
        std::fs::write(dir.path().join("chats.jsonl"), lines).unwrap();
        for (name, from) in [("a.jsonl", 0), ("b.jsonl", texts / 2)] {
            let end = if from == 0 { texts / 2 } else { texts };
            let lines: String = (from..end)
                .map(|i| format!("{}\n", json!({"text": format!("number {i} {}", "x ".repeat(i % 5))})))
                .collect();
            std::fs::write(dir.path().join(name), lines).unwrap();
        }
        Self { dir }
    }

    fn source(&self, names: &[&str]) -> Source {
        let files = names.iter().map(|name| DataFile::local(self.dir.path().join(name))).collect();
        Source { files, ..Source::default() }
    }

    fn spec(&self, names: &[&str]) -> DataSpec {
        DataSpec {
            sources: vec![self.source(names)],
            chat_template: Some(CHATML.to_owned()),
            dataset_num_proc: Some(2),
            ..DataSpec::default()
        }
    }

    fn tokenize(&self, data: &DataSpec, shard: (u32, u32)) -> Result<super::Tokenized, DataError> {
        let spec = TokenizeSpec {
            data: data.clone(),
            shard: Shard { index: shard.0, of: shard.1 },
            dir: self.dir.path().join("tokens"),
            tokens_per_file: 100,
            force: false,
        };
        tokenize_shard(&spec, &tiny(), &mut |_| {})
    }

    /// `data` with the tokens in place of its files.
    fn as_tokens(&self, data: &DataSpec) -> DataSpec {
        let set = TokenSet::open(&self.dir.path().join("tokens")).unwrap().expect("token files");
        DataSpec { sources: vec![Source { files: set.into_files(), ..Source::default() }], ..data.clone() }
    }

    fn open_error(&self) -> String {
        TokenSet::open(&self.dir.path().join("tokens")).unwrap_err().to_string()
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join("tokens").join(name)
    }
}

fn rows(data: &DataSpec) -> Dataset {
    load(data, &tiny()).unwrap()
}

#[test]
fn rows_are_those_of_the_files_masks_included() {
    let room = Room::new(5000, 0);
    let mut data = room.spec(&["chats.jsonl"]);
    data.train_on = Some(TrainOn::All);
    let done = room.tokenize(&data, (0, 1)).unwrap();
    assert!(done.files > 1, "several files: {done:?}");
    assert_eq!(done.counts.documents, 5000);
    // What the tokens settle may be repeated or left out; the rest is free.
    for (packing, max_length) in [(false, 20), (true, 64)] {
        let raw = DataSpec { packing, max_length: Some(max_length), ..data.clone() };
        let mut tokens = room.as_tokens(&raw);
        let (expected, found) = (rows(&raw), rows(&tokens));
        assert_eq!(expected.rows, found.rows);
        assert_eq!(expected.report.labelled_tokens, found.report.labelled_tokens);
        assert_eq!(expected.report.format, found.report.format);
        tokens.train_on = None;
        assert_eq!(rows(&tokens).rows, expected.rows);
    }
    let again = room.tokenize(&data, (0, 1)).unwrap();
    assert!(again.was_complete && again.counts == done.counts);
}

#[test]
fn shards_have_every_row_once_by_files_or_by_rows() {
    for (names, shards) in [(&["a.jsonl", "b.jsonl"][..], 2), (&["a.jsonl"][..], 3)] {
        let room = Room::new(0, 50);
        let data = room.spec(names);
        for index in 0..shards {
            room.tokenize(&data, (index, shards)).unwrap();
        }
        let sorted = |data: &DataSpec| {
            let mut rows: Vec<_> = rows(data).rows.into_iter().map(|row| row.tokens).collect();
            rows.sort();
            rows
        };
        assert_eq!(sorted(&room.as_tokens(&data)), sorted(&data));
    }
}

#[test]
fn a_killed_shard_goes_on_after_its_last_whole_file() {
    let room = Room::new(9000, 0);
    let data = room.spec(&["chats.jsonl"]);
    room.tokenize(&data, (0, 1)).unwrap();
    let whole: Vec<_> =
        room.as_tokens(&data).sources[0].files.iter().map(|f| f.fingerprint().unwrap()).collect();
    assert!(whole.len() >= 3);
    // As if it had been killed while the last file was in the making.
    let mut manifest: serde_json::Value =
        serde_json::from_slice(&std::fs::read(room.file("shard-00000-of-00001.json")).unwrap()).unwrap();
    std::fs::remove_dir_all(room.dir.path().join("tokens")).unwrap();
    let mut killed = false;
    let spec = TokenizeSpec {
        data: data.clone(),
        shard: Shard { index: 0, of: 1 },
        dir: room.dir.path().join("tokens"),
        tokens_per_file: 100,
        force: false,
    };
    let died = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        tokenize_shard(&spec, &tiny(), &mut |progress| {
            killed = progress.files == 2;
            assert!(!killed, "killed");
        })
    }));
    assert!(died.is_err() && killed);
    assert!(room.open_error().contains("1 of 1 shard(s) are not complete (0/1)"), "{}", room.open_error());
    std::fs::write(room.file(".shard-00000-of-00001.00002.tokens.partial"), "half").unwrap();
    let done = room.tokenize(&data, (0, 1)).unwrap();
    assert_eq!((done.kept, done.files), (2, whole.len()));
    let again: Vec<_> =
        room.as_tokens(&data).sources[0].files.iter().map(|f| f.fingerprint().unwrap()).collect();
    assert_eq!(whole, again, "the same bytes");
    let found: serde_json::Value =
        serde_json::from_slice(&std::fs::read(room.file("shard-00000-of-00001.json")).unwrap()).unwrap();
    manifest["counts"]["blank"] = found["counts"]["blank"].clone();
    assert_eq!(manifest, found);
    let names: Vec<_> = std::fs::read_dir(room.dir.path().join("tokens")).unwrap().flatten().collect();
    assert_eq!(names.len(), whole.len() + 1, "nothing is left behind: {names:?}");
}

#[test]
fn damage_is_found_before_a_token_is_used() {
    let room = Room::new(30, 0);
    let data = room.spec(&["chats.jsonl"]);
    room.tokenize(&data, (0, 1)).unwrap();
    let path = room.file("shard-00000-of-00001.00000.tokens");
    let sound = std::fs::read(&path).unwrap();
    let error = || load(&room.as_tokens(&data), &tiny()).unwrap_err().to_string();
    std::fs::write(&path, &sound[..sound.len() - 8]).unwrap();
    assert!(error().contains("its manifest says"), "{}", error());
    let mut flipped = sound.clone();
    flipped[70] ^= 1;
    std::fs::write(&path, &flipped).unwrap();
    assert!(error().contains("its SHA-256 is not that of its manifest"), "{}", error());
    assert!(room.tokenize(&data, (0, 1)).unwrap_err().to_string().contains("SHA-256"));
    // A manifest that lies along with its file: ids that the tokenizer does not have.
    let mut wrong = sound.clone();
    wrong[64..66].copy_from_slice(&60_000_u16.to_le_bytes());
    std::fs::write(&path, &wrong).unwrap();
    let manifest = room.file("shard-00000-of-00001.json");
    let text = std::fs::read_to_string(&manifest).unwrap();
    std::fs::write(&path, &sound).unwrap();
    let old = set::digest(&path).unwrap();
    std::fs::write(&path, &wrong).unwrap();
    std::fs::write(&manifest, text.replace(&old, &set::digest(&path).unwrap())).unwrap();
    assert!(error().contains("the token id 60000, but the tokenizer has ids below"), "{}", error());
    // Names that lead elsewhere.
    std::fs::write(&manifest, text.replace("shard-00000-of-00001.00000.tokens", "../secret")).unwrap();
    assert!(room.open_error().contains("file 0 should be"), "{}", room.open_error());
    std::fs::write(&manifest, "{").unwrap();
    assert!(room.open_error().contains("EOF"), "{}", room.open_error());
    std::fs::write(&manifest, text.replace("\"version\": 1", "\"version\": 2")).unwrap();
    assert!(room.open_error().contains("version 2"), "{}", room.open_error());
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&manifest, text).unwrap();
    assert!(error().contains("00000.tokens"), "{}", error());
}

#[test]
fn shards_that_do_not_belong_together_are_refused() {
    let room = Room::new(0, 20);
    let data = room.spec(&["a.jsonl"]);
    room.tokenize(&data, (0, 2)).unwrap();
    assert!(room.open_error().contains("1 of 2 shard(s) are not complete (1/2)"), "{}", room.open_error());
    let other = DataSpec { append_eos: false, ..data.clone() };
    room.tokenize(&other, (1, 2)).unwrap();
    assert!(
        room.open_error().contains("it was made with other settings than shard 0"),
        "{}",
        room.open_error()
    );
    let error = room.tokenize(&data, (1, 2)).unwrap_err().to_string();
    assert!(error.contains("shard 1/2 is there already") && error.contains("--force"), "{error}");
    room.tokenize(&data, (0, 3)).unwrap();
    assert!(room.open_error().contains("mixed"), "{}", room.open_error());
}

#[test]
fn a_run_that_the_tokens_were_not_made_for_is_refused() {
    let room = Room::new(20, 0);
    let data = room.spec(&["chats.jsonl"]);
    room.tokenize(&data, (0, 1)).unwrap();
    let tokens = room.as_tokens(&data);
    let mut other = tiny();
    other.add_tokens(&["<new>".to_owned()], false).unwrap();
    let error = load(&tokens, &other).unwrap_err().to_string();
    assert!(error.contains("made with another tokenizer"), "{error}");
    let error = |change: &dyn Fn(&mut DataSpec)| {
        let mut spec = tokens.clone();
        change(&mut spec);
        load(&spec, &tiny()).unwrap_err().to_string()
    };
    let said = error(&|spec| spec.assistant_only_loss = true);
    assert!(
        said.contains("`data.assistant_only_loss` is true, but these tokens were made with false"),
        "{said}"
    );
    let said = error(&|spec| spec.sources[0].format = FormatHint::Alpaca);
    assert!(said.contains("`data.format` is \"alpaca\""), "{said}");
    let said = error(&|spec| spec.chat_template = Some("{{ messages }}".to_owned()));
    assert!(said.contains("another chat template"), "{said}");
    let said = error(&|spec| spec.sources[0].files.extend(room.source(&["chats.jsonl"]).files));
    assert!(said.contains("cannot be mixed with other files"), "{said}");
    let said = error(&|spec| {
        spec.sources = vec![room.source(&["tokens/shard-00000-of-00001.00000.tokens"])];
    });
    assert!(said.contains("name the directory"), "{said}");
    let said = error(&|spec| {
        let files = spec.sources[0].files.clone();
        spec.sources = vec![room.source(&["chats.jsonl"])];
        spec.decontaminate = Some(crate::Decontamination { files, ngram: 3, drop: true });
    });
    assert!(said.contains("tokens hold no texts"), "{said}");
    let refused = |spec: &DataSpec, shard| room.tokenize(spec, shard).unwrap_err().to_string();
    assert!(refused(&tokens, (0, 1)).contains("these are token files already"));
    let twice = DataSpec { deduplicate: true, ..data.clone() };
    assert!(refused(&twice, (0, 2)).contains("`deduplicate` is not for `data tokenize`"));
    let mut weighted = data.clone();
    weighted.sources[0].probability = Some(1.0);
    assert!(refused(&weighted, (0, 1)).contains("mix the directories when training"));
}

#[test]
fn what_is_left_out_is_counted() {
    let room = Room::new(0, 20);
    let path = room.dir.path().join("a.jsonl");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, format!("{text}{text}{{\"text\": 1}}\n\n")).unwrap();
    let data = DataSpec { deduplicate: true, on_error: OnError::Skip, ..room.spec(&["a.jsonl"]) };
    let done = room.tokenize(&data, (0, 1)).unwrap();
    let counts = done.counts;
    assert_eq!((counts.documents, counts.deduplicated, counts.skipped, counts.blank), (10, 10, 1, 1));
    assert_eq!((counts.ends_learned, counts.nothing_learned), (10, 0));
    assert!(done.problems[0].contains("a.jsonl:21"), "{:?}", done.problems);
}
