//! A GGUF seen as a Hugging Face model: names, un-permuted rows, config, tokenizers. Facts by golden/make_gguf.py.

mod fixture;

use fixture::{GgufBuilder, check_lines, fixture};
use foundry_formats::gguf::Gguf;
use foundry_formats::{FormatError, ModelFiles, Tokenizer, safetensors};
use serde_json::{Value, json};

fn tiny() -> Gguf {
    Gguf::open(&fixture("gguf/tiny_llama.gguf")).unwrap()
}

/// Writes the bytes as a .gguf file and opens it.
fn opened(bytes: &[u8]) -> (tempfile::TempDir, Result<Gguf, FormatError>) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.gguf");
    std::fs::write(&path, bytes).unwrap();
    let gguf = Gguf::open(&path);
    (dir, gguf)
}

#[test]
fn tensors_have_hugging_face_names_and_rows() {
    let ours = tiny().into_source().unwrap();
    let theirs = safetensors::open(&fixture("gguf/tiny_llama.safetensors")).unwrap();
    assert_eq!(ours.tensors().len(), 2 * 9 + 2, "no rope_freqs, no lm_head");
    assert!(ours.tensors().is_sorted_by(|a, b| a.name < b.name));
    assert_eq!(ours.find("model.embed_tokens.weight").unwrap().shape, [768, 32]);
    for info in theirs.tensors() {
        let found = ours.find(&info.name).unwrap_or_else(|| panic!("{} is missing", info.name));
        assert_eq!(found.shape, info.shape, "{}", info.name);
        let (mut a, mut b) = (vec![0f32; info.elements()], vec![0f32; info.elements()]);
        ours.read_f32(&info.name, 0, &mut a).unwrap();
        theirs.read_f32(&info.name, 0, &mut b).unwrap();
        assert_eq!(a, b, "{}", info.name);
        // A piece that begins and ends inside rows.
        let (start, end) = (5.min(info.elements() / 3), info.elements() - 3);
        let mut piece = vec![0f32; end - start];
        ours.read_f32(&info.name, start, &mut piece).unwrap();
        assert_eq!(piece, b[start..end], "{} from {start}", info.name);
    }
    assert!(ours.raw("model.layers.1.self_attn.q_proj.weight").unwrap().is_none(), "permuted: no raw bytes");
    assert_eq!(ours.raw("model.layers.1.self_attn.v_proj.weight").unwrap().unwrap().len(), 32 * 32 * 2);
    let error = ours.read_f32("model.layers.1.self_attn.q_proj.weight", 64 * 32, &mut [0.0]).unwrap_err();
    assert!(matches!(error, FormatError::TensorRange { .. }), "{error}");
    let error = ours.read_i64("model.norm.weight", 0, &mut [0]).unwrap_err();
    assert!(matches!(error, FormatError::TensorDtype { .. }), "{error}");
    assert!(
        matches!(ours.read_f32("norm.weight", 0, &mut [0.0]), Err(FormatError::UnknownTensor { nearest: Some(n), .. })
        if n == "model.norm.weight")
    );
}

#[test]
fn config_is_hugging_faces() {
    let config = tiny().config().unwrap();
    assert_eq!(
        Value::Object(config.0),
        json!({
            "architectures": ["LlamaForCausalLM"], "model_type": "llama", "attention_dropout": 0.0, "hidden_act": "silu",
            "initializer_range": 0.02, "use_cache": true, "attention_bias": false, "mlp_bias": false, "pretraining_tp": 1,
            "vocab_size": 768, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
            "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 128,
            "rms_norm_eps": 1e-5, "tie_word_embeddings": true,
            "rope_parameters": { "rope_theta": 500000.0, "rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0,
                "high_freq_factor": 4.0, "original_max_position_embeddings": 8192 },
            "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "unk_token_id": 0,
        })
    );
    let files = ModelFiles::open(&fixture("gguf/tiny_llama.gguf")).unwrap();
    assert!(files.is_gguf());
    assert_eq!(files.eos_token_ids(), [2, 0], "the end of a turn counts too");
    assert_eq!(files.weights().unwrap().tensors().len(), 20);
    assert_eq!(files.tokenizer().unwrap().eos_token(), Some("<|im_end|>"));
}

