//! Whatever bytes a file holds, reading it answers or refuses; it never panics and never allocates without bound.

mod fixture;

use fixture::{GgufBuilder, fixture};
use foundry_formats::gguf::Gguf;
use foundry_formats::{ModelFiles, TensorSource, Tokenizer, safetensors};
use proptest::prelude::*;
use serde_json::Value;

/// Writes the bytes under a name in a fresh directory.
fn file(name: &str, bytes: &[u8]) -> (tempfile::TempDir, std::path::PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    (dir, path)
}

/// Reads a little of every tensor.
fn touch(source: &dyn TensorSource) {
    for info in source.tensors() {
        let len = info.elements().min(300);
        let _ = source.read_f32(&info.name, info.elements() - len, &mut vec![0.0; len]);
        let _ = source.read_i64(&info.name, 0, &mut vec![0; len]);
        let _ = source.raw(&info.name);
    }
}

fn use_gguf(bytes: &[u8]) {
    let (_dir, path) = file("m.gguf", bytes);
    if let Ok(gguf) = Gguf::open(&path) {
        let _ = gguf.config();
        let _ = gguf.generation_config();
        if let Ok(tokenizer) = Tokenizer::from_gguf(&gguf) {
            let _ = tokenizer.encode("Some text, é 🙂", true);
        }
        if let Ok(source) = gguf.into_source() {
            touch(&*source);
        }
    }
}

fn use_safetensors(bytes: &[u8]) {
    let (_dir, path) = file("m.safetensors", bytes);
    if let Ok(source) = safetensors::open(&path) {
        touch(&*source);
    }
}

/// Some bytes of a good file are replaced.
fn mutate(original: &[u8], edits: &[(prop::sample::Index, u8)]) -> Vec<u8> {
    let mut bytes = original.to_vec();
    for (at, value) in edits {
        let at = at.index(bytes.len());
        bytes[at] = *value;
    }
    bytes
}

fn edits() -> impl Strategy<Value = Vec<(prop::sample::Index, u8)>> {
    prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8)
}

/// A small Llama with tokenizer, so that mutations reach names, shapes, config and vocabulary.
fn small_llama() -> Vec<u8> {
    GgufBuilder::new()
        .string("general.architecture", "llama")
        .u32("llama.context_length", 64)
        .u32("llama.embedding_length", 4)
        .u32("llama.block_count", 1)
        .u32("llama.feed_forward_length", 8)
        .u32("llama.attention.head_count", 2)
        .f32("llama.attention.layer_norm_rms_epsilon", 1e-6)
        .string("tokenizer.ggml.model", "llama")
        .strings("tokenizer.ggml.tokens", &["<unk>", "▁", "a", "▁a"])
        .raw("tokenizer.ggml.scores", 9, &[&[6, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0][..], &[0; 16]].concat())
        .u32("tokenizer.ggml.unknown_token_id", 0)
        .tensor("token_embd.weight", &[4, 4], &[0.5; 16])
        .tensor("blk.0.attn_q.weight", &[4, 4], &[0.5; 16])
        .tensor("blk.0.attn_k.weight", &[4, 4], &[0.5; 16])
        .bytes()
}

fn small_safetensors() -> Vec<u8> {
    let header = r#"{"a":{"dtype":"F32","shape":[2,1],"data_offsets":[0,8]},"b":{"dtype":"I64","shape":[1],"data_offsets":[8,16]}}"#;
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &[1; 16]].concat()
}

#[test]
fn the_unmutated_files_are_good() {
    let (_dir, path) = file("m.gguf", &small_llama());
    let gguf = Gguf::open(&path).unwrap();
    gguf.config().unwrap();
    assert_eq!(Tokenizer::from_gguf(&gguf).unwrap().encode("a", false).unwrap(), [3]);
    assert_eq!(gguf.into_source().unwrap().tensors().len(), 3);
    let (_dir, path) = file("m.safetensors", &small_safetensors());
    assert_eq!(safetensors::open(&path).unwrap().tensors().len(), 2);
}

