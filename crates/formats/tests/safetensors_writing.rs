//! Writing safetensors: equal to the safetensors crate's bytes, atomic, sharded.

use std::collections::BTreeMap;
use std::path::Path;

use foundry_formats::safetensors::{self as ours, Entry, ShardedWriter, Writer, save_sharded};
use foundry_formats::{FormatError, StoredDtype};
use safetensors::{Dtype, tensor::TensorView};

fn pt() -> Vec<(String, String)> {
    vec![("format".to_owned(), "pt".to_owned())]
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Reads every tensor of a checkpoint and writes it again in the file's own order.
fn copy(from: &Path, to: &Path) {
    let source = ours::open(from).unwrap();
    let bytes = std::fs::read(from).unwrap();
    let (_, header) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
    let entries: Vec<Entry> = header
        .offset_keys()
        .iter()
        .map(|name| source.find(name).unwrap())
        .map(|info| Entry::new(&info.name, info.dtype, &info.shape))
        .collect();
    let mut writer = Writer::create(to, &entries, &pt()).unwrap();
    for entry in &entries {
        if entry.dtype.is_float() {
            let mut values = vec![0.0; entry.elements()];
            source.read_f32(&entry.name, 0, &mut values).unwrap();
            for piece in values.chunks(3) {
                writer.write_f32(&entry.name, piece).unwrap();
            }
        } else {
            writer.write_bytes(&entry.name, source.raw(&entry.name).unwrap().unwrap()).unwrap();
        }
    }
    writer.finish().unwrap();
}

#[test]
fn load_save_load_is_byte_identical() {
    let dir = tempfile::tempdir().unwrap();
    let (first, second) = (dir.path().join("first.safetensors"), dir.path().join("second.safetensors"));
    let f32s: Vec<u8> = (0..200_000).map(|i| (i as f32).sin()).flat_map(f32::to_le_bytes).collect();
    let bf16s: Vec<u8> = (0..12u16).flat_map(|i| (0x3f00 + i).to_le_bytes()).collect();
    let tensors = BTreeMap::from([
        ("model.embed", TensorView::new(Dtype::F32, vec![400, 500], &f32s).unwrap()),
        ("layer \"quoted\" ü", TensorView::new(Dtype::BF16, vec![3, 4], &bf16s).unwrap()),
        ("half", TensorView::new(Dtype::F16, vec![2], &[0, 0x3c, 0, 0xbc]).unwrap()),
        ("ids", TensorView::new(Dtype::I64, vec![1], &[1, 2, 3, 4, 5, 6, 7, 8]).unwrap()),
        ("mask", TensorView::new(Dtype::BOOL, vec![3], &[1, 0, 1]).unwrap()),
        ("empty", TensorView::new(Dtype::F32, vec![0, 4], &[]).unwrap()),
    ]);
    let metadata = Some(pt().into_iter().collect());
    std::fs::write(&first, safetensors::serialize(tensors, metadata).unwrap()).unwrap();
    copy(&first, &second);
    assert!(std::fs::read(&first).unwrap() == std::fs::read(&second).unwrap(), "bytes differ");
    assert_eq!(
        names(dir.path()),
        ["first.safetensors", "second.safetensors"],
        "no temporary file stays behind"
    );
}

#[test]
fn values_are_rounded_to_nearest_even() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("r.safetensors");
    let dtypes = [StoredDtype::BF16, StoredDtype::F16, StoredDtype::F64];
    let entries: Vec<_> = dtypes.iter().map(|&d| Entry::new(d.name(), d, &[3])).collect();
    let mut writer = Writer::create(&path, &entries, &[]).unwrap();
    // 1 + 2^-8 lies halfway between two bf16 values, 1 + 3·2^-8 too: ties go to even mantissas, down and up.
    let values = [1.0 + 1.0 / 256.0, 1.0 + 3.0 / 256.0, 65520.0];
    for entry in &entries {
        writer.write_f32(&entry.name, &values).unwrap();
    }
    assert!(writer.is_complete());
    writer.finish().unwrap();
    let source = ours::open(&path).unwrap();
    let read = |name: &str| {
        let mut out = [0.0; 3];
        source.read_f32(name, 0, &mut out).unwrap();
        out
    };
    assert_eq!(read("BF16"), [1.0, 1.0 + 4.0 / 256.0, 65536.0]);
    assert_eq!(read("F16"), [values[0], values[1], f32::INFINITY], "65520 rounds past the largest half");
    assert_eq!(read("F64"), values);
    let bytes = std::fs::read(&path).unwrap();
    assert_eq!(u64::from_le_bytes(*bytes.first_chunk().unwrap()) % 8, 0);
    safetensors::SafeTensors::deserialize(&bytes).unwrap();
}

