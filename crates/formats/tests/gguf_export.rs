//! A model written as GGUF and read back: weights, configuration, tokenizer; and what is refused.

mod fixture;

use fixture::{fixture, json_fixture, mixed_lines};
use foundry_formats::gguf::{
    Gguf, GgufExport, GgufSummary, GgufWriter, MetaArray, MetaValue, Origin, Recipe,
};
use foundry_formats::{FormatError, HfConfig, StoredDtype, TensorInfo, TensorSource, Tokenizer};
use serde_json::{Value, json};
use std::path::Path;

/// Weights whose numbers a test may spoil.
struct Spoiled {
    inner: Box<dyn TensorSource>,
    name: &'static str,
    value: f32,
}

impl TensorSource for Spoiled {
    fn tensors(&self) -> &[TensorInfo] {
        self.inner.tensors()
    }

    fn read_f32(&self, name: &str, start: usize, dst: &mut [f32]) -> Result<(), FormatError> {
        self.inner.read_f32(name, start, dst)?;
        if name == self.name && start == 0 && !dst.is_empty() {
            dst[0] = self.value;
        }
        Ok(())
    }

    fn read_i64(&self, name: &str, start: usize, dst: &mut [i64]) -> Result<(), FormatError> {
        self.inner.read_i64(name, start, dst)
    }

    fn raw(&self, _name: &str) -> Result<Option<&[u8]>, FormatError> {
        Ok(None)
    }
}

fn tiny() -> Gguf {
    Gguf::open(&fixture("gguf/tiny_llama.gguf")).unwrap()
}

fn origin() -> Origin {
    Origin { license: Some("apache-2.0".into()), base_models: vec!["some-org/Base-135m".into()] }
}

fn write(
    weights: &dyn TensorSource,
    config: &HfConfig,
    tokenizer: &Tokenizer,
    recipe: Recipe,
    path: &Path,
) -> Result<GgufSummary, FormatError> {
    let generation = json!({ "eos_token_id": [0, 2, 5] });
    let export = GgufExport {
        weights,
        config,
        generation_config: Some(&generation),
        tokenizer,
        name: "tiny",
        origin: &origin(),
        recipe,
        threads: 2,
    };
    export.write(path, &mut |_, _, _| {})
}

fn values(source: &dyn TensorSource, info: &TensorInfo) -> Vec<f32> {
    let mut values = vec![0f32; info.elements()];
    source.read_f32(&info.name, 0, &mut values).unwrap();
    values
}

#[test]
fn what_is_written_is_what_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let (config, tokenizer) = (tiny().config().unwrap(), Tokenizer::from_gguf(&tiny()).unwrap());
    let source = tiny().into_source().unwrap();
    // The largest relative error of a number at rest: f16 rounds to 11 bits, q8_0 to 1/127 of the block's largest.
    for (recipe, most) in
        [(Recipe::F32, 0.0), (Recipe::F16, 1e-3), (Recipe::BF16, 4e-3), (Recipe::Q8_0, 0.01)]
    {
        let path = dir.path().join(format!("{}.gguf", recipe.name()));
        let summary = write(source.as_ref(), &config, &tokenizer, recipe, &path).unwrap();
        let gguf = Gguf::open(&path).unwrap();
        assert_eq!(gguf.version(), 3);
        let again = gguf.config().unwrap();
        assert_eq!(Value::Object(again.0), Value::Object(config.0.clone()), "{recipe:?}");
        let written = Gguf::open(&path).unwrap().into_source().unwrap();
        assert_eq!(written.tensors().len(), source.tensors().len());
        for info in source.tensors() {
            let (ours, theirs) = (values(written.as_ref(), info), values(source.as_ref(), info));
            let largest = theirs.iter().fold(0f32, |most, v| most.max(v.abs()));
            let worst = ours.iter().zip(&theirs).fold(0f32, |most, (a, b)| most.max((a - b).abs()));
            assert!(worst <= most * largest, "{recipe:?} {}: {worst} of {largest}", info.name);
        }
        let error = summary.types.values().map(|t| t.relative_error()).fold(0.0, f64::max);
        assert!(error <= f64::from(most), "{recipe:?}: {error}");
        let tokenizer_again = Tokenizer::from_gguf(&gguf).unwrap();
        for line in mixed_lines(300) {
            assert_eq!(
                tokenizer_again.encode(&line, true).unwrap(),
                tokenizer.encode(&line, true).unwrap(),
                "{line:?}"
            );
        }
        assert_eq!(tokenizer_again.chat_template(), tokenizer.chat_template());
        assert_eq!(tokenizer_again.special_tokens(), tokenizer.special_tokens());
    }
}

