//! PEFT's `adapter_model.safetensors`: added to a base, or an error.

use std::path::PathBuf;
use std::sync::OnceLock;

use foundry_formats::safetensors::{Entry, Writer, open};
use foundry_formats::{HfConfig, StoredDtype, TensorSource};
use foundry_models::{
    Combination, CombineOptions, CombinedAdapter, DecoderConfig, MajoritySign, MergedWeights,
    adapter_vocabulary, decoder_config,
};
use serde_json::json;

use crate::scratch;

/// What the seeds belong to.
const ADAPTER: &str = r#"{"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 2, "lora_alpha": 4, "bias": "none",
    "target_modules": ["q_proj"], "base_model_name_or_path": "x"}"#;

/// The input is the file.
pub(crate) fn run(data: &[u8]) {
    scratch::with_file("adapter_model.safetensors", data, |path| {
        let dir = path.parent().expect("it lies in a directory");
        std::fs::write(dir.join("adapter_config.json"), ADAPTER).expect("written");
        let (base, config) = base();
        let _ = adapter_vocabulary(dir);
        if let Ok(merged) = MergedWeights::open(base.as_ref(), config, dir) {
            for tensor in merged.tensors() {
                let elements = tensor.elements();
                assert!(elements <= 4096, "an adapter makes no tensor larger than the base's");
                let _ = merged.read_f32(&tensor.name, 0, &mut vec![0.0; elements]);
            }
        }
        let options = CombineOptions {
            method: Combination::Linear,
            density: 1.0,
            majority_sign: MajoritySign::Total,
            svd_rank: None,
            seed: 0,
        };
        let _ = CombinedAdapter::new(&[(dir.to_owned(), 0.5), (dir.to_owned(), 0.5)], &options);
    });
}

/// A Llama of one layer, a few hundred numbers.
fn base() -> &'static (Box<dyn TensorSource>, DecoderConfig) {
    static BASE: OnceLock<(Box<dyn TensorSource>, DecoderConfig)> = OnceLock::new();
    BASE.get_or_init(|| {
        let config = HfConfig::from_json(json!({
            "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu", "vocab_size": 16,
            "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2,
            "num_key_value_heads": 1, "max_position_embeddings": 32, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
            "tie_word_embeddings": true
        }));
        let (_, config) = decoder_config(&config).expect("it is sound");
        // What is mapped stays when its name is gone.
        let room = tempfile::tempdir().expect("a temporary directory");
        (open(&written(room.path().join("base.safetensors"))).expect("it is sound"), config)
    })
}

fn written(path: PathBuf) -> PathBuf {
    let layer = |name: &str, shape: &[usize]| {
        Entry::new(format!("model.layers.0.{name}.weight"), StoredDtype::F32, shape)
    };
    let entries = [
        Entry::new("model.embed_tokens.weight", StoredDtype::F32, &[16, 8]),
        layer("input_layernorm", &[8]),
        layer("mlp.down_proj", &[8, 8]),
        layer("mlp.gate_proj", &[8, 8]),
        layer("mlp.up_proj", &[8, 8]),
        layer("post_attention_layernorm", &[8]),
        layer("self_attn.k_proj", &[4, 8]),
        layer("self_attn.o_proj", &[8, 8]),
        layer("self_attn.q_proj", &[8, 8]),
        layer("self_attn.v_proj", &[4, 8]),
        Entry::new("model.norm.weight", StoredDtype::F32, &[8]),
    ];
    let mut writer = Writer::create(&path, &entries, &[]).expect("created");
    for entry in &entries {
        writer.write_f32(&entry.name, &vec![0.5; entry.elements()]).expect("written");
    }
    writer.finish().expect("finished");
    path
}
