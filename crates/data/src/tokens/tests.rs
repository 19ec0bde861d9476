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

pub(super) fn tiny() -> Tokenizer {
    Tokenizer::from_dir(&fixture()).unwrap()
}

/// The same set as earlier versions of this program wrote it.
pub(super) fn to_version_1(dir: &Path) {
    for entry in std::fs::read_dir(dir).unwrap().flatten() {
        if entry.file_name().to_string_lossy().ends_with(".json") {
            let text = std::fs::read(entry.path()).unwrap();
            let mut manifest: serde_json::Value = serde_json::from_slice(&text).unwrap();
            manifest["version"] = 1.into();
            manifest["tokenizer"].as_object_mut().unwrap().remove("rules");
            manifest.as_object_mut().unwrap().remove("special_tokens");
            for file in manifest["files"].as_array_mut().unwrap() {
                let path = dir.join(file["name"].as_str().unwrap());
                let bytes = in_version_1(&path);
                std::fs::write(&path, &bytes).unwrap();
                (file["bytes"], file["sha256"]) = (bytes.len().into(), set::digest(&path).unwrap().into());
            }
            std::fs::write(entry.path(), manifest.to_string()).unwrap();
        }
    }
}

/// Tokens of two bytes and a mask, in version 1.
fn in_version_1(path: &Path) -> Vec<u8> {
    let file = foundry_formats::TokenFile::open(path).unwrap();
    let (mut tokens, mut mask, mut offsets) = (Vec::new(), Vec::new(), 0_u64.to_le_bytes().to_vec());
    let mut count = 0_u64;
    for index in 0..file.documents() {
        let document = file.document(index).unwrap();
        for (at, token) in document.tokens.iter().enumerate() {
            tokens.extend((*token as u16).to_le_bytes());
            mask.resize(count as usize / 8 + 1, 0);
            mask[count as usize / 8] |=
                u8::from(document.learned.as_ref().is_none_or(|l| l[at])) << (count % 8);
            count += 1;
        }
        offsets.extend(count.to_le_bytes());
    }
    let padded = |mut part: Vec<u8>| {
        part.resize(part.len().next_multiple_of(8), 0);
        part
    };
    let mut bytes = b"LFTOKENS\x01\0\0\0\x02\0\0\0".to_vec();
    [file.documents(), count, 1, 0, 0, 0].iter().for_each(|number| bytes.extend(number.to_le_bytes()));
    [bytes, padded(tokens), padded(mask), offsets].concat()
}

/// A directory with `chats` conversations in `chats.jsonl` and `texts` texts in two files.
pub(super) struct Room {
    pub(super) dir: tempfile::TempDir,
}

