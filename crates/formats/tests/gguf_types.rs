//! Every tensor type of GGUF against the numbers that the PyPI package gguf dequantises (golden/make_gguf.py).

mod fixture;

use fixture::fixture;
use foundry_formats::gguf::{Gguf, MetaArray, MetaValue};
use foundry_formats::{FormatError, StoredDtype, safetensors};

const FLOATS: [(&str, StoredDtype); 12] = [
    ("F32", StoredDtype::F32),
    ("F16", StoredDtype::F16),
    ("BF16", StoredDtype::BF16),
    ("F64", StoredDtype::F64),
    ("Q4_0", StoredDtype::Q4_0),
    ("Q4_1", StoredDtype::Q4_1),
    ("Q5_0", StoredDtype::Q5_0),
    ("Q5_1", StoredDtype::Q5_1),
    ("Q8_0", StoredDtype::Q8_0),
    ("Q4_K", StoredDtype::Q4K),
    ("Q5_K", StoredDtype::Q5K),
    ("Q6_K", StoredDtype::Q6K),
];

fn types() -> Gguf {
    Gguf::open(&fixture("gguf/types.gguf")).unwrap()
}

#[test]
fn dequantised_numbers_are_equal_to_the_bit() {
    let gguf = types();
    let expected = safetensors::open(&fixture("gguf/types.safetensors")).unwrap();
    for (name, dtype) in FLOATS {
        let info = gguf.tensors().iter().find(|t| t.name == name).unwrap();
        assert_eq!((info.dtype, &info.shape[..]), (dtype, &[2, 256][..]), "{name}");
        let (mut ours, mut theirs) = ([0f32; 512], [0f32; 512]);
        gguf.read_f32(name, 0, &mut ours).unwrap();
        expected.read_f32(name, 0, &mut theirs).unwrap();
        // The peer does the same operations in the same order in f32, so nothing may differ.
        assert_eq!(ours.map(f32::to_bits), theirs.map(f32::to_bits), "{name}");
        assert!(ours.iter().any(|v| *v != 0.0));
    }
}

#[test]
fn any_range_can_be_read() {
    let gguf = types();
    for (name, _) in FLOATS {
        let mut all = [0f32; 512];
        gguf.read_f32(name, 0, &mut all).unwrap();
        for (start, len) in
            [(0, 1), (1, 31), (31, 2), (7, 300), (255, 2), (256, 256), (300, 212), (511, 1), (512, 0)]
        {
            let mut part = vec![0f32; len];
            gguf.read_f32(name, start, &mut part).unwrap();
            assert_eq!(part, all[start..start + len], "{name} {start}+{len}");
        }
        let error = gguf.read_f32(name, 500, &mut [0f32; 13]).unwrap_err();
        assert!(matches!(error, FormatError::TensorRange { .. }), "{error}");
        assert!(gguf.read_f32(name, usize::MAX, &mut [0f32; 2]).is_err());
    }
}

#[test]
fn integers_are_listed_but_not_read_as_floats() {
    let gguf = types();
    for (name, dtype) in [
        ("I8", StoredDtype::I8),
        ("I16", StoredDtype::I16),
        ("I32", StoredDtype::I32),
        ("I64", StoredDtype::I64),
    ] {
        assert_eq!(gguf.tensors().iter().find(|t| t.name == name).unwrap().dtype, dtype);
        let error = gguf.read_f32(name, 0, &mut [0f32; 8]).unwrap_err();
        assert!(matches!(error, FormatError::TensorDtype { .. }), "{error}");
    }
    let error = gguf.read_f32("Q9", 0, &mut [0f32]).unwrap_err();
    assert!(matches!(error, FormatError::UnknownTensor { .. }), "{error}");
}

#[test]
fn metadata_is_typed() {
    let gguf = types();
    assert_eq!(gguf.version(), 3);
    assert_eq!(gguf.metadata("general.architecture").and_then(MetaValue::as_str), Some("llama"));
    assert_eq!(
        gguf.metadata("test.nested_numbers"),
        Some(&MetaValue::Array(MetaArray::Signed(vec![1, 2, 3])))
    );
    assert_eq!(gguf.metadata("no.such.key"), None);
}

#[test]
fn version_2_is_read_alike() {
    let mut bytes = std::fs::read(fixture("gguf/types.gguf")).unwrap();
    bytes[4] = 2; // versions 2 and 3 differ in the byte orders allowed only
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("v2.gguf");
    std::fs::write(&path, bytes).unwrap();
    let gguf = Gguf::open(&path).unwrap();
    assert_eq!(gguf.version(), 2);
    assert_eq!(gguf.tensors(), types().tensors());
}