/// Metadata and tensors of a Llama with one layer of width 4, two heads.
fn minimal() -> GgufBuilder {
    GgufBuilder::new()
        .string("general.architecture", "llama")
        .u32("llama.context_length", 64)
        .u32("llama.embedding_length", 4)
        .u32("llama.block_count", 1)
        .u32("llama.feed_forward_length", 8)
        .u32("llama.attention.head_count", 2)
        .f32("llama.attention.layer_norm_rms_epsilon", 1e-6)
        .tensor("token_embd.weight", &[4, 3], &[0.5; 12])
}

fn config_error(builder: &GgufBuilder) -> String {
    let (_dir, gguf) = opened(&builder.bytes());
    gguf.unwrap().config().unwrap_err().to_string()
}

#[test]
fn defaults_are_llama_cpps() {
    let (_dir, gguf) = opened(&minimal().tensor("output.weight", &[4, 3], &[0.0; 12]).bytes());
    let config = gguf.unwrap().config().unwrap();
    assert_eq!(config.usize("num_key_value_heads").unwrap(), 2);
    assert_eq!(config.usize("head_dim").unwrap(), 2);
    assert_eq!(config.f64("rope_parameters.rope_theta").unwrap(), 10_000.0);
    assert_eq!(config.str("rope_parameters.rope_type").unwrap(), "default");
    assert!(!config.bool("tie_word_embeddings").unwrap(), "there is an output.weight");
    let (_dir, gguf) = opened(&minimal().string("general.name", "Mistral 7B").bytes());
    let config = gguf.unwrap().config().unwrap();
    assert_eq!(config.str("model_type").unwrap(), "mistral");
    assert_eq!(config.0.get("sliding_window"), Some(&Value::Null), "stated, not left to the class default");
    let tokenless = minimal().bytes();
    let (_dir, gguf) = opened(&tokenless);
    assert_eq!(gguf.unwrap().generation_config(), None);
}

#[test]
fn rope_scaling_is_carried_over() {
    let linear = minimal().string("llama.rope.scaling.type", "linear").f32("llama.rope.scaling.factor", 2.5);
    let (_dir, gguf) = opened(&linear.bytes());
    let config = gguf.unwrap().config().unwrap();
    assert_eq!(config.str("rope_parameters.rope_type").unwrap(), "linear");
    assert_eq!(config.f64("rope_parameters.factor").unwrap(), 2.5);
    let yarn = minimal()
        .string("llama.rope.scaling.type", "yarn")
        .f32("llama.rope.scaling.factor", 4.0)
        .u32("llama.rope.scaling.original_context_length", 16);
    let (_dir, gguf) = opened(&yarn.bytes());
    let config = gguf.unwrap().config().unwrap();
    assert_eq!(config.usize("rope_parameters.original_max_position_embeddings").unwrap(), 16);
    let ones = minimal().tensor("rope_freqs.weight", &[1], &[1.0]);
    let (_dir, gguf) = opened(&ones.bytes());
    assert_eq!(gguf.unwrap().config().unwrap().str("rope_parameters.rope_type").unwrap(), "default");
}