impl Room {
    pub(super) fn new(chats: usize, texts: usize) -> Self {
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

    pub(super) fn source(&self, names: &[&str]) -> Source {
        let files = names.iter().map(|name| DataFile::local(self.dir.path().join(name))).collect();
        Source { files, ..Source::default() }
    }

    pub(super) fn spec(&self, names: &[&str]) -> DataSpec {
        DataSpec {
            sources: vec![self.source(names)],
            chat_template: Some(CHATML.to_owned()),
            dataset_num_proc: Some(2),
            ..DataSpec::default()
        }
    }

    pub(super) fn tokenize(&self, data: &DataSpec, shard: (u32, u32)) -> Result<super::Tokenized, DataError> {
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
    pub(super) fn as_tokens(&self, data: &DataSpec) -> DataSpec {
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

pub(super) fn rows(data: &DataSpec) -> Dataset {
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
    for at in [70, sound.len() - 8] {
        let mut flipped = sound.clone();
        flipped[at] ^= 1;
        std::fs::write(&path, &flipped).unwrap();
        assert!(error().contains("not what was written: their SHA-256"), "{}", error());
        assert!(room.tokenize(&data, (0, 1)).unwrap_err().to_string().contains("SHA-256"));
    }
    // A manifest that lies along with its file: ids that the tokenizer does not have.
    let manifest = room.file("shard-00000-of-00001.json");
    let text = std::fs::read_to_string(&manifest).unwrap();
    std::fs::remove_file(&path).unwrap();
    let mut writer = foundry_formats::TokenFileWriter::create(&path, 65_535).unwrap();
    writer.push(&[60_000; 3], false, |_| true).unwrap();
    let written = writer.finish().unwrap();
    let mut wrong: serde_json::Value = serde_json::from_str(&text).unwrap();
    wrong["files"][0]["bytes"] = written.bytes.into();
    wrong["files"][0]["sha256"] = settings::hex(&written.sums_sha256).into();
    (wrong["files"][0]["documents"], wrong["files"][0]["tokens"]) = (1.into(), 3.into());
    // A sound file, but another one.
    let other = wrong.to_string().replace(&settings::hex(&written.sums_sha256), &"0".repeat(64));
    std::fs::write(&manifest, other).unwrap();
    assert!(error().contains("its SHA-256 is not that of its manifest"), "{}", error());
    std::fs::write(&manifest, wrong.to_string()).unwrap();
    assert!(error().contains("the token id 60000, but the tokenizer has ids below"), "{}", error());
    std::fs::write(&path, &sound).unwrap();
    // Names that lead elsewhere.
    std::fs::write(&manifest, text.replace("shard-00000-of-00001.00000.tokens", "../secret")).unwrap();
    assert!(room.open_error().contains("file 0 should be"), "{}", room.open_error());
    std::fs::write(&manifest, "{").unwrap();
    assert!(room.open_error().contains("EOF"), "{}", room.open_error());
    std::fs::write(&manifest, text.replace("\"version\": 2", "\"version\": 3")).unwrap();
    assert!(room.open_error().contains("version 3"), "{}", room.open_error());
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

#[test]
fn texts_and_conversations_in_shards_of_one_job() {
    for shards in [1, 2] {
        let room = Room::new(30, 20);
        let names = [&["a.jsonl"][..], &["chats.jsonl"]];
        let mut data = room.spec(&["a.jsonl"]);
        data.sources = names.iter().map(|names| room.source(names)).collect();
        (0..shards).for_each(|index| drop(room.tokenize(&data, (index, shards)).unwrap()));
        let tokens = room.as_tokens(&data);
        assert_eq!(rows(&tokens).rows, rows(&data).rows, "{shards} shard(s)");
        let other = DataSpec { chat_template: Some("{{ messages }}".to_owned()), ..tokens };
        let error = load(&other, &tiny()).unwrap_err().to_string();
        assert!(error.contains("another chat template"), "{shards} shard(s): {error}");
        let other = DataSpec { chat_template: other.chat_template, ..data.clone() };
        let error = room.tokenize(&other, (shards - 1, shards)).unwrap_err().to_string();
        assert!(error.contains("is there already"), "{shards} shard(s): {error}");
    }
    // A shard whose file is empty knows nothing of templates, and fits to one that does.
    let room = Room::new(30, 0);
    let data = room.spec(&["chats.jsonl", "a.jsonl"]);
    (0..2).for_each(|index| drop(room.tokenize(&data, (index, 2)).unwrap()));
    assert_eq!(rows(&room.as_tokens(&data)).rows, rows(&data).rows);
}

#[test]
fn two_attempts_at_one_shard_do_not_touch_each_other() {
    let room = Room::new(9000, 0);
    let data = room.spec(&["chats.jsonl"]);
    let spec = TokenizeSpec {
        data: data.clone(),
        shard: Shard { index: 0, of: 1 },
        dir: room.dir.path().join("tokens"),
        tokens_per_file: 100,
        force: false,
    };
    let mut refused = 0;
    tokenize_shard(&spec, &tiny(), &mut |progress| {
        if progress.files == 1 {
            let error = room.tokenize(&data, (0, 1)).unwrap_err().to_string();
            assert!(error.contains("another process is writing shard 0/1"), "{error}");
            refused += 1;
        }
    })
    .unwrap();
    assert_eq!(refused, 1);
    assert_eq!(rows(&room.as_tokens(&data)).rows, rows(&data).rows);
    let again = room.tokenize(&data, (0, 1)).unwrap();
    assert!(again.was_complete, "the lock is gone");
    // Where files cannot be locked, each attempt has its own names.
    let path = room.file("x.tokens");
    let (a, b) = (manifest::Temporary::of(&path), manifest::Temporary::of(&path));
    assert_ne!(a.path, b.path);
}

#[test]
fn data_files_of_a_manifests_name_are_data() {
    let room = Room::new(0, 10);
    let dir = room.dir.path().join("data");
    std::fs::create_dir(&dir).unwrap();
    std::fs::write(dir.join("shard-00000-of-00004.json"), r#"[{"text": "a"}]"#).unwrap();
    assert!(TokenSet::open(&dir).unwrap().is_none());
    // What says that it is a manifest is held to it, and so is what lies beside token files.
    std::fs::write(dir.join("shard-00001-of-00004.json"), r#"{"format": "llm-foundry tokens"}"#).unwrap();
    assert!(TokenSet::open(&dir).is_err());
    std::fs::remove_file(dir.join("shard-00001-of-00004.json")).unwrap();
    std::fs::write(dir.join("shard-00000-of-00004.00000.tokens"), "").unwrap();
    assert!(TokenSet::open(&dir).is_err());
}

#[test]
fn texts_that_were_looked_for_are_settled() {
    let room = Room::new(0, 20);
    let looking_for = |name: &str| {
        let files = room.source(&[name]).files;
        let wanted = crate::Decontamination { files, ngram: 2, drop: true };
        DataSpec { decontaminate: Some(wanted), ..room.spec(&["a.jsonl"]) }
    };
    room.tokenize(&looking_for("b.jsonl"), (0, 1)).unwrap();
    load(&room.as_tokens(&looking_for("b.jsonl")), &tiny()).unwrap();
    std::fs::write(room.dir.path().join("c.jsonl"), r#"{"text": "number 3"}"#).unwrap();
    let error = load(&room.as_tokens(&looking_for("c.jsonl")), &tiny()).unwrap_err().to_string();
    assert!(error.contains("`data.decontaminate` is"), "{error}");
}

#[test]
fn another_end_of_sequence_or_other_rules_are_another_tokenizer() {
    let room = Room::new(20, 20);
    let mut other_end = tiny();
    other_end.set_eos_token("<|im_start|>").unwrap();
    let texts = room.spec(&["a.jsonl"]);
    room.tokenize(&texts, (0, 1)).unwrap();
    let error = load(&room.as_tokens(&texts), &other_end).unwrap_err().to_string();
    assert!(error.contains("made with eos_token") && error.contains("`<|im_start|>`"), "{error}");
    // Two merges exchanged: the same vocabulary, and the same ids of the texts that are tried.
    let changed = room.dir.path().join("changed");
    std::fs::create_dir(&changed).unwrap();
    for entry in std::fs::read_dir(fixture()).unwrap().flatten() {
        std::fs::copy(entry.path(), changed.join(entry.file_name())).unwrap();
    }
    let path = changed.join("tokenizer.json");
    let mut json: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let merges = json["model"]["merges"].as_array_mut().unwrap();
    let last = merges.len() - 1;
    merges.swap(last, last - 1);
    std::fs::write(&path, json.to_string()).unwrap();
    let changed = Tokenizer::from_dir(&changed).unwrap();
    let (ours, theirs) = (settings::fingerprint(&tiny()), settings::fingerprint(&changed));
    assert_eq!(ours.sha256, theirs.sha256, "vocabulary and probes do not tell");
    let error = load(&room.as_tokens(&texts), &changed).unwrap_err().to_string();
    assert!(error.contains("another tokenizer"), "{error}");
    // A conversation ends as its template says.
    let room = Room::new(20, 0);
    let chats = room.spec(&["chats.jsonl"]);
    room.tokenize(&chats, (0, 1)).unwrap();
    load(&room.as_tokens(&chats), &other_end).unwrap();
}

#[test]
fn all_shards_tell_one_moment() {
    let room = Room::new(20, 0);
    let mut data = room.spec(&["chats.jsonl"]);
    data.chat_template = Some(format!("{{{{ strftime_now('%Y %H:%M') }}}}{CHATML}"));
    let on = |rendered_at: Option<i64>| DataSpec { rendered_at, ..data.clone() };
    room.tokenize(&on(Some(1_000_000_000)), (0, 3)).unwrap();
    // A shard of another day takes the moment of those that are there.
    room.tokenize(&on(None), (1, 3)).unwrap();
    let manifest = |shard: u32| {
        let path = room.file(&format!("shard-0000{shard}-of-00003.json"));
        serde_json::from_slice::<serde_json::Value>(&std::fs::read(path).unwrap()).unwrap()
    };
    assert_eq!(manifest(1)["rendered_at"], 1_000_000_000);
    room.tokenize(&on(Some(2_000_000_000)), (2, 3)).unwrap();
    let said = room.open_error();
    assert!(said.contains("--force --rendered-at 1000000000"), "{said}");
    let error = room.tokenize(&on(Some(1_000_000_000)), (2, 3)).unwrap_err().to_string();
    assert!(error.contains("--force"), "{error}");
    // A template that does not ask is not bound to any.
    let room = Room::new(20, 0);
    room.tokenize(&room.spec(&["chats.jsonl"]), (0, 1)).unwrap();
    let text = std::fs::read_to_string(room.file("shard-00000-of-00001.json")).unwrap();
    assert!(!text.contains("rendered_at"), "{text}");
}

#[test]
fn a_setting_that_is_given_is_asked_for_even_if_it_is_the_default() {
    let room = Room::new(0, 20);
    let made = DataSpec { append_eos: false, ..room.spec(&["a.jsonl"]) };
    room.tokenize(&made, (0, 1)).unwrap();
    let mut run = room.as_tokens(&DataSpec { append_eos: true, ..made });
    load(&run, &tiny()).unwrap();
    run.sources[0].given.insert("append_eos".to_owned());
    let error = load(&run, &tiny()).unwrap_err().to_string();
    assert!(error.contains("`data.append_eos` is true, but these tokens were made with false"), "{error}");
    run.append_eos = false;
    run.sources[0].given.insert("format".to_owned());
    load(&run, &tiny()).unwrap();
}
