//! Reading safetensors: types, unaligned tensors, shards, and files that lie.

use std::path::Path;

use foundry_formats::{FormatError, StoredDtype, TensorSource, safetensors};

/// A safetensors file from a header and data.
fn raw_file(path: &Path, header: &str, data: &[u8]) {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.extend(data);
    std::fs::write(path, bytes).unwrap();
}

fn read(source: &dyn TensorSource, name: &str) -> Vec<f32> {
    let mut values = vec![0.0; source.find(name).unwrap().elements()];
    source.read_f32(name, 0, &mut values).unwrap();
    values
}

#[test]
fn every_type_is_read_also_unaligned() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.safetensors");
    // A single byte first puts everything after it at odd addresses; the header is 1 byte longer than a multiple of 8.
    let header = concat!(
        r#"{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"#,
        r#""f32":{"dtype":"F32","shape":[2],"data_offsets":[1,9]},"#,
        r#""f16":{"dtype":"F16","shape":[2],"data_offsets":[9,13]},"#,
        r#""bf16":{"dtype":"BF16","shape":[1,2],"data_offsets":[13,17]},"#,
        r#""f64":{"dtype":"F64","shape":[1],"data_offsets":[17,25]},"#,
        r#""i64":{"dtype":"I64","shape":[1],"data_offsets":[25,33]},"#,
        r#""i32":{"dtype":"I32","shape":[1],"data_offsets":[33,37]},"#,
        r#""i16":{"dtype":"I16","shape":[1],"data_offsets":[37,39]},"#,
        r#""i8":{"dtype":"I8","shape":[1],"data_offsets":[39,40]},"#,
        r#""bool":{"dtype":"BOOL","shape":[2],"data_offsets":[40,42]},"#,
        r#""scalar":{"dtype":"F32","shape":[],"data_offsets":[42,46]}}"#
    );
    let mut data = vec![200u8];
    data.extend([1.5f32, -2.25].iter().flat_map(|v| v.to_le_bytes()));
    data.extend([0x3e00u16, 0xc000].iter().flat_map(|v| v.to_le_bytes())); // 1.5, -2
    data.extend([0x3fc0u16, 0xc000].iter().flat_map(|v| v.to_le_bytes())); // 1.5, -2
    data.extend(0.1f64.to_le_bytes());
    data.extend(i64::MIN.to_le_bytes());
    data.extend((-7i32).to_le_bytes());
    data.extend((-300i16).to_le_bytes());
    data.push(0xff);
    data.extend([0, 1]);
    data.extend(9.0f32.to_le_bytes());
    raw_file(&path, header, &data);
    let source = safetensors::open(&path).unwrap();
    assert!(source.tensors().is_sorted_by(|a, b| a.name < b.name));
    assert_eq!(read(&*source, "f32"), [1.5, -2.25]);
    assert_eq!(read(&*source, "f16"), [1.5, -2.0]);
    assert_eq!(read(&*source, "bf16"), [1.5, -2.0]);
    assert_eq!(read(&*source, "f64"), [0.1f32]);
    assert_eq!(read(&*source, "scalar"), [9.0]);
    for (name, expected) in [
        ("a", &[200i64][..]),
        ("i64", &[i64::MIN]),
        ("i32", &[-7]),
        ("i16", &[-300]),
        ("i8", &[-1]),
        ("bool", &[0, 1]),
    ] {
        let mut values = vec![0; expected.len()];
        source.read_i64(name, 0, &mut values).unwrap();
        assert_eq!(values, expected, "{name}");
        let error = source.read_f32(name, 0, &mut [0.0]).unwrap_err();
        assert!(matches!(error, FormatError::TensorDtype { .. }), "{error}");
    }
    let mut second = [0.0];
    source.read_f32("bf16", 1, &mut second).unwrap();
    assert_eq!(second, [-2.0]);
    assert_eq!(source.find("bf16").unwrap().shape, [1, 2]);
    assert_eq!(source.find("bf16").unwrap().dtype, StoredDtype::BF16);
    assert_eq!(source.raw("f32").unwrap().unwrap(), &data[1..9]);
    assert!(source.raw("nothing").unwrap().is_none());
    let errors = [
        source.read_f32("f32", 1, &mut [0.0; 2]).unwrap_err(),
        source.read_f32("f32", usize::MAX, &mut [0.0; 2]).unwrap_err(),
        source.read_i64("i64", 2, &mut []).unwrap_err(),
    ];
    assert!(errors.iter().all(|e| matches!(e, FormatError::TensorRange { .. })), "{errors:?}");
    let error = source.read_i64("f32", 0, &mut [0]).unwrap_err();
    assert!(matches!(error, FormatError::TensorDtype { .. }), "{error}");
}