#[test]
fn what_is_not_a_plain_llama_is_refused() {
    let refusals = [
        (GgufBuilder::new().string("general.architecture", "gemma3"), "`gemma3` is not supported"),
        (minimal().u32("llama.expert_count", 8), "mixture-of-experts"),
        (minimal().u32("llama.rope.dimension_count", 1).u32("llama.attention.key_length", 2), "on a part of"),
        (
            minimal().string("llama.rope.scaling.type", "longrope").f32("llama.rope.scaling.factor", 2.0),
            "longrope",
        ),
        (minimal().tensor("rope_freqs.weight", &[1], &[7.0]), "Llama 3's formula"),
        (minimal().tensor("rope_freqs.weight", &[2], &[7.0, 1.0]), "2 factors for 2 head dimensions"),
        (minimal().tensor("blk.0.attn_q.bias", &[4], &[0.0; 4]), "biases on some"),
        (minimal().u32("llama.attention.head_count_kv", 3), "cannot share 3"),
        (
            minimal().raw("llama.vocab_size", 8, &[0; 8]).u32("llama.attention.head_count_kv", 0),
            "positive integer",
        ),
    ];
    for (builder, words) in refusals {
        let message = config_error(&builder);
        assert!(message.contains(words) && message.contains("m.gguf"), "{message}");
    }
    let width = minimal().bytes();
    let at = width.windows(22).position(|w| w == b"llama.embedding_length").unwrap() + 22 + 4;
    let mut narrow = width.clone();
    narrow[at] = 6;
    let (_dir, gguf) = opened(&narrow);
    let error = gguf.unwrap().config().unwrap_err();
    assert!(matches!(error, FormatError::GgufKey { .. }), "{error}");
    let message = config_error(&GgufBuilder::new().string("general.architecture", "llama"));
    assert!(message.contains("llama.embedding_length"), "{message}");
}

#[test]
fn strange_tensors_are_refused() {
    for (name, dims, words) in [
        ("blk.0.attn_rot", &[4u64][..], "has no place"),
        ("blk.0.attn_q.weight", &[4, 3], "3 rows, which 2 heads cannot share"),
        ("blk.0.attn_k.weight", &[], "1 rows, which 2 heads cannot share"),
    ] {
        let count = dims.iter().product::<u64>() as usize;
        let (_dir, gguf) = opened(&minimal().tensor(name, dims, &vec![0.0; count]).bytes());
        let error = gguf.unwrap().into_source().err().expect(name);
        assert!(error.to_string().contains(words), "{error}");
    }
}

#[test]
fn byte_level_tokenizer_equals_the_tokenizer_json_it_was_made_from() {
    let ours = Tokenizer::from_gguf(&tiny()).unwrap();
    let original = Tokenizer::from_dir(&fixture("tiny_tokenizer")).unwrap();
    check_lines(&ours, "tiny_tokenizer/line_ids.txt", true);
    assert_eq!(ours.special_tokens(), original.special_tokens());
    assert_eq!(ours.chat_template(), original.chat_template());
    assert_eq!(ours.vocab_size(), original.vocab_size());
    let dir = tempfile::tempdir().unwrap();
    ours.save(dir.path()).unwrap();
    let read = Tokenizer::from_dir(dir.path()).unwrap();
    check_lines(&read, "tiny_tokenizer/line_ids.txt", true);
    assert_eq!(read.chat_template(), original.chat_template());
    assert_eq!(read.special_tokens(), original.special_tokens());
}

/// The metadata of the tiny byte-level tokenizer.
fn byte_level(pre: &str) -> GgufBuilder {
    let json = fixture::json_fixture("tiny_tokenizer/tokenizer.json");
    let mut tokens: Vec<(&String, u64)> =
        json["model"]["vocab"].as_object().unwrap().iter().map(|(t, id)| (t, id.as_u64().unwrap())).collect();
    tokens.sort_by_key(|(_, id)| *id);
    let tokens: Vec<&String> = tokens.into_iter().map(|(t, _)| t).collect();
    let merges: Vec<String> = json["model"]["merges"]
        .as_array()
        .unwrap()
        .iter()
        .map(|m| format!("{} {}", m[0].as_str().unwrap(), m[1].as_str().unwrap()))
        .collect();
    let types: Vec<i32> = (0..tokens.len()).map(|i| if i < 3 { 3 } else { 1 }).collect();
    GgufBuilder::new()
        .string("general.architecture", "llama")
        .string("tokenizer.ggml.model", "gpt2")
        .string("tokenizer.ggml.pre", pre)
        .strings("tokenizer.ggml.tokens", &tokens)
        .strings("tokenizer.ggml.merges", &merges)
        .i32s("tokenizer.ggml.token_type", &types)
        .u32("tokenizer.ggml.bos_token_id", 1)
}