/// JSON pointers of every value in a tokenizer.json; of long lists and vocabularies the first two entries.
fn pointers(value: &Value, at: &str, out: &mut Vec<String>) {
    out.push(at.to_owned());
    match value {
        Value::Object(fields) => {
            fields.iter().filter(|(k, _)| !k.contains('/')).take(12).for_each(|(key, value)| {
                pointers(value, &format!("{at}/{key}"), out);
            })
        }
        Value::Array(list) => list.iter().take(2).enumerate().for_each(|(i, value)| {
            pointers(value, &format!("{at}/{i}"), out);
        }),
        _ => {}
    }
}

#[test]
fn tokenizer_json_with_values_of_another_kind() {
    let kinds = [
        "null",
        "3",
        "-1",
        "1e300",
        "true",
        "\"x\"",
        "\"\"",
        "[]",
        "{}",
        "[[]]",
        "[null]",
        "[{\"id\": 9e9}]",
        "{\"type\": \"Sequence\"}",
        "{\"type\": \"Sequence\", \"decoders\": [3], \"pretokenizers\": [3], \"processors\": [3]}",
        "{\"type\": \"Unigram\", \"vocab\": [], \"unk_id\": 7}",
        "{\"Regex\": \"(\"}",
        "{\"Sequence\": {\"id\": \"C\"}}",
    ];
    for name in ["tiny_tokenizer/tokenizer.json", "spm"] {
        let original: Value = if name == "spm" { spm_json() } else { fixture::json_fixture(name) };
        let mut places = Vec::new();
        pointers(&original, "", &mut places);
        for (place, kind) in places.iter().flat_map(|p| kinds.iter().map(move |k| (p, k))) {
            let mut changed = original.clone();
            *changed.pointer_mut(place).unwrap() = serde_json::from_str(kind).unwrap();
            let (_dir, path) = file("tokenizer.json", changed.to_string().as_bytes());
            if let Ok(tokenizer) = Tokenizer::from_file(&path) {
                let _ = tokenizer.encode("Some text, é 🙂\u{0}", true);
                let _ = tokenizer.decode(&[0, 5, 300, u32::MAX], false);
            }
        }
    }
}

/// The tokenizer.json that the SentencePiece-like GGUF becomes.
fn spm_json() -> Value {
    let dir = tempfile::tempdir().unwrap();
    let tokenizer = Tokenizer::from_gguf(&Gguf::open(&fixture("gguf/tiny_spm.gguf")).unwrap()).unwrap();
    tokenizer.save(dir.path()).unwrap();
    serde_json::from_slice(&std::fs::read(dir.path().join("tokenizer.json")).unwrap()).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(400) })]

    #[test]
    fn gguf_of_random_bytes(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        use_gguf(&bytes);
        use_gguf(&[&b"GGUF\x03\0\0\0"[..], &bytes].concat());
        use_gguf(&[&b"GGUF\x03\0\0\0\x01\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0"[..], &bytes].concat());
    }

    #[test]
    fn gguf_with_changed_bytes(edits in edits()) {
        use_gguf(&mutate(&small_llama(), &edits));
    }

    #[test]
    fn safetensors_of_random_bytes(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        use_safetensors(&bytes);
        use_safetensors(&[&(bytes.len() as u64).to_le_bytes()[..], &bytes].concat());
    }

    #[test]
    fn safetensors_with_changed_bytes(edits in edits()) {
        use_safetensors(&mutate(&small_safetensors(), &edits));
    }

    #[test]
    fn json_files_with_random_text(text in "[\\{\\}\\[\\]\",:a-z0-9 null.]{0,80}") {
        let (dir, path) = file("config.json", text.as_bytes());
        std::fs::write(dir.path().join("model.safetensors.index.json"), &text).unwrap();
        if let Ok(files) = ModelFiles::open(path.parent().unwrap()) {
            let _ = files.eos_token_ids();
            let _ = files.weights();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(60) })]

    #[test]
    fn tokenizer_json_with_changed_bytes(edits in edits()) {
        let original = std::fs::read(fixture("tiny_tokenizer/tokenizer.json")).unwrap();
        let (_dir, path) = file("tokenizer.json", &mutate(&original, &edits));
        if let Ok(tokenizer) = Tokenizer::from_file(&path) {
            let _ = tokenizer.encode("Some text, é 🙂\u{0}", true);
            let _ = tokenizer.decode(&[0, 5, 700, u32::MAX], false);
            let _ = tokenizer.missing_byte_atoms();
        }
    }
}