/// The message for a file with these bytes.
fn refusal(bytes: &[u8]) -> String {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bad.safetensors");
    std::fs::write(&path, bytes).unwrap();
    let error = safetensors::open(&path).err().expect("the file should be refused");
    assert!(matches!(error, FormatError::InvalidSafetensors { .. }), "{error:?}");
    let message = error.to_string();
    assert!(message.contains("bad.safetensors") && message.contains("fetch the file again"), "{message}");
    message
}

fn with_header(header: &str, data: usize) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.resize(bytes.len() + data, 0);
    bytes
}

#[test]
fn truncated_and_lying_headers_are_refused() {
    assert!(refusal(b"").contains("has 0 bytes"));
    assert!(refusal(b"1234567").contains("has 7 bytes"));
    assert!(refusal(&[&1000u64.to_le_bytes()[..], b"{}"].concat()).contains("claims 1000 bytes"));
    assert!(refusal(&[&u64::MAX.to_le_bytes()[..], b"{}"].concat()).contains("more than 100 MB"));
    assert!(refusal(&with_header("{\"\u{7f}", 0)).contains("JSON"));
    assert!(refusal(&[&2u64.to_le_bytes()[..], b"{\xff"].concat()).contains("UTF-8"));
    assert!(refusal(b"version https://git-lfs.github.com/spec/v1\n").contains("100 MB"), "an LFS pointer");
    let tensor = |dtype: &str, shape: &str, offsets: &str| {
        format!(r#"{{"w":{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}}}"#)
    };
    assert!(refusal(&with_header(&tensor("F32", "[2]", "[0,8]"), 7)).contains("end where the file ends"));
    assert!(refusal(&with_header(&tensor("F32", "[2]", "[0,8]"), 9)).contains("end where the file ends"));
    assert!(refusal(&with_header(&tensor("F32", "[3]", "[0,8]"), 8)).contains("do not fit"));
    assert!(refusal(&with_header(&tensor("F32", "[2]", "[8,0]"), 8)).contains("`w`"));
    assert!(refusal(&with_header(&tensor("F32", "[2]", "[4,12]"), 12)).contains("`w`"));
    let huge = "[4611686018427387904,4611686018427387904]";
    assert!(refusal(&with_header(&tensor("F32", huge, "[0,8]"), 8)).contains("overflows"));
    refusal(&with_header(&tensor("F99", "[2]", "[0,8]"), 8));
    let overlap = r#"{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"b":{"dtype":"U8","shape":[4],"data_offsets":[2,6]}}"#;
    assert!(refusal(&with_header(overlap, 6)).contains("overlap"));
}

#[test]
fn types_that_nobody_here_reads_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f8.safetensors");
    raw_file(&path, r#"{"w":{"dtype":"F8_E8M0","shape":[2],"data_offsets":[0,2]}}"#, &[0, 0]);
    let error = safetensors::open(&path).err().unwrap();
    assert!(matches!(error, FormatError::UnsupportedDtype { .. }), "{error}");
    assert!(error.to_string().contains("`w` is stored as F8_E8M0"), "{error}");
}

fn one_tensor(path: &Path, name: &str, value: f32) {
    let header = format!(r#"{{"{name}":{{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}}}"#);
    raw_file(path, &header, &value.to_le_bytes());
}

fn index(dir: &Path, text: &str) {
    std::fs::write(dir.join("model.safetensors.index.json"), text).unwrap();
}

#[test]
fn shards_are_read_through_the_index() {
    let dir = tempfile::tempdir().unwrap();
    one_tensor(&dir.path().join("one.safetensors"), "b", 1.0);
    one_tensor(&dir.path().join("two.safetensors"), "a", 2.0);
    index(dir.path(), r#"{"weight_map": {"b": "one.safetensors", "a": "two.safetensors"}}"#);
    for path in [dir.path().to_owned(), dir.path().join("model.safetensors.index.json")] {
        let source = safetensors::open(&path).unwrap();
        assert_eq!(source.tensors().iter().map(|t| t.name.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!((read(&*source, "a"), read(&*source, "b")), (vec![2.0], vec![1.0]));
        assert_eq!(source.raw("a").unwrap().unwrap(), 2.0f32.to_le_bytes());
        assert!(source.raw("c").unwrap().is_none());
        assert!(matches!(source.read_f32("c", 0, &mut []), Err(FormatError::UnknownTensor { .. })));
        assert!(matches!(source.read_i64("a", 0, &mut [0]), Err(FormatError::TensorDtype { .. })));
    }
    one_tensor(&dir.path().join("model.safetensors"), "single", 3.0);
    assert_eq!(
        read(&*safetensors::open(dir.path()).unwrap(), "single"),
        [3.0],
        "the single file wins, as in transformers"
    );
}

#[test]
fn an_index_that_lies_is_named_with_file_and_tensor() {
    let dir = tempfile::tempdir().unwrap();
    one_tensor(&dir.path().join("one.safetensors"), "b", 1.0);
    let open = |text: &str| {
        index(dir.path(), text);
        safetensors::open(dir.path()).err().expect("refused")
    };
    let error = open(r#"{"weight_map": {"b": "one.safetensors", "c": "gone.safetensors"}}"#);
    assert!(
        matches!(&error, FormatError::ShardMissing { file, tensor, .. } if file == "gone.safetensors" && tensor == "c")
    );
    let error = open(r#"{"weight_map": {"b": "one.safetensors", "c": "one.safetensors"}}"#);
    assert!(
        matches!(&error, FormatError::ShardLacksTensor { file, tensor, .. } if file == "one.safetensors" && tensor == "c")
    );
    for bad in [
        r#"{}"#,
        r#"{"weight_map": {}}"#,
        r#"{"weight_map": {"b": 3}}"#,
        r#"{"weight_map": {"b": "../one.safetensors"}}"#,
        r#"{"weight_map": {"b": "/etc/passwd"}}"#,
        r#"{"weight_map": {"b": ".."}}"#,
    ] {
        let error = open(bad);
        assert!(matches!(error, FormatError::InvalidIndex { .. }), "{bad}: {error}");
    }
    assert!(matches!(open("[1]"), FormatError::InvalidJson { .. }));
    std::fs::write(dir.path().join("one.safetensors"), b"short").unwrap();
    let error = open(r#"{"weight_map": {"b": "one.safetensors"}}"#);
    assert!(error.to_string().contains("one.safetensors"), "{error}");
}

#[test]
fn pickle_is_refused_with_the_way_out() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("optimizer.pt"), "x").unwrap();
    let error = safetensors::open(dir.path()).err().unwrap();
    assert!(matches!(error, FormatError::NotFound { .. }), "a trainer's state is not the model: {error}");
    for name in ["pytorch_model.bin", "consolidated.00.pth", "model.pt"] {
        let path = dir.path().join(name);
        std::fs::write(&path, b"\x80\x02}q\x00.").unwrap();
        for error in [safetensors::open(dir.path()).err().unwrap(), safetensors::open(&path).err().unwrap()] {
            assert!(matches!(error, FormatError::PickleOnly { .. }), "{error:?}");
            let message = error.to_string();
            assert!(message.contains(name) && message.contains("save_pretrained"), "{message}");
        }
        std::fs::remove_file(path).unwrap();
    }
}

#[test]
fn what_cannot_be_opened_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let error = safetensors::open(&dir.path().join("none.safetensors")).err().unwrap();
    assert!(matches!(error, FormatError::Io { .. }), "{error}");
    assert!(error.to_string().contains("none.safetensors"), "{error}");
    std::fs::create_dir(dir.path().join("model.safetensors")).unwrap();
    let error = safetensors::open(dir.path()).err().unwrap();
    assert!(error.to_string().contains("not a regular file"), "{error}");
}

#[test]
fn a_file_that_shrinks_is_an_error_and_not_a_signal() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.safetensors");
    let header = r#"{"w":{"dtype":"F32","shape":[4096],"data_offsets":[0,16384]}}"#;
    raw_file(&path, header, &[0; 16384]);
    let source = safetensors::open(&path).unwrap();
    std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(100).unwrap();
    let error = source.read_f32("w", 4000, &mut [0.0; 8]).unwrap_err();
    assert!(matches!(error, FormatError::FileShrank { now: 100, .. }), "{error}");
}