#[test]
fn split_patterns_equal_transformers() {
    for pre in ["llama-bpe", "qwen2", "tekken"] {
        let (_dir, gguf) = opened(&byte_level(pre).bytes());
        check_lines(&Tokenizer::from_gguf(&gguf.unwrap()).unwrap(), &format!("gguf/bpe_ids_{pre}.txt"), true);
    }
}

#[test]
fn sentencepiece_tokenizer_equals_transformers() {
    let tokenizer = Tokenizer::from_gguf(&Gguf::open(&fixture("gguf/tiny_spm.gguf")).unwrap()).unwrap();
    check_lines(&tokenizer, "gguf/spm_ids.txt", true);
    assert!(tokenizer.adds_bos(), "llama.cpp's default for this kind");
    assert!(tokenizer.missing_byte_atoms().is_empty());
    assert_eq!(tokenizer.eos_token(), Some("</s>"));
    let ids = tokenizer.encode("Hello  wörld 🙂\n", false).unwrap();
    assert_eq!(
        tokenizer.decode(&ids, true).unwrap(),
        "Hello  wörld 🙂\n",
        "bytes bring back what has no piece"
    );
    assert_eq!(tokenizer.encode("<|user|>", false).unwrap(), [tokenizer.token_to_id("<|user|>").unwrap()]);
}

#[test]
fn flags_decide_about_bos_and_eos() {
    let builder = byte_level("gpt-2")
        .u32("tokenizer.ggml.eos_token_id", 2)
        .bool("tokenizer.ggml.add_bos_token", true)
        .bool("tokenizer.ggml.add_eos_token", true);
    let (_dir, gguf) = opened(&builder.bytes());
    let tokenizer = Tokenizer::from_gguf(&gguf.unwrap()).unwrap();
    let ids = tokenizer.encode("a", true).unwrap();
    assert_eq!((ids.first(), ids.last(), ids.len()), (Some(&1), Some(&2), 3));
}

#[test]
fn broken_tokenizers_are_refused() {
    let tokens = ["a", "b", "ab"];
    let gpt2 = || {
        GgufBuilder::new().string("tokenizer.ggml.model", "gpt2").strings("tokenizer.ggml.tokens", &tokens)
    };
    let llama = || {
        GgufBuilder::new().string("tokenizer.ggml.model", "llama").strings("tokenizer.ggml.tokens", &tokens)
    };
    let cases = [
        (GgufBuilder::new(), "`tokenizer.ggml.model`"),
        (GgufBuilder::new().u32("tokenizer.ggml.model", 1), "should be a string, but is an unsigned integer"),
        (GgufBuilder::new().string("tokenizer.ggml.model", "gpt2"), "`tokenizer.ggml.tokens`"),
        (
            GgufBuilder::new()
                .string("tokenizer.ggml.model", "bert")
                .strings("tokenizer.ggml.tokens", &tokens),
            "`bert`",
        ),
        (gpt2(), "`tokenizer.ggml.merges`"),
        (gpt2().string("tokenizer.ggml.pre", "mystery"), "`mystery`"),
        (gpt2().strings("tokenizer.ggml.merges", &["ab"]), "not two parts"),
        (gpt2().strings("tokenizer.ggml.merges", &["a x"]), "cannot use this tokenizer"),
        (gpt2().i32s("tokenizer.ggml.token_type", &[1]), "has 1 entries for 3 tokens"),
        (
            gpt2().strings("tokenizer.ggml.merges", &["a b"]).u32("tokenizer.ggml.eos_token_id", 3),
            "3 is not in the voc",
        ),
        (llama(), "`tokenizer.ggml.scores`"),
        (
            GgufBuilder::new()
                .string("tokenizer.ggml.model", "gpt2")
                .strings("tokenizer.ggml.tokens", &["a", "a"])
                .strings::<&str>("tokenizer.ggml.merges", &[]),
            "tokens 0 and 1 are both `a`",
        ),
    ];
    for (builder, words) in cases {
        let (_dir, gguf) = opened(&builder.bytes());
        let error = Tokenizer::from_gguf(&gguf.unwrap()).unwrap_err();
        assert!(error.to_string().contains(words), "{words}: {error}");
    }
}
