//! config.json: rotations as transformers computes them, and what is refused.

use crate::fixture::{goldens, json};
use foundry_formats::HfConfig;
use foundry_models::{RopeScaling, decoder_config};
use serde_json::{Value, json};

fn with(fragment: &Value) -> HfConfig {
    let mut config = json!({ "architectures": ["LlamaForCausalLM"], "model_type": "llama" });
    config.as_object_mut().unwrap().extend(fragment.as_object().unwrap().clone());
    HfConfig::from_json(config)
}

#[test]
fn rotations_equal_transformers_in_both_spellings() {
    for case in json("rope_cases.json").as_array().unwrap() {
        let (_, config) = decoder_config(&with(&case["config"])).unwrap();
        let expected = |key: &str| -> Vec<f32> {
            case[key].as_array().unwrap().iter().map(|x| x.as_f64().unwrap() as f32).collect()
        };
        let close = |found: &[f32], expected: &[f32], tolerance: f32| {
            assert_eq!(found.len(), expected.len());
            for (a, b) in found.iter().zip(expected) {
                assert!(
                    (a - b).abs() <= tolerance * b.abs().max(1e-6),
                    "{}: {a}, transformers {b}",
                    case["config"]
                );
            }
        };
        let frequencies = config.rope.inverse_frequencies(config.head_dim);
        // torch's float32 power function is good to a few units in the last place.
        close(&frequencies, &expected("inv_freq"), 5e-7);
        let factor = case["attention_factor"].as_f64().unwrap();
        assert!((f64::from(config.rope.attention_factor()) - factor).abs() < 1e-6);
        let table = config.rope.table(config.head_dim, 300);
        let row = &table[299 * config.head_dim..];
        let (cosines, sines) = row.split_at(config.head_dim / 2);
        for (found, expected) in [(cosines, expected("last_cos")), (sines, expected("last_sin"))] {
            // An angle up to 299 radians, off by a few units in the last place.
            assert!(found.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-4), "{}", case["config"]);
        }
    }
}

fn base() -> Value {
    json!({ "vocab_size": 32, "hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 1,
            "num_attention_heads": 2 })
}

fn error_of(changes: Value) -> String {
    let mut config = base();
    config.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    decoder_config(&with(&config)).unwrap_err().to_string()
}

#[test]
fn defaults_are_those_of_transformers() {
    let (family, llama) = decoder_config(&with(&base())).unwrap();
    assert_eq!((family.name, llama.num_key_value_heads, llama.head_dim), ("llama", 2, 4));
    assert_eq!((llama.rms_norm_eps, llama.max_position_embeddings, llama.sliding_window), (1e-6, 2048, None));
    assert_eq!((llama.rope.theta, &llama.rope.scaling), (10_000.0, &RopeScaling::Default));
    let mistral = |extra: Value| {
        let mut config = base();
        config.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        config["architectures"] = json!(["MistralForCausalLM"]);
        decoder_config(&with(&config)).unwrap().1
    };
    let absent = mistral(json!({ "num_attention_heads": 8, "hidden_size": 32 }));
    assert_eq!((absent.num_key_value_heads, absent.sliding_window), (8, Some(4096)));
    let null = mistral(json!({ "num_key_value_heads": 1, "sliding_window": null }));
    assert_eq!(null.sliding_window, None);
    let by_type = HfConfig::from_json(json!({ "model_type": "mistral", "vocab_size": 32, "hidden_size": 8,
        "intermediate_size": 12, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2 }));
    assert_eq!(decoder_config(&by_type).unwrap().0.name, "mistral");
}

#[test]
fn unsupported_architectures_are_told_the_supported_ones() {
    for changes in [
        json!({ "architectures": ["GPT2LMHeadModel"] }),
        json!({ "architectures": [], "model_type": "gpt2" }),
    ] {
        let error = error_of(changes);
        assert!(error.contains("LlamaForCausalLM") && error.contains("MistralForCausalLM"), "{error}");
        assert!(error.to_lowercase().contains("gpt2"), "{error}");
    }
}

#[test]
fn features_without_arithmetic_here_are_refused_by_name() {
    for (changes, expected) in [
        (json!({ "rope_scaling": { "type": "dynamic", "factor": 2.0 } }), "\"dynamic\""),
        (json!({ "rope_parameters": { "rope_type": "longrope", "rope_theta": 1e4 } }), "\"longrope\""),
        (
            json!({ "rope_parameters": { "full_attention": { "rope_type": "default" } } }),
            "differ by layer type",
        ),
        (json!({ "partial_rotary_factor": 0.5 }), "partial_rotary_factor"),
        (json!({ "hidden_act": "gelu" }), "hidden_act"),
        (json!({ "attention_dropout": 0.1 }), "attention_dropout"),
        (json!({ "quantization_config": { "quant_method": "gptq" } }), "quantization_config"),
    ] {
        let error = error_of(changes);
        assert!(error.contains(expected) && error.contains("not supported"), "{error}");
    }
}

#[test]
fn impossible_values_are_named() {
    let inverted =
        json!({ "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 4.0, "high_freq_factor": 1.0 });
    for (changes, expected) in [
        (json!({ "vocab_size": null }), "vocab_size"),
        (json!({ "hidden_size": "many" }), "hidden_size"),
        (json!({ "num_hidden_layers": 0 }), "num_hidden_layers"),
        (json!({ "num_hidden_layers": 2_000_000_000 }), "num_hidden_layers"),
        (json!({ "vocab_size": 9_000_000_000_000_000_000u64 }), "vocab_size"),
        (json!({ "num_attention_heads": 3 }), "num_attention_heads"),
        (json!({ "num_attention_heads": 0 }), "num_attention_heads"),
        (json!({ "num_key_value_heads": 3 }), "num_key_value_heads"),
        (json!({ "head_dim": 5 }), "head_dim"),
        (json!({ "num_attention_heads": 4096, "head_dim": 8192 }), "num_attention_heads × head_dim"),
        (json!({ "rms_norm_eps": -1.0 }), "rms_norm_eps"),
        (json!({ "rope_theta": 0.0 }), "rope_theta"),
        (json!({ "rope_scaling": { "type": "linear" } }), "factor"),
        (json!({ "rope_scaling": { "type": "linear", "factor": -1.0 } }), "factor"),
        (json!({ "rope_scaling": inverted }), "high_freq_factor"),
        (json!({ "rope_scaling": { "rope_type": "yarn", "factor": 0.0 } }), "factor"),
    ] {
        let error = error_of(changes);
        assert!(error.contains(expected), "{error} should name {expected}");
    }
    let windowless =
        json!({ "architectures": ["MistralForCausalLM"], "num_key_value_heads": 2, "sliding_window": 0 });
    assert!(error_of(windowless).contains("sliding_window"));
}

#[test]
fn every_golden_configuration_reads() {
    for entry in std::fs::read_dir(goldens()).unwrap() {
        let path = entry.unwrap().path().join("config.json");
        if path.exists() {
            decoder_config(&HfConfig::read(&path).unwrap()).unwrap();
        }
    }
}