#[test]
fn an_unfinished_file_never_has_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.safetensors");
    std::fs::write(&path, "the old one").unwrap();
    let mut writer = Writer::create(&path, &[Entry::new("w", StoredDtype::F32, &[2])], &pt()).unwrap();
    writer.write_f32("w", &[1.0]).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), b"the old one");
    drop(writer);
    assert_eq!(names(dir.path()), ["model.safetensors"]);
    let error = Writer::create(&dir.path().join("no/such/dir.safetensors"), &[], &[]).unwrap_err();
    assert!(matches!(error, FormatError::Io { .. }), "{error}");
}

#[test]
#[should_panic(expected = "lacks 4 bytes")]
fn finishing_too_early_is_a_bug() {
    let dir = tempfile::tempdir().unwrap();
    let entries = [Entry::new("w", StoredDtype::F32, &[2])];
    let mut writer = Writer::create(&dir.path().join("w.safetensors"), &entries, &[]).unwrap();
    writer.write_f32("w", &[1.0]).unwrap();
    let _ = writer.finish();
}

#[test]
#[should_panic(expected = "`b` was written where `a` was declared")]
fn writing_out_of_order_is_a_bug() {
    let dir = tempfile::tempdir().unwrap();
    let entries = [Entry::new("a", StoredDtype::F32, &[1]), Entry::new("b", StoredDtype::F32, &[1])];
    let mut writer = Writer::create(&dir.path().join("w.safetensors"), &entries, &[]).unwrap();
    let _ = writer.write_f32("b", &[1.0]);
}

/// Five tensors of 40 bytes, tensor i filled with i.
fn five() -> Vec<Entry> {
    (0..5).map(|i| Entry::new(format!("t{i}"), StoredDtype::F32, &[10])).collect()
}

fn save(dir: &Path, max_shard_size: u64) {
    save_sharded(dir, &five(), max_shard_size, |entry, writer| {
        let value = entry.name[1..].parse::<f32>().unwrap();
        writer.write_f32(&entry.name, &[value; 4])?;
        writer.write_f32(&entry.name, &[value; 6])
    })
    .unwrap();
}

fn check_five(dir: &Path) {
    let source = ours::open(dir).unwrap();
    assert_eq!(source.tensors().len(), 5);
    for i in 0..5 {
        let mut values = [0.0; 10];
        source.read_f32(&format!("t{i}"), 0, &mut values).unwrap();
        assert_eq!(values, [i as f32; 10]);
    }
}

#[test]
fn shards_follow_the_size_and_replace_each_other() {
    let dir = tempfile::tempdir().unwrap();
    save(dir.path(), ours::DEFAULT_MAX_SHARD_SIZE);
    assert_eq!(names(dir.path()), ["model.safetensors"]);
    check_five(dir.path());
    save(dir.path(), 80);
    let sharded = [
        "model-00001-of-00003.safetensors",
        "model-00002-of-00003.safetensors",
        "model-00003-of-00003.safetensors",
        "model.safetensors.index.json",
    ];
    assert_eq!(names(dir.path()), sharded, "the stale single file is gone");
    check_five(dir.path());
    let text = std::fs::read_to_string(dir.path().join("model.safetensors.index.json")).unwrap();
    let index: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(index["metadata"], serde_json::json!({ "total_parameters": 50, "total_size": 200 }));
    assert_eq!(index["weight_map"]["t2"], "model-00002-of-00003.safetensors");
    save(dir.path(), 1);
    assert_eq!(
        names(dir.path()).len(),
        6,
        "a tensor larger than a shard is a shard: {:?}",
        names(dir.path())
    );
    check_five(dir.path());
    save(dir.path(), 200);
    assert_eq!(names(dir.path()), ["model.safetensors"], "the stale shards and index are gone");
    check_five(dir.path());
}

#[test]
fn an_interrupted_save_leaves_the_old_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    save(dir.path(), 200);
    let before = names(dir.path());
    let error = save_sharded(dir.path(), &five(), 80, |entry, writer| {
        if entry.name == "t3" {
            return Err(FormatError::ConfigKeyMissing { path: "x".into(), key: "stop".to_owned() });
        }
        writer.write_f32(&entry.name, &[-1.0; 10])
    });
    assert!(error.is_err());
    assert_eq!(names(dir.path()), before);
    check_five(dir.path());
}

#[test]
fn a_checkpoint_of_nothing_is_a_file() {
    let dir = tempfile::tempdir().unwrap();
    ShardedWriter::create(dir.path(), &[], 10).unwrap().finish().unwrap();
    assert!(ours::open(dir.path()).unwrap().tensors().is_empty());
    let empty = [Entry::new("none", StoredDtype::F32, &[0, 3])];
    ShardedWriter::create(dir.path(), &empty, 10).unwrap().finish().unwrap();
    assert_eq!(ours::open(dir.path()).unwrap().tensors()[0].shape, [0, 3]);
}