#[test]
fn every_recipe_writes_a_file_that_opens() {
    let dir = tempfile::tempdir().unwrap();
    let (config, tokenizer) = (tiny().config().unwrap(), Tokenizer::from_gguf(&tiny()).unwrap());
    let source = tiny().into_source().unwrap();
    for name in Recipe::names() {
        let path = dir.path().join(name);
        write(source.as_ref(), &config, &tokenizer, Recipe::named(name).unwrap(), &path).unwrap();
        let gguf = Gguf::open(&path).unwrap();
        let of = |name: &str| gguf.tensors().iter().find(|t| t.name == name).unwrap().dtype;
        assert_eq!(of("blk.0.attn_norm.weight"), StoredDtype::F32, "{name}");
        gguf.into_source().unwrap();
    }
}

#[test]
fn tokenizers_of_both_kinds_come_back_with_their_ids() {
    let dir = tempfile::tempdir().unwrap();
    let config = tiny().config().unwrap();
    let source = tiny().into_source().unwrap();
    // Digits cut apart, as in SmolLM2's own tokenizer.json: GGUF's name for it is read in two ways.
    let original = std::fs::read(fixture("tiny_tokenizer/tokenizer.json")).unwrap();
    let mut json: Value = serde_json::from_slice(&original).unwrap();
    let byte_level =
        json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true });
    let digits = json!({ "type": "Digits", "individual_digits": true });
    json["pre_tokenizer"] = json!({ "type": "Sequence", "pretokenizers": [digits, byte_level] });
    json["normalizer"] = Value::Null;
    json["model"]["ignore_merges"] = Value::Bool(false);
    let path = dir.path().join("tokenizer.json");
    std::fs::write(&path, json.to_string()).unwrap();
    let by_digits = Tokenizer::from_file(&path).unwrap();
    let spm = Tokenizer::from_gguf(&Gguf::open(&fixture("gguf/tiny_spm.gguf")).unwrap()).unwrap();
    for (tokenizer, pre) in [(&by_digits, "smollm"), (&spm, "default")] {
        let path = dir.path().join(pre);
        write(source.as_ref(), &config, tokenizer, Recipe::F32, &path).unwrap();
        let gguf = Gguf::open(&path).unwrap();
        assert_eq!(gguf.metadata("tokenizer.ggml.pre"), Some(&MetaValue::String(pre.to_owned())));
        let again = Tokenizer::from_gguf(&gguf).unwrap();
        for line in mixed_lines(300) {
            assert_eq!(
                again.encode(&line, false).unwrap(),
                tokenizer.encode(&line, false).unwrap(),
                "{pre}: {line:?}"
            );
        }
    }
}

#[test]
fn what_gguf_cannot_express_is_refused_and_leaves_no_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.gguf");
    let (config, tokenizer) = (tiny().config().unwrap(), Tokenizer::from_gguf(&tiny()).unwrap());
    let source = tiny().into_source().unwrap();
    let refused = |weights: &dyn TensorSource, config: &HfConfig, recipe: Recipe| {
        let error = write(weights, config, &tokenizer, recipe, &path).unwrap_err();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "{error}");
        error
    };
    let with = |key: &str, value: Value| {
        let mut config = config.clone();
        config.0.insert(key.to_owned(), value);
        config
    };
    let gemma = with("architectures", json!(["Gemma2ForCausalLM"]));
    assert!(matches!(refused(source.as_ref(), &gemma, Recipe::F32), FormatError::ExportUnsupported { .. }));
    let yarn =
        json!({ "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64, "beta_fast": 8 });
    let error = refused(source.as_ref(), &with("rope_parameters", yarn), Recipe::F32);
    assert!(error.to_string().contains("beta_fast"), "{error}");
    let error = refused(source.as_ref(), &with("num_hidden_layers", json!(3)), Recipe::F32);
    assert!(error.to_string().contains("model.layers.2"), "{error}");
    let error = refused(source.as_ref(), &with("vocab_size", json!(100)), Recipe::F32);
    assert!(error.to_string().contains("vocab_size"), "{error}");
    let name = "model.layers.1.mlp.up_proj.weight";
    for (value, recipe, words) in [
        (f32::NAN, Recipe::F32, "NaN"),
        (f32::INFINITY, Recipe::Q4_0, "inf"),
        (1e6, Recipe::F16, "too large for F16"),
    ] {
        let spoiled = Spoiled { inner: tiny().into_source().unwrap(), name, value };
        let error = refused(&spoiled, &config, recipe);
        assert!(matches!(error, FormatError::NotFinite { .. }), "{error}");
        assert!(error.to_string().contains(words) && error.to_string().contains(name), "{error}");
    }
    let smaller = Spoiled { inner: small_embedding(), name: "", value: 0.0 };
    let error = refused(&smaller, &with("vocab_size", json!(8)), Recipe::F32);
    assert!(matches!(error, FormatError::VocabularyTooLarge { rows: 8, .. }), "{error}");
}

/// The tiny model with an embedding of eight rows.
fn small_embedding() -> Box<dyn TensorSource> {
    struct Small(Box<dyn TensorSource>, Vec<TensorInfo>);
    impl TensorSource for Small {
        fn tensors(&self) -> &[TensorInfo] {
            &self.1
        }
        fn read_f32(&self, name: &str, start: usize, dst: &mut [f32]) -> Result<(), FormatError> {
            self.0.read_f32(name, start, dst)
        }
        fn read_i64(&self, name: &str, start: usize, dst: &mut [i64]) -> Result<(), FormatError> {
            self.0.read_i64(name, start, dst)
        }
        fn raw(&self, _name: &str) -> Result<Option<&[u8]>, FormatError> {
            Ok(None)
        }
    }
    let inner = tiny().into_source().unwrap();
    let mut tensors = inner.tensors().to_vec();
    for info in tensors.iter_mut().filter(|info| info.name == "model.embed_tokens.weight") {
        info.shape[0] = 8;
    }
    Box::new(Small(inner, tensors))
}

#[test]
fn two_and_three_bits_are_dequantised_as_gguf_py_does() {
    let golden = json_fixture("gguf/quants.json");
    let dir = tempfile::tempdir().unwrap();
    for (name, dtype) in [("Q2_K", StoredDtype::Q2K), ("Q3_K", StoredDtype::Q3K), ("Q6_K", StoredDtype::Q6K)]
    {
        let text = golden[name].as_str().unwrap();
        let bytes: Vec<u8> =
            (0..text.len() / 2).map(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).unwrap()).collect();
        let info = TensorInfo { name: "x".to_owned(), shape: vec![8, 256], dtype };
        let path = dir.path().join(name);
        let mut writer = GgufWriter::create(&path, &[], &[info]).unwrap();
        writer.write_bytes("x", &bytes).unwrap();
        writer.finish().unwrap();
        let mut values = vec![0f32; 2048];
        Gguf::open(&path).unwrap().read_f32("x", 0, &mut values).unwrap();
        // The sums are of the same f32 numbers in double precision; only the order of adding may differ.
        let sum: f64 = values.iter().map(|v| f64::from(v.abs())).sum();
        let expected = golden[format!("{name}_sum")].as_f64().unwrap();
        assert!((sum - expected).abs() <= 1e-9 * expected, "{name}: {sum}, gguf-py {expected}");
    }
}

#[test]
fn metadata_of_every_kind_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.gguf");
    let text = |s: &str| s.to_owned();
    let metadata = vec![
        (text("a"), MetaValue::Unsigned(7)),
        (text("b"), MetaValue::Unsigned(u64::MAX)),
        (text("c"), MetaValue::Signed(-5)),
        (text("d"), MetaValue::Signed(i64::MIN)),
        (text("e"), MetaValue::F32(1e-5)),
        (text("f"), MetaValue::F64(0.1)),
        (text("g"), MetaValue::Bool(true)),
        (text("h"), MetaValue::String(text("ü"))),
        (text("i"), MetaValue::Array(MetaArray::String(vec![text("x"), text("")]))),
        (text("j"), MetaValue::Array(MetaArray::Signed(vec![1, -1]))),
        (text("k"), MetaValue::Array(MetaArray::F32(vec![]))),
        (text("l"), MetaValue::Array(MetaArray::Array(vec![MetaArray::Bool(vec![true, false])]))),
        (text("m"), MetaValue::Array(MetaArray::Unsigned(vec![1, 1 << 40]))),
    ];
    GgufWriter::create(&path, &metadata, &[]).unwrap().finish().unwrap();
    let gguf = Gguf::open(&path).unwrap();
    for (key, value) in &metadata {
        assert_eq!(gguf.metadata(key), Some(value), "{key}");
    }
}

#[test]
fn an_unfinished_file_never_appears() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.gguf");
    let info = TensorInfo { name: "x".to_owned(), shape: vec![64], dtype: StoredDtype::F32 };
    let mut writer = GgufWriter::create(&path, &[], &[info]).unwrap();
    writer.write_bytes("x", &[0; 100]).unwrap();
    assert!(!path.exists());
    drop(writer);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn licence_and_base_are_kept() {
    let source = tiny();
    let (config, tokenizer) = (source.config().unwrap(), Tokenizer::from_gguf(&source).unwrap());
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("out.gguf");
    assert_eq!(Origin::of(&source), Origin::default(), "nothing is invented");
    let weights = tiny().into_source().unwrap();
    write(weights.as_ref(), &config, &tokenizer, Recipe::F32, &path).unwrap();
    let written = Gguf::open(&path).unwrap();
    assert_eq!(Origin::of(&written), origin());
    let text = |key: &str| written.metadata(key).and_then(MetaValue::as_str);
    assert_eq!(text("general.base_model.0.name"), Some("Base 135m"));
    assert_eq!(text("general.base_model.0.organization"), Some("Some Org"));
    assert_eq!(written.metadata("general.base_model.count"), Some(&MetaValue::Unsigned(1)));
}
